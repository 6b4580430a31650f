"""How close are the predictions of several runs to each other, and is the difference more than noise?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.special import ndtr

from diagnostics.estimates import SEED, Estimate, difference, mean_score
from diagnostics.predictive import mixture_moments, predictive_scores, scores
from diagnostics.trees import check_tree, predicted
from diagnostics.wasserstein import quantiles, wasserstein_distance

LARGEST_ENUMERATED = 8  # chains of which all halvings are looked at (35 for 8)
NUM_RANDOM_SPLITS = 35  # halvings of more chains, drawn with a fixed seed

# (probability [..., point, class],), or mean and sd [..., point] and, where they are known, quantiles [..., point, quantile].
type Prediction = tuple[Float[np.ndarray, "..."], ...]


class Comparison(NamedTuple):
    """Runs side by side.

    Attributes:
        reference: Name of the run that the others are held against.
        scores: Run -> score -> estimate, see `predictive_scores`.
        differences: Run -> score -> that of the run minus that of the reference, paired over test points.
        closeness: Run -> measure -> closeness of the run's predictions to those of the reference, see `closeness`.
        noise_floor: Measure -> the same between predictions from one half of the reference's chains and from the other, averaged
            over the ways to halve them; empty if it has one chain. A run that is closer than this is as close as the reference is
            to itself. Each half has half the draws, which makes this noise larger than that of whole runs.
    """

    reference: str
    scores: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, Estimate]]
    closeness: dict[str, dict[str, Estimate]]
    noise_floor: dict[str, Estimate]


def compare(trees: Mapping[str, xr.DataTree]) -> Comparison:
    """Compare the predictions of runs on the same test points.

    Args:
        trees: Runs by name; the first is the reference.

    Returns:
        Scores, paired differences and closeness with 95 % bootstrap intervals over test points.

    Raises:
        ValueError: No run, a run without predictions, or runs of different tasks or test points.
    """
    if not trees:
        raise ValueError("nothing to compare; give at least one run")
    for name, tree in trees.items():
        check_tree(tree)
        _check_comparable(name, tree, *next(iter(trees.items())))
    reference, *others = trees
    columns = {name: scores(tree) for name, tree in trees.items()}
    by_chain = {name: chain_predictions(tree) for name, tree in trees.items()}
    base = pooled(by_chain[reference])
    differences, distances = {}, {}
    for name in others:
        shared = [key for key in columns[reference] if key in columns[name]]
        differences[name] = {key: difference(columns[name][key], columns[reference][key]) for key in shared}
        distances[name] = closeness_scores([closeness(pooled(by_chain[name]), base, base)])
    halves = [
        closeness(pooled(by_chain[reference], first), pooled(by_chain[reference], second), base)
        for first, second in chain_halves(len(by_chain[reference][0]))
    ]
    estimates = {name: predictive_scores(tree) for name, tree in trees.items()}
    return Comparison(reference, estimates, differences, distances, closeness_scores(halves))


def chain_predictions(tree: xr.DataTree) -> Prediction:
    """Return the predictive probability of each chain, or mean and standard deviation of its mixture: (chain, point, ...)."""
    functions = tree["functions"].to_dataset()
    if "probability" in functions:
        return (functions["probability"].values.mean(1, dtype=np.float64),)
    return mixture_moments(functions["mean"].values[:, None], functions["scale"].values[:, None])


def pooled(prediction: Prediction, chains: Sequence[int] | None = None) -> Prediction:
    """Return the prediction of the mixture of some chains, by default of all."""
    first, *rest = (part if chains is None else part[list(chains)] for part in prediction)
    if not rest:
        return (first.mean(0),)
    moments = first.mean(0), np.sqrt(np.square(rest[0]).mean(0) + first.var(0))
    if len(rest) == 1:
        return moments
    together = np.moveaxis(rest[1], 0, -1).reshape(*rest[1].shape[1:-1], -1)
    return *moments, quantiles(together, rest[1].shape[-1])


def chain_halves(num_chains: int) -> list[tuple[list[int], list[int]]]:
    """Return the ways to cut chains into two halves, the first smaller by one if their number is odd; none for a single chain."""
    half, chains = num_chains // 2, range(num_chains)
    if num_chains > LARGEST_ENUMERATED:
        rng = np.random.default_rng(SEED)
        firsts = [rng.permutation(num_chains)[:half].tolist() for _ in range(NUM_RANDOM_SPLITS)]
    else:
        firsts = [list(chosen) for chosen in itertools.combinations(chains, half) if chosen]
        if num_chains % 2 == 0:
            firsts = [chosen for chosen in firsts if 0 in chosen]  # else each cut would come twice
    return [(first, [chain for chain in chains if chain not in first]) for first in firsts]


def closeness(one: Prediction, other: Prediction, base: Prediction) -> dict[str, Float[np.ndarray, " point"]]:
    r"""Measure how close two predictions are at each test point.

    Classification:

    - `agreement`: whether the most probable classes are the same; as a score, the share of points;
    - `total_variation`: half the sum of absolute differences of the class probabilities.

    Regression, with the mean m and standard deviation s of each predictive mixture:

    - `mean_difference`: :math:`(m_1 - m_2)^2 / s^2`, s being that of the whole reference; as a score, the root of the mean over
      points;
    - `gaussian_total_variation`: total variation distance between the normal distributions with those moments, exact;
    - `wasserstein_1`, `wasserstein_2`: distances between the mixtures themselves, units of the target, where quantiles are known.

    References:
        Agreement and total variation: Izmailov et al. 2021, arXiv 2104.14421; Wilson et al. 2022.
    """
    if len(one) == 1:
        (p,), (q,) = one, other
        is_known = np.isfinite(p).all(-1) & np.isfinite(q).all(-1)
        return {
            "agreement": np.where(is_known, p.argmax(-1) == q.argmax(-1), np.nan),
            "total_variation": np.abs(p - q).sum(-1) / 2,
        }
    found = {
        "mean_difference": np.square((one[0] - other[0]) / base[1]),
        "gaussian_total_variation": gaussian_total_variation(*one[:2], *other[:2]),
    }
    if len(one) == 3:
        found |= {f"wasserstein_{order}": wasserstein_distance(one[2], other[2], order) for order in (1, 2)}
    return found


def gaussian_total_variation(
    mean: Float[np.ndarray, "..."],
    sd: Float[np.ndarray, "..."],
    other_mean: Float[np.ndarray, "..."],
    other_sd: Float[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    """Compute the total variation distance between normal distributions.

    Half the integral of the absolute difference of the densities, which cross where a quadratic is zero; between its roots the
    narrower distribution has the more probability.
    """
    # In units of the narrower one, standing at 0: x^2 / 2 = (x - shift)^2 / (2 ratio^2) + log(ratio).
    narrow, wide = np.minimum(sd, other_sd), np.maximum(sd, other_sd)
    shift, ratio = np.abs(mean - other_mean) / narrow, wide / narrow
    # a x^2 + 2 shift x = b; as the ratio goes to 1, a goes to 0 and one root to infinity.
    a, b = (ratio - 1) * (ratio + 1), shift**2 + 2 * ratio**2 * np.log(ratio)
    larger = shift + np.sqrt(shift**2 + a * b)
    with np.errstate(divide="ignore", invalid="ignore"):
        right, left = np.where(larger > 0, b / larger, 0), np.where(a > 0, -larger / a, -np.inf)
    inside = ndtr(right) - ndtr(left)
    return inside - (ndtr((right - shift) / ratio) - ndtr((left - shift) / ratio))


def closeness_scores(pairs: Sequence[Mapping[str, Float[np.ndarray, " point"]]]) -> dict[str, Estimate]:
    """Average each measure of `closeness` over pairs of predictions, and estimate its mean over points."""
    estimates = {}
    for name in pairs[0] if pairs else ():
        score = mean_score(np.mean([pair[name] for pair in pairs], 0))
        estimates[name] = (score._replace(transform=np.sqrt) if name == "mean_difference" else score).estimate()
    return estimates


def _check_comparable(name: str, tree: xr.DataTree, reference: str, base: xr.DataTree) -> None:
    names, base_names = (sorted(str(key) for key in predicted(one).data_vars) for one in (tree, base))
    if not names or "observed_data" not in tree.children:
        raise ValueError(f"run {name} has no predictions (groups functions and observed_data) to compare")
    if names != base_names:
        raise ValueError(f"run {name} predicts {names} and {reference} {base_names}; they must be of one task")
    ours, theirs = (one["observed_data"].to_dataset()["y_test"].values for one in (tree, base))
    if ours.shape != theirs.shape or not np.array_equal(ours, theirs):
        raise ValueError(f"runs {name} and {reference} were tested on different points; compare runs on the same test set")
