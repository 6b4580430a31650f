"""Streaming summaries, for runs whose draws are too many or too large to keep."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from samplers.types import Fold, Info, Position, State


class Moments(NamedTuple):
    """Running mean and sum of squared deviations (Welford) of every scalar, by chain."""

    num_steps: Int[Array, ""]
    mean: PyTree
    squared_deviations: PyTree

    def variance(self) -> PyTree:
        """Return the sample variance (ddof 1); NaN before the second step."""
        count = jnp.asarray(self.num_steps)

        def divide(x: Array) -> Array:
            n = count.reshape(count.shape + (1,) * (x.ndim - count.ndim))
            return jnp.where(n > 1, x / jnp.maximum(n - 1, 1), jnp.nan)

        return jax.tree.map(divide, self.squared_deviations)


def moments(function: Callable[[Position, PyTree], PyTree], arrays: PyTree = ()) -> Fold:
    """Return a fold that keeps mean and variance of a function of the position, over all steps.

    Args:
        function: (position, arrays) -> pytree of arrays; the identity gives moments of the weights, a network's outputs on test
            inputs gives the running predictive mean.
        arrays: What the function needs besides the position.

    Example:
        >>> import jax, jax.numpy as jnp, samplers
        >>> target, batch = samplers.from_logdensity(lambda x: -0.5 * jnp.sum(x**2))
        >>> kernel = samplers.hmc(target, step_size=0.5, trajectory_length=1.6)
        >>> fold = samplers.moments(lambda position, arrays: position)
        >>> result = samplers.sample(
        ...     jax.random.key(0), kernel, jnp.zeros((4, 2)), batch, num_steps=2000, fold=fold, save=None)
        >>> bool((abs(result.run.fold.variance() - 1) < 0.2).all())
        True
    """
    return Fold(*_moments(function), arrays)


@functools.lru_cache(maxsize=64)  # the same functions for the same function, so that nothing recompiles
def _moments(function: Callable[[Position, PyTree], PyTree]) -> tuple[Any, Any]:
    def init(position: Position, arrays: PyTree) -> Moments:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, position, arrays))
        return Moments(jnp.int32(0), zeros, zeros)

    def update(carry: Moments, state: State, info: Info, arrays: PyTree) -> Moments:
        value = function(state.position, arrays)
        count = carry.num_steps + 1
        share = 1 / count  # XLA makes this product of a division on one device and not on several, which has other bits
        mean = jax.tree.map(lambda m, x: m + (x - m) * share.astype(m.dtype), carry.mean, value)
        squared = jax.tree.map(
            lambda s, x, old, new: s + (x - old) * (x - new), carry.squared_deviations, value, carry.mean, mean
        )
        return Moments(count, mean, squared)

    return init, update


class BatchMeans(NamedTuple):
    """Means and sums of squared deviations of consecutive batches of steps, by chain; leaves [batch, ...].

    Attributes:
        num_steps: Steps seen.
        batch_length: Steps of a batch.
        means: Of each batch.
        squared_deviations: Of the steps of each batch from its mean.
    """

    num_steps: Int[Array, ""]
    batch_length: Int[Array, ""]
    means: PyTree
    squared_deviations: PyTree


def batch_means(
    function: Callable[[Position, PyTree], PyTree], *, num_steps: int, num_batches: int = 20, arrays: PyTree = ()
) -> Fold:
    """Return a fold from which convergence can be told without keeping draws (`diagnostics.streaming_statistics`).

    Split R-hat comes out exactly, effective sample sizes by batch means: batches should be several autocorrelation times long.
    Memory is that of 2 `num_batches` values of the function a chain, whatever the number of steps.

    Args:
        function: (position, arrays) -> pytree of arrays.
        num_steps: Steps that will be taken, a multiple of `num_batches`; further ones are left out.
        num_batches: Batches of a chain, even, >= 4.
        arrays: What the function needs besides the position.

    Raises:
        ValueError: An odd number of batches or fewer than 4, or batches that do not divide the steps.

    Example:
        >>> import jax, jax.numpy as jnp, samplers
        >>> target, batch = samplers.from_logdensity(lambda x: -0.5 * jnp.sum(x**2))
        >>> kernel = samplers.hmc(target, step_size=0.5, trajectory_length=1.6)
        >>> fold = samplers.batch_means(lambda position, arrays: position, num_steps=1000)
        >>> result = samplers.sample(
        ...     jax.random.key(0), kernel, jnp.zeros((4, 2)), batch, num_steps=1000, fold=fold, save=None)
        >>> result.run.fold.means.shape
        (4, 20, 2)
    """
    if num_batches < 4 or num_batches % 2:
        raise ValueError(f"num_batches must be even and at least 4, so that halves of a chain have batches; got {num_batches}")
    if num_steps < num_batches or num_steps % num_batches:
        raise ValueError(f"num_steps must be a positive multiple of the {num_batches} batches, got {num_steps}")
    init, update = _batch_means(function, num_steps // num_batches, num_batches)
    return Fold(init, update, arrays)


@functools.lru_cache(maxsize=64)  # the same functions for the same function, so that nothing recompiles
def _batch_means(function: Callable[[Position, PyTree], PyTree], batch_length: int, num_batches: int) -> tuple[Any, Any]:
    def init(position: Position, arrays: PyTree) -> BatchMeans:
        shapes = jax.eval_shape(function, position, arrays)
        zeros = jax.tree.map(lambda x: jnp.zeros((num_batches, *x.shape), x.dtype), shapes)
        return BatchMeans(jnp.int32(0), jnp.int32(batch_length), zeros, zeros)

    return init, _update_batches(function)


@functools.lru_cache(maxsize=64)  # one update whatever the length, so that another length recompiles nothing
def _update_batches(function: Callable[[Position, PyTree], PyTree]) -> Any:
    def update(carry: BatchMeans, state: State, info: Info, arrays: PyTree) -> BatchMeans:
        batch, place = carry.num_steps // carry.batch_length, carry.num_steps % carry.batch_length
        share = 1 / (place + 1)
        value = function(state.position, arrays)

        def move(means: Array, x: Array) -> Array:
            old = means.at[batch].get(mode="clip")
            return means.at[batch].set(old + (x - old) * share.astype(old.dtype), mode="drop")

        new = jax.tree.map(move, carry.means, value)
        squared = jax.tree.map(
            lambda s, x, old, mean: s.at[batch].add(
                (x - old.at[batch].get(mode="clip")) * (x - mean.at[batch].get(mode="clip")), mode="drop"
            ),
            carry.squared_deviations,
            value,
            carry.means,
            new,
        )
        return carry._replace(num_steps=carry.num_steps + 1, means=new, squared_deviations=squared)

    return update
