"""Can a network tell inputs of its own kind from others? Areas under the ROC curve, with intervals."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.stats import rankdata

from diagnostics.estimates import Estimate

Z = 1.959964  # normal quantile of a central 95 % interval, the `LEVEL` of all estimates


def auroc(inside: Float[np.ndarray, " inside"], outside: Float[np.ndarray, " outside"]) -> Estimate:
    r"""Estimate the probability that an outside input scores higher than an inside one; ties count half.

    The interval is that of scores (Wilson's idea): all :math:`\theta` with
    :math:`|\hat\theta - \theta| \le 1.96 \sqrt{V(\theta)}`, so that perfect separation of few points has a lower end below 1,

    .. math:: V(\theta) = \frac{\theta (1 - \theta)}{m n} \Big(1 + \big(\tfrac{m + n}{2} - 1\big)
        \big(\tfrac{1 - \theta}{2 - \theta} + \tfrac{\theta}{1 + \theta}\big)\Big)

    Args:
        inside: Scores of the m test points of the training distribution, larger for more doubt: 1 - largest probability, entropy.
        outside: Scores of the n points of another distribution.

    Returns:
        0.5 where the scores cannot tell them apart, 1 where they always do; NaN with NaN scores.

    Raises:
        ValueError: No inside or no outside points.

    References:
        Newcombe 2006, Statistics in Medicine 25, method 5; the variance is that of Hanley & McNeil 1982.
    """
    above, _ = _placements(inside, outside)
    value, (m, n) = float(above.mean()), (len(inside), len(outside))
    if math.isnan(value):
        return Estimate(math.nan, math.nan, math.nan)

    def distance(theta: float) -> float:
        shape = (1 - theta) / (2 - theta) + theta / (1 + theta)
        return abs(value - theta) - Z * math.sqrt(theta * (1 - theta) / (m * n) * (1 + ((m + n) / 2 - 1) * shape))

    # Just beside the estimate the distance is negative: at 0 and 1 themselves the variance is zero.
    lower = brentq(distance, 0.0, value * (1 - 1e-12)) if value > 0 else 0.0
    upper = brentq(distance, value + (1 - value) * 1e-12, 1.0) if value < 1 else 1.0
    return Estimate(value, float(lower), float(upper))


def auroc_difference(
    inside: Float[np.ndarray, " inside"],
    outside: Float[np.ndarray, " outside"],
    other_inside: Float[np.ndarray, " inside"],
    other_outside: Float[np.ndarray, " outside"],
) -> Estimate:
    """Estimate by how much the area of one method exceeds that of another on the same points.

    The interval pairs the points: it is made of the two that `auroc` gives and of DeLong's correlation of the areas, so that two
    methods that both separate few points perfectly are not certainly alike.

    Args:
        inside: Scores of the one method.
        outside: Scores of the one method.
        other_inside: Scores of the other, in the same order.
        other_outside: Scores of the other, in the same order.

    Raises:
        ValueError: Different numbers of points, or none.

    References:
        Zou 2007, Psychological Methods 12 (an interval of a difference from those of its parts); DeLong, DeLong &
        Clarke-Pearson 1988, Biometrics 44 (the correlation).
    """
    if inside.shape != other_inside.shape or outside.shape != other_outside.shape:
        ours, theirs = (
            f"{len(one)} inside and {len(two)} outside" for one, two in ((inside, outside), (other_inside, other_outside))
        )
        raise ValueError(f"scores of {ours} cannot be paired with scores of {theirs}")
    one, other = auroc(inside, outside), auroc(other_inside, other_outside)
    parts = zip(_placements(inside, outside), _placements(other_inside, other_outside), strict=True)
    covariance = sum((np.cov(pair) / len(pair[0]) for pair in parts if len(pair[0]) > 1), np.zeros((2, 2)))
    product = float(covariance[0, 0] * covariance[1, 1])
    correlation = float(covariance[0, 1]) / math.sqrt(product) if product else 0.0

    def reach(down: float, up: float) -> float:
        return math.sqrt(max(down**2 + up**2 - 2 * correlation * down * up, 0.0))

    value = one.value - other.value
    lower = value - reach(one.value - one.lower, other.upper - other.value)
    return Estimate(value, lower, value + reach(one.upper - one.value, other.value - other.lower))


def _placements(
    inside: Float[np.ndarray, " inside"], outside: Float[np.ndarray, " outside"]
) -> tuple[Float[np.ndarray, " inside"], Float[np.ndarray, " outside"]]:
    """Return the share of outside points above each inside one, and of inside points below each outside one; ties half."""
    m, n = len(inside), len(outside)
    if not m or not n:
        raise ValueError(f"an area under the ROC curve needs points of both kinds, got {m} inside and {n} outside")
    together = rankdata(np.concatenate([inside, outside]))
    above = 1 - (together[:m] - rankdata(inside)) / n
    below = (together[m:] - rankdata(outside)) / m
    return above, below
