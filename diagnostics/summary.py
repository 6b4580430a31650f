"""Convergence of every weight and of every function value, scalar by scalar and layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from diagnostics import stationary
from diagnostics.chainwise import block_rhat_chainwise, block_variances
from diagnostics.convergence import (
    MIN_DRAWS,
    TAIL,
    Block,
    Draws,
    block_ess,
    block_ess_tail,
    block_rhat,
    block_rhat_rank,
    by_chain,
    fold,
    halves_by_chain,
    over_blocks,
    rank_scores,
    split,
)
from diagnostics.trees import check_tree, layer_of, predicted, weights

TOTAL = "(total)"  # the row of a table that holds all its layers; no parameter path has brackets
LOW_QUANTILE = 0.05  # "nearly all" scalars: minima over thousands of noisy estimates say nothing


class ScalarStatistics(NamedTuple):
    """What one pass over the draws tells about each scalar.

    Attributes:
        mean: Mean of all draws, in their units.
        sd: Their standard deviation; exactly 0 for a scalar that never changes.
        rhat: Rank-normalised split R-hat.
        ess_bulk: Effective sample size of the rank-normalised draws, all chains together.
        ess_tail: The smaller of those of the 5 % and 95 % quantiles.
        mcse_mean: Monte Carlo standard error of the mean, in the units of the draws.
        ess_within: (chain, ...); bulk effective sample size of each chain on its own; 0 for a chain that does not move.
        ess_within_folded: (chain, ...); the same for the distance to the median of the chain.
        disagreement: Variance of the chain means over their squared Monte Carlo error, which is taken from within the chains:
            about 1 for chains that agree, however slow they are.
        rhat_classic: Gelman and Rubin's R-hat of whole chains, for comparison with older work.
        rhat_chainwise: (chain, ...); R-hat of four blocks of each chain on its own, see `rhat_chainwise`.
        within: Mean over chains of the variance of a chain.
        between: Variance of the chain means.
    """

    mean: Float[np.ndarray, "*scalars"]
    sd: Float[np.ndarray, "*scalars"]
    rhat: Float[np.ndarray, "*scalars"]
    ess_bulk: Float[np.ndarray, "*scalars"]
    ess_tail: Float[np.ndarray, "*scalars"]
    mcse_mean: Float[np.ndarray, "*scalars"]
    ess_within: Float[np.ndarray, "chain *scalars"]
    ess_within_folded: Float[np.ndarray, "chain *scalars"]
    disagreement: Float[np.ndarray, "*scalars"]
    rhat_classic: Float[np.ndarray, "*scalars"]
    rhat_chainwise: Float[np.ndarray, "chain *scalars"]
    within: Float[np.ndarray, "*scalars"]
    between: Float[np.ndarray, "*scalars"]


REPORTED = (
    "mean",
    "sd",
    "rhat",
    "ess_bulk",
    "ess_tail",
    "mcse_mean",
    "ess_within",
    "rhat_classic",
    "rhat_chainwise",
    "within",
    "between",
)


def scalar_statistics(draws: Draws) -> ScalarStatistics:
    """Compute all convergence statistics of every scalar in one pass.

    Args:
        draws: (chain, draw, ...).

    Returns:
        Arrays [...] and [chain, ...]; NaN by the rules of `diagnostics.convergence`, except that mean and standard deviation are
        defined for fewer than 4 draws, too.
    """
    statistics = ScalarStatistics(*over_blocks(_block_statistics, draws))
    if draws.shape[1] >= MIN_DRAWS:
        return statistics
    with np.errstate(invalid="ignore", over="ignore"):
        ddof = int(draws.shape[0] * draws.shape[1] > 1)
        return statistics._replace(mean=draws.mean((0, 1), dtype=float), sd=draws.std((0, 1), dtype=float, ddof=ddof))


def _block_statistics(block: Block) -> ScalarStatistics:
    halves = split(block)
    scores, folded = rank_scores(halves), rank_scores(fold(halves))
    alone = halves_by_chain(block)
    scores_alone = rank_scores(alone)
    within, between = block_variances(block)
    sd = np.where(np.ptp(block, (1, 2)) > 0, block.std((1, 2), ddof=1), 0)
    return ScalarStatistics(
        mean=block.mean((1, 2)),
        sd=sd,
        rhat=block_rhat_rank(scores, folded, block.shape[1]),
        ess_bulk=block_ess(scores),
        ess_tail=block_ess_tail(block, TAIL),
        mcse_mean=sd / np.sqrt(block_ess(halves)),
        ess_within=by_chain(block_ess(scores_alone), block),
        ess_within_folded=by_chain(block_ess(rank_scores(fold(alone))), block),
        disagreement=stationary.disagreement(block, by_chain(block_ess(alone), block).T),
        rhat_classic=block_rhat(block, block.shape[1]),
        rhat_chainwise=block_rhat_chainwise(scores_alone, block),
        within=within,
        between=between,
    )


class Part(NamedTuple):
    """Some scalars of a run: their statistics, flattened, and the correlation of their batch means (`batch_correlation`)."""

    statistics: ScalarStatistics
    correlation: Float[np.ndarray, "batch batch"]
    num_correlated: int

    @classmethod
    def of(cls, draws: Draws) -> Part:
        """Analyse the draws (chain, draw, ...) of a variable."""
        flat = draws.reshape(*draws.shape[:2], -1)
        return cls(scalar_statistics(flat), *stationary.batch_correlation(flat))

    @classmethod
    def join(cls, parts: Sequence[Part]) -> Part:
        """Put the scalars of several parts together."""
        fields = zip(*(part.statistics for part in parts), strict=True)
        statistics = ScalarStatistics(*(np.concatenate(field, -1) for field in fields))
        correlation = np.sum([part.correlation for part in parts], 0)
        return cls(statistics, correlation, sum(part.num_correlated for part in parts))


def summarise(tree: xr.DataTree) -> xr.DataTree:
    """Summarise the convergence of a run in weight space and in function space.

    Args:
        tree: A run, see `diagnostics.trees`.

    Returns:
        A tree with the attributes of the run and, for each of the groups `posterior` and `functions` that it has, two groups:
        that name, with the variables of the run along a new leading dimension `statistic` (`REPORTED`; `ess_within` and
        `rhat_chainwise` are means over chains), and that name + `_layers`, the table of `layer_table`.

    Raises:
        ValueError: The tree is not one of a run.
    """
    check_tree(tree)
    groups = {}
    for group, variables in (("posterior", weights(tree)), ("functions", predicted(tree))):
        if variables.data_vars:
            groups[group], groups[f"{group}_layers"] = summarise_variables(variables)
    summary = xr.DataTree.from_dict(groups)
    summary.attrs = dict(tree.attrs)
    return summary


def summarise_variables(variables: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Return the statistics of every scalar of some variables (chain, draw, ...), and their `layer_table`."""
    parts = {str(name): Part.of(variable.values) for name, variable in variables.items()}
    return _labelled(variables, parts), layer_table(parts, variables.sizes["draw"])


def _labelled(variables: xr.Dataset, parts: Mapping[str, Part]) -> xr.Dataset:
    labelled = {}
    for name, part in parts.items():
        means = {statistic: getattr(part.statistics, statistic).mean(0) for statistic in ("ess_within", "rhat_chainwise")}
        fields = part.statistics._asdict() | means
        values = np.stack([fields[statistic] for statistic in REPORTED])
        shape, dims = variables[name].shape[2:], variables[name].dims[2:]
        labelled[name] = (("statistic", *dims), values.reshape(-1, *shape))
    return xr.Dataset(labelled, {"statistic": list(REPORTED)})


def layer_table(parts: Mapping[str, Part], num_draws: int) -> xr.Dataset:
    """Summarise scalars by layer, and all of them in the row `TOTAL`.

    Args:
        parts: Statistics by dotted name.
        num_draws: Draws of a chain.

    Returns:
        Dataset over `layer`, `threshold` (of R-hat) and `chain`. Scalars that are constant or not finite are counted and left out
        of all else; what cannot be told (R-hat of one chain) is NaN.

        - `num_scalars`, `num_constant`, `num_nonfinite`; `num_effective`: independent scalars that they are worth;
        - `rhat_median`, `rhat_classic_median`, `ess_bulk_median`, `ess_tail_median`; `mcse_ratio_median`: Monte Carlo error over
          standard deviation;
        - `rhat_chainwise_median`: of R-hat inside chains, mean over chains; near 1 while `rhat_median` is not: chains that have
          each settled somewhere else; `within_mean`, `between_mean`: variance inside chains and of their means;
        - `ess_within_low`: effective draws a chain, mean over chains, that 95 % of the scalars reach; `ess_within_median` by
          chain;
        - `share`: share of scalars with a rank R-hat above each threshold; `share_expected`, `share_largest`: what a stationary
          process as slow as these chains shows on average, and at most but for a false-alarm rate of 0.001;
        - `gross_share`: share of scalars whose chains disagree grossly, their means three times as far apart as those of 95 % of
          the scalars of that process; `gross_largest`: what it shows at most, likewise.
    """
    layers = list(dict.fromkeys(layer_of(name) for name in parts))
    joined = [Part.join([part for name, part in parts.items() if layer_of(name) == layer]) for layer in layers]
    rows = [_row(part, num_draws) for part in (*joined, Part.join(list(parts.values())))]
    return xr.concat(rows, "layer").assign_coords(layer=[*layers, TOTAL], threshold=list(stationary.THRESHOLDS))


def _row(part: Part, num_draws: int) -> xr.Dataset:
    is_finite = np.isfinite(part.statistics.mean)
    is_live = is_finite & (part.statistics.sd > 0)
    live = ScalarStatistics(*(field[..., is_live] for field in part.statistics))
    if not is_live.any():
        live = ScalarStatistics(*(np.full((*field.shape[:-1], 1), np.nan) for field in live))
    num_chains = len(live.ess_within)
    effective = stationary.num_effective_scalars(part.correlation, part.num_correlated, num_chains)
    test = stationary.compare_with_stationary(
        live.rhat, live.disagreement, live.ess_within, live.ess_within_folded, num_draws, effective
    )
    return xr.Dataset(
        {
            "num_scalars": is_live.size,
            "num_constant": int(np.sum(is_finite & ~is_live)),
            "num_nonfinite": int(np.sum(~is_finite)),
            "num_effective": effective,
            "rhat_median": np.median(live.rhat),
            "rhat_classic_median": np.median(live.rhat_classic),
            "rhat_chainwise_median": np.median(live.rhat_chainwise.mean(0)),
            "within_mean": np.mean(live.within),
            "between_mean": np.mean(live.between),
            "ess_bulk_median": np.median(live.ess_bulk),
            "ess_tail_median": np.median(live.ess_tail),
            "mcse_ratio_median": np.median(live.mcse_mean / live.sd),
            "ess_within_low": np.quantile(live.ess_within.mean(0), LOW_QUANTILE),
            "ess_within_median": ("chain", np.median(live.ess_within, -1)),
            "share": ("threshold", test.share),
            "share_expected": ("threshold", test.share_expected),
            "share_largest": ("threshold", test.share_largest),
            "gross_share": test.gross_share,
            "gross_largest": test.gross_largest,
        }
    )
