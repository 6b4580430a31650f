"""Convergence of draws that were not kept, from their batch means.

What a fold carries through the loop is enough for the split R-hat, exactly, and for an effective sample size, roughly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import fdtri

from diagnostics.stationary import ALARM

MIN_BATCHES = 4  # half a chain then has a variance between batches


class StreamingStatistics(NamedTuple):
    """Convergence statistics of scalars whose draws were not kept.

    Attributes:
        mean: Mean of all draws, in their units.
        sd: Standard deviation of the draws of a chain, all chains together: that of the target if the chains have converged.
        rhat_classic: Gelman and Rubin's R-hat of whole chains.
        rhat_split: R-hat of half chains. Not rank-normalised: blind to differences of scale, and to tails without a variance.
        ess_mean: Effective sample size of the mean, all chains together, by batch means. Chains that disagree have few.
        mcse_mean: Monte Carlo standard error of the mean, in the units of the draws.
    """

    mean: Float[np.ndarray, "..."]
    sd: Float[np.ndarray, "..."]
    rhat_classic: Float[np.ndarray, "..."]
    rhat_split: Float[np.ndarray, "..."]
    ess_mean: Float[np.ndarray, "..."]
    mcse_mean: Float[np.ndarray, "..."]


def streaming_statistics(
    batch_means: Float[np.ndarray, "chain batch *scalars"],
    squared_deviations: Float[np.ndarray, "chain batch *scalars"],
    batch_length: int,
) -> StreamingStatistics:
    r"""Compute convergence statistics from what `samplers.batch_means` carries.

    Within a half, squared deviations of batches from their means and of those means from the mean of the half add up to those of
    the draws, so that split R-hat is that of the draws themselves. The effective sample size is

    .. math:: m n \; \hat\sigma^2_+ / (\ell \; \mathrm{Var}(\text{batch means}))

    with m chains of n draws, batches of :math:`\ell` draws, their variance about the mean of all chains, and
    :math:`\hat\sigma^2_+` the variance that R-hat holds against that within chains. It is too large by up to
    :math:`1 + \tau / \ell` (batches shorter than the autocorrelation time :math:`\tau` look independent when they are not). Where
    chain means differ by more than batch means explain (F test, one false alarm in a thousand), a chain counts as one batch.

    Args:
        batch_means: Means of consecutive batches of each chain, an even number of at least 4.
        squared_deviations: Sums of squared deviations of the draws of each batch from its mean.
        batch_length: Draws of a batch.

    Raises:
        ValueError: Arrays of different shapes, an odd number of batches or fewer than 4, a batch length below 1.

    References:
        Gelman & Rubin 1992; batch means: Flegal & Jones 2010, arXiv 0811.1729.
    """
    means, squares = np.asarray(batch_means, float), np.asarray(squared_deviations, float)
    if means.shape != squares.shape or means.ndim < 2:
        raise ValueError(f"both must have the same shape (chain, batch, ...), got {means.shape} and {squares.shape}")
    num_chains, num_batches = means.shape[:2]
    if num_batches < MIN_BATCHES or num_batches % 2 or batch_length < 1:
        raise ValueError(
            f"need an even number of at least {MIN_BATCHES} batches of at least one draw, got {num_batches} of {batch_length}"
        )
    num_draws = num_batches * batch_length
    with np.errstate(invalid="ignore", divide="ignore"):
        within, total, classic = _parts(means, squares, batch_length, 1)
        split = _parts(means, squares, batch_length, 2)[2]
        flat = means.reshape(num_chains * num_batches, *means.shape[2:])
        long_run = batch_length * flat.var(0, ddof=1)  # variance of a mean of many draws, times their number
        if num_chains > 1:
            of_chains = num_draws * means.mean(1).var(0, ddof=1)
            critical = fdtri(num_chains - 1, num_chains * (num_batches - 1), 1 - ALARM)
            differ = of_chains > critical * batch_length * means.var(1, ddof=1).mean(0)
            long_run = np.where(differ, of_chains, long_run)
        ess = num_chains * num_draws * total / long_run
        return StreamingStatistics(flat.mean(0), np.sqrt(within), classic, split, ess, np.sqrt(total / ess))


def _parts(
    means: Float[np.ndarray, "chain batch *scalars"],
    squares: Float[np.ndarray, "chain batch *scalars"],
    batch_length: int,
    num_parts: int,
) -> tuple[Float[np.ndarray, "*scalars"], ...]:
    """Return the variance within parts of chains, the variance that pools them, and R-hat, which compares the two."""
    num_chains, num_batches = means.shape[:2]
    shape = (num_chains * num_parts, num_batches // num_parts, *means.shape[2:])
    means, squares = means.reshape(shape), squares.reshape(shape)
    num_draws = shape[1] * batch_length
    centres = means.mean(1)
    within = (squares.sum(1) + batch_length * np.square(means - centres[:, None]).sum(1)) / (num_draws - 1)
    pooled = within.mean(0)
    total = pooled * (num_draws - 1) / num_draws
    if len(centres) == 1:
        return pooled, total, np.full(pooled.shape, np.nan)
    total = total + centres.var(0, ddof=1)
    return pooled, total, np.sqrt(total / pooled) if num_chains > 1 else np.full(pooled.shape, np.nan)
