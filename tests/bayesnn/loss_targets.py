"""Targets whose learning coefficient is known at every scale, and how to state them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from bayesnn.measure.llc import LocalSampling
from diagnostics.oracles import superposition_loss
from samplers import Batch, Target

NUM_DATA = 1000


def flat_prior(position, constants):
    return jnp.zeros(())


def _quadratic(position, rows, h):
    return jnp.full(rows.shape, -0.5 * jnp.sum(h * position**2))


def quadratic(h, num_data=100):
    """K = sum h w^2 / 2, as one example that stands for all."""
    return Target(flat_prior, _quadratic, num_data), Batch(jnp.zeros(1), jnp.ones(1), jnp.asarray(h, float))


def _crossing(position, rows, constants):
    return jnp.full(rows.shape, -((position[0] * position[1]) ** 2))


def crossing():
    """K = (w1 w2)^2, of multiplicity 2."""
    return Target(flat_prior, _crossing, NUM_DATA), Batch(jnp.zeros(1), jnp.ones(1))


def crossing_truth(n_beta, localisation):
    """n beta E[K] with a Gaussian localiser, by a grid whose refinement moves it by less than 1e-4."""
    half = np.geomspace(1e-8, 9 / np.sqrt(localisation), 4000)
    x = np.concatenate([-half[::-1], half])
    energy = n_beta * (x[:, None] * x) ** 2
    mass = np.exp(-energy - localisation / 2 * (x[:, None] ** 2 + x**2)) * np.gradient(x)[:, None] * np.gradient(x)
    return float((energy * mass).sum() / mass.sum())


def regression_log_likelihood(position, data, constants):
    x, y = data
    return -0.5 * (y - x @ position) ** 2


def _normal_prior(position, constants):
    return -0.5 * jnp.sum(position**2)


def regression(seed=0, num_data=NUM_DATA, scale=1.0):
    """Linear regression with unit noise: target, data, least-squares solution, Hessian of the mean loss."""
    rng = np.random.default_rng(seed)
    x = scale * rng.normal(size=(num_data, 3)) * [1.0, 0.5, 0.2]
    y = x @ [1.0, -1.0, 2.0] + rng.normal(size=num_data)
    target = Target(_normal_prior, regression_log_likelihood, num_data)
    batch = Batch((jnp.asarray(x, float), jnp.asarray(y, float)), jnp.ones(num_data))
    return target, batch, np.linalg.lstsq(x, y)[0], x.T @ x / num_data


def effective(hessian, n_beta, localisation):
    """Half the effective number of directions."""
    return 0.5 * np.trace(n_beta * hessian @ np.linalg.inv(n_beta * hessian + localisation * np.eye(len(hessian))))


def _linear_network(layers, rows, truth):
    product = layers[0]
    for layer in layers[1:]:
        product = layer @ product
    return jnp.full(rows.shape, -0.5 * jnp.sum((product - truth) ** 2))


def linear_network(layers, num_data):
    """K = |W_L ... W_1 - truth|^2 / 2, centred on a true network."""
    truth = layers[0]
    for layer in layers[1:]:
        truth = layer @ truth
    return Target(flat_prior, _linear_network, num_data), Batch(jnp.zeros(1), jnp.ones(1), truth)


def _superposition(position, rows, constants):
    return jnp.full(rows.shape, -0.5 * superposition_loss(position))


def polygon(kind, num_data):
    """K = H / 2 of the toy model of superposition, at one of its critical points; and the Hessian there."""
    centre, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, float), kind.position()))
    hessian = jax.hessian(lambda x: 0.5 * superposition_loss(unravel(x)))(centre)
    target, batch = Target(flat_prior, _superposition, num_data), Batch(jnp.zeros(1), jnp.ones(1))
    return target, batch, unravel(centre), np.asarray(hessian, float)


def orthogonal_layers(key, widths):
    """Layers with singular values of 1: the product has the rank of the smallest width, and its spectrum is well conditioned."""
    keys = jax.random.split(key, len(widths) - 1)
    return [
        jax.random.orthogonal(one, max(before, after))[:after, :before]
        for one, before, after in zip(keys, widths[:-1], widths[1:], strict=True)
    ]


def short(**settings):
    return LocalSampling(**{"chains": 4, "draws": 400, "burn_in": 200, "thin": 2} | settings)
