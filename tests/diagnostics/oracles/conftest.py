"""Checks that every oracle goes through: what it says against independent draws and integrals of its own densities."""

import types

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

# Of a thousand fair comparisons one in a thousand passes five standard errors.
MAX_STANDARD_ERRORS = 5.0


def flat(positions):
    """Positions with a leading axis as [n, d], float64."""
    return np.asarray(jax.vmap(lambda position: ravel_pytree(position)[0])(positions), np.float64)


def standard_errors(values, expected):
    """How many of their standard errors the means of independent values [n, ...] lie from what is expected."""
    values = np.asarray(values, np.float64)
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    return np.abs(values.mean(0) - expected) / error


def assert_means(values, expected):
    assert np.max(standard_errors(values, expected)) < MAX_STANDARD_ERRORS


def losses(oracle, positions):
    """Log likelihood at the reference minus that at each position."""
    total = jax.jit(jax.vmap(lambda position: oracle.log_likelihood(position, oracle.data).sum()))
    reference = oracle.log_likelihood(oracle.reference, oracle.data).sum()
    return float(reference) - np.asarray(total(positions), np.float64)


def log_weights(oracle, positions):
    """Total log likelihood at each position, float64."""
    total = jax.jit(jax.vmap(lambda position: oracle.log_likelihood(position, oracle.data).sum()))
    return np.asarray(total(positions), np.float64)


def assert_evidence(oracle, num_draws=2**17, seed=1):
    """The mean likelihood of prior draws is the evidence, and the weighted mean loss the excess loss."""
    positions = oracle.draw_prior(jax.random.key(seed), num_draws)
    weights = np.exp(log_weights(oracle, positions) - oracle.log_evidence)
    assert (weights.sum() ** 2 / (weights**2).sum()) > 1000, "too few effective draws to tell"
    assert_means(weights, 1.0)
    if oracle.excess_loss is not None:
        assert_means(weights * (losses(oracle, positions) - oracle.excess_loss), 0.0)


def assert_draws(oracle, num_draws=2**15, seed=2):
    """Draws have the mean, the covariance, the excess loss and the masses of regions that the oracle states."""
    positions = oracle.draw(jax.random.key(seed), num_draws)
    if oracle.mean is not None:
        deviations = flat(positions) - oracle.mean
        assert_means(deviations, 0.0)
        assert_means(deviations[:, :, None] * deviations[:, None, :], oracle.covariance)
    if oracle.excess_loss is not None:
        assert_means(losses(oracle, positions), oracle.excess_loss)
    if oracle.regions is not None:
        regions = np.asarray(jax.jit(jax.vmap(oracle.regions.classify))(positions))
        for index, mass in enumerate(oracle.regions.masses):
            assert abs((regions == index).mean() - mass) <= MAX_STANDARD_ERRORS * np.sqrt(mass * (1 - mass) / num_draws)
            if oracle.regions.excess_loss is not None:
                assert_means(losses(oracle, positions)[regions == index], oracle.regions.excess_loss[index])


@pytest.fixture(scope="session")
def check():
    """The functions of this file, for tests that cannot import it."""
    functions = (assert_draws, assert_evidence, assert_means, flat, log_weights, losses, standard_errors)
    return types.SimpleNamespace(**{function.__name__: function for function in functions})
