"""The double well against adaptive quadrature, numbers computed elsewhere, asymptotics and draws."""

import dataclasses

import numpy as np
import pytest
import scipy.integrate
import scipy.special

from diagnostics.oracles import double_well
from diagnostics.oracles.quadrature import graded_rule

# n: mass of the quartic well, excess losses of both, minus log evidence; computed once with another program, to the digits given.
TABLE = {
    1: (0.7348, 0.503, 0.276, -0.679),
    3: (0.7900, 0.598, 0.301, -0.276),
    10: (0.8388, 0.520, 0.268, 0.122),
    30: (0.8724, 0.506, 0.259, 0.450),
    100: (0.9020, 0.502, 0.254, 0.792),
    10000: (0.9666, 0.500, 0.250, 2.020),
}


@pytest.mark.parametrize("n", TABLE)
def test_answers_equal_the_table(n):
    oracle = double_well(n)
    mass, left, right, free_energy = TABLE[n]
    assert oracle.regions.masses[1] == pytest.approx(mass, abs=5.1e-5)
    np.testing.assert_allclose(oracle.regions.excess_loss, [left, right], atol=5.1e-4)
    # The table's free energy leaves out the prior density, 1 / 4.
    assert -oracle.log_evidence - np.log(4) == pytest.approx(free_energy, abs=5.1e-4)


@pytest.mark.parametrize("orders", [(1, 2), (2, 1), (3, 1)])
def test_answers_equal_adaptive_quadrature(orders):
    oracle, (a, b), n = double_well(20.0, orders), orders, 20.0
    saddle = (a - b) / (a + b)

    def integral(power, lower, upper):
        density = lambda w: w**power * np.exp(-n * (w + 1) ** (2 * a) * (w - 1) ** (2 * b)) / 4  # noqa: E731
        return scipy.integrate.quad(density, lower, upper, epsabs=1e-13, epsrel=1e-12, limit=200)[0]

    masses = [integral(0, -2, saddle), integral(0, saddle, 2)]
    np.testing.assert_allclose(np.exp(oracle.regions.log_evidence), masses, rtol=1e-10)
    mean = integral(1, -2, 2) / sum(masses)
    assert oracle.mean[0] == pytest.approx(mean, rel=1e-9)
    assert oracle.covariance[0, 0] == pytest.approx(integral(2, -2, 2) / sum(masses) - mean**2, rel=1e-9)


@pytest.mark.parametrize("n", [3, 1000])
def test_draws_agree_with_the_answers(n, check):
    check.assert_draws(double_well(n))
    check.assert_evidence(double_well(n))


def test_equal_masses_would_be_noticed(check):
    oracle = double_well(30)
    fair = oracle.regions._replace(log_evidence=np.zeros(2))
    with pytest.raises(AssertionError):
        check.assert_draws(dataclasses.replace(oracle, regions=fair))


def test_excess_losses_tend_to_the_learning_coefficients():
    oracle = double_well(1e12, (1, 3))
    # Corrections fall as the width of the wells: n^(-1/6) would be 1e-2 for the steepest, with a factor of order one.
    np.testing.assert_allclose(oracle.regions.excess_loss, oracle.regions.llc, atol=1e-2)
    assert oracle.llc == pytest.approx(1 / 6)


def test_graded_rule_resolves_peaks_of_any_width():
    nodes, weights = graded_rule(2.0)
    for scale in (1.0, 1e-4, 1e-12):
        # The integral of exp(-x^6) from 0 to infinity is Gamma(7/6); what lies beyond 2 / scale is below 1e-27 of it.
        value = weights @ np.exp(-((nodes / scale) ** 6)) / scale
        assert value == pytest.approx(scipy.special.gamma(7 / 6), rel=1e-12)


@pytest.mark.parametrize("arguments", [(0,), (-1.0,), (10, (0, 1)), (10, (1, 1.5)), (10, (1,))])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        double_well(*arguments)
