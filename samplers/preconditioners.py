"""Diagonal preconditioners for Langevin dynamics."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from samplers.stochastic import normal_like
from samplers.types import Position


class Preconditioner(NamedTuple):
    """A position-dependent diagonal G.

    Attributes:
        init: position -> carry.
        apply: (key, carry, position, gradient function) -> (G gradient + Gamma, G, carry), the first two like the position.
        num_gradients: What `apply` costs, in gradients.
    """

    init: Callable[[Position], Any]
    apply: Callable[[Key[Array, ""], Any, Position, Callable[[Position], Position]], tuple[Position, Position, Any]]
    num_gradients: int


def rmsprop(decay: float = 0.99, floor: float = 1e-5, num_data: int = 1, *, without_divergence: bool = False) -> Preconditioner:
    r"""Scale every direction by the root mean square of its recent gradients.

    .. math:: G = 1 / (\lambda + \sqrt{V}), \quad V \leftarrow \alpha V + (1 - \alpha) (g / n)^2, \quad
        \Gamma_i = \frac{\partial G_{ii}}{\partial \theta_i}
        = - \frac{(1 - \alpha)\, G_{ii}^2\, g_i}{n^2 \sqrt{V_i}} \frac{\partial g_i}{\partial \theta_i}

    The diagonal of the Hessian in :math:`\Gamma` is estimated without bias by one Hessian-vector product with random signs
    (Hutchinson). It holds the latest gradient's share, :math:`1 - \alpha`, of what V owes to the position: all of it for
    :math:`\alpha = 0`, where the bias shrinks with the step size. With a memory it need not. Positions that forget themselves
    within :math:`1 / (1 - \alpha)` steps leave G nearly constant, and the law nearly right; but the shorter the steps, the better
    V follows the position, and then the law goes to :math:`\pi G^{-\alpha}`, without Gamma to :math:`\pi G^{-1}`: twice the
    variance of a Gaussian, where gradients are exact. The noise of minibatches in V hides the position, and damps this.

    Args:
        decay: alpha, in [0, 1).
        floor: lambda, > 0; bounds G.
        num_data: n, so that V is on the scale of one example's gradient and `floor` keeps its meaning; 1 for a density without
            data.
        without_divergence: Leave out :math:`\Gamma`, as most of the literature does. A third of the cost, and a bias that no step
            size removes.

    Raises:
        ValueError: An argument outside its range.

    References:
        Li et al. 2016, arXiv 1512.07666, eqs. 4 and 8 to 10. Hutchinson 1990. The limit of short steps is ours: with V a
        function of the position alone and a share c of its divergence, the flux of the Fokker-Planck equation vanishes for
        :math:`\pi G^{c - 1}`.
    """
    if not 0 <= decay < 1 or not floor > 0 or num_data < 1:
        raise ValueError(
            "decay must be in [0, 1), floor positive and num_data at least 1; "
            f"got decay={decay}, floor={floor}, num_data={num_data}"
        )
    # A Hessian-vector product by reverse over reverse mode costs about two gradients.
    return Preconditioner(*_rmsprop(decay, floor, num_data, without_divergence), num_gradients=1 if without_divergence else 3)


@functools.lru_cache(maxsize=64)  # the same functions for the same arguments, so that nothing recompiles
def _rmsprop(decay: float, floor: float, num_data: int, without_divergence: bool) -> tuple[Any, Any]:
    def init(position: Position) -> Position:
        return jax.tree.map(jnp.ones_like, position)

    def apply(key: Key[Array, ""], mean_square: Position, position: Position, gradient: Any) -> tuple[Any, Any, Any]:
        if without_divergence:
            g = gradient(position)
        else:
            signs = jax.tree.map(jnp.sign, normal_like(key, position))
            g, product = jax.vjp(gradient, position)
            curvature = jax.tree.map(jnp.multiply, signs, product(signs)[0])
        mean_square = jax.tree.map(lambda v, x: decay * v + (1 - decay) * (x / num_data) ** 2, mean_square, g)
        scale = jax.tree.map(lambda v: 1 / (floor + jnp.sqrt(v)), mean_square)
        drift = jax.tree.map(jnp.multiply, scale, g)
        if not without_divergence:
            drift = jax.tree.map(_add_divergence, drift, scale, g, mean_square, curvature)
        return drift, scale, mean_square

    def _add_divergence(drift: Array, scale: Array, g: Array, mean_square: Array, curvature: Array) -> Array:
        # Where the mean square is 0 so is the gradient, and G has a maximum: no divergence.
        root = jnp.sqrt(jnp.where(mean_square > 0, mean_square, 1.0))
        return drift - (1 - decay) * scale**2 * g * curvature / (num_data**2 * root)

    return init, apply
