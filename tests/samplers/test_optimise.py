"""Optimisers: the optimum they reach, ensembles, and minibatches that use every example once an epoch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from samplers import Batch, Info, Kernel, Target, Tempering, from_logdensity, make_mesh, minibatch, optimise, pad_batch, sample
from samplers.optimise import OptimiseState
from tests.samplers.analytic import regression

KEY = jax.random.key(2)
MESH = make_mesh(3, devices=jax.devices()[:1])
ADAM = optax.adam(optax.cosine_decay_schedule(0.1, 1500))


@pytest.mark.parametrize("temperatures", [(1.0, 1.0), (10.0, 1.0), (1.0, 0.5)])
def test_reaches_the_map_of_a_linear_regression(temperatures):
    known = regression(*temperatures)
    kernel = optimise(regression().target, ADAM, tempering=Tempering.at(*temperatures))
    positions = 3 * jax.random.normal(KEY, (3, 3))
    result = sample(KEY, kernel, positions, known.batch, num_steps=1500, mesh=MESH, save=None)
    # A gradient of 40 float32 terms of order 10 vanishes to 40 roundings of 10 at the least: so far from the optimum is that.
    bound = 400 * np.finfo(np.float32).eps * np.linalg.norm(known.covariance, 2) / temperatures[0]
    np.testing.assert_allclose(result.run.state.position, np.tile(known.mean, (3, 1)), rtol=0, atol=bound)


def _double_well(x):
    return -jnp.sum((x**2 - 1) ** 2)


def test_members_of_an_ensemble_differ():
    target, batch = from_logdensity(_double_well)
    kernel = optimise(target, optax.adam(0.05))
    result = sample(KEY, kernel, jnp.array([[0.3], [-0.3], [2.0]]), batch, num_steps=300, mesh=MESH, save=None)
    np.testing.assert_allclose(result.run.state.position[:, 0], [1, -1, 1], atol=1e-3)  # Adam at 0.05 for 300 steps: 1e-4


def _nothing(position, constants):
    return jnp.float32(0)


def _counts(position, data, constants):
    return (data == jnp.arange(position.shape[0])[None].T).T.astype(position.dtype) @ position


NUM_DATA, BATCH_SIZE = 10, 4
# The gradient of example i is the unit vector i, so that each coordinate counts one example.
COUNTING = Target(_nothing, _counts, NUM_DATA)


def counting_kernel():
    """Minibatches under a kernel whose position adds up the weights of the examples it was given."""

    def init(key, position, batch, tuning):
        return OptimiseState(position, (), jnp.float32(0))

    def step(key, state, batch, tuning, step):
        seen = batch.weight @ (batch.data[:, None] == jnp.arange(NUM_DATA)[None]).astype(jnp.float32)
        nan = jnp.float32(jnp.nan)
        info = Info(jnp.float32(1), nan, nan, nan, nan, jnp.bool(False), jnp.bool(True))
        return OptimiseState(state.position + seen, (), jnp.float32(0)), info

    return minibatch(Kernel(init, step, ()), NUM_DATA, BATCH_SIZE)


def test_every_example_once_an_epoch_in_an_order_of_its_own():
    batch = pad_batch(Batch(jnp.arange(NUM_DATA), jnp.ones(NUM_DATA)), 16)
    result = sample(KEY, counting_kernel(), jnp.zeros((3, NUM_DATA)), batch, num_steps=12, mesh=MESH)
    by_epoch = result.draws.reshape(3, 4, 3, NUM_DATA)  # chain, epoch, batch of the epoch, example
    for epoch in range(4):
        np.testing.assert_array_equal(by_epoch[:, epoch, -1], epoch + 1)
    seen = np.diff(result.draws, axis=1, prepend=0).reshape(3, 4, 3, NUM_DATA)
    np.testing.assert_array_equal(seen.sum(axis=3), np.tile([4, 4, 2], (3, 4, 1)))
    # Chance of two of the 12 orders agreeing in their first batch is 66 / 210; in all three batches, 66 / 3150.
    orders = {tuple(seen[chain, epoch].ravel()) for chain in range(3) for epoch in range(4)}
    assert len(orders) > 10


def test_padding_in_the_last_batch_has_no_share_in_the_scale():
    """n / sum of weights: the last batch of 2 real examples estimates the same sum as one of 4."""
    target, batch = COUNTING, Batch(jnp.arange(NUM_DATA), jnp.ones(NUM_DATA))
    kernel = optimise(target, optax.sgd(1.0), batch_size=BATCH_SIZE)
    result = sample(KEY, kernel, jnp.zeros((1, NUM_DATA)), batch, num_steps=3, mesh=make_mesh(1, devices=jax.devices()[:1]))
    moves = np.diff(result.draws[0], axis=0, prepend=0)
    # Each example seen moves its coordinate by n / sum of weights / n.
    np.testing.assert_allclose(
        np.sort(moves, axis=1)[:, ::-1][:, :4], [[1 / 4] * 4, [1 / 4] * 4, [1 / 2, 1 / 2, 0, 0]], rtol=1e-6
    )
    np.testing.assert_array_equal((moves > 0).sum(axis=0), 1)


@pytest.mark.parametrize("batch_size", [0, -1, NUM_DATA + 1])
def test_batch_size_is_from_one_to_all(batch_size):
    with pytest.raises(ValueError, match=rf"from 1 to the number of examples \(10\), got {batch_size}"):
        minibatch(counting_kernel(), NUM_DATA, batch_size)


def test_minibatches_need_all_data_on_each_device():
    batch = Batch(jnp.arange(NUM_DATA), jnp.ones(NUM_DATA))
    kernel = optimise(COUNTING, optax.sgd(1.0), batch_size=BATCH_SIZE)
    with pytest.raises(ValueError, match="use a mesh with data=1"):
        sample(KEY, kernel, jnp.zeros((1, NUM_DATA)), batch, num_steps=1, mesh=make_mesh(1, data=2))
