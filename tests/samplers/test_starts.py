"""Starts by Pathfinder: draws of a Gaussian where the target is one, each chain's its own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import Tempering, from_logdensity, pathfinder_starts

NUM_CHAINS, SCALE, MEAN = 200, jnp.array([1.0, 0.5]), jnp.array([3.0, -2.0])
TARGET, BATCH = from_logdensity(lambda x: -0.5 * jnp.sum(((x["a"] - MEAN) / SCALE) ** 2))
FAR = {"a": jnp.full((NUM_CHAINS, 2), 20.0)}


def test_draws_of_a_gaussian_from_far_away():
    """L-BFGS on a quadratic in two dimensions has the exact covariance where it ends."""
    starts = pathfinder_starts(jax.random.split(jax.random.key(0), NUM_CHAINS), TARGET, FAR, BATCH)["a"]
    standardised = np.asarray((starts - MEAN) / SCALE)
    np.testing.assert_array_less(abs(standardised.mean(0)), 5 / NUM_CHAINS**0.5)  # five standard errors of a mean
    np.testing.assert_array_less(abs(standardised.var(0, ddof=1) - 1), 5 * (2 / NUM_CHAINS) ** 0.5)  # and of a variance


def test_draws_are_of_the_tempered_density():
    keys = jax.random.split(jax.random.key(2), NUM_CHAINS)
    starts = pathfinder_starts(keys, TARGET, FAR, BATCH, tempering=Tempering.at(4.0))["a"]
    standardised = np.asarray((starts - MEAN) / SCALE) / 2  # at temperature 4, twice the standard deviation
    np.testing.assert_array_less(abs(standardised.var(0, ddof=1) - 1), 5 * (2 / NUM_CHAINS) ** 0.5)


def test_a_start_does_not_depend_on_the_chains_beside_it():
    keys = jax.random.split(jax.random.key(1), NUM_CHAINS)
    all_of_them, three = (pathfinder_starts(keys[:n], TARGET, {"a": FAR["a"][:n]}, BATCH)["a"] for n in (NUM_CHAINS, 3))
    np.testing.assert_array_equal(all_of_them[:3], three)
    assert len(np.unique(three, axis=0)) == 3


def test_no_iterations_are_refused():
    with pytest.raises(ValueError, match="num_iterations"):
        pathfinder_starts(jax.random.split(jax.random.key(0), NUM_CHAINS), TARGET, FAR, BATCH, num_iterations=0)
