"""Streaming summaries equal those of the draws that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import samplers
from diagnostics import convergence
from diagnostics.streaming import streaming_statistics

NUM_STEPS, NUM_CHAINS = 120, 3


def identity(position, arrays):
    return position


def sampled(fold, num_steps=NUM_STEPS, run=None):
    target, batch = samplers.from_logdensity(lambda x: -0.5 * jnp.sum(x["w"] ** 2) - 0.5 * x["b"] ** 2)
    kernel = samplers.hmc(target, step_size=0.4, trajectory_length=1.0)
    positions = {"w": jnp.ones((NUM_CHAINS, 2, 2)), "b": jnp.zeros(NUM_CHAINS)}
    return samplers.sample(jax.random.key(0), kernel, positions, batch, num_steps=num_steps, fold=fold, run=run)


@pytest.mark.parametrize("num_batches", [4, 10])
def test_batch_means_are_those_of_the_draws(num_batches):
    result = sampled(samplers.batch_means(identity, num_steps=NUM_STEPS, num_batches=num_batches))
    carry = result.run.fold
    assert (carry.num_steps == NUM_STEPS).all()
    length = NUM_STEPS // num_batches
    assert (carry.batch_length == length).all()
    for name, draws in result.draws.items():
        cut = draws.reshape(NUM_CHAINS, num_batches, length, *draws.shape[2:]).astype(float)
        # float32: rounding of 6e-8 at each of up to 30 updates of numbers of order 1, and 30 of them summed.
        np.testing.assert_allclose(carry.means[name], cut.mean(2), atol=1e-5)
        np.testing.assert_allclose(carry.squared_deviations[name], cut.var(2) * length, rtol=1e-4)
        found = streaming_statistics(carry.means[name], carry.squared_deviations[name], length)
        np.testing.assert_allclose(found.rhat_split, convergence.rhat_split(draws), rtol=1e-5)
        np.testing.assert_allclose(found.rhat_classic, convergence.rhat_classic(draws), rtol=1e-5)


@pytest.mark.slow
def test_steps_beyond_the_last_batch_are_left_out_and_pieces_add_up():
    fold = samplers.batch_means(identity, num_steps=NUM_STEPS)
    whole = sampled(fold)
    piece = sampled(fold, 50)
    rest = sampled(fold, NUM_STEPS - 50, piece.run)
    beyond = sampled(fold, 30, rest.run)
    for one in (rest, beyond):
        jax.tree.map(np.testing.assert_array_equal, one.run.fold.means, whole.run.fold.means)
        jax.tree.map(np.testing.assert_array_equal, one.run.fold.squared_deviations, whole.run.fold.squared_deviations)
    assert (beyond.run.fold.num_steps == NUM_STEPS + 30).all()


@pytest.mark.parametrize(("num_steps", "num_batches"), [(100, 5), (100, 2), (101, 10), (0, 4)])
def test_batches_that_do_not_fit_are_refused(num_steps, num_batches):
    with pytest.raises(ValueError, match="batches"):
        samplers.batch_means(identity, num_steps=num_steps, num_batches=num_batches)
