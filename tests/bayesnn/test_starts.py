"""Starts on their way to a mode: finite, of each chain its own, and far more probable than a draw of the prior."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from bayesnn import problem as problems
from bayesnn.build import build_method, build_problem
from bayesnn.execute import begin
from bayesnn.izmailov2021.suite import SCALES
from bayesnn.models import named
from samplers import log_density, sample
from tests.bayesnn.experiments import SHORT, gaussian, school

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


def assert_later_chains_begin_alike(problem, start):
    """Chains 4 to 7 begun alone begin where they begin beside chains 0 to 3."""
    key = jax.random.key(3)
    wide, added = problem.init(key, 8, start), problem.init(key, 4, start, 4)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[4:], y), wide, added)
    rows = np.concatenate([np.reshape(x, (8, -1)) for x in jax.tree.leaves(wide)], axis=1)
    assert len(np.unique(rows, axis=0)) == 8


@pytest.mark.parametrize(
    "start", ["prior", "model", pytest.param("map", marks=pytest.mark.slow), pytest.param("pathfinder", marks=pytest.mark.slow)]
)
def test_added_chains_begin_as_in_one_wide_run(start, monkeypatch):
    monkeypatch.setattr(problems, "MAP_STEPS", 20)
    assert_later_chains_begin_alike(build_problem(SHORT), start)


@pytest.mark.parametrize("make", [gaussian, school])
def test_added_chains_of_a_density_begin_as_in_one_wide_run(make):
    assert_later_chains_begin_alike(build_problem(make()), "prior")


def test_added_chains_begin_at_their_own_weights_of_a_file(tmp_path):
    problem = build_problem(SHORT)
    weights = problem.init(jax.random.key(0), 6, "prior")
    np.savez(tmp_path / "six.npz", **named(weights))
    found = problem.init(jax.random.key(1), 2, str(tmp_path / "six.npz"), 4)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[4:], y), weights, found)


def test_chains_that_are_there_already_are_not_begun_again(monkeypatch):
    """With `--add-chains`: a fit is as wide as the chains of the job."""
    widths, sample = [], problems.samplers.sample
    monkeypatch.setattr(problems, "MAP_STEPS", 20)
    monkeypatch.setattr(
        problems.samplers,
        "sample",
        lambda *args, **more: widths.append(len(jax.tree.leaves(args[2])[0])) or sample(*args, **more),
    )
    config = SHORT.model_copy(update={"start": "map"})
    problem = build_problem(config)
    run = begin(config, problem, build_method(config, problem), first_chain=6)
    assert run.chain.tolist() == [6, 7]
    assert widths == [2]


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
