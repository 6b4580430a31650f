"""Cross-chain adaptation as a setting: what it finds, and where it is refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import bayesnn
from bayesnn.build import build_method, build_problem
from bayesnn.config import HMC, NUTS, WarmUp
from bayesnn.config import parse as parse_config
from bayesnn.errors import UsageError
from bayesnn.execute import begin
from bayesnn.load import load_run
from samplers import PerChain
from tests.bayesnn.conftest import interrupt_in
from tests.bayesnn.experiments import SHORT
from tests.bayesnn.test_execute import trees_are_equal

pytestmark = pytest.mark.slow

ACROSS = WarmUp(steps=100, scheme="cross-chain")


def test_finds_one_step_size_and_trajectory_length_for_all_chains():
    problem = build_problem(SHORT)
    run = bayesnn.sample(jax.random.key(0), problem, HMC(step_size=0.01), chains=4, draws=2, warmup=ACROSS).run
    assert not isinstance(run.tuning, PerChain)
    # From one step of 0.01 up, by at most 0.11 a step (Adam without momentum and a memory of 20 steps).
    assert 0.02 < float(run.tuning.trajectory_length) < 10
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(run.state))


def test_added_chains_are_refused():
    config = SHORT.model_copy(update={"sampler": HMC(), "warmup": ACROSS, "chains": 2})
    problem = build_problem(config)
    with pytest.raises(UsageError, match="chains that are added cannot learn with those of other jobs"):
        begin(config, problem, build_method(config, problem), first_chain=2)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"sampler": NUTS()}, "cross-chain finds trajectory lengths, and nuts has none to find"),
        ({"chains": 1}, "needs 2 or more, better ten, and warmup.steps; got 1 chains"),
        ({"warmup": WarmUp(steps=0, scheme="cross-chain")}, "got 4 chains and 0 steps"),
    ],
)
def test_settings_that_do_not_fit_are_refused(update, message):
    config = SHORT.model_copy(update={"sampler": HMC(), "warmup": ACROSS, "chains": 4} | update)
    with pytest.raises(UsageError, match=message):
        parse_config(config.model_dump(), "config")


def test_the_command_adapts_across_chains_and_resumes_bit_for_bit(own, cli, refused, tmp_path, monkeypatch):
    words = ["run", own("wine"), "--runs", tmp_path, "--warmup.scheme", "cross-chain", "--sampler.max-num-steps", "5"]
    assert cli(*words, "--name", "whole").status == 0
    with monkeypatch.context() as patch:
        interrupt_in(patch, "warm-up", 3)
        assert cli(*words, "--name", "parts").status == 130
    assert cli("resume", tmp_path / "parts").status == 0
    assert trees_are_equal(tmp_path / "whole", tmp_path / "parts")
    assert load_run(tmp_path / "whole").tree.attrs["kind"] == "mcmc"
    assert "chains that are added cannot learn with those of other jobs" in refused(*words, "--name", "whole", "--add-chains")
