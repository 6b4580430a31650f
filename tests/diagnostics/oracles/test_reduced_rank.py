"""Linear networks: two theorems against each other and against composition; evidence against other integrals and prior draws."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from diagnostics.oracles import coefficient_of_product, deep_linear, deep_linear_coefficient, reduced_rank_coefficient
from diagnostics.oracles.quadrature import panel_rule

# Widths, rank: learning coefficient and multiplicity.
TABLE = {
    ((1, 1, 1), 0): (Fraction(1, 2), 2),
    ((1, 1, 1, 1), 0): (Fraction(1, 2), 3),
    ((2, 1, 2), 0): (1, 2),
    ((2, 1, 2), 1): (Fraction(3, 2), 1),
    ((2, 2, 2), 0): (Fraction(3, 2), 1),
    ((2, 2, 2), 1): (2, 2),
    ((2, 2, 2, 2), 0): (Fraction(3, 2), 3),
    ((3, 3, 3), 1): (4, 1),
    ((3, 3, 3, 3), 1): (4, 3),
    ((3, 3, 3, 3), 0): (3, 1),
    ((4, 4, 4), 2): (Fraction(15, 2), 1),
}


@pytest.mark.parametrize(("widths", "rank"), TABLE)
def test_coefficients_equal_the_table(widths, rank):
    assert deep_linear_coefficient(widths, rank) == TABLE[widths, rank]


def test_the_two_theorems_agree_for_two_layers():
    cases = [(*widths, r) for widths in itertools.product(range(1, 8), repeat=3) for r in range(min(widths) + 1)]
    assert len(cases) == 1127
    for m, h, n, r in cases:
        assert deep_linear_coefficient([m, h, n], r) == reduced_rank_coefficient(m, h, n, r)


def test_a_layer_of_one_unit_splits_a_network_into_a_product():
    for widths in itertools.product([1, 2, 3], [1, 2, 4], [1], [1, 3], [2, 3]):
        parts = deep_linear_coefficient(widths[:3], 0), deep_linear_coefficient(widths[2:], 0)
        assert deep_linear_coefficient(widths, 0) == coefficient_of_product(*parts)


def test_a_chain_of_scalars_is_a_normal_crossing():
    for depth in range(2, 7):
        assert deep_linear_coefficient([1] * (depth + 1), 0) == (Fraction(1, 2), depth)


def test_full_rank_is_regular():
    # All m n entries of the product are then identified, and near the truth it is linear in them.
    assert deep_linear_coefficient([3, 5, 4, 3], 3) == (Fraction(9, 2), 1)


@pytest.mark.parametrize("widths", [(1, 1, 1), (2, 1, 3), (3, 2, 2), (2, 2, 2), (2, 5, 3), (3, 2, 6)])
def test_evidence_agrees_with_prior_draws(widths, check):
    # So little data that a hundredth of prior draws counts.
    check.assert_evidence(deep_linear(widths, 4.0, prior_scale=0.7), num_draws=2**16)


def test_one_hidden_unit_is_a_one_dimensional_integral():
    n, scale = 1e4, 1.3
    oracle = deep_linear((3, 1, 5), n, prior_scale=scale)
    # Given the first layer, of squared norm q ~ scale^2 chi^2_3, each of the five rows of the second is one Gaussian integral.
    density = lambda q: scipy.stats.chi2(3).pdf(q) * (1 + n * scale**4 * q) ** (-5 / 2)  # noqa: E731
    pieces = [
        scipy.integrate.quad(density, a, b, epsabs=0, epsrel=1e-9)[0] for a, b in itertools.pairwise([0, 1e-4, 1e-2, 1, 10, 100])
    ]
    assert oracle.log_evidence == pytest.approx(np.log(sum(pieces)), abs=1e-6)


def test_two_hidden_units_are_an_integral_over_a_triangle():
    # Bartlett: A A^T = L L^T, with L11^2 ~ chi^2_3, L22^2 ~ chi^2_2, L21 ~ N(0, 1) for A of shape [2, 3]; smooth at this n.
    n, outputs = 5.0, 4
    nodes, weights = panel_rule(np.linspace(0, 12, 5))
    first, second, across = nodes[:, None, None], nodes[:, None], nodes
    density = first**2 * second * np.exp(-(first**2 + second**2 + across**2) / 2)
    density = density * weights[:, None, None] * weights[:, None] * weights
    determinant = 1 + n * (first**2 + second**2 + across**2) + n**2 * (first * second) ** 2
    expected = np.log(np.sum(density * determinant ** (-outputs / 2)) / density.sum())
    assert deep_linear((3, 2, outputs), n).log_evidence == pytest.approx(expected, abs=1e-6)


def test_wide_layers_do_not_overflow():
    # Regular but for the hidden layer: 60 singular values' worth of rows, each of two parameters.
    oracle = deep_linear((60, 2, 60), 1e8)
    assert oracle.excess_loss == pytest.approx(oracle.llc, rel=0.05)


@pytest.mark.parametrize("widths", [(1, 1, 1), (2, 1, 2), (1, 2, 2), (2, 2, 2), (3, 2, 2), (2, 4, 3)])
def test_excess_losses_tend_to_the_coefficient(widths):
    n = 1e14
    oracle = deep_linear(widths, n)
    correction = (oracle.multiplicity - 1) / np.log(n)
    # Of the next term, of order 1 / log^2 n with a constant that the test of normal crossings finds below 10.
    assert oracle.excess_loss == pytest.approx(oracle.llc - correction, abs=10 * correction / np.log(n) + 1e-3)


def test_excess_loss_is_the_slope_of_the_free_energy():
    # A central difference in log n of step h is off by a sixth of h^2 times the third derivative, of order one.
    step, n = 1e-3, 500.0
    above, below = (deep_linear((2, 2, 3), n * np.exp(sign * step)).log_evidence for sign in (1, -1))
    assert deep_linear((2, 2, 3), n).excess_loss == pytest.approx(-(above - below) / (2 * step), abs=step**2)


def test_three_square_layers_have_a_coefficient_of_three_halves_and_a_multiplicity_of_three():
    # Independent of the theorem: the last layer integrates out, E det(1 + n A A^T)^-1 is left, A being a product of two matrices
    # of given directions, by draws, and norms, by quadrature: that of two chi_4 variables has the density r^3 K_0(r).
    n, rng = 1e3, np.random.default_rng(0)
    one, other = (x / np.linalg.norm(x, axis=(1, 2), keepdims=True) for x in rng.normal(size=(2, 2**18, 2, 2)))
    product = other @ one
    trace, determinant = (product**2).sum((1, 2)), np.linalg.det(product) ** 2
    nodes, weights = panel_rule(np.linspace(-12, 2.5, 7))
    likelihood, loss = np.zeros(len(trace)), np.zeros(len(trace))
    for log_norm, weight in zip(nodes, weights, strict=True):
        norm = np.exp(log_norm)
        first, second = n * norm**2 * trace, (n * norm**2) ** 2 * determinant
        share = weight * norm**4 * scipy.special.k0(norm) / (1 + first + second)
        likelihood += share
        loss += share * (first + 2 * second) / (1 + first + second)
    excess = loss.mean() / likelihood.mean()
    error = (loss - excess * likelihood).std() / np.sqrt(len(trace)) / likelihood.mean()
    llc, multiplicity = deep_linear_coefficient([2, 2, 2, 2], 0)
    # The next term is of order 1 / log^2 n; a multiplicity that is off by one would be 1 / log n.
    tolerance = 5 * error + 1 / np.log(n) ** 2
    assert abs(excess - (llc - (multiplicity - 1) / np.log(n))) < tolerance < 0.7 / np.log(n)


@pytest.mark.parametrize("rank", [0, 1])
def test_draws_agree_with_the_answers(rank, check):
    oracle = deep_linear((2, 2, 2), 3.0, rank=rank)
    check.assert_draws(oracle)
    assert float(oracle.log_likelihood(oracle.reference, oracle.data).sum()) == 0
    assert (oracle.log_evidence is None) == (rank == 1)


@pytest.mark.parametrize(("widths", "rank"), [([2, 2], 0), ([2, 0, 2], 0), ([2, 2, 2], 3), ([2, 2, 2], -1), ([2, 200, 2], 0)])
def test_bad_widths_are_refused(widths, rank):
    with pytest.raises(ValueError, match="must be"):
        deep_linear(widths, 10.0, rank=rank)
