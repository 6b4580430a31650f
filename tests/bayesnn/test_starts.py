"""Starts on their way to a mode: finite, of each chain its own, and far more probable than a draw of the prior."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from bayesnn import problem as problems
from bayesnn.build import build_method, build_problem
from bayesnn.execute import begin
from bayesnn.izmailov2021.suite import SCALES
from samplers import log_density, sample
from tests.bayesnn.experiments import SHORT

CHAINS = 3


@pytest.mark.slow
@pytest.mark.parametrize("start", ["map", "pathfinder"])
def test_starts_are_near_modes(start, monkeypatch):
    monkeypatch.setattr(problems, "MAP_STEPS", 200)
    problem, key = build_problem(SHORT), jax.random.key(3)
    density = jax.jit(jax.vmap(log_density(problem.target, problem.batch, problem.tempering)))
    begun, moved = problem.init(key, CHAINS, "prior"), problem.init(key, CHAINS, start)
    # A perfect fit of n labels gains at most n log(3) nats on even odds; half of that tells a fit from a draw of the prior.
    gain = np.asarray(density(moved)) - np.asarray(density(begun))
    np.testing.assert_array_less(0.5 * problem.target.num_data * np.log(3), gain)
    first = np.asarray(jax.tree.leaves(moved)[0])
    assert len(np.unique(first.reshape(CHAINS, -1), axis=0)) == CHAINS
    # Chains added later begin where they would have begun in one wide run.
    wider = problem.init(key, CHAINS + 1, start)
    np.testing.assert_array_equal(jax.tree.leaves(wider)[0][:CHAINS], first)


@pytest.mark.slow
def test_a_start_a_million_nats_above_the_typical_set_does_not_fly_off():
    """Chain 7 of the audit suite's small network. With trajectories that grew in proportion its weights grew tenfold."""
    config = SCALES["laptop"][0]().small.posterior
    problem = build_problem(config)
    method = build_method(config, problem)
    run = begin(config.model_copy(update={"chains": 1}), problem, method, first_chain=7)
    density = log_density(problem.target, problem.batch, problem.tempering)
    assert density(jax.tree.map(lambda x: x[0], run.state.position)) < -1e6
    steps = config.warmup.steps
    state = sample(run.key, method.first_kernel, run.state.position, problem.batch, num_steps=steps, run=run).run.state
    # Chains that agree lie at -478 on average, a standard deviation of sqrt(106 / 2), from half of their 106 weights, about it.
    assert density(jax.tree.map(lambda x: x[0], state.position)) > -478 - 8 * np.sqrt(106 / 2)
