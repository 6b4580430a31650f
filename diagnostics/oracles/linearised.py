r"""A network that is linear in its weights, with an exact posterior, and the bridge from it to the network itself.

.. math:: f_s(x; \theta) = (1 - s)\, [f(x; \theta^*) + J(x) (\theta - \theta^*)] + s\, f(x; \theta)

At s = 0 a regression with Gaussian noise has a Gaussian posterior over weights of the network's own shapes, sizes and scales: a
sampler's settings are checked against the truth there, and whether its answers then change continuously with s is looked at
beyond. What is exact at s = 0 says nothing about the symmetries and the basins at s = 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree
from numpy.typing import ArrayLike

from diagnostics.oracles.linear_regression import linear_regression
from diagnostics.oracles.oracle import Oracle, Position

type Network = Callable[[Position, Array], Float[Array, "n ..."]]


def linearised(
    network: Network,
    anchor: Position,
    inputs: ArrayLike,
    targets: ArrayLike,
    *,
    noise_scale: float,
    prior_scale: float,
    fraction: float = 0.0,
) -> Oracle:
    """Return the posterior of a regression with a network that is linearised about an anchor, wholly or in part.

    Args:
        network: (weights, inputs) -> outputs, [n] or [n, k], in the units of the targets.
        anchor: Weights about which the network is linear; a trained network or a draw, say.
        inputs: Of the examples, [n, ...].
        targets: [n] or [n, k], like the outputs.
        noise_scale: Standard deviation of the noise of every output, > 0.
        prior_scale: Standard deviation of every weight, around 0; > 0.
        fraction: s, from 0, the linearised network, to 1, the network.

    Returns:
        Oracle over positions like the anchor, with the data {"x": inputs, "y": targets}; with answers at fraction 0, and without
        any beyond. Dense linear algebra in the number of weights: up to a few thousand.

    Raises:
        ValueError: Outputs that do not have the shape of the targets, or a fraction out of range.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
    x, y = np.asarray(inputs), np.asarray(targets, float)
    outputs = jax.eval_shape(network, anchor, jnp.asarray(x)).shape
    if outputs != y.shape:
        raise ValueError(f"the outputs of the network must have the shape of the targets, {y.shape}; got {outputs}")
    origin, unravel = ravel_pytree(anchor)

    def log_likelihood(position: Position, data: PyTree) -> Float[Array, " n"]:
        displacement = jax.tree.map(jnp.subtract, position, anchor)
        value, slope = jax.jvp(lambda weights: network(weights, data["x"]), (anchor,), (displacement,))
        predicted = value + slope
        if fraction:
            predicted = (1 - fraction) * predicted + fraction * network(position, data["x"])
        return jnp.sum(jax.scipy.stats.norm.logpdf(data["y"], predicted, noise_scale).reshape(len(data["y"]), -1), axis=1)

    value, jacobian = _linearise(network, anchor, x)
    linear = linear_regression(
        jacobian,
        (y - value).ravel() + jacobian @ np.asarray(origin, float),
        noise_scale=noise_scale,
        prior_scale=prior_scale,
    )

    def like_anchor(draw: Callable[[Key[Array, ""], int], Array]) -> Callable[[Key[Array, ""], int], Position]:
        return lambda key, num_draws: jax.vmap(unravel)(draw(key, num_draws).astype(origin.dtype))

    network_oracle = Oracle(
        lambda position: linear.log_prior(ravel_pytree(position)[0]),
        log_likelihood,
        {"x": jnp.asarray(x), "y": jnp.asarray(y, jnp.float32)},
        like_anchor(linear.draw_prior),
        "No answers: the network is not linear in its weights.",
    )
    if fraction:
        return network_oracle
    assert linear.draw is not None
    answers = ("mean", "covariance", "log_evidence", "excess_loss", "llc", "multiplicity")
    return dataclasses.replace(
        network_oracle,
        exactness="Closed form, from a Jacobian in double precision.",
        draw=like_anchor(linear.draw),
        reference=unravel(jnp.asarray(linear.mean, origin.dtype)),
        **{name: getattr(linear, name) for name in answers},
    )


def _linearise(network: Network, anchor: Position, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs at the anchor and their Jacobian, one row an output and one column a weight, in double precision."""
    with jax.enable_x64(True):
        origin, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), anchor))

        def outputs(weights: Array) -> Array:
            return network(unravel(weights), jnp.asarray(inputs)).astype(jnp.float64)

        value, jacobian = outputs(origin), jax.jacobian(outputs)(origin)
        return np.asarray(value), np.asarray(jacobian).reshape(value.size, origin.size)
