r"""How heavy the tails of gradient noise are.

Stochastic-gradient samplers take the noise of a minibatch gradient for Gaussian. Noise with a tail index below 2 has no
variance: no step size makes it small against the injected noise at the stated rate.

Two estimators, because each is wrong where the other is right. The one that is exact for stable laws reads any law of finite
variance as lighter than it is, and **pooling coordinates of different scales makes Gaussian noise look heavy-tailed**: here each
coordinate is on its own. Hill's reads the far tail of any law that has a power tail, and calls Gaussian noise light by an index
well above 2, not infinite.

References:
    Mohammadi, Mohammadpour & Ogata 2015, Metrika 78, corollary 2.4 (stable laws); Hill 1975; Simsekli, Sagun & Gurbuzbalaban
    2019, arXiv 1901.06053 (the claim); Xie, Sato & Sugiyama 2021, arXiv 2002.03495 (the objection to pooling).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from diagnostics.claims import Finding, interval_text
from diagnostics.estimates import LEVEL, Estimate

NUM_GROUPS = 10  # of minibatches; the spread of estimates over groups gives the interval, whatever coordinates share
TAIL = 0.1  # share of the largest values that Hill's estimator looks at
STABLE_GAUSSIAN = 2.0  # index of the stable law that is Gaussian; tails above it have a variance
MIN_NOISE = 40  # minibatches: four a group, two sums of two


class TailIndex(NamedTuple):
    """Tail index of noise, mean over coordinates of its inverse, inverted.

    Attributes:
        stable: Index of the stable law; 2 for Gaussian noise.
        hill: Index of the tail beyond the largest tenth; above 2 for any noise of finite variance.
        num_coordinates: Coordinates that have noise.
    """

    stable: Estimate
    hill: Estimate
    num_coordinates: int


def tail_index(noise: Float[np.ndarray, "minibatch coordinate"], level: float = LEVEL) -> TailIndex:
    r"""Estimate the tail index of gradient noise.

    Stable laws: sums of :math:`K_1` values are :math:`K_1^{1/\alpha}` times as large as one, so

    .. math:: 1 / \hat\alpha = \big(\overline{\log |\text{sums of } K_1|} - \overline{\log |x|}\big) / \log K_1 .

    Args:
        noise: Minibatch gradient less full gradient, one row a minibatch drawn on its own, at least 40; any units.
        level: Probability of the intervals; for several places `diagnostics.hypotheses.simultaneous_level` of their number.

    Returns:
        Both indices, with intervals from independent groups of minibatches. Infinite ends where 1 / index reaches 0.

    Raises:
        ValueError: Fewer than 40 minibatches, values that are not finite, or no coordinate with noise in a fifth of them.
    """
    noise = np.asarray(noise, float)
    if noise.ndim != 2 or len(noise) < MIN_NOISE:
        raise ValueError(f"noise must have shape (minibatch, coordinate) with at least {MIN_NOISE} rows, got {noise.shape}")
    if not np.isfinite(noise).all():
        raise ValueError("noise holds NaN or infinite values: look for a gradient that overflows")
    live = noise[:, np.ptp(noise, 0) > 0]
    if not live.shape[1]:
        raise ValueError("no coordinate has noise: were the minibatches all of the data?")
    size = len(live) // NUM_GROUPS
    groups = live[: NUM_GROUPS * size].reshape(NUM_GROUPS, size, -1)
    stable = [_inverse_stable(group) for group in groups]
    centred = np.abs(live - np.median(live, 0))
    # Twice the tail, so that it is not empty where a group is left out, either.
    centred = centred[:, (centred > 0).mean(0) > 2 * TAIL]
    if not centred.shape[1]:
        raise ValueError(f"no coordinate has noise in {2 * TAIL:.0%} of the minibatches, and so none a tail: take larger ones")
    hill = _inverse_hill(centred)
    # Hill's estimator is biased in small groups, so its spread is that of leaving groups out.
    left_out = [_inverse_hill(np.delete(centred, slice(start, start + size), 0)) for start in range(0, NUM_GROUPS * size, size)]
    pseudo = [NUM_GROUPS * hill - (NUM_GROUPS - 1) * value for value in left_out]
    return TailIndex(_inverted(np.mean(stable), stable, level), _inverted(hill, pseudo, level), live.shape[1])


def noise_finding(indices: Sequence[TailIndex]) -> Finding:
    """Say whether gradient noise has a variance: the hypothesis on which stochastic-gradient samplers rest.

    Intervals that hold together hold the smallest index, too, between the smallest of their ends, whichever place has it.

    Args:
        indices: Of one or several places in weight space, with intervals that hold together (the `level` of `tail_index`).

    Raises:
        ValueError: No place.
    """
    if not indices:
        raise ValueError("a finding about gradient noise needs the tail index of at least one place")
    hill, stable = _smallest([index.hill for index in indices]), _smallest([index.stable for index in indices])
    num_coordinates = max(index.num_coordinates for index in indices)
    verdict = "supported" if hill.lower > STABLE_GAUSSIAN else "contradicted" if hill.upper < STABLE_GAUSSIAN else "inconclusive"
    meaning = {
        "supported": "The noise has a variance, and smaller steps or larger minibatches make it small.",
        "contradicted": "The noise has no variance: larger minibatches help less than theory says, and smaller steps too.",
        "inconclusive": "The interval holds 2, where the variance begins: draw more minibatches.",
    }
    note = (
        f"At its heaviest of {len(indices)} places the tail of minibatch noise has the index {interval_text(*hill)} (Hill, "
        f"{num_coordinates:,} coordinates); the index of a stable law is {interval_text(*stable)}, 2 for Gaussian noise. "
        f"{meaning[verdict]}"
    )
    return Finding("noise-has-variance", "hypothesis", verdict, hill.value, (hill.lower, hill.upper), STABLE_GAUSSIAN, note)


def _inverse_stable(noise: Float[np.ndarray, "minibatch coordinate"]) -> float:
    length = int(np.sqrt(len(noise)))
    used = noise[: length * (len(noise) // length)]
    sums = used.reshape(-1, length, used.shape[1]).sum(1)
    return float((_mean_log(sums) - _mean_log(used)).mean() / np.log(length))


def _mean_log(values: Float[np.ndarray, "value coordinate"]) -> Float[np.ndarray, " coordinate"]:
    # A value of exactly zero (a unit that no example of the minibatch switches on) has no logarithm and is left out.
    sizes = np.abs(values)
    logs = np.log(np.where(sizes > 0, sizes, 1))
    return logs.sum(0) / np.maximum((sizes > 0).sum(0), 1)


def _inverse_hill(sizes: Float[np.ndarray, "minibatch coordinate"]) -> float:
    ordered = np.sort(sizes, 0)
    num_tail = max(2, int(TAIL * len(sizes)))
    tail, threshold = ordered[-num_tail:], ordered[-num_tail - 1]
    return float(np.log(tail / threshold).mean())


def _smallest(estimates: Sequence[Estimate]) -> Estimate:
    return Estimate(*(min(ends) for ends in zip(*estimates, strict=True)))


def _inverted(inverse: float, groups: list[float], level: float) -> Estimate:
    half = np.std(groups, ddof=1) / np.sqrt(len(groups)) * stdtrit(len(groups) - 1, (1 + level) / 2)
    value, lower, upper = (1 / max(x, 0.0) if x > 0 else np.inf for x in (inverse, inverse + half, inverse - half))
    return Estimate(float(value), float(lower), float(upper))
