"""Mixtures: masses of slabs, moments and evidence against draws and against an integral on a grid."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.stats

from diagnostics.oracles import gaussian_mixture

OVERLAPPING = gaussian_mixture(
    [0.5, 0.2, 0.3], [[0, 0], [3, 1], [-2, 0.5]], [np.diag([1.0, 0.3]), [[0.5, 0.2], [0.2, 0.4]], 0.25 * np.eye(2)], 4.0
)
SEPARATE = gaussian_mixture([1, 9], [[-3.0], [2.0]], [0.04, 0.25], 3.0, log_evidence=-20.0)


@pytest.mark.parametrize("oracle", [OVERLAPPING, SEPARATE], ids=["overlapping", "separate"])
def test_draws_agree_with_the_answers(oracle, check):
    check.assert_draws(oracle)
    check.assert_evidence(oracle)
    assert oracle.regions.masses.sum() == pytest.approx(1, abs=1e-14)


def test_a_wrong_mass_would_be_noticed(check):
    moved = OVERLAPPING.regions._replace(log_evidence=OVERLAPPING.regions.log_evidence + np.array([0.1, 0, 0]))
    with pytest.raises(AssertionError):
        check.assert_draws(dataclasses.replace(OVERLAPPING, regions=moved))


def test_density_is_that_of_scipy():
    points = np.random.default_rng(0).normal(size=(50, 2)) * 2
    parts = [([0, 0], np.diag([1.0, 0.3]), 0.5), ([3, 1], [[0.5, 0.2], [0.2, 0.4]], 0.2), ([-2, 0.5], 0.25 * np.eye(2), 0.3)]
    expected = np.log(sum(mass * scipy.stats.multivariate_normal(mean, spread).pdf(points) for mean, spread, mass in parts))
    # Exponents of up to a few hundred, rounded in float32.
    np.testing.assert_allclose(jax.vmap(OVERLAPPING.log_density)(points.astype(np.float32)), expected, atol=2e-4, rtol=2e-6)


def test_modes_in_different_slabs_have_their_components_masses():
    np.testing.assert_allclose(SEPARATE.regions.masses, [0.1, 0.9], rtol=1e-9)  # overlap of 7 standard deviations
    assert SEPARATE.log_evidence == -20.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1], [[0.0]], [1.0], 1.0), "take a larger prior_scale"),
        (([1], [[0.0]], [1.0], -1.0), "prior_scale must be positive"),
        (([1, 0], [[0.0], [1.0]], [1.0, 1.0], 3.0), "masses must be positive"),
        (([1, 1], [[0.0], [0.0]], [1.0, 1.0], 3.0), "name another direction"),
        (([1, 1], [[0.0], [0.0]], [1.0], 3.0), "covariances must be"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_mixture(*arguments)
