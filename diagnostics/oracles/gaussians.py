"""Densities without data: a Gaussian, and Neal's funnel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from numpy.typing import ArrayLike

from diagnostics.oracles.oracle import Oracle, Position, check_positive

NO_DATA = np.zeros(0, np.float32)


def gaussian(mean: ArrayLike, covariance: ArrayLike) -> Oracle:
    """Return a Gaussian; its density is the prior's, and there are no data.

    Args:
        mean: [d].
        covariance: [d, d], positive definite.

    Returns:
        Oracle over positions of shape [d].

    Raises:
        ValueError: Shapes that do not fit, or a covariance that is not symmetric and positive definite.
    """
    centre, spread = np.asarray(mean, float), np.asarray(covariance, float)
    if centre.ndim != 1 or spread.shape != (centre.size, centre.size):
        raise ValueError(f"mean must be [d] and covariance [d, d], got shapes {centre.shape} and {spread.shape}")
    if not np.allclose(spread, spread.T) or np.linalg.eigvalsh(spread).min() <= 0:
        raise ValueError("covariance must be symmetric with positive eigenvalues")
    factor = np.linalg.cholesky(spread)
    whitening = np.linalg.inv(factor)
    log_constant = float(-np.log(np.diag(factor)).sum() - centre.size / 2 * np.log(2 * np.pi))

    def log_prior(position: Position) -> Float[Array, ""]:
        return log_constant - 0.5 * jnp.sum((jnp.asarray(whitening) @ (position - centre)) ** 2)

    def draw(key: Key[Array, ""], num_draws: int) -> Position:
        return centre + jax.random.normal(key, (num_draws, centre.size)) @ jnp.asarray(factor.T)

    return Oracle(
        log_prior,
        lambda position, data: data,
        NO_DATA,
        draw,
        "Closed form.",
        draw=draw,
        mean=centre,
        covariance=spread,
        log_evidence=0.0,
    )


def funnel(dimension: int, scale: float = 3.0) -> Oracle:
    r"""Return Neal's funnel, whose curvature changes by a factor of about exp(4 scale) over the central 95 % of v.

    .. math:: v \sim N(0, \mathrm{scale}^2), \qquad x_i \mid v \sim N(0, e^v), \qquad \mathrm{position} = (v, x_1, \dots, x_{d-1})

    The variance of each x is exp(scale^2 / 2), carried by draws that are too rare to be seen: test v, and x exp(-v / 2), which
    are Gaussian.

    Args:
        dimension: d, at least 2.
        scale: Standard deviation of v, > 0; 3 in the paper.

    Returns:
        Oracle over positions of shape [d].

    Raises:
        ValueError: An argument out of range.

    References:
        Neal 2003, Annals of Statistics 31, section 8 (with d = 10).
    """
    check_positive(scale=scale)
    if dimension < 2:
        raise ValueError(f"dimension must be at least 2, got {dimension}")

    def log_prior(position: Position) -> Float[Array, ""]:
        log_width = position[0]
        neck = jax.scipy.stats.norm.logpdf(log_width, scale=scale)
        return neck + jnp.sum(jax.scipy.stats.norm.logpdf(position[1:], scale=jnp.exp(log_width / 2)))

    def draw(key: Key[Array, ""], num_draws: int) -> Position:
        normal = jax.random.normal(key, (num_draws, dimension))
        log_width = scale * normal[:, :1]
        return jnp.concatenate([log_width, jnp.exp(log_width / 2) * normal[:, 1:]], axis=1)

    return Oracle(
        log_prior,
        lambda position, data: data,
        NO_DATA,
        draw,
        "Closed form.",
        draw=draw,
        mean=np.zeros(dimension),
        covariance=np.diag([scale**2, *[np.exp(scale**2 / 2)] * (dimension - 1)]),
        log_evidence=0.0,
    )
