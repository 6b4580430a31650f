"""Distances between predictive distributions of one target, by their quantiles."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

NUM_QUANTILES = (
    100  # of a predictive distribution; a distance between two of them is then off by about a hundredth of their width
)
MIN_COMPONENTS = 2000  # values that stand for a mixture, at least one a normal
GOLDEN = 0.618034  # multiples of it, modulo 1, are spread evenly however many they are


def wasserstein_distance(
    samples: Float[np.ndarray, "... sample"], other: Float[np.ndarray, "... sample"], order: int = 1
) -> Float[np.ndarray, "..."]:
    r"""Compute the Wasserstein distance between samples of equal size, point by point.

    .. math:: W_p = \Big(\frac{1}{n} \sum_i |x_{(i)} - y_{(i)}|^p\Big)^{1/p}

    Args:
        samples: Samples or quantiles along the last axis, in any order.
        other: As many of the other distribution.
        order: p, 1 or 2.

    Returns:
        In the units of the samples.

    Raises:
        ValueError: Different numbers of samples, or another order.

    References:
        Wilson et al. 2022, PMLR 176, equation 3, leave out the mean over samples: theirs is sqrt(n) times :math:`W_2`.
    """
    if samples.shape[-1] != other.shape[-1]:
        raise ValueError(f"samples must be as many, got {samples.shape[-1]} and {other.shape[-1]}; take quantiles first")
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    gaps = np.abs(np.sort(samples, -1) - np.sort(other, -1))
    return gaps.mean(-1) if order == 1 else np.sqrt(np.square(gaps).mean(-1))


def negative_mean_wasserstein_1(
    samples: Float[np.ndarray, "point sample"], reference: Float[np.ndarray, "point sample"]
) -> float:
    """Compute the competition's regression score, under the name of what it is.

    The code of the NeurIPS 2021 competition calls it W2, but computes SciPy's `wasserstein_distance`, which is of first order, on
    1,000 samples a point, averages over points and turns the sign. Its paper describes another number, of second order.

    References:
        izmailovpavel/neurips_bdl_starter_kit, metrics.py.
    """
    return -float(wasserstein_distance(samples, reference).mean())


def mixture_quantiles(
    mean: Float[np.ndarray, "draw point"], scale: Float[np.ndarray, "draw point"], num: int = NUM_QUANTILES
) -> Float[np.ndarray, "point quantile"]:
    """Return quantiles of a mixture of normal predictions, at the middle of `num` equal shares.

    Every normal stands as some of its own quantiles, at levels that are staggered over the normals so that together they have
    the tails of all; nothing is drawn at random.

    Args:
        mean: Of each normal.
        scale: Its standard deviation.
        num: Number of quantiles.
    """
    per_draw = max(1, -(-MIN_COMPONENTS // len(mean)))
    stagger = ((np.arange(len(mean)) + 0.5) * GOLDEN) % 1
    deviates = ndtri((np.arange(per_draw)[:, None] + stagger) / per_draw)[..., None]
    return quantiles((mean + scale * deviates).reshape(-1, mean.shape[-1]).T, num)


def quantiles(samples: Float[np.ndarray, "... sample"], num: int = NUM_QUANTILES) -> Float[np.ndarray, "... quantile"]:
    """Return quantiles of samples at the middle of `num` equal shares, between samples linearly."""
    ordered = np.sort(samples, -1)
    # Samples stand at the middle of their shares, too.
    position = np.clip(_middles(num) * ordered.shape[-1] - 0.5, 0, ordered.shape[-1] - 1)
    below = np.minimum(position.astype(int), max(ordered.shape[-1] - 2, 0))
    above = np.minimum(below + 1, ordered.shape[-1] - 1)
    return ordered[..., below] + (position - below) * (ordered[..., above] - ordered[..., below])


def _middles(num: int) -> Float[np.ndarray, " num"]:
    return (np.arange(num) + 0.5) / num
