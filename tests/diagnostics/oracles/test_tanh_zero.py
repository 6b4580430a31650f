"""Tanh networks of the zero function: evidence by other integrals and by prior draws, coefficients by their slopes."""

from fractions import Fraction

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from diagnostics.oracles import tanh_zero, tanh_zero_coefficient
from diagnostics.oracles.quadrature import panel_rule


def test_coefficients_equal_the_table():
    table = {1: (Fraction(1, 2), 2), 2: (Fraction(2, 3), 1), 3: (Fraction(5, 6), 1), 4: (1, 2), 9: (Fraction(3, 2), 2)}
    assert {units: tanh_zero_coefficient(units) for units in table} == table


@pytest.mark.parametrize("num_hidden", [1, 2])
@pytest.mark.parametrize("n", [3.0, 100.0])
def test_answers_agree_with_draws(num_hidden, n, check):
    oracle = tanh_zero(num_hidden, n, prior_scale=1.5)
    check.assert_evidence(oracle)
    check.assert_draws(oracle)


@pytest.mark.parametrize("n", [10.0, 1e4])
def test_one_unit_is_a_one_dimensional_integral(n):
    # E over x ~ U(0, 1) of tanh(a x)^2 is 1 - tanh(a) / a.
    def density(a):
        return 2 * scipy.stats.norm.pdf(a) / np.sqrt(1 + n * (1 - np.tanh(a) / a))

    value = sum(scipy.integrate.quad(density, *ends, epsrel=1e-12)[0] for ends in [(1e-12, 0.1), (0.1, 1), (1, 12)])
    # The inner weights are up to 12 prior scales, where 12 nodes integrate tanh^2 to 1e-4; those of order one to 1e-12.
    assert tanh_zero(1, n).log_evidence == pytest.approx(np.log(value), abs=1e-6)


def test_two_units_on_a_plain_grid():
    # Gauss-Legendre panels over a quadrant, with G as a matrix: all is smooth at so small an n.
    n = 50.0
    a, weights = panel_rule(np.linspace(0, 12, 25))
    nodes, mass = np.polynomial.legendre.leggauss(12)
    outputs = np.tanh(np.outer((1 + nodes) / 2, a)) * np.sqrt(mass / 2)[:, None]
    gram = outputs.T @ outputs
    determinant = (1 + n * np.diag(gram))[:, None] * (1 + n * np.diag(gram)) - (n * gram) ** 2
    density = weights * np.exp(-(a**2) / 2)
    value = density @ determinant**-0.5 @ density / density.sum() ** 2
    assert tanh_zero(2, n).log_evidence == pytest.approx(np.log(value), abs=1e-6)


@pytest.mark.parametrize("num_hidden", [1, 2])
def test_excess_losses_tend_to_the_coefficient(num_hidden):
    n = 1e10
    oracle = tanh_zero(num_hidden, n)
    correction = (oracle.multiplicity - 1) / np.log(n)
    # Next comes a constant over log^2 n for one unit. For two, powers of n^-(1/6), 0.02, with a factor of order one.
    assert oracle.excess_loss == pytest.approx(oracle.llc - correction, abs=5 * correction / np.log(n) + 0.02 * (num_hidden == 2))


def test_the_coefficient_of_one_unit_more_would_be_noticed():
    assert abs(tanh_zero(2, 1e10).excess_loss - float(tanh_zero_coefficient(3).llc)) > 0.1
    assert abs(tanh_zero(2, 1e10).excess_loss - float(tanh_zero_coefficient(1).llc)) > 0.1


def test_five_units_can_be_sampled(check):
    oracle = tanh_zero(5, 30.0)
    assert oracle.log_evidence is None
    losses = check.losses(oracle, oracle.draw(jax.random.key(0), 1000))
    # Local moves out of a point where all weights vanish: the loss stays below that of a regular model of ten parameters.
    assert losses.min() >= 0
    assert losses.mean() < 5


@pytest.mark.parametrize("arguments", [(0, 10.0), (6, 10.0), (2, -1.0)])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        tanh_zero(*arguments)
