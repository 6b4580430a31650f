r"""What a stationary process as slow as the chains would show: the yardstick for R-hat.

R-hat is above 1.01 in 1 % of scalars for independent draws at 3 chains x 240, and in 92 % for a stationary AR(1) process
with :math:`\phi = 0.8`: shares of scalars above a threshold mean nothing until they are held against those of a stationary
process with the same number of chains and draws and the same autocorrelation time. That time is measured *within* chains: the
pooled effective sample size would let a stuck or displaced chain excuse itself.

.. math:: x_t = \phi x_{t-1} + \sqrt{1 - \phi^2}\, \epsilon_t, \qquad \tau = \frac{1 + \phi}{1 - \phi}

Scalars are dependent, so a share is less certain than their number suggests. For jointly Gaussian chain means with correlation
:math:`\rho_{ij}`, indicators of their squares are correlated by at most :math:`\rho_{ij}^2`, so that m scalars are worth at
least :math:`m^2 / \sum_{ij} \rho_{ij}^2` independent ones, the participation ratio of the correlation matrix.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import betaincinv, ndtr, ndtri

from diagnostics.convergence import MIN_DRAWS, Draws, block_ess, block_rhat, halves_by_chain, split

THRESHOLDS = (1.01, 1.1)  # Vehtari et al. 2021; Gelman & Rubin 1992 as used by Izmailov et al. 2021
ALARM = 0.001  # false-alarm rate of one comparison with the stationary process
NUM_BATCHES = 10  # batch means a chain; at the 100 effective draws a chain that verdicts ask for, batches are nearly independent
MAX_SIMULATED_DRAWS = 1000  # longer chains are simulated at this length with the same number of effective draws
SIMULATED_VALUES = 2**20  # draws simulated at one autocorrelation time: 655 repetitions of 4 x 400
RARE = 10  # exceedances needed for a probability, then known to about a third
CRITICAL = 0.95  # quantile of the disagreement of stationary chains; higher ones would need more repetitions
GROSS = 10.0  # times that quantile: chain means 3.2 times as far apart as those of 95 % of stationary scalars
GROSS_SHARE = 2e-4  # bound on the share of stationary scalars beyond that; measured: at most 1.5e-4, 2 to 8 chains, any time
SEED = 20211  # the same chains are always held against the same numbers


class StationaryNull(NamedTuple):
    """Distribution of convergence statistics of stationary AR(1) chains, on a grid of autocorrelation times.

    Attributes:
        log_time: [grid] logarithm of the autocorrelation time as measured within the simulated chains, over the number of draws.
        score: [grid, threshold] normal score of the probability that the split R-hat is above each of `THRESHOLDS`.
        log_disagreement: [grid] logarithm of the `CRITICAL` quantile of `disagreement`.
        repetitions: Simulated chains at each time.
    """

    log_time: Float[np.ndarray, " grid"]
    score: Float[np.ndarray, "grid threshold"]
    log_disagreement: Float[np.ndarray, " grid"]
    repetitions: int

    def exceedance(self, relative_time: Float[np.ndarray, " scalar"]) -> Float[np.ndarray, "scalar threshold"]:
        """Return the probability of a split R-hat above each threshold.

        Args:
            relative_time: Autocorrelation time measured within chains over the number of draws: 1 / ESS of a chain.
        """
        time = np.log(relative_time)
        return ndtr(np.stack([np.interp(time, self.log_time, column, right=np.inf) for column in self.score.T], -1))

    def gross_disagreement(self, relative_time: Float[np.ndarray, " scalar"]) -> Float[np.ndarray, " scalar"]:
        """Return the disagreement that fewer than `GROSS_SHARE` of stationary scalars pass; infinite where chains barely move."""
        return GROSS * np.exp(np.interp(np.log(relative_time), self.log_time, self.log_disagreement, right=np.inf))


@functools.lru_cache(maxsize=16)
def stationary_null(num_chains: int, num_draws: int) -> StationaryNull:
    """Simulate stationary chains of the given number and length, at autocorrelation times from 1/2 to the number of draws."""
    num_draws = min(num_draws, MAX_SIMULATED_DRAWS)
    repetitions = int(np.clip(SIMULATED_VALUES // (num_chains * num_draws), 250, 4000))
    times = np.geomspace(0.5, num_draws, 2 + int(np.log2(num_draws)))
    rng = np.random.default_rng(SEED)
    rows = [_simulate(rng, time, repetitions, num_chains, num_draws) for time in times]
    log_time, share, log_disagreement = (np.array(column) for column in zip(*rows, strict=True))
    # Measured times stop growing where chains are no longer than their autocorrelation; interpolation needs them in order.
    log_time = np.maximum.accumulate(log_time)
    score = np.stack([_scores(column, log_time, repetitions) for column in share.T], -1)
    return StationaryNull(log_time, score, log_disagreement, repetitions)


def _simulate(
    rng: np.random.Generator, time: float, repetitions: int, num_chains: int, num_draws: int
) -> tuple[float, Float[np.ndarray, " threshold"], float]:
    phi = (time - 1) / (time + 1)
    draws = rng.standard_normal((num_draws, repetitions, num_chains))
    draws[1:] *= np.sqrt(1 - phi**2)
    for previous, current in itertools.pairwise(draws):
        current += phi * previous
    block = np.ascontiguousarray(np.moveaxis(draws, 0, -1))
    r = block_rhat(split(block), 2)
    share = np.array([np.mean(r > threshold) for threshold in THRESHOLDS])
    ess = block_ess(halves_by_chain(block)).reshape(repetitions, num_chains)
    quantile = np.quantile(disagreement(block, ess), CRITICAL)
    return -np.log(ess.mean(-1)).mean(), share, np.log(quantile)


def _scores(
    share: Float[np.ndarray, " grid"], log_time: Float[np.ndarray, " grid"], repetitions: int
) -> Float[np.ndarray, " grid"]:
    """Turn shares into normal scores, nearly linear in the logarithm of time, and continue them where events are too rare."""
    score = ndtri(np.clip(share, 0.5 / repetitions, 1 - 0.5 / repetitions))
    first = int(np.argmax(share * repetitions >= RARE))
    if 0 < first < len(share) - 1:
        slope = (score[first + 1] - score[first]) / (log_time[first + 1] - log_time[first])
        score[:first] = score[first] + max(slope, 0) * (log_time[:first] - log_time[first])
    return score


def disagreement(
    block: Float[np.ndarray, "scalar chain draw"], ess: Float[np.ndarray, "scalar chain"]
) -> Float[np.ndarray, " scalar"]:
    """Compute the variance of the chain means over their mean squared Monte Carlo error.

    Args:
        block: Draws.
        ess: Effective sample size of the mean of each chain on its own.

    Returns:
        [scalar]; NaN for a single chain.
    """
    if block.shape[1] < 2:
        return np.full(len(block), np.nan)
    variance = block.var(-1, ddof=1)
    squared_error = np.divide(variance, ess, out=np.zeros_like(variance), where=ess > 0)  # a chain that stands still is certain
    return block.mean(-1).var(-1, ddof=1) / squared_error.mean(-1)


def batch_correlation(draws: Draws) -> tuple[Float[np.ndarray, "batch batch"], int]:
    """Sum the outer products of standardised batch means over scalars, so that layers and blocks can be added up.

    Means of batches show the slow modes that R-hat sees, where single draws show the fast ones. They are taken about the mean of
    their own chain: displaced chains must not pass for correlation.

    Args:
        draws: (chain, draw, ...).

    Returns:
        The sum, [batch, batch], batches of all chains; the number of scalars in it, constant and non-finite ones left out.
    """
    num_chains, num_draws = draws.shape[:2]
    num_batches = min(NUM_BATCHES, num_draws)
    length = num_draws // num_batches
    used = draws[:, : num_batches * length].reshape(num_chains, num_batches, length, -1)
    freedom = num_chains * (num_batches - 1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        means = used.mean(2, dtype=np.float64)
        means -= means.mean(1, keepdims=True)
        means = means.reshape(num_chains * num_batches, -1)
        means /= np.sqrt((means**2).sum(0) / freedom)
    means = means[:, np.isfinite(means).all(0)]
    return means @ means.T, means.shape[1]


def num_effective_scalars(correlation: Float[np.ndarray, "batch batch"], num_scalars: int, num_chains: int) -> float:
    """Estimate the number of independent scalars that dependent ones are worth, from `batch_correlation`.

    The participation ratio of the sample correlation is biased towards the number of batches; Srivastava's estimator of the trace
    of a squared covariance from f degrees of freedom is not.

    Returns:
        From 1 to `num_scalars`.

    References:
        Srivastava 2005, Journal of the Japan Statistical Society 35, 251-272.
    """
    freedom = correlation.shape[0] - num_chains
    if num_scalars <= 1 or freedom <= 1:
        return 1.0
    squares = np.sum((correlation / freedom) ** 2)  # trace of the squared sample correlation
    squares = freedom**2 / ((freedom - 1) * (freedom + 2)) * (squares - num_scalars**2 / freedom)
    return float(np.clip(num_scalars**2 / max(squares, num_scalars), 1, num_scalars))


def largest_share(expected: Float[np.ndarray, "..."], effective: float) -> Float[np.ndarray, "..."]:
    """Return the share that a stationary process passes with probability `ALARM`.

    Args:
        expected: Expected share, in (0, 1).
        effective: Number of independent scalars that the share is made of, at least 1.

    Returns:
        Quantile of the beta distribution with the mean and the variance of that share.
    """
    size = max(effective - 1, 1e-3)  # a single scalar has a share of 0 or 1
    smallest = 1e-12  # of the parameters for which the inverse of the incomplete beta function is defined numerically
    return betaincinv(np.maximum(size * expected, smallest), np.maximum(size * (1 - expected), smallest), 1 - ALARM)


class SharesAgainstNull(NamedTuple):
    """Shares of scalars held against those of a stationary process; NaN for a single chain or fewer than 4 draws.

    Attributes:
        share: [threshold] with an R-hat above each of `THRESHOLDS`.
        share_expected: [threshold] the same of a stationary process as slow as these chains.
        share_largest: [threshold] what that process passes with probability `ALARM`.
        gross_share: Share of scalars whose chains disagree grossly, less than `GROSS_SHARE` in expectation.
        gross_largest: What a stationary process passes with probability `ALARM`.
    """

    share: Float[np.ndarray, " threshold"]
    share_expected: Float[np.ndarray, " threshold"]
    share_largest: Float[np.ndarray, " threshold"]
    gross_share: float
    gross_largest: float


def compare_with_stationary(
    rhat: Float[np.ndarray, " scalar"],
    disagreement: Float[np.ndarray, " scalar"],
    ess_within: Float[np.ndarray, "chain scalar"],
    ess_within_folded: Float[np.ndarray, "chain scalar"],
    num_draws: int,
    effective: float,
) -> SharesAgainstNull:
    """Hold R-hat and the disagreement of chains against what a stationary process as slow as they are would show.

    A chain that is slower than the others raises the expected share by no more than a factor of chains / (chains - 1) in time,
    because effective draws are averaged.

    Args:
        rhat: Rank-normalised split R-hat.
        disagreement: See `disagreement`.
        ess_within: Effective sample size of each chain on its own.
        ess_within_folded: The same for the distance to the median.
        num_draws: Draws of a chain.
        effective: Number of independent scalars that these are worth.
    """
    num_chains = len(ess_within)
    if num_chains < 2 or num_draws < MIN_DRAWS or np.isnan(rhat).all():
        nothing = np.full(len(THRESHOLDS), np.nan)
        return SharesAgainstNull(nothing, nothing, nothing, np.nan, np.nan)
    null = stationary_null(num_chains, num_draws)
    with np.errstate(divide="ignore"):  # chains that do not move are infinitely slow
        time, folded_time = 1 / ess_within.mean(0), 1 / ess_within_folded.mean(0)
    # R-hat is the larger of two nearly independent ones, of the values and of the folded values.
    expected = 1 - np.mean((1 - null.exceedance(time)) * (1 - null.exceedance(folded_time)), 0)
    effective = 1 / (1 / effective + 1 / null.repetitions)  # the expectation is simulated too
    return SharesAgainstNull(
        np.mean(rhat[:, None] > THRESHOLDS, 0),
        expected,
        largest_share(expected, effective),
        float(np.mean(disagreement > null.gross_disagreement(time))),
        float(largest_share(np.asarray(GROSS_SHARE), effective)),
    )
