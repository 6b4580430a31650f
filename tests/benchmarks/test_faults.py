"""A few trials of the table of faults: nothing that was committed is lost, and nothing is damaged unnoticed."""

from __future__ import annotations

import pytest

from benchmarks.disturbed import Scene
from benchmarks.faults import strike
from benchmarks.warm import end

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return Scene(tmp_path_factory.mktemp("scene"))


@pytest.mark.parametrize(
    ("name", "trials"),
    [
        ("`kill -9`", 4),
        ("SIGTERM", 1),
        ("a file of the sampler's state, torn", 1),
        ("a block of draws, one bit flipped", 1),
        ("a record, missing", 1),
        ("NaN in one chain", 1),
        ("step size 100 times too large", 1),
    ],
)
def test_nothing_is_lost_and_nothing_is_silent(name, trials, scene):
    done, row = strike(scene, name, trials)
    assert len(done) >= trials
    assert [(trial.lost, trial.is_silent) for trial in done] == [(0, False)] * len(done), row
    assert "TRACEBACK" not in row


def test_a_fault_that_changed_the_draws_would_be_counted(scene):
    """The negative control: a run of another seed."""
    path = scene.new()
    assert end(scene.begin(path, "--seed", 1)) == 0
    trial = scene.judge(path, 10, "")
    assert trial.lost == 10
    assert trial.is_silent
