"""Restricted sampling: some scalars move, the others stay where they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from samplers.types import Batch, Position, Target


class Fixed(NamedTuple):
    """What a restricted density needs to know of the rest.

    Attributes:
        constants: Of the original target.
        position: A whole position, with the values that stay.
    """

    constants: PyTree
    position: Position


class Restriction(NamedTuple):
    """A target over the scalars that move, made by `restrict`.

    Attributes:
        target: Its position is a tuple with one array [k] for each leaf of the original that has k > 0 scalars that move.
        batch: Its data.
        take: whole position -> restricted position.
        put: restricted position -> whole position.
    """

    target: Target
    batch: Batch
    take: Callable[[Position], tuple[Array, ...]]
    put: Callable[[tuple[Array, ...]], Position]


def restrict(target: Target, batch: Batch, position: Position, mask: PyTree[Bool[np.ndarray, "..."]]) -> Restriction:
    """Return the target with some scalars held fixed, for any sampler.

    What stays is no coordinate of the restricted target at all: it gets no momentum, noise, update or place in a metric, and does
    not count in temperatures. Sample `take(positions)` of each chain; `put` makes whole positions of draws.

    Args:
        target: The target.
        batch: Its data.
        position: Of one chain: the values of what stays, the same for all chains.
        mask: Booleans, shaped as the position; True moves.

    Raises:
        ValueError: A mask of another structure, or under which nothing moves.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np, samplers
        >>> target, batch = samplers.from_logdensity(lambda x: -0.5 * jnp.sum(x["a"] ** 2 + x["b"] ** 2))
        >>> position = {"a": jnp.ones(2), "b": jnp.ones(2)}
        >>> mask = {"a": np.array([True, False]), "b": np.array([False, False])}
        >>> restricted = samplers.restrict(target, batch, position, mask)
        >>> [part.tolist() for part in restricted.take(position)]
        [[1.0]]
        >>> restricted.put((jnp.array([5.0]),))["a"].tolist()
        [5.0, 1.0]
    """
    masks = [np.asarray(m, bool) for m in jax.tree.leaves(mask)]
    shapes = [np.shape(x) for x in jax.tree.leaves(position)]
    is_alike = jax.tree.structure(mask) == jax.tree.structure(position)  # type: ignore[operator]  # of a stub
    if not is_alike or [m.shape for m in masks] != shapes:
        raise ValueError("the mask must have the structure and shapes of the position")
    if not any(m.any() for m in masks):
        raise ValueError("the mask lets nothing move")
    # As hashable data, so that equal masks give equal functions and nothing recompiles.
    moving = tuple(tuple(np.flatnonzero(m).tolist()) for m in masks)
    log_prior, log_likelihood = _functions(target.log_prior, target.log_likelihood, moving)
    fixed = jax.tree.map(jnp.asarray, position)
    return Restriction(
        target._replace(log_prior=log_prior, log_likelihood=log_likelihood),
        batch._replace(constants=Fixed(batch.constants, fixed)),
        functools.partial(_take, moving),
        functools.partial(_put, moving, fixed),
    )


def _take(moving: tuple[tuple[int, ...], ...], position: Position) -> tuple[Array, ...]:
    leaves = jax.tree.leaves(position)
    return tuple(leaf.ravel()[np.array(rows)] for leaf, rows in zip(leaves, moving, strict=True) if rows)


def _put(moving: tuple[tuple[int, ...], ...], position: Position, values: tuple[Array, ...]) -> Position:
    leaves, treedef = jax.tree.flatten(position)
    parts = iter(values)

    def fill(leaf: Array, rows: tuple[int, ...]) -> Array:
        return leaf.ravel().at[np.array(rows)].set(next(parts)).reshape(leaf.shape) if rows else leaf

    return jax.tree.unflatten(treedef, [fill(leaf, rows) for leaf, rows in zip(leaves, moving, strict=True)])


@functools.lru_cache(maxsize=64)  # the same functions for the same target and mask, so that nothing recompiles
def _functions(
    log_prior: Callable[..., Array], log_likelihood: Callable[..., Array], moving: tuple[tuple[int, ...], ...]
) -> tuple[Callable[..., Array], Callable[..., Array]]:
    def restricted_prior(values: Position, fixed: Fixed) -> Float[Array, ""]:
        return log_prior(_put(moving, fixed.position, values), fixed.constants)

    def restricted_likelihood(values: Position, data: PyTree, fixed: Fixed) -> Float[Array, " n"]:
        return log_likelihood(_put(moving, fixed.position, values), data, fixed.constants)

    return restricted_prior, restricted_likelihood
