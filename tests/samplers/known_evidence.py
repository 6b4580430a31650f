"""A regression and a normal crossing whose evidences are known, and the coverage of intervals that estimate one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.stats

from samplers import Batch, Target
from tests.samplers.analytic import NOISE, PRIOR_SCALE

NUM_DATA, DIMENSION = 30, 5


def _log_prior(position: Any, constants: Any) -> Any:
    return jnp.sum(jax.scipy.stats.norm.logpdf(position, scale=PRIOR_SCALE))


def _log_likelihood(position: Any, data: Any, constants: Any) -> Any:
    return jax.scipy.stats.norm.logpdf(data["y"], data["x"] @ position, NOISE)


_rng = np.random.default_rng(11)
_x = _rng.normal(size=(NUM_DATA, DIMENSION)) * np.geomspace(0.3, 1, DIMENSION)
_y = _x @ _rng.normal(size=DIMENSION) + NOISE * _rng.normal(size=NUM_DATA)
TARGET = Target(_log_prior, _log_likelihood, num_data=NUM_DATA)
BATCH = Batch({"x": jnp.asarray(_x, jnp.float32), "y": jnp.asarray(_y, jnp.float32)}, jnp.ones(NUM_DATA))
COVARIANCE = np.linalg.inv(np.eye(DIMENSION) / PRIOR_SCALE**2 + _x.T @ _x / NOISE**2)
MEAN = COVARIANCE @ _x.T @ _y / NOISE**2
LOG_EVIDENCE = float(
    scipy.stats.multivariate_normal(np.zeros(NUM_DATA), NOISE**2 * np.eye(NUM_DATA) + PRIOR_SCALE**2 * _x @ _x.T).logpdf(_y)
)


def _crossing_log_prior(position: Any, constants: Any) -> Any:
    return jnp.sum(jax.scipy.stats.norm.logpdf(position))


def _crossing_log_likelihood(position: Any, num_examples: Any, constants: Any) -> Any:
    return -0.5 * num_examples * (position[0] * position[1]) ** 2


# A normal crossing: the likelihood does not fall along either axis, and is a hundred times narrower across. Singular: to second
# order the posterior has a determinant of zero, and Laplace's approximation no value.
CROSSING_SIZE = 1e4
CROSSING = Target(_crossing_log_prior, _crossing_log_likelihood, num_data=1)
CROSSING_BATCH = Batch(jnp.full(1, CROSSING_SIZE, jnp.float32), jnp.ones(1))
# Over the second coordinate in closed form; of the first by its logarithm, in which the integrand is smooth.
CROSSING_LOG_EVIDENCE = float(
    np.log(
        scipy.integrate.quad(
            lambda u: 2 * np.exp(u) * scipy.stats.norm.pdf(np.exp(u)) / np.sqrt(1 + CROSSING_SIZE * np.exp(2 * u)), -30, 5
        )[0]
    )
)


def prior_draws(seed: int, *shape: int) -> Any:
    return PRIOR_SCALE * jax.random.normal(jax.random.key(seed), (*shape, DIMENSION))


def assert_covers(estimates: Any, quantile: float, log_evidence: float = LOG_EVIDENCE) -> None:
    """Of 200 intervals of 95 %, 90 to 99 % contain the evidence; of exact ones fewer or more do once in 600 times."""
    estimates = np.asarray(estimates)
    assert len(estimates) == 200
    coverage = np.mean(np.abs(estimates[:, 0] - log_evidence) < quantile * estimates[:, 1])
    assert 0.90 <= coverage <= 0.99, f"coverage {coverage}"
