"""Coverage of counts: exact for what is predicted, where intervals of normal distributions are far off."""

import numpy as np
import pytest
from scipy.stats import nbinom, poisson

from diagnostics.calibration import LEVELS, count_coverage, coverage
from diagnostics.predictive import scores
from diagnostics.trees import make_tree

COUNTS = np.arange(200.0)  # beyond, no distribution here has as much as 1e-12


def predicted(means, variances, num_points=200):
    """Return the same draws of one chain at every point."""
    return [np.repeat(np.asarray(values, float)[None, :, None], num_points, 2) for values in (means, np.sqrt(variances))]


@pytest.mark.parametrize("rates", [[0.3], [4.0], [0.5, 6.0], [40.0, 40.0, 90.0]])
def test_of_right_predictions_every_interval_covers_its_level(rates):
    """Summed over all counts, to rounding; the stored moments are of float32."""
    mean, scale = predicted(rates, rates)
    probability = poisson.pmf(COUNTS[:, None], rates).mean(1)
    covered = count_coverage(COUNTS, mean.astype(np.float32), scale.astype(np.float32))
    assert ((covered >= 0) & (covered <= 1)).all()
    np.testing.assert_allclose(probability @ covered, LEVELS, atol=1e-6)


def test_intervals_of_normal_distributions_do_not():
    covered = coverage(COUNTS, *predicted([0.5, 6.0], [0.5, 6.0]))
    gaps = np.abs(poisson.pmf(COUNTS[:, None], [0.5, 6.0]).mean(1) @ covered - LEVELS)
    assert gaps.max() > 0.05


def test_counts_of_larger_variance_are_negative_binomial():
    mean, variance = 3.0, 9.0
    probability = nbinom.pmf(COUNTS, mean**2 / (variance - mean), mean / variance)
    right, narrow = (count_coverage(COUNTS, *predicted([mean], [one])) for one in (variance, mean))
    np.testing.assert_allclose(probability @ right, LEVELS, atol=1e-9)
    assert (probability @ narrow < np.array(LEVELS) - 0.05).all()


def test_what_two_moments_do_not_tell_is_not_told():
    mean, scale = predicted([4.0, 4.0], [4.0, 2.0], num_points=3)
    assert np.isnan(count_coverage(np.array([0.0, 3.0, 9.0]), mean, scale)).all()
    mean, scale = predicted([np.nan], [4.0], num_points=1)
    assert np.isnan(count_coverage(np.array([0.0]), mean, scale)).all()


def test_a_count_that_nothing_predicts_is_covered_by_no_interval():
    far, certain = predicted([1.0], [1.0], num_points=1), predicted([0.0], [0.0], num_points=1)
    assert not count_coverage(np.array([500.0]), *far).any()
    np.testing.assert_allclose(count_coverage(np.array([0.0]), *certain)[0], LEVELS)  # the only count that can be
    assert not count_coverage(np.array([1.0]), *certain).any()


def test_scores_of_counts_are_of_counts():
    rng = np.random.default_rng(0)
    rate = np.repeat(rng.gamma(2.0, 0.5, 4000)[None, None], 2, 1)
    y = rng.poisson(rate[0, 0]).astype(float)

    def of(task):
        tree = make_tree(
            attrs={"kind": "mcmc", "task": task},
            posterior={"w": np.zeros((1, 2))},
            functions={"mean": rate, "scale": np.sqrt(rate), "log_likelihood": poisson.logpmf(y, rate)},
            observed_data={"y_test": y},
        )
        return scores(tree)

    counts, real = of("counts"), of("regression")
    for level in LEVELS:
        name = f"coverage_{100 * level:.0f}"
        # Shares of stretches vary less than whole hits do: four standard errors of a share of 4,000 points.
        assert counts[name].value() == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 4000))
    assert counts["calibration_gap"].value() < 0.02 < real["calibration_gap"].value()
