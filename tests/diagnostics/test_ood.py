"""Areas under the ROC curve: against a count of pairs and a known value, intervals that hold what they promise."""

import numpy as np
import pytest
from scipy.stats import norm

from diagnostics.ood import auroc, auroc_difference


def test_the_area_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 6, 40).astype(float), rng.integers(2, 8, 30).astype(float)  # with many ties
    pairs = outside[None] - inside[:, None]
    assert auroc(inside, outside).value == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)), abs=1e-12)
    assert auroc(outside, inside).value == pytest.approx(1 - auroc(inside, outside).value, abs=1e-12)


def test_ties_alone_tell_nothing():
    assert auroc(np.ones(30), np.ones(20)).value == 0.5


@pytest.mark.parametrize(("shift", "sizes"), [(0.0, (60, 60)), (1.0, (40, 80)), (2.5, (100, 30))])
def test_intervals_hold_the_truth(shift, sizes):
    rng = np.random.default_rng(1)
    truth = norm.cdf(shift / np.sqrt(2))
    hits = 0
    for _ in range(200):
        estimate = auroc(rng.normal(size=sizes[0]), rng.normal(shift, 1, sizes[1]))
        hits += estimate.lower <= truth <= estimate.upper
    assert hits >= 178  # 190 less four binomial standard errors of 3.1


def test_perfect_separation_of_few_points_is_not_certain():
    few, many = (auroc(np.zeros(number), np.ones(number)) for number in (5, 500))
    assert (few.value, few.upper) == (1, 1)
    assert few.lower < 0.8 < 0.99 < many.lower < 1
    assert auroc(np.ones(5), np.zeros(5)) == pytest.approx((0, 0, 1 - few.lower), abs=1e-9)


def test_differences_are_paired_and_their_intervals_hold():
    rng = np.random.default_rng(2)
    hits, widths, truth = 0, [], norm.cdf(1.2 / np.sqrt(2.5)) - norm.cdf(1.0 / np.sqrt(2.5))
    for _ in range(200):
        inside, outside = rng.normal(size=150), rng.normal(size=150)
        noise = [0.5 * rng.normal(size=(2, 150)) for _ in range(2)]  # variance 1 + 1/4 of each score
        one, other = ((inside + e[0], outside + d + e[1]) for d, e in zip((1.2, 1.0), noise, strict=True))
        estimate = auroc_difference(*one, *other)
        hits += estimate.lower <= truth <= estimate.upper
        widths.append(estimate.upper - estimate.lower)
    assert hits >= 178  # 190 less four binomial standard errors
    single = auroc(*one)
    assert np.mean(widths) < np.sqrt(2) * (single.upper - single.lower)  # narrower than of unpaired points


def test_two_perfect_separations_of_few_points_are_not_certainly_alike():
    few, many = (auroc_difference(*(np.zeros(n), np.ones(n)) * 2) for n in (5, 500))
    assert few.value == many.value == 0
    assert few.lower < -0.15 < -0.01 < many.lower < 0 < many.upper < 0.01 < 0.15 < few.upper
    scores = np.random.default_rng(3).normal(size=(2, 200))
    same = auroc_difference(*scores, *scores)
    assert same.upper - same.lower < 0.01  # one method beside itself: as good as certain


def test_bad_scores():
    assert np.isnan(auroc(np.array([0.0, np.nan]), np.ones(3))).all()
    with pytest.raises(ValueError, match="points of both kinds, got 0 inside and 3 outside"):
        auroc(np.zeros(0), np.ones(3))
    with pytest.raises(ValueError, match="2 inside and 3 outside cannot be paired with scores of 3 inside and 3 outside"):
        auroc_difference(np.ones(2), np.ones(3), np.ones(3), np.ones(3))
