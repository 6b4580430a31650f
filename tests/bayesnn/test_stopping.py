"""Runs that end when they have enough: at the draw where the target is reached, and at the same one after a kill."""

from __future__ import annotations

import numpy as np
import pytest

from bayesnn.load import load_run
from bayesnn.run_folder import RunFolder
from bayesnn.stopping import _is_time_to_look
from diagnostics.convergence import ess_bulk, rhat
from tests.bayesnn.conftest import EXPERIMENTS, command, interrupt_in

WINE = f"{EXPERIMENTS}:wine"


def words_of(path, *more):
    return ["run", WINE, "--name", path.name, "--runs", str(path.parent), "--draws", "400", *map(str, more)]


def functions(path):
    probability = load_run(path).tree["functions"]["probability"].values
    return probability.reshape(*probability.shape[:2], -1).astype(float)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run until 95 % of the probabilities have 60 effective draws and an R-hat below 1.1."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    assert command(*words_of(path, "--stop.ess", 60, "--stop.rhat", 1.1)) == 0
    return path


def test_it_ends_when_the_target_is_reached_and_not_before(stopped):
    values = functions(stopped)
    assert values.shape[1] < 400
    assert np.quantile(ess_bulk(values), 0.05) >= 60
    assert np.quantile(rhat(values), 0.95) <= 1.1
    looks = [draws for draws in range(4, values.shape[1], 4) if _is_time_to_look(draws, 4)]
    for draws in looks:
        early = values[:, :draws]
        assert np.quantile(ess_bulk(early), 0.05) < 60 or np.quantile(rhat(early), 0.95) > 1.1
    assert RunFolder(stopped).status["state"] == "complete"


@pytest.mark.slow
def test_its_draws_begin_the_longer_run(stopped, tmp_path, cli):
    assert cli(*words_of(tmp_path / "run", "--draws", 100)).status == 0
    short, full = functions(stopped), functions(tmp_path / "run")
    length = min(short.shape[1], full.shape[1])
    np.testing.assert_array_equal(short[:, :length], full[:, :length])


def test_it_ends_at_the_same_draw_after_an_interrupt(stopped, tmp_path, cli):
    path = tmp_path / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        interrupt_in(monkeypatch, "sampling", 9)
        assert cli(*words_of(path, "--stop.ess", 60, "--stop.rhat", 1.1)).status == 130
    assert cli("resume", path).status == 0
    np.testing.assert_array_equal(functions(path), functions(stopped))
    assert f"is complete: {functions(stopped).shape[1]} draws of 2 chains" in cli("resume", path).out


def test_a_budget_of_gradients(tmp_path, cli):
    path = tmp_path / "run"
    status, out, _ = cli(*words_of(path, "--stop.gradients", 5000))
    assert status == 0
    assert "gradients are spent, of 5,000" in out
    gradients = load_run(path).tree["sample_stats"]["num_gradients"].values.sum(0).cumsum()
    assert gradients[-1] >= 5000 > gradients[-5]  # at the end of the block of four draws in which it is passed


def test_a_budget_goes_on_after_an_interrupt(tmp_path, cli):
    """What was spent before counts, gradients and seconds alike."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert cli(*words_of(whole, "--stop.gradients", 5000)).status == 0
    with pytest.MonkeyPatch.context() as monkeypatch:
        interrupt_in(monkeypatch, "sampling", 9)
        assert cli(*words_of(parts, "--stop.gradients", 5000)).status == 130
    (shard,) = RunFolder(parts).shards()
    before = shard.read_commit()
    assert cli("resume", parts).status == 0
    after = shard.read_commit()
    assert after.draws == RunFolder(whole).shards()[0].read_commit().draws > before.draws
    assert after.seconds > before.seconds > 0


def test_a_budget_of_time(tmp_path, cli):
    status, out, _ = cli(*words_of(tmp_path / "run", "--stop.seconds", 1e-3))
    assert status == 0
    assert "complete with 4 of 400 draws" in out


@pytest.mark.parametrize("setting", ["ess", "gradients", "seconds", "rhat"])
def test_bad_settings(setting, tmp_path, refused):
    assert f"stop.{setting}" in refused(*words_of(tmp_path / "run", f"--stop.{setting}", "-1"))
