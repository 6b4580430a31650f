r"""R-hat, effective sample size and Monte Carlo error of many scalars at once.

The formulas are ArviZ's and the numbers are ArviZ's to rounding; what is added is that whole arrays of scalars are worked through
together, in blocks that bound the memory. ArviZ's rules for odd input are kept too:

- a NaN among the draws of a scalar makes all its statistics NaN; infinities are ranked like any other value, and make NaN
  what is not made of ranks (plain R-hat, ESS of the mean);
- a scalar that never changes has a rank R-hat of NaN (0 / 0) and an ESS equal to the number of draws; chains that are constant
  at different values have an infinite R-hat, or one of the order of 1e15 where a variance is rounding error instead of zero;
- fewer than 4 draws, or for R-hat fewer than 2 chains, give NaN;
- splitting a chain with an odd number of draws drops the middle one.

Every function takes draws of shape (chain, draw, ...) and works in float64.

References:
    Gelman & Rubin 1992; Vehtari, Gelman, Simpson, Carpenter & Buerkner 2021, arXiv 1903.08008; Geyer 1992, section 3.3 (initial
    monotone sequence).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float, Shaped
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtri

type Draws = Shaped[np.ndarray, "chain draw *scalars"]
type Block = Float[np.ndarray, "scalar chain draw"]

MIN_DRAWS = 4  # as ArviZ: half a chain needs a variance
TAIL = (0.05, 0.95)  # Vehtari et al. 2021; ArviZ 1.3's labelled functions default to (0.11, 0.89)
BLOCK_VALUES = 2**17  # draws in a block: 1 MB in float64; smaller and larger ones measure slower


def rhat(draws: Draws) -> Float[np.ndarray, "*scalars"]:
    """Compute the rank-normalised split R-hat, the larger of bulk and folded: ArviZ's `rhat(method="rank")`.

    Returns:
        [...]; about 1 when chains agree in place and scale.
    """

    def kernel(block: Block) -> tuple[np.ndarray]:
        halves = split(block)
        return (block_rhat_rank(rank_scores(halves), rank_scores(fold(halves)), block.shape[1]),)

    return over_blocks(kernel, draws)[0]


def rhat_split(draws: Draws) -> Float[np.ndarray, "*scalars"]:
    """Compute the split R-hat of the draws themselves: ArviZ's `rhat(method="split")`."""
    return over_blocks(lambda block: (block_rhat(split(block), block.shape[1]),), draws)[0]


def rhat_classic(draws: Draws) -> Float[np.ndarray, "*scalars"]:
    """Compute Gelman and Rubin's R-hat of whole chains: ArviZ's `rhat(method="identity")`. For comparison with older work."""
    return over_blocks(lambda block: (block_rhat(block, block.shape[1]),), draws)[0]


def ess_bulk(draws: Draws) -> Float[np.ndarray, "*scalars"]:
    """Compute the effective sample size of the rank-normalised draws, all chains together: ArviZ's `ess(method="bulk")`.

    Small for slow chains and small for chains that disagree; `ess_within` tells the two apart.
    """
    return over_blocks(lambda block: (block_ess(rank_scores(split(block))),), draws)[0]


def ess_tail(draws: Draws, prob: tuple[float, float] = TAIL) -> Float[np.ndarray, "*scalars"]:
    """Compute the smaller effective sample size of two quantiles: ArviZ's `ess(method="tail", prob=prob)`."""
    return over_blocks(lambda block: (block_ess_tail(block, prob),), draws)[0]


def ess_mean(draws: Draws) -> Float[np.ndarray, "*scalars"]:
    """Compute the effective sample size of the draws themselves, all chains together: ArviZ's `ess(method="mean")`."""
    return over_blocks(lambda block: (block_ess(split(block)),), draws)[0]


def mcse_mean(draws: Draws) -> Float[np.ndarray, "*scalars"]:
    """Compute the Monte Carlo standard error of the mean: ArviZ's `mcse(method="mean")`, in the units of the draws."""
    return over_blocks(lambda block: (block.std((1, 2), ddof=1) / np.sqrt(block_ess(split(block))),), draws)[0]


def ess_within(draws: Draws) -> Float[np.ndarray, "chain *scalars"]:
    """Compute the bulk effective sample size of each chain on its own.

    Returns:
        (chain, ...); ArviZ's `ess(method="bulk")` of one chain, except 0 for a chain that does not move.
    """
    return over_blocks(lambda block: (by_chain(block_ess(rank_scores(halves_by_chain(block))), block),), draws)[0]


def over_blocks(kernel: Callable[[Block], Sequence[np.ndarray]], draws: Draws) -> list[np.ndarray]:
    """Map statistics of blocks of scalars over all scalars.

    Args:
        kernel: From a block to several statistics, each [..., scalar].
        draws: (chain, draw, ...).

    Returns:
        Each statistic as [..., *scalars]; NaN for scalars with a NaN among their draws, and with fewer than 4 draws.

    Raises:
        ValueError: `draws` lacks the two leading axes.
        TypeError: `draws` is not real.
    """
    draws = np.asarray(draws)
    if draws.ndim < 2 or 0 in draws.shape[:2]:
        raise ValueError(f"draws must have shape (chain, draw, ...) with at least one of each, got {draws.shape}")
    if draws.dtype.kind not in "fiub":
        raise TypeError(f"draws must be real numbers, got dtype {draws.dtype}")
    (num_chains, num_draws), scalars = draws.shape[:2], draws.shape[2:]
    flat = draws.reshape(num_chains, num_draws, -1)
    size = max(1, BLOCK_VALUES // (num_chains * num_draws))

    def part(start: int) -> list[np.ndarray]:
        # Contiguous draws: sums then run in ArviZ's order, and sorts and transforms are fast.
        block = np.ascontiguousarray(np.moveaxis(flat[:, :, start : start + size], -1, 0), np.float64)
        if num_draws < MIN_DRAWS:
            block = np.full((block.shape[0], num_chains, MIN_DRAWS), np.nan)
        invalid = np.isnan(block).any((1, 2))
        with np.errstate(all="ignore"):  # the rules for odd input in the module's docstring are those of IEEE arithmetic
            return [np.where(invalid, np.nan, statistic) for statistic in kernel(block)]

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy sorts and transforms without holding Python's lock
        parts = list(pool.map(part, range(0, max(flat.shape[2], 1), size)))
    joined = (np.concatenate(statistic, -1) for statistic in zip(*parts, strict=True))
    return [statistic.reshape((*statistic.shape[:-1], *scalars)) for statistic in joined]


def split(block: Block) -> Block:
    """Cut every chain into two halves, all first halves before all second ones, as ArviZ does."""
    half = block.shape[2] // 2
    return np.concatenate((block[:, :, :half], block[:, :, -half:]), 1)


def halves_by_chain(block: Block) -> Float[np.ndarray, "scalar_and_chain 2 draw"]:
    """Cut every chain into two halves that stand for the chains of a problem of its own."""
    half = block.shape[2] // 2
    return np.stack((block[:, :, :half], block[:, :, -half:]), 2).reshape(-1, 2, half)


def fold(block: Block) -> Block:
    """Return the distances to the median of each scalar, which tell scales apart where the values tell places apart."""
    ordered = np.sort(_joined(block), -1)
    middle = ordered.shape[1] // 2
    median = ordered[:, middle - 1 : middle + 1].mean(-1)  # split chains hold an even number of draws
    distance = block - median[:, None, None]
    return np.abs(distance, out=distance)


def rank_scores(block: Block) -> Block:
    """Replace the draws of each scalar by the normal scores of their ranks, tied draws by that of their average rank.

    References:
        Blom 1958: the offset 3/8.
    """
    values = _joined(block)
    count = values.shape[1]
    table = ndtri((np.arange(2 * count + 1) / 2 - 3 / 8) / (count + 1 / 4))  # by twice the rank
    place = np.argsort(values, -1)
    place += count * np.arange(len(values))[:, None]  # in the flat array, for speed
    ordered = values.take(place)
    ordered_scores = np.tile(table[2::2], (len(values), 1))
    joins = np.zeros((len(values), count + 1), bool)  # between neighbours in order: are they tied?
    np.equal(ordered[:, 1:], ordered[:, :-1], out=joins[:, 1:-1])
    is_tied = joins[:, 1:] | joins[:, :-1]
    first, last = np.flatnonzero(is_tied & ~joins[:, :-1]), np.flatnonzero(is_tied & ~joins[:, 1:])
    twice_mean_rank = first % count + last % count + 2
    ordered_scores[is_tied] = np.repeat(table[twice_mean_rank], last - first + 1)
    scores = np.empty(values.size)
    scores[place] = ordered_scores
    scores[np.isnan(values).ravel()] = np.nan
    return scores.reshape(block.shape)


def by_chain(statistic: Float[np.ndarray, " scalar_and_chain"], block: Block) -> Float[np.ndarray, "chain scalar"]:
    """Lay out an effective sample size computed on `halves_by_chain`, with 0 for chains that do not move."""
    return np.where(np.ptp(block, -1) > 0, statistic.reshape(block.shape[:2]), 0).T


def block_rhat(block: Block, num_chains: int) -> Float[np.ndarray, " scalar"]:
    """Compute sqrt(((n - 1) W + B) / (n W)): W the mean variance within chains of n draws, B / n the variance of their means."""
    if num_chains < 2:
        return np.full(block.shape[0], np.nan)
    num_draws = block.shape[2]
    means = block.mean(-1, keepdims=True)
    within = block.var(-1, ddof=1, mean=means).mean(-1)
    between = num_draws * means[..., 0].var(-1, ddof=1)
    return np.sqrt((between / within + num_draws - 1) / num_draws)


def block_rhat_rank(scores: Block, folded_scores: Block, num_chains: int) -> Float[np.ndarray, " scalar"]:
    """Compute the rank-normalised R-hat from the scores of split chains and of their folded values."""
    bulk, folded = block_rhat(scores, num_chains), block_rhat(folded_scores, num_chains)
    return np.where(folded > bulk, folded, bulk)  # a NaN on the folded side alone does not count


def block_ess(block: Block) -> Float[np.ndarray, " scalar"]:
    """Compute the effective sample size of a block by Geyer's initial monotone sequence.

    Autocorrelations are summed in pairs of an even and the next odd lag, up to the first pair that is not positive; of that pair
    the even lag alone is added, if it is positive. Pairs are made to decrease.
    """
    num_chains, num_draws = block.shape[1:]
    length = next_fast_len(2 * num_draws, real=True)
    spectrum = rfft(block - block.mean(-1, keepdims=True), length, axis=-1)
    power = (spectrum.real**2 + spectrum.imag**2).mean(1)
    autocovariance = irfft(power, length, axis=-1)[:, :num_draws] / num_draws
    within = autocovariance[:, :1] * num_draws / (num_draws - 1)
    total = within * (num_draws - 1) / num_draws
    if num_chains > 1:
        total = total + block.mean(-1).var(-1, ddof=1)[:, None]
    correlation = 1 - (within - autocovariance) / total
    correlation[:, 0] = 1
    last_pair = max(0, (num_draws - 3) // 2)  # the sum ends before the last lags
    pairs = correlation[:, : 2 * last_pair + 2].reshape(-1, last_pair + 1, 2)
    sums = pairs.sum(-1)
    is_end = ~(sums > 0)
    is_end[:, last_pair] = True
    end = is_end.argmax(-1)[:, None]
    last_even = np.take_along_axis(pairs[:, :, 0], end, -1)[:, 0]
    last_sum = np.take_along_axis(sums, end, -1)[:, 0]
    before_end = np.arange(sums.shape[1]) < end
    time = 2 * np.where(before_end, np.minimum.accumulate(sums, -1), 0).sum(-1) - 1
    time += np.where((last_sum >= 0) | (last_even > 0), last_even, 0)
    count = num_chains * num_draws
    time[np.isnan(correlation[:, 1])] = np.nan
    is_constant = np.ptp(block, (1, 2)) < np.finfo(float).resolution
    return np.where(is_constant, count, count / np.maximum(time, 1 / np.log10(count)))


def block_ess_tail(block: Block, prob: tuple[float, float]) -> Float[np.ndarray, " scalar"]:
    """Compute the smaller effective sample size of two quantiles of a block."""
    quantiles = np.quantile(_joined(block), prob, axis=-1)
    return np.min([block_ess(split(block <= quantile[:, None, None]).astype(float)) for quantile in quantiles], 0)


def _joined(block: Block) -> Float[np.ndarray, "scalar chain_and_draw"]:
    return block.reshape(block.shape[0], block.shape[1] * block.shape[2])
