"""Does it matter for predictions how regions are weighted: as visited, by mass, or stacked?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from diagnostics.claims import Finding, interval_text
from diagnostics.estimates import LEVEL, NUM_RESAMPLES, SEED, Estimate, interval
from diagnostics.regions.claims import FEWEST_CHAINS, resampled_visits
from diagnostics.regions.masses import Masses, combined, dispute
from diagnostics.regions.visits import checked_labels, visit_shares

BOUND = 0.01  # nats a test point: a change of the likelihood of a point by 1 %, which no decision will notice
NUM_STACKING_STEPS = 2000  # of EM; each one climbs, and steps beyond these change no weight by 1e-4 in tests
TOLERANCE = 1e-9  # nats a point, by which a step of EM must climb to go on


class Weightings(NamedTuple):
    """Log scores, nats a test point (higher is better), of the mixture of regions under three weightings.

    Attributes:
        scores: "visits", "mass", "stacking" -> score, with intervals over test points and errors of the weights.
        gain: "mass" and "stacking" -> score minus that of the visits, paired.
        weights: Weighting -> [region].
    """

    scores: dict[str, Estimate]
    gain: dict[str, Estimate]
    weights: dict[str, Float[np.ndarray, " region"]]


def region_log_predictive(
    log_likelihood: Float[np.ndarray, "chain draw point"],
    labels: ArrayLike,
    num_regions: int,
    log_weights: Float[np.ndarray, "chain draw"] | None = None,
) -> Float[np.ndarray, "region point"]:
    """Return the log of the mean likelihood of each test point over the draws of each region, nats; NaN for empty regions.

    Args:
        log_likelihood: Of each test point under each draw.
        labels: [chain, draw] regions.
        num_regions: Number of regions.
        log_weights: Of the draws; equal by default.
    """
    places = checked_labels(labels, num_regions)
    values = np.asarray(log_likelihood, float)
    if values.shape[:2] != places.shape or values.ndim != 3:
        raise ValueError(f"log_likelihood must be [chain, draw, point] for labels of shape {places.shape}, got {values.shape}")
    weights = np.zeros(places.shape) if log_weights is None else np.asarray(log_weights, float)
    rows = np.full((num_regions, values.shape[2]), np.nan)
    for region in np.unique(places[np.isfinite(weights)]):
        chosen = (places == region) & np.isfinite(weights)
        rows[region] = logsumexp(values[chosen] + weights[chosen][:, None], axis=0) - logsumexp(weights[chosen])
    return rows


def stacking_weights(log_predictive: Float[np.ndarray, "region point"]) -> Float[np.ndarray, " region"]:
    r"""Return the weights of regions whose mixture predicts the points best.

    .. math:: \max_w \sum_j \log \sum_k w_k \, p_k(y_j), \quad w_k \ge 0, \; \sum_k w_k = 1

    by expectation maximisation, which climbs a concave function. Score them on other points than these.

    References:
        Yao, Vehtari, Simpson & Gelman 2018, arXiv 1704.02030, equation 7; Yao, Vehtari & Gelman 2022, arXiv 2006.12335 (of chains
        that do not mix). There the points are left out one by one.
    """
    density = np.exp(log_predictive - log_predictive.max(0))
    weights = np.full(len(density), 1 / len(density))
    score = -np.inf
    for _ in range(NUM_STACKING_STEPS):
        mixture = weights @ density
        if (climbed := float(np.log(mixture).mean())) - score < TOLERANCE:
            break
        score, weights = climbed, weights * (density / mixture).mean(1)
    return weights


def weightings(log_predictive: Float[np.ndarray, "region point"], labels: ArrayLike, masses: Masses) -> Weightings:
    """Score the mixture of regions as visited, re-weighted by mass, and stacked.

    Stacking weights are found on one half of the test points, even or odd, and scored on the other. Intervals hold the noise of
    test points, chains and masses; the differences are paired in all of them.

    Args:
        log_predictive: Log predictive density of each test point by region (`region_log_predictive`). Regions that the chains
            never visited but that have mass need one, too: from the draws of the method that found the mass.
        labels: [chain, draw] regions of the draws.
        masses: Of the regions.

    Raises:
        ValueError: A region with visits or mass but no predictions, fewer than 4 points, shapes that do not fit.
    """
    values = np.asarray(log_predictive, float)
    share = visit_shares(labels, masses.share.size).mean(0)
    needed = (share > 0) | (masses.share > 0)
    if values.ndim != 2 or len(values) != share.size or values.shape[1] < 4:
        raise ValueError(f"log_predictive must be [{share.size} regions, 4 or more points], got the shape {values.shape}")
    if not np.isfinite(values[needed]).all():
        missing = np.flatnonzero(needed & ~np.isfinite(values).all(1)).tolist()
        raise ValueError(f"regions {missing} have visits or mass, but no finite predictions: give those of other draws in them")
    density, peak = np.exp(values[needed] - values[needed].max(0)), values[needed].max(0)
    halves = [slice(0, None, 2), slice(1, None, 2)]
    stacked = np.empty((values.shape[1], int(needed.sum())))
    for ours, other in zip(halves, halves[::-1], strict=True):
        stacked[ours] = stacking_weights(values[needed][:, other])

    visits = resampled_visits(labels, share.size)
    moved = np.resize(masses.resamples, (len(visits), share.size))
    pointwise = {
        "visits": _log_mixtures(density, np.vstack([share, visits])[:, needed]) + peak,
        "mass": _log_mixtures(density, np.vstack([masses.share, moved])[:, needed]) + peak,
        "stacking": (np.log((stacked * density.T).sum(1)) + peak)[None].repeat(NUM_RESAMPLES + 1, 0),
    }
    counts = np.random.default_rng(SEED).multinomial(
        values.shape[1], np.full(values.shape[1], 1 / values.shape[1]), NUM_RESAMPLES
    )
    value = {name: float(rows[0].mean()) for name, rows in pointwise.items()}
    resampled = {name: (counts * rows[1:]).mean(1) for name, rows in pointwise.items()}
    weights = {"visits": share, "mass": masses.share, "stacking": np.zeros_like(share)}
    weights["stacking"][needed] = stacked.mean(0)
    return Weightings(
        {name: interval(value[name], resampled[name]) for name in value},
        {name: interval(value[name] - value["visits"], resampled[name] - resampled["visits"]) for name in ("mass", "stacking")},
        weights,
    )


def predictions_robust(log_predictive: Float[np.ndarray, "region point"], labels: ArrayLike, masses: Sequence[Masses]) -> Finding:
    """Test the statement that predictions do not depend on whether regions are weighted as visited or by mass.

    Supported if re-weighting by mass changes the log score by less than 0.01 nats a point either way, contradicted if by more;
    inconclusive if the interval holds both, with fewer than 8 chains, where one region holds everything, and where methods
    disagree about the masses. The note says which weighting generalises better.

    Args:
        log_predictive: See `weightings`.
        labels: [chain, draw] regions of the draws.
        masses: Of the regions, by one or more methods.

    Raises:
        ValueError: See `weightings`.
    """
    claim = "predictions-robust-to-region-weights"
    found = weightings(log_predictive, labels, combined(masses))
    gain, stacked = found.gain["mass"], found.gain["stacking"]
    scores = ", ".join(f"{name} {score.value:.3f}" for name, score in found.scores.items())
    note = (
        f"Log scores, nats a test point: {scores}. Weighting by mass instead of visits gains {interval_text(*gain)}, stacking "
        f"{interval_text(*stacked)}: {_meaning(gain)} (points, chains and masses resampled, {LEVEL:.0%})."
    )
    if len(np.asarray(labels)) < FEWEST_CHAINS:
        note += f" Intervals need {FEWEST_CHAINS} chains."
        return Finding(claim, "hypothesis", "inconclusive", gain.value, gain[1:], BOUND, note)
    if np.count_nonzero(found.weights["visits"] + found.weights["mass"]) < 2:
        note += " One region holds all visits and all mass: there is nothing to weigh."
        return Finding(claim, "hypothesis", "inconclusive", gain.value, gain[1:], BOUND, note)
    if disputed := dispute(masses):
        return Finding(claim, "hypothesis", "inconclusive", gain.value, gain[1:], BOUND, f"{note} {disputed}")
    if max(abs(gain.lower), abs(gain.upper)) < BOUND:
        verdict = "supported"
    else:
        verdict = "contradicted" if gain.lower > BOUND or gain.upper < -BOUND else "inconclusive"
    return Finding(claim, "hypothesis", verdict, gain.value, gain[1:], BOUND, note)


def _meaning(gain: Estimate) -> str:
    if gain.lower > 0:
        return "right weighting generalises better"
    if gain.upper < 0:
        return "right weighting generalises worse"
    return "neither weighting is seen to generalise better"


def _log_mixtures(
    density: Float[np.ndarray, "region point"], weights: Float[np.ndarray, "row region"]
) -> Float[np.ndarray, "row point"]:
    """Return the log of each mixture; errors of weights may pass 0, where they are cut off."""
    clipped = np.maximum(weights, 0)
    return np.log(np.maximum(clipped / clipped.sum(1, keepdims=True) @ density, np.finfo(float).tiny))
