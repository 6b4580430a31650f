"""Delayed rejection on a funnel: narrow places are entered and left as often as the density asks, by steps too long for them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from samplers import Batch, Target, hmc, make_mesh, sample
from samplers import delayed_rejection as module

SPREAD, NUM_NARROW = 1.5, 2
BATCH = Batch((), jnp.zeros(0))
NUM_CHAINS, NUM_STEPS = 4000, 6


def log_funnel(position, constants):
    """Log scale, and numbers of that scale (Neal 2003)."""
    log_scale, narrow = position
    return -0.5 * (log_scale / SPREAD) ** 2 - NUM_NARROW * log_scale - 0.5 * jnp.sum((narrow * jnp.exp(-log_scale)) ** 2)


FUNNEL = Target(log_funnel, lambda *_: jnp.zeros(0), 0)
kernel = functools.partial(hmc, FUNNEL, step_size=0.5, trajectory_length=2.0)


def exact_draws(num_chains):
    rng = np.random.default_rng(11)
    log_scale = SPREAD * rng.normal(size=num_chains)
    narrow = np.exp(log_scale)[:, None] * rng.normal(size=(num_chains, NUM_NARROW))
    return jnp.asarray(log_scale, jnp.float32), jnp.asarray(narrow, jnp.float32)


def after_steps(one, positions, num_steps=NUM_STEPS):
    mesh = make_mesh(len(positions[0]), devices=jax.devices()[:1])
    return sample(jax.random.key(12), one, positions, BATCH, num_steps=num_steps, mesh=mesh)


def standard_errors(log_scales):
    """How far shares of independent chains below quantiles of the marginal law are from what they should be."""
    probabilities = np.array([0.02, 0.1, 0.2, 0.35, 0.5, 0.8])
    shares = np.mean(log_scales[:, None] < scipy.stats.norm.ppf(probabilities, scale=SPREAD), axis=0)
    return np.abs(shares - probabilities) / np.sqrt(probabilities * (1 - probabilities) / len(log_scales))


def test_exact_draws_of_a_funnel_stay_exact():
    """Of chains that start with one exact draw each and move a few times, three in ten of whose trajectories fail."""
    result = after_steps(kernel(delayed_rejection=True), exact_draws(NUM_CHAINS))
    assert np.mean(result.info.energy_error > module.FAILED) > 0.1
    assert np.mean(np.diff(result.draws[0], axis=1) == 0) < 0.5
    assert standard_errors(result.draws[0][:, -1]).max() < 5


@pytest.mark.parametrize(
    ("broken", "threshold"),  # a threshold of its own, so that the kernel is traced anew
    [
        pytest.param(lambda errors: -errors[1], 998.0, id="the way back is not asked for"),
        pytest.param(lambda errors: jnp.where(errors[2] > module.FAILED, 0.0, -jnp.inf), 999.0, id="whatever its energy"),
    ],
)
def test_another_acceptance_of_the_second_trajectory_fails(monkeypatch, broken, threshold):
    monkeypatch.setattr(module, "log_acceptance", broken)
    one = kernel(delayed_rejection=True, divergence_threshold=threshold)
    assert standard_errors(after_steps(one, exact_draws(NUM_CHAINS)).draws[0][:, -1]).max() > 8


@pytest.mark.parametrize(
    ("first", "second", "reverse"), [(0.5, 0.3, 1.2), (1.2, -2.0, 0.2), (np.inf, 1.0, 0.4), (0.3, 0.1, np.inf)]
)
def test_the_way_there_is_as_likely_as_the_way_back(monkeypatch, first, second, reverse):
    """Detailed balance of second trajectories, where the first is rejected by the same rule from either end."""
    monkeypatch.setattr(module, "FAILED", 0.1)  # of larger errors only one of the four factors differs from 1

    def flow(first, second, reverse):
        acceptance = np.exp(module.log_acceptance(jnp.asarray([first, second, reverse])))
        return (1 - np.exp(-first)) * min(1.0, float(acceptance))

    there, back = flow(first, second, reverse), np.exp(-second) * flow(reverse, -second, first)
    np.testing.assert_allclose(there, back, rtol=16 * np.finfo(np.float32).eps)  # a dozen float32 operations
    assert flow(first, second, 0.05) == 0


def test_no_uniform_accepts_a_failed_trajectory(monkeypatch):
    """The least of a generator is 0, one time in eight million."""
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.zeros(shape, dtype))
    one = kernel(delayed_rejection=True, divergence_threshold=997.0)  # traced anew
    with jax.disable_jit():
        state = one.init(jax.random.key(0), (jnp.float32(-4.0), jnp.full(NUM_NARROW, 0.01)), BATCH, one.initial_tuning)
        after, info = one.step(jax.random.key(1), state, BATCH, one.initial_tuning, jnp.int32(0))
    assert module.FAILED < info.energy_error < np.inf
    assert after.position[0] == -4.0


def test_a_chain_in_a_narrow_place_stands_still_without_it():
    """At a place eight times narrower than a step."""
    positions = jnp.full(8, -2.8), jnp.zeros((8, NUM_NARROW))
    plain, delayed = (after_steps(kernel(delayed_rejection=is_on), positions, 400) for is_on in (False, True))
    assert np.all(plain.draws[0] == np.float32(-2.8))
    assert plain.info.is_divergent.mean() > 0.5
    assert np.all(delayed.draws[0].max(axis=1) > 1)
    assert delayed.info.is_divergent.mean() < 0.01


def test_second_attempts_cost_what_they_take():
    """One trajectory where it does not fail, else two, or with the reverse one three."""
    plain, delayed = (after_steps(kernel(delayed_rejection=is_on), exact_draws(50), 40).info for is_on in (False, True))
    steps = plain.num_gradients[:1]  # all chains share them
    trajectories = delayed.num_gradients / steps
    assert set(np.unique(trajectories)) == {1, 2, 3}
    np.testing.assert_array_equal(trajectories > 1, delayed.energy_error > module.FAILED)
    np.testing.assert_array_equal(delayed.acceptance_rate[trajectories > 1] < np.exp(-module.FAILED), True)


def test_an_infinite_energy_is_a_failure():
    """A density that is not finite everywhere: a step beyond its edge is tried again."""
    edge = Target(lambda x, _: jnp.where(jnp.all(x > 0), -jnp.sum(x), jnp.nan), lambda *_: jnp.zeros(0), 0)
    one = hmc(edge, step_size=1.0, trajectory_length=2.0, delayed_rejection=True)
    starts = jnp.asarray(np.random.default_rng(13).exponential(size=(2000, 1)), jnp.float32)
    result = after_steps(one, starts)
    draws = result.draws[:, -1, 0]
    has_failed = np.isinf(result.info.energy_error)
    assert has_failed.mean() > 0.1
    moved = np.diff(result.draws[..., 0], axis=1) != 0
    assert moved[has_failed[:, 1:]].mean() > 0.1  # by their second trajectories
    assert np.all(np.isfinite(draws))
    # Of 2,000 independent chains, a mean of 1 with a standard deviation of 1.
    assert abs(draws.mean() - 1) < 5 / np.sqrt(2000)
