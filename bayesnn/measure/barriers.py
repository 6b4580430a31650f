"""Barriers between minima: along the straight segment, and along a path that is let down from it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

import samplers
from samplers import Batch, Target, Tempering
from samplers.types import Position

NUM_BEADS = 17  # of a path, its ends among them
BETWEEN = 4  # points on each piece at which the height of the final path is taken, lest a ridge lie between two beads
NUM_RELAXATIONS = 150  # of a path
FIRST_RATE, GROWTH, SHRINKAGE = 0.5, 1.1, 0.5  # of relaxation, in the metric of the minimum in which a path ends
FLATTEST = 1e-6  # of the largest curvature: flatter directions would make the metric's steps next to infinite


def barriers(
    target: Target,
    batch: Batch,
    tempering: Tempering,
    like: Position,
    start: Float[np.ndarray, "minimum minimum d"],
    log_density: Float[np.ndarray, " minimum"],
    hessian: Float[np.ndarray, "minimum d d"],
) -> Float[np.ndarray, "minimum minimum"]:
    """Return the lowest barrier found between each two minima, above the higher one of them, nats: an upper bound.

    Args:
        target: The target.
        batch: Its data.
        tempering: Its temperatures.
        like: One position.
        start: [i, j] that copy of minimum i which is nearest to minimum j; start[j, j] is minimum j.
        log_density: Of the minima, nats.
        hessian: Of minus the log density at each.

    Returns:
        Symmetric, 0 on the diagonal.

    References:
        E, Ren & Vanden-Eijnden 2007, "Simplified and improved string method", J. Chem. Phys. 126 (the relaxation).
    """
    curvatures, axes = np.linalg.eigh(hessian)
    scales = 1 / np.sqrt(np.maximum(np.abs(curvatures), FLATTEST * curvatures[:, -1:]))
    one, end = np.tril_indices(len(start), -1)
    whitened = np.einsum("pdi,pd->pi", axes[end], start[one, end] - start[end, end]) / scales[end]
    arrays = (jnp.asarray(x, jnp.result_type(float)) for x in (whitened, start[end, end], axes * scales[:, None, :]))
    tops = np.asarray(_tops(target)(*arrays, jnp.asarray(end), like, batch, tempering), float)
    heights = np.zeros((len(start), len(start)))
    heights[one, end] = np.maximum(0, tops + np.minimum(log_density[one], log_density[end]))
    return heights + heights.T


@functools.lru_cache(maxsize=64)  # the same function for the same target, so that nothing recompiles
def _tops(target: Target) -> Callable[..., Float[Array, " pair"]]:
    """Return the compiled lowest tops of paths between pairs of minima, in coordinates in which one end has unit curvatures."""

    @jax.jit
    def tops(
        others: Float[Array, "pair d"],
        centres: Float[Array, "pair d"],
        unwhiten: Float[Array, "minimum d d"],
        end: Int[Array, " pair"],
        like: Position,
        batch: Batch,
        tempering: Tempering,
    ) -> Float[Array, " pair"]:
        unravel = ravel_pytree(like)[1]

        def one(pair: tuple[Array, Array, Array]) -> Float[Array, ""]:
            other, centre, which = pair
            axes = unwhiten[which]

            def potential(whitened: Float[Array, " d"]) -> Float[Array, ""]:
                return -samplers.log_density(target, batch, tempering)(unravel(centre + axes @ whitened))

            return lowest_top(potential, jnp.linspace(0, 1, NUM_BEADS)[:, None] * other)

        return jax.lax.map(one, (others, centres, end))

    return tops


def lowest_top(potential: Callable[[Float[Array, " d"]], Float[Array, ""]], straight: Float[Array, "bead d"]) -> Float[Array, ""]:
    """Return the height of the lowest path found between the ends of one: of that itself, and of what relaxation makes of it.

    Beads fall along the gradient, at most as far as they are apart, and are spaced evenly again after each step; a step that
    lifts the path on average is taken back, and the next one is half as long.
    """

    def heights(path: Float[Array, "bead d"]) -> Float[Array, " bead"]:
        return jax.vmap(potential)(path)

    def relaxed(path: Float[Array, "bead d"], rate: Float[Array, ""]) -> Float[Array, "bead d"]:
        shift = -rate * jax.vmap(jax.grad(potential))(path[1:-1])
        length = jnp.linalg.norm(shift, axis=1, keepdims=True)
        spacing = jnp.linalg.norm(jnp.diff(path, axis=0), axis=1).mean()
        limit = jnp.minimum(1, spacing / jnp.maximum(length, jnp.finfo(length.dtype).tiny))
        return respaced(path.at[1:-1].add(shift * limit), NUM_BEADS)

    def step(carry: tuple[Any, Any, Any], _: None) -> tuple[tuple[Any, Any, Any], None]:
        path, rate, height = carry
        new = relaxed(path, rate)
        lower = heights(new).mean()
        has_fallen = lower < height
        rate = rate * jnp.where(has_fallen, GROWTH, SHRINKAGE)
        return (jnp.where(has_fallen, new, path), rate, jnp.where(has_fallen, lower, height)), None

    start = (straight, jnp.asarray(FIRST_RATE, straight.dtype), heights(straight).mean())
    (last, *_), _ = jax.lax.scan(step, start, length=NUM_RELAXATIONS)
    num_points = BETWEEN * (NUM_BEADS - 1) + 1
    return jnp.minimum(heights(respaced(straight, num_points)).max(), heights(respaced(last, num_points)).max())


def respaced(path: Float[Array, "bead d"], num_points: int) -> Float[Array, "point d"]:
    """Return points evenly spaced along a path, its ends among them."""
    length = jnp.concatenate([jnp.zeros(1, path.dtype), jnp.cumsum(jnp.linalg.norm(jnp.diff(path, axis=0), axis=1))])
    places = jnp.linspace(0, 1, num_points, dtype=path.dtype) * length[-1]
    return jax.vmap(lambda column: jnp.interp(places, length, column), 1, 1)(path)
