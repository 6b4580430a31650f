"""Targets whose law is known in closed form, and the check of draws against it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from arviz_stats.base import array_stats
from jax.flatten_util import ravel_pytree

from samplers import Batch, Target

# Of a fair draw of a thousand comparisons, one in a thousand passes five standard errors by chance.
MAX_STANDARD_ERRORS = 5.0
# A check of chains that hardly move would pass anything: ask for the equivalent of this many independent draws.
MIN_EFFECTIVE_DRAWS = 500


@dataclasses.dataclass(frozen=True)
class Analytic:
    """A target and its law.

    Attributes:
        target: The target.
        batch: Its data and constants.
        mean: [d] in the order of `ravel_pytree`.
        covariance: [d, d].
        marginals: scipy.stats distribution of each scalar.
        draw: (generator, n) -> n independent exact draws, [n, d].
        unravel: [d] -> position of one chain.
    """

    target: Target
    batch: Batch
    mean: np.ndarray
    covariance: np.ndarray
    marginals: list[Any]
    draw: Callable[[np.random.Generator, int], np.ndarray]
    unravel: Callable[[Any], Any] = lambda flat: flat

    def positions(self, num_chains: int, seed: int = 0) -> Any:
        """Exact draws, one a chain."""
        draws = self.draw(np.random.default_rng(seed), num_chains)
        return jax.vmap(self.unravel)(jnp.asarray(draws, jnp.float32))


def flat(draws: Any) -> np.ndarray:
    """Draws [chain, draw, ...] of a pytree as one array [chain, draw, d], float64, in the order of `ravel_pytree`."""
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(draws)]
    return np.concatenate([x.reshape(*x.shape[:2], -1) for x in leaves], axis=2)


def assert_means(values: np.ndarray, expected: Any, min_effective_draws: float = MIN_EFFECTIVE_DRAWS) -> None:
    """Every scalar of values [chain, draw, ...] has the expected mean, within standard errors small enough to tell."""
    error = array_stats.mcse(values, chain_axis=0, draw_axis=1)
    effective = (values.std(axis=(0, 1)) / error) ** 2
    assert effective.min() > min_effective_draws
    deviation = (values.mean(axis=(0, 1)) - expected) / error
    assert np.abs(deviation).max() < MAX_STANDARD_ERRORS, f"standard errors: {np.round(deviation, 1)}"


def assert_covariance(draws: Any, mean: np.ndarray, covariance: np.ndarray) -> None:
    """Draws have this mean and covariance."""
    x = flat(draws) - mean
    assert_means(x, 0.0)
    assert_means(x[..., :, None] * x[..., None, :], covariance)


def assert_law(draws: Any, known: Analytic) -> None:
    """Draws have the mean, the covariance and the quantiles of the target."""
    assert_covariance(draws, known.mean, known.covariance)
    for probability in (0.05, 0.5, 0.95):
        quantiles = np.array([marginal.ppf(probability) for marginal in known.marginals])
        assert_means((flat(draws) < quantiles).astype(float), probability)


def _gaussian_log_prior(position: Any, constants: Any) -> Any:
    x = ravel_pytree(position)[0] - constants["mean"]
    return -0.5 * x @ constants["precision"] @ x


def _no_log_likelihood(position: Any, data: Any, constants: Any) -> Any:
    return jnp.zeros(0)


GAUSSIAN = Target(_gaussian_log_prior, _no_log_likelihood, 0)


def gaussian(mean: np.ndarray, covariance: np.ndarray, like: Any = None) -> Analytic:
    """A Gaussian; `like` is a position that gives it a structure."""
    constants = {"mean": jnp.asarray(mean, jnp.float32), "precision": jnp.asarray(np.linalg.inv(covariance), jnp.float32)}
    return Analytic(
        GAUSSIAN,
        Batch((), jnp.zeros(0), constants),
        mean,
        covariance,
        [scipy.stats.norm(m, np.sqrt(v)) for m, v in zip(mean, np.diag(covariance), strict=True)],
        lambda rng, n: rng.multivariate_normal(mean, covariance, n),
        ravel_pytree(jnp.asarray(mean) if like is None else like)[1],
    )


def isotropic() -> Analytic:
    return gaussian(np.zeros(2), np.eye(2))


def anisotropic() -> Analytic:
    return gaussian(np.linspace(-1, 1, 10), np.diag(np.geomspace(0.2, 2, 10) ** 2))


def correlated() -> Analytic:
    """A Gaussian over a nested pytree: correlations of 0.8 to 0.4 with distance."""
    like = {"layer": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}, "scale": (jnp.zeros(()),)}
    distance = np.abs(np.subtract.outer(np.arange(7), np.arange(7)))
    return gaussian(
        np.ones(7), np.where(distance > 2, 0.0, 0.8 ** np.maximum(distance, 1)) * (distance > 0) * 0.5 + np.eye(7), like
    )


def _student_log_prior(position: Any, constants: Any) -> Any:
    freedom, scale = constants
    return -0.5 * (freedom + 1) * jnp.sum(jnp.log1p((position / scale) ** 2 / freedom))


STUDENT_SCALE = np.array([0.5, 1.0, 2.0])


def student(scale: np.ndarray = STUDENT_SCALE) -> Analytic:
    """A product of Student t distributions: no Gaussian, four moments and more."""
    freedom = 8.0
    marginals = [scipy.stats.t(freedom, scale=s) for s in scale]
    return Analytic(
        Target(_student_log_prior, _no_log_likelihood, 0),
        Batch((), jnp.zeros(0), (jnp.float32(freedom), jnp.asarray(scale, jnp.float32))),
        np.zeros(scale.size),
        np.diag([m.var() for m in marginals]),
        marginals,
        lambda rng, n: rng.standard_t(freedom, (n, scale.size)) * scale,
    )


NOISE, PRIOR_SCALE = 0.7, 1.5


def _regression_log_prior(position: Any, constants: Any) -> Any:
    return -0.5 * jnp.sum((position / PRIOR_SCALE) ** 2)


def _regression_log_likelihood(position: Any, data: Any, constants: Any) -> Any:
    return -0.5 * ((data["y"] - data["x"] @ position) / NOISE) ** 2


def regression_data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(40, 3)) @ np.array([[1.0, 0.6, 0.0], [0.0, 0.8, 0.3], [0.0, 0.0, 0.5]])
    return x, x @ np.array([0.5, -1.0, 2.0]) + NOISE * rng.normal(size=40)


def regression(temperature: float = 1.0, likelihood_temperature: float = 1.0) -> Analytic:
    """Bayesian linear regression with Gaussian noise and prior; its tempered posterior in closed form."""
    x, y = regression_data()
    precision = np.eye(3) / PRIOR_SCALE**2 + x.T @ x / NOISE**2 / likelihood_temperature
    mean = np.linalg.solve(precision, x.T @ y / NOISE**2 / likelihood_temperature)
    law = gaussian(mean, temperature * np.linalg.inv(precision))
    target = Target(_regression_log_prior, _regression_log_likelihood, num_data=40)
    batch = Batch({"x": jnp.asarray(x, jnp.float32), "y": jnp.asarray(y, jnp.float32)}, jnp.ones(40))
    return dataclasses.replace(law, target=target, batch=batch)


ANALYTIC = {f.__name__: f for f in (isotropic, anisotropic, correlated, student, regression)}
