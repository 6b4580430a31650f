"""Verdicts on differences: each rule comes out three ways, and intervals hold what they promise."""

import numpy as np
import pytest
from scipy.special import ndtri

from diagnostics.estimates import LEVEL, Estimate
from diagnostics.hypotheses import (
    all_of,
    best_share,
    conjunction,
    constant_scores,
    detectable,
    equivalence,
    non_inferiority,
    over_splits,
    paired_gain,
    paired_group_gain,
    point_scores,
    simultaneous_level,
    superiority,
    weakest,
)
from diagnostics.trees import make_tree

UP, ZERO, DOWN, WIDE = Estimate(0.05, 0.02, 0.08), Estimate(0, -0.005, 0.005), Estimate(-0.05, -0.08, -0.02), Estimate(0, -1, 1)


@pytest.mark.parametrize(
    ("rule", "verdicts"),
    [
        (superiority, ("supported", "inconclusive", "contradicted", "inconclusive")),
        (non_inferiority, ("supported", "supported", "contradicted", "inconclusive")),
        (equivalence, ("contradicted", "supported", "contradicted", "inconclusive")),
    ],
)
def test_every_rule_comes_out_three_ways(rule, verdicts):
    assert tuple(rule(estimate) for estimate in (UP, ZERO, DOWN, WIDE)) == verdicts


def test_one_contradiction_outweighs_and_support_needs_all():
    assert conjunction(["supported", "supported"]) == "supported"
    assert conjunction(["supported", "inconclusive"]) == "inconclusive"
    assert conjunction(["supported", "inconclusive", "contradicted"]) == "contradicted"
    assert conjunction([]) == "inconclusive"


def test_what_says_much_is_not_contradicted_by_chance():
    """Ten gains of zero: one interval in forty lies below zero by chance, of those that hold together one in four hundred."""
    noise = np.random.default_rng(0).normal(size=(2000, 10))

    def verdict(values, level):
        half = ndtri((1 + level) / 2)
        return [superiority(Estimate(value, value - half, value + half)) for value in values]

    contradicted = np.mean([all_of(lambda level, row=row: verdict(row, level)) == "contradicted" for row in noise])
    uncorrected = np.mean(["contradicted" in verdict(row, LEVEL) for row in noise])
    assert contradicted < 0.025 + 4 * np.sqrt(0.025 * 0.975 / 2000)  # one tail of the interval
    assert uncorrected > 0.15
    # Support needs all, each at its own level: 2.2 lies above zero there, and not by the intervals that hold together.
    assert all_of(lambda level: verdict([2.2, 9.0], level)) == "supported"
    assert all_of(lambda level: verdict([1.9, 9.0], level)) == "inconclusive"
    assert all_of(lambda level: verdict([-2.2, 9.0], level)) == "inconclusive"
    assert all_of(lambda level: verdict([-2.3, 9.0], level)) == "contradicted"


def coverage(estimate_of, truth: float, num_repeats: int = 200) -> float:
    found = [estimate_of(np.random.default_rng(seed)) for seed in range(num_repeats)]
    return float(np.mean([one.lower <= truth <= one.upper for one in found]))


@pytest.mark.slow
@pytest.mark.parametrize("num_members", [3, 8])
def test_intervals_hold_a_planted_gain(num_members):
    """95 % intervals hold the truth in 200 repeats within 4 binomial standard deviations, 0.015 each."""

    def one(rng):
        points = rng.normal(size=200)
        members = rng.normal(scale=0.3, size=(num_members, 1))
        noise = rng.normal(scale=0.5, size=(num_members, 200))
        return paired_gain(points[None] + 0.1, points[None] + members + noise)

    assert coverage(one, 0.1) >= 0.95 - 4 * 0.015


def test_intervals_that_ignore_seeds_would_be_too_short():
    def ignorant(rng):
        points = rng.normal(size=200)
        members = rng.normal(scale=0.3, size=(8, 1))
        return paired_gain(points[None] + 0.1, (points[None] + members).mean(0, keepdims=True))

    assert coverage(ignorant, 0.1) < 0.5


def test_splits_share_their_examples():
    """Twenty splits of 100 examples, one in ten of them for testing: what the training mean gains over predicting zero."""
    mean, num_train, splits = 0.3, 90, 20

    def over(test_to_train):
        def one(rng):
            y = mean + rng.normal(size=100)
            orders = [rng.permutation(y) for _ in range(splits)]
            gains = [np.mean(x[num_train:] ** 2 - (x[num_train:] - x[:num_train].mean()) ** 2) for x in orders]
            return over_splits(gains, test_to_train)

        return coverage(one, mean**2 - 1 / num_train)

    assert over(10 / num_train) >= 0.95 - 4 * 0.015
    assert over(0.0) < 0.95 - 4 * 0.015  # the negative control: as if splits were independent


def test_groups_are_resampled():
    """The gain differs from corruption to corruption, and the interval says so: Student's with 5 degrees of freedom."""
    rng = np.random.default_rng(0)
    shifts = rng.normal(1.0, 0.5, 6)
    zeros = [np.zeros((1, 400))] * 6
    gain = paired_group_gain([np.full((1, 400), shift) for shift in shifts], zeros)
    spread = shifts.std(ddof=1) / np.sqrt(6)
    assert gain.value == pytest.approx(shifts.mean())
    # The ends of a percentile interval of 1,000 resamples are known to about 5 %.
    assert gain.upper - gain.lower == pytest.approx(2 * 2.571 * spread, rel=0.15)


def test_pairing_needs_the_same_points():
    with pytest.raises(ValueError, match="3 and 4 test points"):
        paired_gain(np.zeros((1, 3)), np.zeros((1, 4)))
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_group_gain([np.zeros((1, 3))], [np.zeros((1, 3))] * 2)


def test_simultaneous_intervals_are_wider():
    scores = np.random.default_rng(0).normal(size=(1, 500))
    one, many = (paired_gain(scores, np.zeros((1, 500)), simultaneous_level(count)) for count in (1, 10))
    assert many.upper - many.lower > 1.2 * (one.upper - one.lower)  # normal quantiles: 2.81 / 1.96 = 1.43


def test_what_could_have_been_found():
    assert detectable(Estimate(0.0, -1.96, 1.96)) == pytest.approx(2.802, abs=1e-3)  # standard error 1; digits of 1.96


@pytest.mark.parametrize("num_comparisons", [1, 5, 20])
def test_detectable_differences_are_found_in_four_cases_of_five(num_comparisons):
    """4,000 repeats, so that the share has a standard deviation of 0.0063."""
    rng, level = np.random.default_rng(0), simultaneous_level(num_comparisons)
    noise = rng.normal(size=(4000, 1000))
    wide = np.mean([detectable(over_splits(row, 0.0, level), level) for row in noise[:100]])
    gains = [over_splits(row + wide, 0.0, level) for row in noise]
    assert np.mean([superiority(gain) == "supported" for gain in gains]) == pytest.approx(0.8, abs=4 * 0.0063)


def test_a_level_that_is_not_told_overstates_what_can_be_found():
    """The negative control: of five comparisons by 7.7 %, the ratio of 2.80 / 1.96 to 3.42 / 2.58."""
    half = 2.576  # standard errors, of an interval of 99 %
    one = Estimate(0.0, -half, half)
    assert detectable(one) / detectable(one, simultaneous_level(5)) == pytest.approx(1.0774, abs=1e-3)  # digits of 2.576


def test_the_best_method_wins_most_resamples():
    points = np.random.default_rng(0).normal(size=(1, 300))
    shares = best_share([points, points + 0.2, points - 0.2])
    assert shares.tolist() == [0.0, 1.0, 0.0]


def test_members_that_differ_leave_open_which_is_best():
    """On the same points, one method's members scatter by more than its lead."""
    points = np.random.default_rng(0).normal(size=(1, 300))
    members = points + np.array([-0.4, -0.2, 0.1, 0.6])[:, None]  # 0.025 better on average
    assert 0.3 < best_share([points, members])[1] < 0.8
    assert best_share([points, members.mean(0, keepdims=True)]).tolist() == [0.0, 1.0]


def test_the_best_constant_prediction():
    def tree(task, functions, y):
        attrs, weights = {"kind": "mcmc", "task": task}, {"w": np.zeros((1, 1))}
        return make_tree(attrs=attrs, posterior=weights, functions=functions, observed_data={"y_test": y})

    classes = constant_scores(tree("classification", {"probability": np.full((1, 1, 4, 2), 0.5)}, np.array([0, 1, 1, 1])))
    np.testing.assert_allclose(classes["log_score"], np.log([[0.25, 0.75, 0.75, 0.75]]))
    assert classes["accuracy"].tolist() == [[0, 1, 1, 1]]
    numbers = constant_scores(
        tree("regression", {"mean": np.zeros((1, 1, 2)), "scale": np.ones((1, 1, 2))}, np.array([1.0, 3.0]))
    )
    np.testing.assert_allclose(numbers["squared_error"], [[-1.0, -1.0]])
    np.testing.assert_allclose(numbers["log_score"], -0.5 * np.log(2 * np.pi * np.e))


def test_scores_of_the_mixture_and_of_each_chain():
    probability = np.zeros((2, 1, 3, 2))
    probability[0, 0], probability[1, 0] = [0.9, 0.1], [0.2, 0.8]
    y = np.array([0, 0, 1])
    tree = make_tree(
        attrs={"kind": "ensemble", "task": "classification"},
        posterior={"w": np.zeros((2, 1))},
        functions={"probability": probability, "log_likelihood": np.log(probability[:, :, [0, 1, 2], y])},
        observed_data={"y_test": y},
    )
    pooled, split = point_scores(tree), point_scores(tree, by_chain=True)
    np.testing.assert_allclose(pooled["log_score"], np.log([[0.55, 0.55, 0.45]]))
    np.testing.assert_allclose(split["log_score"], np.log([[0.9, 0.9, 0.1], [0.2, 0.2, 0.8]]))
    assert pooled["accuracy"].tolist() == [[1, 1, 0]]
    assert split["accuracy"].tolist() == [[1, 1, 0], [0, 0, 1]]


def test_a_verdict_rests_on_the_part_that_decides_it():
    """Not on the one that lies lowest: an interval that is wide leaves open what a narrow one settles."""
    parts = {"low": Estimate(-0.005, -0.008, -0.002), "wide": Estimate(0.001, -0.02, 0.02), "high": Estimate(0.1, 0.09, 0.11)}
    assert weakest(parts, non_inferiority) == "wide"
    assert weakest(parts | {"behind": Estimate(-0.015, -0.018, -0.012)}, non_inferiority) == "behind"
    assert weakest({name: parts[name] for name in ("high", "low")}, non_inferiority) == "low"
