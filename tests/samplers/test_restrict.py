"""Restricted sampling: what is masked stays, and the rest has its conditional law."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import Tempering, hmc, log_density, num_params, restrict, sample, sgld
from tests.samplers.analytic import assert_covariance, correlated, regression

KEY = jax.random.key(31)


def test_conditional_law():
    """A masked Gaussian has the conditional mean and covariance, and HMC counts its dimensions only."""
    known = correlated()
    position = known.unravel(jnp.zeros(7, jnp.float32))
    mask = jax.tree.map(lambda x: np.zeros(x.shape, bool), position)
    mask["layer"]["kernel"][0, 1] = mask["layer"]["kernel"][1, 0] = True
    mask["layer"]["bias"][1] = True
    restricted = restrict(known.target, known.batch, position, mask)
    moving = np.flatnonzero(jax.flatten_util.ravel_pytree(mask)[0])
    staying = np.setdiff1d(np.arange(7), moving)
    a, b = known.covariance[np.ix_(moving, staying)], known.covariance[np.ix_(staying, staying)]
    mean = known.mean[moving] - a @ np.linalg.solve(b, known.mean[staying])  # the others stay at 0
    covariance = known.covariance[np.ix_(moving, moving)] - a @ np.linalg.solve(b, a.T)
    start = restricted.take(position)
    assert num_params(start) == 3
    starts = jax.tree.map(lambda x: jnp.broadcast_to(x, (4, *x.shape)), start)
    kernel = hmc(restricted.target, step_size=0.4, trajectory_length=1.6)
    result = sample(KEY, kernel, starts, restricted.batch, num_steps=3_000)
    assert_covariance(result.draws, mean, covariance)
    whole = jax.vmap(jax.vmap(restricted.put))(result.draws)
    assert jax.tree.structure(whole) == jax.tree.structure(position)
    flat = np.concatenate([np.asarray(x).reshape(4, 3_000, -1) for x in jax.tree.leaves(whole)], axis=2)
    assert np.all(flat[..., staying] == 0)
    assert np.all(flat[..., moving].std(axis=(0, 1)) > 0)


@pytest.mark.slow
def test_with_data_and_minibatches():
    """Gradients on minibatches are those of the original density, but for what stays."""
    known, tempering = regression(), Tempering.at(0.7, 0.9)
    position = jnp.asarray(known.mean + 1, jnp.float32)
    restricted = restrict(known.target, known.batch, position, np.array([True, False, True]))

    def value_and_gradient(target, batch, at):
        part = batch._replace(data=jax.tree.map(lambda x: x[:8], batch.data), weight=batch.weight[:8])
        return jax.value_and_grad(log_density(target, part, tempering))(at)

    value, (gradient,) = value_and_gradient(restricted.target, restricted.batch, restricted.take(position))
    whole_value, whole_gradient = value_and_gradient(known.target, known.batch, position)
    # A sum of 8 terms in float32, perhaps in another order.
    np.testing.assert_allclose(value, whole_value, rtol=1e-6)
    np.testing.assert_allclose(gradient, whole_gradient[np.array([0, 2])], rtol=1e-5)

    kernel = sgld(restricted.target, step_size=1e-3, batch_size=8)
    starts = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, *x.shape)), restricted.take(position))
    draws = np.asarray(jax.vmap(jax.vmap(restricted.put))(sample(KEY, kernel, starts, restricted.batch, num_steps=20).draws))
    np.testing.assert_array_equal(draws[..., 1], position[1])
    assert (draws[..., [0, 2]].std(axis=1) > 0).all()


def test_equal_masks_share_their_programs():
    known = regression()
    position, mask = jnp.zeros(3), np.array([True, False, True])
    one, other = (restrict(known.target, known.batch, position + shift, mask.copy()) for shift in (0.0, 1.0))
    assert one.target == other.target


def test_bad_masks():
    known = regression()
    for mask, message in ((np.zeros(3, bool), "nothing move"), (np.ones(2, bool), "structure"), ({"a": np.ones(3)}, "structure")):
        with pytest.raises(ValueError, match=message):
            restrict(known.target, known.batch, jnp.zeros(3), mask)
