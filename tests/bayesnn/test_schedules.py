"""Schedules of SGLD as settings: which the kernel follows, and which are refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import samplers
from bayesnn.build import build_method, build_problem
from bayesnn.config import SGLD, WarmUp
from bayesnn.errors import UsageError
from tests.bayesnn.experiments import SHORT

STEP_SIZE, STEPS = 1e-4, 20


def moved(sampler, *, thin=1):
    """Return how far a chain moves in each step, [step], from settings or a kernel."""
    config = SHORT.model_copy(update={"sampler": sampler, "thin": thin, "warmup": WarmUp(steps=0)})
    problem = build_problem(config)
    kernel = build_method(config, problem).kernel
    key, positions = jax.random.key(1), problem.init(jax.random.key(0), 1, "prior")
    draws = samplers.sample(key, kernel, positions, problem.batch, num_steps=STEPS).draws
    flat = np.concatenate([np.asarray(x).reshape(STEPS, -1) for x in jax.tree.leaves(draws)], axis=1)
    return np.linalg.norm(np.diff(flat, axis=0), axis=1)


def test_a_decaying_step_size():
    """Noise of sqrt(step size) is nearly all of a small step, so steps shrink as (1 + t / 1)^(-1/2) for power 1."""
    decaying = moved(SGLD(step_size=1e-8, decay_offset=1.0, decay_power=1.0))
    constant = moved(SGLD(step_size=1e-8))
    # The same keys give the same noise; the drift, epsilon / 2 times a gradient of order 1000, is 5 % of it.
    np.testing.assert_allclose(decaying / constant, (1 + np.arange(1, STEPS)) ** -0.5, rtol=0.1)


def test_a_cycle_ends_with_small_steps():
    steps = moved(SGLD(step_size=STEP_SIZE, cycle_length=10), thin=10)
    assert steps[9 - 1] < 0.3 * steps[6 - 1]  # step 9 of 10: (1 + cos(0.9 pi)) / 2 = 0.024, step 6: 0.35


@pytest.mark.parametrize(
    ("sampler", "update", "message"),
    [
        (SGLD(cycle_length=10), {"thin": 5, "warmup": WarmUp(steps=0)}, "thin must be a multiple of sampler.cycle_length"),
        (SGLD(cycle_length=10), {"thin": 10, "warmup": WarmUp(steps=15)}, "warmup.steps must be a multiple"),
        (SGLD(cycle_length=10, decay_offset=1.0), {"thin": 10, "warmup": WarmUp(steps=0)}, "two schedules: choose one"),
    ],
)
def test_schedules_that_would_keep_what_are_no_draws_are_refused(sampler, update, message):
    config = SHORT.model_copy(update={"sampler": sampler, **update})
    with pytest.raises(UsageError, match=message):
        build_method(config, build_problem(config))
