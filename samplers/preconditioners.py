"""Diagonal preconditioners for Langevin dynamics."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from samplers.types import Position


class Preconditioner(NamedTuple):
    """A position-dependent diagonal G.

    Attributes:
        init: position -> carry.
        apply: (key, carry, position, gradient function) -> (G gradient + Gamma, G, carry), the first two like the position.
    """

    init: Callable[[Position], Any]
    apply: Callable[[Key[Array, ""], Any, Position, Callable[[Position], Position]], tuple[Position, Position, Any]]


def rmsprop(decay: float = 0.99, floor: float = 1e-5, num_data: int = 1) -> Preconditioner:
    r"""Scale every direction by the root mean square of its recent gradients, **without** the divergence term.

    .. math:: G = 1 / (\lambda + \sqrt{V}), \quad V \leftarrow \alpha V + (1 - \alpha) (g / n)^2

    Without :math:`\Gamma` the stationary distribution is biased by O(1 - decay), a bias that no step size removes; the
    literature mostly leaves it out.

    Args:
        decay: alpha, in [0, 1).
        floor: lambda, > 0; bounds G.
        num_data: n, so that V is on the scale of one example's gradient and `floor` keeps its meaning.

    Raises:
        ValueError: An argument outside its range.

    References:
        Li et al. 2016, arXiv 1512.07666, eqs. 8 to 10.
    """
    if not 0 <= decay < 1 or not floor > 0:
        raise ValueError(f"decay must be in [0, 1) and floor positive; got decay={decay}, floor={floor}")
    return Preconditioner(*_rmsprop(decay, floor, num_data))


@functools.lru_cache(maxsize=64)  # the same functions for the same arguments, so that nothing recompiles
def _rmsprop(decay: float, floor: float, num_data: int) -> tuple[Any, Any]:
    def init(position: Position) -> Position:
        return jax.tree.map(jnp.ones_like, position)

    def apply(key: Key[Array, ""], mean_square: Position, position: Position, gradient: Any) -> tuple[Any, Any, Any]:
        g = gradient(position)
        mean_square = jax.tree.map(lambda v, x: decay * v + (1 - decay) * (x / num_data) ** 2, mean_square, g)
        scale = jax.tree.map(lambda v: 1 / (floor + jnp.sqrt(v)), mean_square)
        return jax.tree.map(jnp.multiply, scale, g), scale, mean_square

    return init, apply
