"""Bayesian linear regression with known noise: everything in closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree
from numpy.typing import ArrayLike

from diagnostics.oracles.oracle import Oracle, Position, check_positive


def linear_regression(features: ArrayLike, targets: ArrayLike, *, noise_scale: float, prior_scale: float) -> Oracle:
    r"""Return the posterior of linear regression with Gaussian noise and an isotropic Gaussian prior around 0.

    .. math:: \Lambda = \frac{X^T X}{\sigma^2} + \frac{I}{s^2}, \qquad \mu = \Lambda^{-1} \frac{X^T y}{\sigma^2}, \qquad
        n (E L - L(\mu)) = \tfrac{1}{2} \mathrm{tr}\left(\frac{X^T X}{\sigma^2} \Lambda^{-1}\right)

    The last, half the effective number of parameters, tends to the learning coefficient, half the rank of X. The posterior at an
    inverse temperature beta of the likelihood is that with the noise scale divided by the root of beta.

    Args:
        features: X, [n, d].
        targets: y, [n].
        noise_scale: Sigma, standard deviation of the noise, in the units of the targets, > 0.
        prior_scale: s, standard deviation of every weight, > 0.

    Returns:
        Oracle over positions of shape [d], with the data {"x": [n, d], "y": [n]} and one log likelihood an example.

    Raises:
        ValueError: Shapes that do not fit, values that are not finite, or scales that are not positive.
    """
    check_positive(noise_scale=noise_scale, prior_scale=prior_scale)
    x, y = np.asarray(features, float), np.asarray(targets, float)
    if x.ndim != 2 or y.shape != x.shape[:1] or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"features must be [n, d] and targets [n], finite; got shapes {x.shape} and {y.shape}")
    num_data, dimension = x.shape

    def log_prior(position: Position) -> Float[Array, ""]:
        return jnp.sum(jax.scipy.stats.norm.logpdf(position, scale=prior_scale))

    def log_likelihood(position: Position, data: PyTree) -> Float[Array, " n"]:
        return jax.scipy.stats.norm.logpdf(data["y"], data["x"] @ position, noise_scale)

    def draw_prior(key: Key[Array, ""], num_draws: int) -> Position:
        return prior_scale * jax.random.normal(key, (num_draws, dimension))

    information = x.T @ x / noise_scale**2
    factor = np.linalg.cholesky(information + np.eye(dimension) / prior_scale**2)
    whitened = np.linalg.inv(factor)
    covariance = whitened.T @ whitened
    mean = covariance @ (x.T @ y) / noise_scale**2
    residual = y - x @ mean
    log_evidence = (
        -0.5 * (residual @ residual / noise_scale**2 + mean @ mean / prior_scale**2)
        - num_data * np.log(noise_scale * np.sqrt(2 * np.pi))
        - dimension * np.log(prior_scale)
        - np.log(np.diag(factor)).sum()
    )

    def draw(key: Key[Array, ""], num_draws: int) -> Position:
        return mean + jax.random.normal(key, (num_draws, dimension)) @ jnp.asarray(whitened)

    return Oracle(
        log_prior,
        log_likelihood,
        {"x": jnp.asarray(x, jnp.float32), "y": jnp.asarray(y, jnp.float32)},
        draw_prior,
        "Closed form.",
        draw=draw,
        mean=mean,
        covariance=covariance,
        log_evidence=float(log_evidence),
        reference=jnp.asarray(mean, jnp.float32),
        excess_loss=float(0.5 * np.sum(information * covariance)),
        llc=float(np.linalg.matrix_rank(x)) / 2,
        multiplicity=1,
    )
