"""From differences with intervals to verdicts on what a paper says: superiority, non-inferiority, equivalence.

Each rule can come out three ways, and an interval that is too wide to tell is `inconclusive`, never `supported`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.special import ndtri
from scipy.stats import norm
from scipy.stats import t as student_t

from diagnostics.claims import Finding, interval_text
from diagnostics.estimates import LEVEL, NUM_RESAMPLES, SEED, Estimate, interval, resampled_shares
from diagnostics.predictive import mixture_log_likelihood, mixture_probability

MARGIN = 0.01  # nats a test point below which a difference is taken to be of no consequence
POWER = 0.8  # with which a difference is found that data "can find", by convention: Cohen 1988, section 2.4


def superiority(gain: Estimate) -> str:
    """Is a gain positive? Supported or contradicted where its interval excludes zero."""
    return _verdict(gain.lower > 0, gain.upper < 0)


def non_inferiority(gain: Estimate, margin: float = MARGIN) -> str:
    """Is a loss smaller than the margin? Contradicted where the whole interval says that it is larger."""
    return _verdict(gain.lower > -margin, gain.upper < -margin)


def equivalence(difference: Estimate, margin: float = MARGIN) -> str:
    """Is a difference smaller than the margin, either way? Contradicted where the whole interval lies beyond it."""
    inside = -margin < difference.lower and difference.upper < margin
    return _verdict(inside, difference.lower > margin or difference.upper < -margin)


def conjunction(verdicts: Iterable[str]) -> str:
    """Return the verdict on a statement that says all of these: one contradiction is enough, support needs all."""
    known = set(verdicts)
    return _verdict(known == {"supported"}, "contradicted" in known)


def all_of(verdicts: Callable[[float], Sequence[str]]) -> str:
    """Return the verdict on a statement that says several things, each with an interval of its own.

    Supported if every one is at the level of a single interval: that all are by chance is no likelier than that one is (Berger
    1982). Contradicted if one is at the level of intervals that hold together: the more is said, the likelier chance contradicts
    some of it.

    Args:
        verdicts: On its parts, from intervals of a level.
    """
    own = verdicts(LEVEL)
    together = verdicts(simultaneous_level(len(own)))
    return _verdict(set(own) == {"supported"}, "contradicted" in together)


def weakest(parts: Mapping[str, Estimate], verdict: Callable[[Estimate], str]) -> str:
    """Name the part on which the verdict of a conjunction rests: of the worst verdict, the one whose interval begins lowest."""
    order = ("contradicted", "inconclusive", "supported")
    return min(parts, key=lambda name: (order.index(verdict(parts[name])), parts[name].lower))


def _verdict(is_supported: bool, is_contradicted: bool) -> str:
    return "supported" if is_supported else "contradicted" if is_contradicted else "inconclusive"


def hypothesis(claim: str, verdict: str, estimate: Estimate, note: str, bound: float | None = None) -> Finding:
    """Return a finding on a hypothesis from the number that it rests on."""
    return Finding(claim, "hypothesis", verdict, estimate.value, (estimate.lower, estimate.upper), bound, note)


def inconclusive(claim: str, reason: str) -> Finding:
    """Return a finding on a hypothesis that could not be tested."""
    return Finding(claim, "hypothesis", "inconclusive", note=reason)


def point_scores(tree: xr.DataTree, *, by_chain: bool = False) -> dict[str, Float[np.ndarray, "member point"]]:
    """Return scores of the predictions at every test point, larger is better.

    Args:
        tree: A run with the groups functions and observed_data.
        by_chain: One member a chain (a seed of SGD, a member of an ensemble) instead of one mixture of all draws.

    Returns:
        `log_score`, the log density of the target under the mixture, nats; and `accuracy`, 1 where the most probable class is
        right, or `squared_error`, minus the squared error of the mixture's mean, in squared units of the target.

    Raises:
        ValueError: The run has no predictions.
    """
    if "functions" not in tree.children or "observed_data" not in tree.children:
        raise ValueError(f"run {tree.attrs.get('name', '')} has no predictions (groups functions and observed_data)")
    functions, y = tree["functions"].to_dataset(), tree["observed_data"].to_dataset()["y_test"].values
    members = [functions.isel(chain=[chain]) for chain in range(functions.sizes["chain"])] if by_chain else [functions]
    found = {"log_score": np.stack([mixture_log_likelihood(member["log_likelihood"].values) for member in members])}
    if "probability" in functions:
        classes = np.stack([mixture_probability(member["probability"].values).argmax(-1) for member in members])
        return found | {"accuracy": (classes == y).astype(float)}
    means = np.stack([member["mean"].values.mean((0, 1), dtype=np.float64) for member in members])
    return found | {"squared_error": -np.square(means - y)}


def constant_scores(tree: xr.DataTree) -> dict[str, Float[np.ndarray, "1 point"]]:
    """Return the scores, as of `point_scores`, of the best prediction that knows the test targets and no inputs.

    Of classes it is their shares, of other targets the Gaussian of their mean and variance.

    Args:
        tree: A run with the groups functions and observed_data.
    """
    y = tree["observed_data"].to_dataset()["y_test"].values
    if "probability" in tree["functions"].to_dataset():
        shares = np.bincount(y) / y.size
        return {"log_score": np.log(shares[y])[None], "accuracy": (y == shares.argmax()).astype(float)[None]}
    scores = norm.logpdf(y, y.mean(), y.std())
    return {"log_score": scores[None], "squared_error": -np.square(y - y.mean())[None]}


def paired_gain(
    one: Float[np.ndarray, "member point"], other: Float[np.ndarray, "other_member point"], level: float = LEVEL
) -> Estimate:
    """Estimate the mean gain of one method over another on the same test points.

    The interval resamples the points, which both share, and the members of each (seeds, chains), where there are several: what
    another test set *and* another set of seeds would have given. Few members are given the spread that Student's t asks for.

    Args:
        one: Score of each member at each point, larger is better.
        other: The same of the other method, any number of members.
        level: Probability of the interval.

    Raises:
        ValueError: Scores at different numbers of points.
    """
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"scores at {one.shape[1]} and {other.shape[1]} test points cannot be paired")
    rng = np.random.default_rng(SEED)
    points = rng.multinomial(one.shape[1], np.full(one.shape[1], 1 / one.shape[1]), NUM_RESAMPLES) / one.shape[1]
    ours, theirs = (
        np.einsum("rm,rm->r", resampled_shares(rng, len(scores), level), points @ scores.T) for scores in (one, other)
    )
    return interval(float(one.mean() - other.mean()), ours - theirs, level)


def over_splits(values: Sequence[float] | Float[np.ndarray, " split"], test_to_train: float, level: float = LEVEL) -> Estimate:
    r"""Return the mean over random train/test splits of one data set with its corrected Student t interval.

    Such splits share examples, so that their scores go together, and the variance of the mean over J of them is no J-th of theirs
    but, to a good approximation,

    .. math:: (1 / J + n_{test} / n_{train}) \, s^2 .

    Args:
        values: Of each split.
        test_to_train: Test examples of a split for each of its training examples.
        level: Probability of the interval.

    Raises:
        ValueError: Fewer than two splits.

    References:
        Nadeau & Bengio 2003, Inference for the generalization error, Machine Learning 52.
    """
    array = np.asarray(values, float)
    if len(array) < 2:
        raise ValueError(f"an interval over splits needs two or more of them, got {len(array)}")
    error = array.std(ddof=1) * np.sqrt(1 / len(array) + test_to_train)
    half = float(student_t.ppf((1 + level) / 2, len(array) - 1) * error)
    mean = float(array.mean())
    return Estimate(mean, mean - half, mean + half)


def gain(
    one: Sequence[Float[np.ndarray, "member point"]],
    other: Sequence[Float[np.ndarray, "other_member point"]],
    test_to_train: float,
    level: float = LEVEL,
) -> Estimate:
    """Estimate the mean gain of one method over another, by split: `paired_gain` of one, `over_splits` of several."""
    if len(one) == 1:
        return paired_gain(one[0], other[0], level)
    return over_splits([ours.mean() - theirs.mean() for ours, theirs in zip(one, other, strict=True)], test_to_train, level)


def simultaneous_level(num_comparisons: int) -> float:
    """Return the level of each of several intervals that hold together with probability `LEVEL` (Bonferroni)."""
    return 1 - (1 - LEVEL) / max(num_comparisons, 1)


def detectable(estimate: Estimate, level: float = LEVEL) -> float:
    """Return the smallest difference that data like these show in four cases of five, in the units of the estimate.

    Shown is a difference whose interval excludes zero. Normal quantiles: of Student intervals of very few splits or seeds it is
    somewhat too large, by 15 % of three and 3 % of ten.

    Args:
        estimate: With its interval.
        level: Probability of that interval.
    """
    reach = (estimate.upper - estimate.lower) / 2
    return float(reach * (1 + ndtri(POWER) / ndtri((1 + level) / 2)))


def best_share(scores: Sequence[Float[np.ndarray, "member point"]]) -> Float[np.ndarray, " method"]:
    """Return how often each method has the largest mean score when test points, and its members, are resampled; sums to 1."""
    rng = np.random.default_rng(SEED)
    num_points = scores[0].shape[1]
    points = rng.multinomial(num_points, np.full(num_points, 1 / num_points), NUM_RESAMPLES) / num_points
    means = [np.einsum("rm,rm->r", resampled_shares(rng, len(one)), points @ one.T) for one in scores]
    return np.bincount(np.argmax(means, 0), minlength=len(scores)) / NUM_RESAMPLES


def gain_sentence(what: str, gain: Estimate, unit: str = "nats a point", level: float = LEVEL) -> str:
    """Say a gain with its interval of this level, and what could have been found."""
    return f"{what}: {interval_text(*gain)} {unit}; differences from {detectable(gain, level):.2g} on can be found."


def paired_group_gain(
    one: Sequence[Float[np.ndarray, "member point"]],
    other: Sequence[Float[np.ndarray, "other_member point"]],
    level: float = LEVEL,
) -> Estimate:
    """Estimate the mean gain over groups of test points, such as corruptions, that themselves are a sample.

    The interval resamples the groups, then points, the same in all groups as corruptions share their images, and the members.

    Args:
        one: By group, score of each member at each point, larger is better; all groups of one shape.
        other: The same of the other method.
        level: Probability of the interval.

    Raises:
        ValueError: Different numbers of groups or of points.
    """
    ours, theirs = np.stack(one), np.stack(other)
    if len(ours) != len(theirs) or ours.shape[2] != theirs.shape[2]:
        raise ValueError(f"scores of shapes {ours.shape} and {theirs.shape} (group, member, point) cannot be paired")
    rng = np.random.default_rng(SEED)
    groups = resampled_shares(rng, len(ours), level)
    num_points = ours.shape[2]
    points = rng.multinomial(num_points, np.full(num_points, 1 / num_points), NUM_RESAMPLES) / num_points

    def resampled(scores: Float[np.ndarray, "group member point"]) -> Float[np.ndarray, " resample"]:
        return np.einsum("rg,rm,gmr->r", groups, resampled_shares(rng, scores.shape[1], level), scores @ points.T)

    return interval(float(ours.mean() - theirs.mean()), resampled(ours) - resampled(theirs), level)
