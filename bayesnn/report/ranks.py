"""Ranks of the scalars on which the chains disagree most: where does the disagreement lie?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from markupsafe import Markup

from bayesnn.notation import number
from bayesnn.report.convergence import SPACES, STYLES
from bayesnn.report.plots import Axis, Chart
from diagnostics.estimates import LEVEL

NUM_WORST = 3  # scalars of each space
MAX_CHAINS = 12  # rows of a plot
MAX_BINS, DRAWS_PER_BIN = 20, 5  # a chain has at least that many draws in a bin on average


class RankPlot(NamedTuple):
    """Ranks of one scalar, a histogram a chain."""

    name: str
    style: str
    rhat: str
    charts: list[Markup]


def rank_plots(tree: xr.DataTree, summary: xr.DataTree) -> list[RankPlot]:
    """Return rank plots of the scalars of the largest R-hat in each space.

    References:
        Vehtari, Gelman, Simpson, Carpenter & Buerkner 2021, arXiv 1903.08008, section 4.3.
    """
    plots = []
    for group in [group for group in SPACES if group in summary.children]:
        for name, index, rhat in _worst(summary[group].to_dataset().sel(statistic="rhat", drop=True)):
            variable = tree[group].to_dataset()[name]
            place = dict(zip(variable.dims[2:], index, strict=True))
            words = (f"{dim} {i}" if group == "functions" else str(i) for dim, i in place.items())
            title = f"{name}[{', '.join(words)}]" if index else name
            charts = _rank_charts(title, variable.isel(place).values, STYLES[group])
            plots.append(RankPlot(title, STYLES[group], number(rhat, 4), charts))
    return plots


def _worst(rhat: xr.Dataset) -> list[tuple[str, tuple[int, ...], float]]:
    found = []
    for name, variable in rhat.items():
        flat = np.nan_to_num(variable.values.ravel(), nan=-np.inf, posinf=np.inf)
        for place in np.argsort(-flat, kind="stable")[:NUM_WORST]:
            if flat[place] > -np.inf:
                index = tuple(int(i) for i in np.unravel_index(place, variable.shape))
                found.append((str(name), index, float(flat[place])))
    return sorted(found, key=lambda one: -one[2])[:NUM_WORST]


def _rank_charts(name: str, draws: Float[np.ndarray, "chain draw"], style: str) -> list[Markup]:
    num_chains, num_draws = draws.shape
    num_bins = int(np.clip(num_draws // DRAWS_PER_BIN, 2, MAX_BINS))
    counts = rank_counts(draws, num_bins)
    low, high = uniform_band(num_chains, num_draws, num_bins)
    x, y = Axis(0, num_bins), Axis(0, max(counts.max(), high) * 1.05)
    charts = []
    for chain in _furthest(counts):
        row = counts[chain]
        chart = Chart(f"Ranks of {name} in chain {chain}", x, y, 30)
        chart.area(np.array([0.0, num_bins]), np.array([low, low]), np.array([high, high]), "band")
        chart.bars(np.arange(num_bins + 1), row, style, [f"chain {chain}: {count:.0f} draws" for count in row])
        charts.append(chart.markup())
    return charts


def _furthest(counts: Int[np.ndarray, "chain bin"]) -> Int[np.ndarray, " chosen"]:
    """Return the chains whose ranks are furthest from uniform, in their order; all if they are few."""
    distance = np.square(counts - counts.mean()).sum(-1)
    return np.sort(np.argsort(-distance, kind="stable")[:MAX_CHAINS])


def rank_counts(draws: Float[np.ndarray, "chain draw"], num_bins: int) -> Int[np.ndarray, "chain bin"]:
    """Count the ranks of each chain's draws among those of all chains, in bins of equal width; ties share their mean rank."""
    from scipy.stats import rankdata

    place = (rankdata(draws).reshape(draws.shape) - 0.5) / draws.size
    index = np.minimum((place * num_bins).astype(int), num_bins - 1)
    return np.stack([np.bincount(row, minlength=num_bins) for row in index])


def uniform_band(num_chains: int, num_draws: int, num_bins: int) -> tuple[float, float]:
    """Return what the counts of a chain of independent draws stay within, all bins at once, with probability `LEVEL` or more.

    A count is hypergeometric: the draws of one chain among those of all chains that fall into the bin.
    """
    from scipy.stats import hypergeom

    total = num_chains * num_draws
    tail = (1 - LEVEL) / num_bins / 2  # Bonferroni
    smallest, largest = total // num_bins, -(-total // num_bins)  # ranks in a bin
    low, high = hypergeom.ppf([tail, 1 - tail], total, [smallest, largest], num_draws)
    return float(low), float(high)
