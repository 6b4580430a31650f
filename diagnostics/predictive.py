"""How good are the predictions? Scores of the mixture over all draws and chains, with intervals over test points."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.special import entr, logsumexp

from diagnostics import calibration
from diagnostics.estimates import Estimate, Score, mean_score

NUM_ENTROPY_BINS = 20


class Histogram(NamedTuple):
    """Shares of points by the bin that a number of theirs is in.

    Attributes:
        edges: Of the bins, in the units of the number.
        shares: Of the points, adding up to 1.
    """

    edges: Float[np.ndarray, " edge"]
    shares: Float[np.ndarray, " bin"]


def mixture_probability(probability: Float[np.ndarray, "chain draw point class"]) -> Float[np.ndarray, "point class"]:
    """Return the predictive probability: the mean over draws and chains."""
    return np.mean(probability, (0, 1), dtype=np.float64)


def mixture_log_likelihood(log_likelihood: Float[np.ndarray, "chain draw point"]) -> Float[np.ndarray, " point"]:
    """Return the log of the mean likelihood over draws and chains, nats: the log density of the predictive mixture."""
    num_draws = log_likelihood.shape[0] * log_likelihood.shape[1]
    return logsumexp(np.asarray(log_likelihood, np.float64), axis=(0, 1)) - np.log(num_draws)


def mixture_moments(
    mean: Float[np.ndarray, "... chain draw point"], scale: Float[np.ndarray, "... chain draw point"]
) -> tuple[Float[np.ndarray, "... point"], Float[np.ndarray, "... point"]]:
    """Return mean and standard deviation of a mixture of normal predictions over draws and chains."""
    mean = np.asarray(mean, np.float64)
    variance = np.mean(np.square(scale, dtype=np.float64), (-3, -2)) + mean.var((-3, -2))
    return mean.mean((-3, -2)), np.sqrt(variance)


def predictive_entropy(probability: Float[np.ndarray, "point class"]) -> Float[np.ndarray, " point"]:
    """Return the entropy of each prediction, nats: 0 for certainty, log(classes) for ignorance."""
    return entr(probability).sum(-1)


def entropy_histogram(probability: Float[np.ndarray, "point class"], num_bins: int = NUM_ENTROPY_BINS) -> Histogram:
    """Return the shares of predictions by their entropy, in bins of equal width from certainty to ignorance.

    Args:
        probability: Predicted probabilities.
        num_bins: Number of bins.

    Returns:
        Shares that add up to 1, both ends included; NaN throughout with a prediction that is NaN.
    """
    entropy, largest = predictive_entropy(probability), np.log(probability.shape[1])
    edges = np.linspace(0, largest, num_bins + 1)
    if np.isnan(entropy).any():
        return Histogram(edges, np.full(num_bins, np.nan))
    # Rounding puts the entropy of equal probabilities a little above its largest value.
    counts, _ = np.histogram(np.clip(entropy, 0, largest), edges)
    return Histogram(edges, counts / len(entropy))


def scores(tree: xr.DataTree) -> dict[str, Score]:
    """Return the scores of a run's predictions.

    Args:
        tree: A run with the groups `functions` and `observed_data`.

    Returns:
        - classification: `accuracy` (of the most probable class of the mixture), `negative_log_likelihood` (of the mixture, nats
          a point), `brier` (squared distance to the label, summed over classes), `calibration_error` (biased upward),
          `rms_calibration_error` (debiased), `entropy` (nats);
        - regression and counts: `rmse` (of the mixture's mean, units of the target), `negative_log_likelihood`, `coverage_50` and
          so on, `calibration_gap`;
        - what the run has no functions for is left out. Non-finite draws make a score NaN.
    """
    if "functions" not in tree.children or "observed_data" not in tree.children:
        return {}
    functions, y = tree["functions"].to_dataset(), tree["observed_data"].to_dataset()["y_test"].values
    found: dict[str, Score] = {}
    if "log_likelihood" in functions:
        found["negative_log_likelihood"] = mean_score(-mixture_log_likelihood(functions["log_likelihood"].values))
    if "probability" in functions:
        probability = mixture_probability(functions["probability"].values)
        is_known = np.isfinite(probability).all(-1)
        target = np.eye(probability.shape[1])[y]
        found |= {
            "accuracy": mean_score(np.where(is_known, probability.argmax(-1) == y, np.nan)),
            "brier": mean_score(np.square(probability - target).sum(-1)),
            "calibration_error": calibration.calibration_error(probability, y),
            "rms_calibration_error": calibration.rms_calibration_error(probability, y),
            "entropy": mean_score(predictive_entropy(probability)),
        }
    if "mean" in functions:
        mean, scale = functions["mean"].values, functions["scale"].values
        squared_error = np.square(mixture_moments(mean, scale)[0] - y)
        coverage = calibration.count_coverage if tree.attrs.get("task") == "counts" else calibration.coverage
        covered = coverage(y, mean, scale)
        found["rmse"] = Score(squared_error[:, None], transform=np.sqrt)
        found |= {f"coverage_{level:.0%}".rstrip("%"): mean_score(covered[:, i]) for i, level in enumerate(calibration.LEVELS)}
        found["calibration_gap"] = calibration.calibration_gap(covered)
    return found


def predictive_scores(tree: xr.DataTree) -> dict[str, Estimate]:
    """Estimate the `scores` of a run, each with a 95 % bootstrap interval over test points.

    For classification `calibration_error_if_calibrated` is added: what calibrated predictions of the same confidence show.
    """
    found = {name: score.estimate() for name, score in scores(tree).items()}
    if "calibration_error" in found:
        probability = mixture_probability(tree["functions"].to_dataset()["probability"].values)
        found["calibration_error_if_calibrated"] = calibration.calibration_error_if_calibrated(probability)
    return found
