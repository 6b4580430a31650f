"""Is a run as close to a reference as the reference's own chains are to each other?

A chain of the reference is held against all its other chains, with as many draws, or effective draws, as the run has: what these
distances scatter over is the floor. A run that comes from the same posterior lies in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import t as student

from diagnostics.convergence import ess_bulk, ess_within
from diagnostics.estimates import LEVEL, Estimate
from diagnostics.fidelity import Prediction, closeness, closeness_scores, pooled
from diagnostics.trees import predicted
from diagnostics.wasserstein import mixture_quantiles

MIN_CHAINS = 3  # of two chains, each is as far from the other: one number has no scatter
NUM_SCALARS = 2000  # function values whose median effective sample size is taken, evenly spaced
LARGER_IS_CLOSER = ("agreement",)
SHARES = ("agreement", "total_variation", "gaussian_total_variation")  # measures that are at most 1; none is below 0
INDEPENDENT = ("ensemble", "approximation")  # kinds of runs whose draws have no history


class Prefixes(NamedTuple):
    """What each chain predicts from its first draws, at several numbers of draws.

    Attributes:
        counts: Numbers of draws, rising; the last is all.
        parts: Classification: probability [chain, count, point, class]. Regression: mean and standard deviation of the mixture
            [chain, count, point], and its quantiles [chain, count, point, quantile].
        ess: Median effective sample size of the function values, all chains together; NaN with fewer than four draws.
        ess_chain: The same of a chain on its own.
    """

    counts: tuple[int, ...]
    parts: Prediction
    ess: float
    ess_chain: float

    @property
    def num_chains(self) -> int:
        """Number of chains."""
        return len(self.parts[0])

    def at(self, index: int) -> Prediction:
        """Return what each chain predicts at one of the counts, [chain, point, ...]."""
        return tuple(part[:, index] for part in self.parts)


class Floor(NamedTuple):
    """What single chains of the reference show.

    Attributes:
        num_draws: Draws of a chain.
        values: Measure -> one value a chain, that chain held against all others.
        bands: Measure -> mean of the values, and the interval in which the next chain lies with probability 95 % if the values
            are normal, cut off where the measure ends.
    """

    num_draws: int
    values: dict[str, Float[np.ndarray, " chain"]]
    bands: dict[str, Estimate]


class Fidelity(NamedTuple):
    """How close a run is to a reference, beside the reference's floor.

    Attributes:
        num_draws: Draws of the run, all chains together.
        ess: Their median effective sample size in function space.
        measured: Measure -> value and its interval over test points, against the reference without one of its chains, averaged
            over which.
        equal_draws: The floor of chains with as many draws, or all that a chain has if the run has more; None for a reference of
            fewer than three chains.
        equal_ess: The floor of chains with as many effective draws; None where these are not known.
    """

    num_draws: int
    ess: float
    measured: dict[str, Estimate]
    equal_draws: Floor | None
    equal_ess: Floor | None

    def is_inside(self, floor: Floor, measure: str) -> bool:
        """Tell whether the run is no farther from the reference than its own chains are from each other."""
        value, band = self.measured[measure].value, floor.bands[measure]
        return value >= band.lower if measure in LARGER_IS_CLOSER else value <= band.upper


def prefixes(tree: xr.DataTree) -> Prefixes:
    """Compute what the chains of a run predict after half, a quarter, ... of their draws.

    Raises:
        ValueError: A run without predictions.
    """
    functions = predicted(tree)
    if not functions.data_vars:
        raise ValueError(f"run {tree.attrs.get('name', '')} predicts nothing")
    num_chains, num_draws = functions.sizes["chain"], functions.sizes["draw"]
    counts = [num_draws]
    while counts[0] > 1:
        counts.insert(0, counts[0] // 2)
    if "probability" in functions:
        parts: Prediction = (_prefix_means(functions["probability"].values, counts),)
    else:
        mean, scale = (functions[name].values.astype(np.float64) for name in ("mean", "scale"))
        first = _prefix_means(mean, counts)
        # Around the overall mean, so that the difference of squares keeps its digits.
        centre = first[:, -1:, :].mean(0, keepdims=True)
        second = _prefix_means(scale**2 + (mean - centre) ** 2, counts) - (first - centre) ** 2
        by_count = [[mixture_quantiles(m[:count], s[:count]) for count in counts] for m, s in zip(mean, scale, strict=True)]
        parts = (first, np.sqrt(np.maximum(second, 0)), np.array(by_count))
    if tree.attrs.get("kind") in INDEPENDENT:
        return Prefixes(tuple(counts), parts, float(num_chains * num_draws), float(num_draws))
    some = some_values(tree)
    return Prefixes(tuple(counts), parts, _median(ess_bulk(some)), _median(ess_within(some)))


def some_values(tree: xr.DataTree) -> Float[np.ndarray, "chain draw value"]:
    """Return about 2,000 of the numbers that each draw predicts, evenly spaced: enough for a median or a share."""
    values = next(iter(predicted(tree).data_vars.values())).values
    flat = values.reshape(*values.shape[:2], -1)
    return flat[..., :: max(1, flat.shape[-1] // NUM_SCALARS)]


def fidelity_to(run: Prefixes, reference: Prefixes) -> Fidelity:
    """Hold a run against a reference, beside the reference's own floor.

    Args:
        run: From `prefixes`; all its draws count, as one mixture.
        reference: On the same test points.

    Raises:
        ValueError: Runs of different tasks, or on different numbers of test points or classes.
    """
    if len(run.parts) != len(reference.parts) or run.parts[0].shape[2:] != reference.parts[0].shape[2:]:
        raise ValueError(f"predictions of shapes {run.parts[0].shape[2:]} and {reference.parts[0].shape[2:]} cannot be compared")
    num_draws = run.num_chains * run.counts[-1]
    ours, by_chain = pooled(run.at(-1)), reference.at(-1)
    whole = pooled(by_chain)
    if reference.num_chains < MIN_CHAINS:
        return Fidelity(num_draws, run.ess, closeness_scores([closeness(ours, whole, whole)]), None, None)
    others = [pooled(by_chain, rest) for rest in _without_one(reference.num_chains)]
    measured = closeness_scores([closeness(ours, rest, whole) for rest in others])
    draws_a_ess = reference.counts[-1] / reference.ess_chain
    effective = run.ess * draws_a_ess
    equal_ess = floor(reference, effective) if np.isfinite(effective) else None
    return Fidelity(num_draws, run.ess, measured, floor(reference, num_draws), equal_ess)


def floor(reference: Prefixes, num_draws: float) -> Floor:
    """Hold the first draws of each chain of a reference against all draws of its other chains.

    Args:
        reference: At least three chains.
        num_draws: Draws of a chain; the nearest of the reference's counts, by ratio, is taken.

    Raises:
        ValueError: Fewer than three chains.
    """
    if reference.num_chains < MIN_CHAINS:
        raise ValueError(f"a floor needs at least {MIN_CHAINS} chains, the reference has {reference.num_chains}")
    wanted = min(max(num_draws, 1), reference.counts[-1])
    index = int(np.argmin(np.abs(np.log(reference.counts) - np.log(wanted))))
    few, everything = reference.at(index), reference.at(-1)
    whole = pooled(everything)
    values: dict[str, list[float]] = {}
    for chain, rest in enumerate(_without_one(reference.num_chains)):
        pair = closeness(pooled(few, [chain]), pooled(everything, rest), whole)
        for name, estimate in closeness_scores([pair]).items():
            values.setdefault(name, []).append(estimate.value)
    arrays = {name: np.array(value) for name, value in values.items()}
    return Floor(reference.counts[index], arrays, {name: _band(name, value) for name, value in arrays.items()})


def _band(name: str, values: Float[np.ndarray, " chain"]) -> Estimate:
    """Return the mean and the prediction interval of one more value of a measure."""
    num = len(values)
    width = student.ppf((1 + LEVEL) / 2, num - 1) * values.std(ddof=1) * np.sqrt(1 + 1 / num)
    lower, upper = np.clip([values.mean() - width, values.mean() + width], 0, 1 if name in SHARES else None)
    return Estimate(float(values.mean()), float(lower), float(upper))


def _median(values: Float[np.ndarray, "..."]) -> float:
    """Return the median of what is known; NaN if nothing is, as with fewer than four draws."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def _without_one(num_chains: int) -> list[Sequence[int]]:
    return [[other for other in range(num_chains) if other != chain] for chain in range(num_chains)]


def _prefix_means(
    draws: Float[np.ndarray, "chain draw *scalars"], counts: Sequence[int]
) -> Float[np.ndarray, "chain count *scalars"]:
    sums = np.zeros((len(draws), *draws.shape[2:]))
    means, begin = [], 0
    for count in counts:
        sums = sums + draws[:, begin:count].sum(1, dtype=np.float64)
        means.append(sums / count)
        begin = count
    return np.stack(means, 1)
