"""Normal crossings against direct integrals, closed forms, numbers computed elsewhere, draws; and the rules of composition."""

import dataclasses
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from diagnostics.oracles import (
    ExactCoefficient,
    coefficient_of_product,
    coefficient_of_sum,
    monomial_coefficient,
    normal_crossing,
)
from diagnostics.oracles.quadrature import graded_rule

# Excess loss at n / log n, for n = 1e3, 1e4, 1e6, 1e9: computed once with another program, to the digits given.
TABLE = {
    (1, 0): (0.500, 0.500, 0.500, 0.500),
    (1, 1): (0.356, 0.388, 0.424, 0.449),
    (2, 0): (0.250, 0.250, 0.250, 0.250),
    (1, 2): (0.209, 0.227, 0.242, 0.249),
    (2, 2): (0.141, 0.161, 0.185, 0.204),
    (3, 1): (0.145, 0.156, 0.164, 0.166),
    (2, 3): (0.104, 0.119, 0.138, 0.152),
    (3, 3): (0.078, 0.092, 0.110, 0.125),
}


@pytest.mark.parametrize("orders", TABLE)
def test_excess_losses_equal_the_table(orders):
    excess = [normal_crossing(orders, n / np.log(n)).excess_loss for n in (1e3, 1e4, 1e6, 1e9)]
    np.testing.assert_allclose(excess, TABLE[orders], atol=5.1e-4)


@pytest.mark.parametrize(("orders", "prior_orders"), [((1, 1), (0, 0)), ((1, 2), (0, 0)), ((2, 3), (1, 0)), ((2, 1), (3, 2))])
@pytest.mark.parametrize("n", [2.0, 1e5])
def test_answers_equal_an_integral_over_the_parameters(orders, prior_orders, n):
    oracle = normal_crossing(orders, n, prior_orders)
    nodes, weights = graded_rule()
    one, other = ((h + 1) * nodes**h * weights for h in prior_orders)
    mass = np.outer(one, other)
    loss = n * np.outer(nodes ** (2 * orders[0]), nodes ** (2 * orders[1]))
    evidence = np.sum(mass * np.exp(-loss))
    # Both rules are exact to some 1e-13.
    assert np.exp(oracle.log_evidence) == pytest.approx(evidence, rel=1e-11)
    assert oracle.excess_loss == pytest.approx(np.sum(mass * np.exp(-loss) * loss) / evidence, rel=1e-11)
    assert oracle.covariance[0, 0] == pytest.approx(np.sum(mass * np.exp(-loss) * nodes[:, None] ** 2) / evidence, rel=1e-11)


@pytest.mark.parametrize(("order", "prior_order"), [(1, 0), (3, 0), (2, 4)])
def test_one_parameter_is_an_incomplete_gamma_function(order, prior_order):
    rate, n = (prior_order + 1) / (2 * order), 300.0
    evidence = rate * n**-rate * scipy.special.gamma(rate) * scipy.special.gammainc(rate, n)
    assert np.exp(normal_crossing([order], n, [prior_order]).log_evidence) == pytest.approx(evidence, rel=1e-11)


@pytest.mark.parametrize("oracle", [normal_crossing((1, 1), 145.0), normal_crossing((1, 2, 1), 50.0, (0, 1, 2))], ids=["2", "3"])
def test_draws_agree_with_the_answers(oracle, check):
    check.assert_draws(oracle)
    check.assert_evidence(oracle)


def test_density_has_gradients_everywhere():
    oracle = normal_crossing((1, 2, 0), 50.0, (0, 0, 2))
    for position in ([0.0, 0.0, 0.5], [-0.5, 0.3, -0.2]):
        x, y, z = position
        expected = [-100 * x * y**4, -200 * x**2 * y**3, 2 / z]
        np.testing.assert_allclose(jax.grad(oracle.log_density)(jnp.array(position)), expected, rtol=1e-5)


def test_the_asymptotic_coefficient_would_be_noticed(check):
    oracle = normal_crossing((1, 1), 145.0)
    with pytest.raises(AssertionError):
        check.assert_draws(dataclasses.replace(oracle, excess_loss=oracle.llc))


@pytest.mark.parametrize("orders", [(1,), (1, 1), (1, 2), (2, 2), (1, 1, 1), (2, 2, 2, 1)])
def test_excess_losses_tend_to_the_coefficient(orders):
    n = 1e30
    oracle = normal_crossing(orders, n)
    correction = (oracle.multiplicity - 1) / np.log(n)
    # The next term is a constant of order one over log^2 n, 2e-4, times m - 1, and squared constants of the other parameters.
    assert oracle.excess_loss == pytest.approx(oracle.llc - correction, abs=10 * correction / np.log(n) + 1e-6)


def test_sums_of_separate_potentials():
    parts = [monomial_coefficient([1, 1]), monomial_coefficient([3, 3]), monomial_coefficient([1])]
    assert coefficient_of_sum(*parts) == ExactCoefficient(Fraction(1, 2) + Fraction(1, 6) + Fraction(1, 2), 3)


@pytest.mark.parametrize(("first", "second"), [([1, 2], [2]), ([1], [1, 1]), ([3, 1], [2, 2])])
def test_products_of_separate_potentials_are_monomials(first, second):
    product = coefficient_of_product(monomial_coefficient(first), monomial_coefficient(second))
    assert product == monomial_coefficient(first + second)


@pytest.mark.parametrize(("orders", "prior_orders"), [([0, 0], None), ([-1], None), ([1.5], None), ([1], [0, 0]), ([1], [-1])])
def test_bad_orders_are_refused(orders, prior_orders):
    with pytest.raises(ValueError, match="orders must be integers"):
        normal_crossing(orders, 10.0, prior_orders)
