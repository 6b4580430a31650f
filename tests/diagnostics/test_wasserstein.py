"""Wasserstein distances: closed forms, SciPy, and the competition's score under its own name."""

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.stats import norm

from diagnostics.wasserstein import mixture_quantiles, negative_mean_wasserstein_1, quantiles, wasserstein_distance


def test_orders_against_all_pairings():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 6))
    pairings = [one - other[list(order)] for order in itertools.permutations(range(6))]
    assert wasserstein_distance(one, other) == pytest.approx(min(np.abs(gap).mean() for gap in pairings))
    # The definition of Wilson et al. 2022 has no mean: sqrt(n) times ours.
    published = min(np.sqrt(np.square(gap).sum()) for gap in pairings)
    assert np.sqrt(6) * wasserstein_distance(one, other, order=2) == pytest.approx(published)


def test_the_competitions_score_is_of_first_order_whatever_it_is_called():
    rng = np.random.default_rng(1)
    samples, reference = rng.normal(size=(5, 1000)), rng.normal(0.3, 1.5, size=(5, 1000))
    kit = -np.mean([stats.wasserstein_distance(*pair) for pair in zip(samples, reference, strict=True)])
    assert negative_mean_wasserstein_1(samples, reference) == pytest.approx(kit)
    # Negative control: it is not the distance of second order.
    assert abs(-wasserstein_distance(samples, reference, order=2).mean() - kit) > 0.1


def test_quantiles_of_a_mixture_are_those_of_its_distribution():
    rng = np.random.default_rng(2)
    mean, scale = rng.normal(size=(40, 3)), rng.uniform(0.5, 1, (40, 3))
    found = mixture_quantiles(mean, scale)
    level = norm.cdf((found[..., None] - mean.T[:, None]) / scale.T[:, None]).mean(-1)
    # Each of 40 normals stands as 50 values, whose level is off by a uniform of width 1/50: five standard errors of their mean.
    np.testing.assert_allclose(level, np.broadcast_to((np.arange(100) + 0.5) / 100, level.shape), atol=5 / 50 / np.sqrt(12 * 40))


def test_shifted_and_widened_normals_by_their_closed_form():
    # W2 between normals: the root of (difference of means)^2 + (difference of sd)^2; W1 of a pure shift: the shift.
    one, shifted, wide = (mixture_quantiles(np.full((1, 1), m), np.full((1, 1), s)) for m, s in ((0, 1), (0.7, 1), (0.3, 2)))
    assert wasserstein_distance(one, shifted)[0] == pytest.approx(0.7)
    # 100 quantiles cut the tails beyond 2.6 sd, which hold 1.5 % of a variance and 3 % of what W2 squares.
    assert wasserstein_distance(one, wide, order=2)[0] == pytest.approx(np.hypot(0.3, 1), rel=0.02)


def test_quantiles_of_as_many_samples_are_the_samples():
    samples = np.random.default_rng(3).normal(size=(2, 100))
    np.testing.assert_allclose(quantiles(samples, 100), np.sort(samples), rtol=1e-12)
    assert quantiles(np.array([2.0]), 3).tolist() == [2.0, 2.0, 2.0]


def test_bad_arguments():
    with pytest.raises(ValueError, match="as many, got 3 and 4"):
        wasserstein_distance(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="order must be 1 or 2, got 3"):
        wasserstein_distance(np.zeros(3), np.zeros(3), 3)
