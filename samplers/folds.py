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
