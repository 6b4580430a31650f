r"""The toy model of superposition: c features squeezed through two hidden units, with a loss in closed form.

.. math:: f(x) = \mathrm{ReLU}(W^T W x + b), \qquad x = \xi e_i, \quad \xi \sim U(0, 1), \quad i \sim U\{1, \dots, c\}

.. math:: H(W, b) = E \lVert x - f(x) \rVert^2
    = \frac{1}{c} \sum_i \Big[ \int_0^1 (\xi - \mathrm{ReLU}(|W_i|^2 \xi + b_i))^2 d\xi
    + \sum_{j \ne i} \int_0^1 \mathrm{ReLU}(W_i \cdot W_j \xi + b_j)^2 d\xi \Big]

Columns of W at critical points are the corners of a regular polygon; a feature that is left out has no column and a bias that is
negative, or 1 / (2 c). Polygons differ in loss and in learning coefficient, so that the most probable one changes with n.

References:
    Chen, Lau, Mendel, Wei & Murfet 2023, arXiv 2310.06301. Half of H is the loss of a regression with unit noise.
"""

from __future__ import annotations

import functools
from math import comb, factorial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, Float

from diagnostics.oracles.oracle import Position

FEWEST_CORNERS = 4  # four columns do not interfere, and with fewer one more lowers the loss at once
MOST_FEATURES = 6  # from seven, with three features left out or two next to a pentagon, some signs of biases give saddles
NEGATIVE_BIAS = -0.5  # of a feature left out; any negative one gives the same loss


class Polygon(NamedTuple):
    """A kind of critical point: a regular polygon of some features, and the signs of the biases of those left out.

    Attributes:
        num_features: c.
        num_corners: k, from 4 to c; features with a column.
        num_positive: Features without a column whose bias is 1 / (2 c); those of the others are negative.
    """

    num_features: int
    num_corners: int
    num_positive: int

    @property
    def num_negative(self) -> int:
        """Features without a column whose bias is negative."""
        return self.num_features - self.num_corners - self.num_positive

    @property
    def name(self) -> str:
        """Corners, with a sign for each feature left out: "6", "5+", "4+-"."""
        return f"{self.num_corners}{'+' * self.num_positive}{'-' * self.num_negative}"

    @property
    def num_copies(self) -> int:
        """Ways to choose the features at the corners, their order up to rotation, and those with a positive bias."""
        left_out = self.num_features - self.num_corners
        return comb(self.num_features, self.num_corners) * factorial(self.num_corners - 1) * comb(left_out, self.num_positive)

    @property
    def llc(self) -> float:
        """Learning coefficient: half the number of directions in which the loss rises, with its square.

        Flat are the rotation, the bias of each feature left out with a negative one, and, where biases of corners are negative,
        that feature's column. Next to a square, whose biases are zero, the loss is a quadratic cone, and not smooth.
        """
        flat = 1 + self.num_negative * (1 if self.num_corners == FEWEST_CORNERS else 3)
        return (3 * self.num_features - flat) / 2

    def position(self) -> dict[str, Float[np.ndarray, "..."]]:
        """Return one critical point of the kind: corners counter-clockwise from angle 0, then positive biases, then negative."""
        length, bias = corner(self.num_corners)
        angles = 2 * np.pi * np.arange(self.num_corners) / self.num_corners
        weights = np.zeros((2, self.num_features))
        weights[:, : self.num_corners] = length * np.stack([np.cos(angles), np.sin(angles)])
        biases = np.full(self.num_features, NEGATIVE_BIAS)
        biases[: self.num_corners] = bias
        biases[self.num_corners : self.num_corners + self.num_positive] = 1 / (2 * self.num_features)
        return {"weights": weights, "biases": biases}

    def loss(self) -> float:
        """Return H at the critical point."""
        with jax.enable_x64(True):
            return float(superposition_loss(jax.tree.map(jnp.asarray, self.position())))


def polygons(num_features: int) -> tuple[Polygon, ...]:
    """Return the kinds of critical points, most corners and most positive biases first.

    Args:
        num_features: c, from 4 to 6.

    Raises:
        ValueError: Too few or too many features.
    """
    if not FEWEST_CORNERS <= num_features <= MOST_FEATURES:
        raise ValueError(f"num_features must be from {FEWEST_CORNERS} to {MOST_FEATURES}, got {num_features}")
    return tuple(
        Polygon(num_features, num_corners, num_positive)
        for num_corners in range(num_features, FEWEST_CORNERS - 1, -1)
        for num_positive in range(num_features - num_corners, -1, -1)
    )


def superposition_loss(position: Position) -> Float[Array, ""]:
    """Return H, the mean squared error, a piecewise rational function of the parameters.

    Args:
        position: {"weights": W, [2, c], "biases": b, [c]}.
    """
    weights, biases = position["weights"], position["biases"]
    gram = weights.T @ weights  # [output, input]
    start, end = jnp.broadcast_to(biases[:, None], gram.shape), gram + biases[:, None]
    low, high = jax.nn.relu(start), jax.nn.relu(end)
    # A unit that is on at one end only is on over this share of the interval; the divisor is never small where it is used.
    crosses = (start > 0) != (end > 0)
    share = jnp.where(crosses, (low + high) / jnp.where(crosses, jnp.abs(gram), 1.0), (start > 0).astype(gram.dtype))
    squares = jnp.sum(share * (low**2 + low * high + high**2)) / 3
    slope, bias, top = jnp.diag(gram), biases, jnp.diag(end)
    opens = (bias < 0) & (top > 0)
    onset = jnp.where(opens, -bias / jnp.where(opens, slope, 1.0), jnp.where(top > 0, 0.0, 1.0))
    products = jnp.sum(slope * (1 - onset**3) / 3 + bias * (1 - onset**2) / 2)
    return (len(biases) / 3 - 2 * products + squares) / len(biases)


@functools.cache
def corner(num_corners: int) -> tuple[float, float]:
    """Return length and bias of the corners of the critical regular polygon."""
    if num_corners == FEWEST_CORNERS:
        return 1.0, 0.0
    with jax.enable_x64(True):

        @jax.jit
        def loss(shape: Array) -> Array:
            angles = 2 * jnp.pi * jnp.arange(num_corners) / num_corners
            weights = shape[0] * jnp.stack([jnp.cos(angles), jnp.sin(angles)])
            return superposition_loss({"weights": weights, "biases": jnp.full(num_corners, shape[1])})

        start = scipy.optimize.minimize(loss, [1.2, -0.4], method="Nelder-Mead").x
        length, bias = scipy.optimize.root(jax.grad(loss), start, jac=jax.jacfwd(jax.grad(loss)), tol=1e-13).x
    return float(length), float(bias)
