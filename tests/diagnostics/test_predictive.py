"""Scores of predictions: hand-computed values, known distributions, and intervals that hold what they promise."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from diagnostics import calibration, predictive
from diagnostics.estimates import Score, difference, mean_score, resampled_means
from diagnostics.trees import make_tree

ATTRS = {"kind": "mcmc", "task": "classification"}


def regression_tree(rng, num_points=400, noise=1.0, stated=1.0):
    mean = rng.normal(size=(1, 1, num_points)) * 3 + 0.3 * rng.normal(size=(2, 5, num_points))
    y = mean[rng.integers(2, size=num_points), rng.integers(5, size=num_points), np.arange(num_points)]
    y = y + noise * rng.normal(size=num_points)
    scale = np.full(mean.shape, stated)
    functions = {"mean": mean, "scale": scale, "log_likelihood": norm.logpdf(y, mean, scale)}
    return make_tree(
        attrs={"kind": "mcmc", "task": "regression"},
        posterior={"w": np.zeros((2, 5))},
        functions=functions,
        observed_data={"y_test": y},
    )


def test_classification_by_hand():
    probability = np.array([[[[0.8, 0.2], [0.1, 0.9]], [[0.6, 0.4], [0.7, 0.3]]]])  # one chain, two draws, two points
    y = np.array([0, 0])
    log_likelihood = np.log(probability[..., 0])
    tree = make_tree(
        attrs=ATTRS,
        posterior={"w": np.zeros((1, 2))},
        functions={"probability": probability, "log_likelihood": log_likelihood},
        observed_data={"y_test": y},
    )
    scores = {name: score.value() for name, score in predictive.scores(tree).items()}
    mixture = np.array([[0.7, 0.3], [0.4, 0.6]])
    assert scores["accuracy"] == 0.5
    assert scores["negative_log_likelihood"] == pytest.approx(-np.log([0.7, 0.4]).mean())  # not the mean over draws of -log p
    assert scores["brier"] == pytest.approx(((0.3**2 + 0.3**2) + (0.6**2 + 0.6**2)) / 2)
    assert scores["entropy"] == pytest.approx(-(mixture * np.log(mixture)).sum() / 2)
    assert scores["calibration_error"] == pytest.approx((0.3 + 0.6) / 2)


def test_regression_by_hand():
    mean = np.array([[[0.0, 1.0], [2.0, 1.0]]])
    scale = np.ones_like(mean)
    y = np.array([1.5, 1.0])
    tree = make_tree(
        attrs={"kind": "mcmc", "task": "regression"},
        posterior={"w": np.zeros((1, 2))},
        functions={"mean": mean, "scale": scale, "log_likelihood": norm.logpdf(y, mean, scale)},
        observed_data={"y_test": y},
    )
    scores = {name: score.value() for name, score in predictive.scores(tree).items()}
    assert scores["rmse"] == pytest.approx(np.sqrt((0.5**2 + 0) / 2))
    density = [(norm.pdf(1.5) + norm.pdf(0.5)) / 2, norm.pdf(0)]
    assert scores["negative_log_likelihood"] == pytest.approx(-np.log(density).mean())
    moments = predictive.mixture_moments(mean, scale)
    np.testing.assert_allclose(moments, [[1.0, 1.0], [np.sqrt(2), 1.0]])
    assert scores["coverage_50"] == 1.0


def test_no_likelihood_survives_underflow():
    log_likelihood = np.array([[[-2000.0], [-np.inf], [-2001.0]]])
    expected = -2000 + np.log1p(np.exp(-1)) - np.log(3)
    assert predictive.mixture_log_likelihood(log_likelihood)[0] == pytest.approx(expected)


def test_coverage_of_calibrated_and_of_overconfident_predictions():
    rng = np.random.default_rng(0)
    good, bold = (predictive.predictive_scores(regression_tree(rng, 2000, stated=stated)) for stated in (1.0, 0.4))
    for level in ("50", "75", "90", "95"):
        # A share of 2,000 points, four standard errors.
        assert good[f"coverage_{level}"].value == pytest.approx(int(level) / 100, abs=4 * np.sqrt(0.25 / 2000))
    assert bold["coverage_95"].upper < 0.9
    assert bold["calibration_gap"].lower > 0.1 > good["calibration_gap"].upper


def test_every_point_is_in_one_bin():
    confidence = np.concatenate((np.arange(16) / 15, [0.0, 1e-9, 1.0, 1 + 1e-7, 0.5]))
    assert np.all(calibration._bins(confidence).sum(1) == 1)
    assert calibration._bins(np.array([1 / 15]))[0, 0] == 1  # closed on the right


def sample_labels(rng, confidence, overconfidence, num_classes=5):
    """Probabilities of the given confidence in class 0, which is right that often less the overconfidence."""
    rest = (1 - confidence[:, None]) / (num_classes - 1)
    probability = np.concatenate((confidence[:, None], np.broadcast_to(rest, (len(confidence), num_classes - 1))), 1)
    return probability, np.where(rng.random(len(confidence)) < confidence - overconfidence, 0, 1)


@pytest.mark.parametrize("overconfidence", [0.0, 0.02, 0.05, 0.15])
def test_debiased_calibration_error_and_its_interval(overconfidence):
    rng = np.random.default_rng(1)
    squares, plain, hits = [], [], 0
    for _ in range(100):
        probability, labels = sample_labels(rng, 0.2 + 0.8 * rng.beta(4, 1, size=400), overconfidence)
        score = calibration.rms_calibration_error(probability, labels)
        squares.append(float(score.function(score.columns.mean(0))))
        plain.append(calibration.calibration_error(probability, labels).value())
        estimate = score.estimate()
        hits += estimate.lower - 1e-12 <= overconfidence <= estimate.upper
    # Unbiased to within four standard errors; 95 of 100 less four binomial standard errors of 2.2.
    assert abs(np.mean(squares) - overconfidence**2) < 4 * np.std(squares) / 10
    assert hits >= 86
    if overconfidence < 0.05:
        assert np.mean(plain) > overconfidence + 0.02  # negative control: the plain error is biased


def test_calibration_error_against_its_distribution_under_calibration():
    rng = np.random.default_rng(2)
    calibrated, off = (sample_labels(rng, rng.uniform(0.4, 1.0, 500), shift) for shift in (0.0, 0.15))
    for (probability, labels), is_calibrated in ((calibrated, True), (off, False)):
        null = calibration.calibration_error_if_calibrated(probability)
        value = calibration.calibration_error(probability, labels).value()
        assert null.lower < null.value < null.upper
        assert (value < null.upper) == is_calibrated


def test_bootstrap_means_have_the_moments_of_resampling():
    values = np.random.default_rng(3).exponential(size=(300, 1))
    means = resampled_means(values)[:, 0]
    error = values.std() / np.sqrt(300)
    assert abs(means.mean() - values.mean()) < 4 * error / np.sqrt(1000)
    assert means.std() == pytest.approx(error, rel=4 / np.sqrt(2 * 1000))  # four standard errors of a standard deviation


def test_blocks_of_resamples_do_not_change_their_number(monkeypatch):
    monkeypatch.setattr("diagnostics.estimates.BLOCK_VALUES", 300 * 7)
    assert np.isfinite(resampled_means(np.ones((300, 2)))).all()


def test_differences_are_paired():
    rng = np.random.default_rng(4)
    hardness = rng.normal(size=500)
    one, other = mean_score(hardness), mean_score(hardness + 0.01 + 0.001 * rng.normal(size=500))
    paired = difference(other, one)
    assert paired.lower > 0  # the difference of 0.01 is far below the unpaired error of 0.06
    assert one.estimate().upper - one.estimate().lower > 10 * (paired.upper - paired.lower)


def test_rmse_interval_holds_the_truth():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(100):
        estimate = Score(rng.normal(size=(200, 1)) ** 2, transform=np.sqrt).estimate()
        hits += estimate.lower < 1 < estimate.upper
    assert hits >= 86  # 95 less four binomial standard errors


def test_a_nan_draw_makes_scores_nan_and_raises_nothing(simulate):
    arrays = simulate.healthy_arrays()
    arrays["functions"]["probability"][0, 0, 3] = np.nan
    found = predictive.predictive_scores(make_tree(**arrays))
    for name in ("accuracy", "brier", "calibration_error", "rms_calibration_error", "entropy", "calibration_error_if_calibrated"):
        assert np.isnan(found[name].value), name


def test_what_has_no_functions_has_no_scores():
    assert predictive.predictive_scores(make_tree(attrs=ATTRS, posterior={"w": np.zeros((1, 5))})) == {}


def reference_probabilities():
    root = os.environ.get("BAYESNN_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(root)
    if not (folder / "hmc_reference").is_dir() or not (folder / "cifar10").is_dir():
        pytest.skip(
            f"no reference predictions in {folder}; set BAYESNN_DATA to the folder that holds hmc_reference/ and cifar10/"
        )
    probability = np.load(folder / "hmc_reference" / "bdl2021_hmc_probs.npz")["cifar10_test_probs"]
    return probability, np.load(folder / "cifar10" / "labels.npz")["y_test"].astype(int)


def test_published_hmc_reference_on_cifar10():
    """Izmailov et al.'s HMC predictions: values computed independently, given to four decimals."""
    probability, y = reference_probabilities()
    log_likelihood = np.log(np.take_along_axis(probability, y[:, None], 1)[:, 0])
    tree = make_tree(
        attrs=ATTRS,
        posterior={"w": np.zeros((1, 1))},
        functions={"probability": probability[None, None], "log_likelihood": log_likelihood[None, None]},
        observed_data={"y_test": y},
    )
    found = {name: score.value() for name, score in predictive.scores(tree).items()}
    expected = {
        "accuracy": 0.9144,
        "negative_log_likelihood": 0.2773,
        "brier": 0.1339,
        "calibration_error": 0.0522,
        "entropy": 0.4022,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=5.1e-5), name


def test_entropy_histograms_count_every_prediction():
    probability = np.array([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0], [1 - 1e-9, 5e-10, 5e-10]])
    edges, shares = predictive.entropy_histogram(probability, 4)
    np.testing.assert_allclose(edges, np.log(3) * np.arange(5) / 4)
    np.testing.assert_allclose(shares, [0.5, 0, 0.25, 0.25])  # log 2 / log 3 = 0.63
    assert np.isnan(predictive.entropy_histogram(probability * np.nan).shares).all()


def test_saturated_predictions_are_all_counted():
    """Bins between quantiles with open ends drop every prediction of confidence 1, and call this calibrated."""
    probability, y = np.tile([1.0, 0.0], (50, 1)), np.r_[np.zeros(30, int), np.ones(20, int)]
    assert calibration.calibration_error(probability, y).value() == pytest.approx(0.4)
    edges = np.quantile(probability.max(1), np.linspace(0, 1, 21))
    dropped = [(probability.max(1) > low) & (probability.max(1) < high) for low, high in itertools.pairwise(edges)]
    assert not np.any(dropped)


def test_intervals_of_differences_of_debiased_scores_hold_the_truth():
    """Both predictors are calibrated, so the difference is zero; the noise of one's bins is several times the other's."""
    rng, hits, hits_unreflected = np.random.default_rng(6), 0, 0
    for _ in range(100):
        vague, sure = (rng.uniform(0.3, 1.0, 150), np.full(150, 0.98))
        scores = [calibration.rms_calibration_error(*sample_labels(rng, confidence, 0.0)) for confidence in (vague, sure)]
        found, unreflected = difference(*scores), difference(*(one._replace(plug_in=None) for one in scores))
        hits += found.lower - 1e-12 <= 0 <= found.upper
        hits_unreflected += unreflected.lower - 1e-12 <= 0 <= unreflected.upper
    assert hits >= 95
    assert hits_unreflected < 93  # negative control: resampling adds the noise of the bins once more, and 85 is what it costs
