"""Do the chains agree? R-hat in function space and in weight space, by layer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from markupsafe import Markup

from bayesnn.notation import number, share
from bayesnn.report.plots import Axis, Chart
from diagnostics.stationary import THRESHOLDS
from diagnostics.summary import TOTAL
from diagnostics.trees import layer_of

SPACES = {"functions": "function values", "posterior": "weights"}
STYLES = {"functions": "functions", "posterior": "weights"}
START, FLOOR, END = -4.0, -3.3, 0.0  # decades of R-hat - 1; all below the floor is one wide bar, beyond the end the axis grows
BINS_PER_DECADE = 10  # so that 1.01 and 1.1 lie between bins
LARGEST = 1e3  # of R-hat - 1; chains that stand still have infinite ones
TICKS = (1.001, 1.01, 1.1, 1.5, 2.0, 5.0, 10.0, 100.0, 1000.0)
HEADROOM, BARS = 50, 110  # pixels of a panel: annotations above, bars below

type Vector = Float[np.ndarray, " scalar"]


class LayerRow(NamedTuple):
    """A row of the table by layer, as text."""

    name: str
    is_total: bool
    histogram: Markup
    num_scalars: str
    shares: list[tuple[str, str]]  # above each threshold: measured; expected and largest of stationary chains
    inside: tuple[str, str]  # median R-hat inside chains; classic R-hat of whole chains
    ess_bulk: str
    ess_tail: str
    ess_within: str
    mcse: str


class Space(NamedTuple):
    """Function space or weight space.

    Attributes:
        words: "function values" or "weights".
        size: Number of those that have an R-hat.
        style: Class of its marks.
        shares: What the histogram says of each threshold, for screens too narrow to write it there.
        panel: Histogram of R-hat.
        left_out: Sentence on scalars without an R-hat; empty if there are none.
        layers: Table.
    """

    words: str
    size: str
    style: str
    shares: list[str]
    panel: Markup | None
    left_out: str
    layers: list[LayerRow]


def spaces(summary: xr.DataTree) -> list[Space]:
    """Return the histograms of R-hat on one shared axis, and the tables by layer.

    Args:
        summary: From `diagnostics.summarise`.
    """
    groups = [group for group in SPACES if group in summary.children]
    rhats = {group: _by_layer(summary[group].to_dataset()) for group in groups}
    everything = np.concatenate([values for layers in rhats.values() for values in layers.values()] or [np.empty(0)])
    axis = rhat_axis(everything)
    pooled = {group: np.concatenate(list(layers.values())) for group, layers in rhats.items()}
    tallest = max((_density(_histogram(values, axis)[1]).max() for values in pooled.values()), default=0)
    return [
        Space(
            words=SPACES[group],
            size=f"{pooled[group].size:,}",
            style=STYLES[group],
            shares=[
                f"{share(1 - above)} below {threshold} (stationary: {share(1 - expected)}, at least {share(1 - largest)})"
                for threshold, above, expected, largest in _shares(_total(summary, group))
            ],
            panel=_panel(group, pooled[group], axis, tallest, _total(summary, group), is_last=group == groups[-1])
            if pooled[group].size
            else None,
            left_out=_left_out(SPACES[group], _total(summary, group)),
            layers=_layer_rows(group, summary[f"{group}_layers"].to_dataset(), rhats[group], axis),
        )
        for group in groups
    ]


def rhat_axis(rhat: Vector) -> Axis:
    """Return the logarithmic axis of R-hat - 1 that holds all values; good ones and bad ones differ by orders of magnitude."""
    finite = rhat[np.isfinite(rhat)] - 1
    largest = np.log10(np.clip(np.max(finite, initial=0), 10**END, LARGEST))
    top = 1 + 10 ** (np.ceil(BINS_PER_DECADE * largest - 1e-9) / BINS_PER_DECADE)
    ticks = tuple((tick, f"{tick:g}") for tick in TICKS if tick <= top)
    lowest = 10**START
    return Axis(1 + lowest, float(top), ticks, lambda values: np.log10(np.maximum(values - 1, lowest)))


def _shares(row: xr.Dataset) -> list[tuple[float, float, float, float]]:
    """Return the share above each threshold, and what stationary chains show on average and at most."""
    columns = (row[name].values.tolist() for name in ("share", "share_expected", "share_largest"))
    return list(zip(THRESHOLDS, *columns, strict=True))


def _by_layer(statistics: xr.Dataset) -> dict[str, Vector]:
    """Return the R-hats that could be computed, by layer."""
    layers: dict[str, list[Vector]] = {}
    for name, variable in statistics.sel(statistic="rhat", drop=True).items():
        values = variable.values.ravel()
        layers.setdefault(layer_of(str(name)), []).append(values[~np.isnan(values)])
    return {name: np.concatenate(values) for name, values in layers.items()}


def _total(summary: xr.DataTree, group: str) -> xr.Dataset:
    return summary[f"{group}_layers"].to_dataset().sel(layer=TOTAL)


def _left_out(words: str, total: xr.Dataset) -> str:
    counts = ((int(total["num_constant"]), "never change"), (int(total["num_nonfinite"]), "are not finite"))
    found = [f"{count:,} {what}" for count, what in counts if count]
    return f"Left out of {int(total['num_scalars']):,} {words}: {' and '.join(found)}." if found else ""


def _histogram(rhat: Vector, axis: Axis) -> tuple[Vector, Vector]:
    """Return bin edges and the share of scalars in each bin; what lies beyond an end counts in the bin there."""
    first, last = round(BINS_PER_DECADE * FLOOR), round(BINS_PER_DECADE * np.log10(axis.upper - 1))
    edges = 1 + 10 ** (np.array([BINS_PER_DECADE * START, *range(first, last + 1)]) / BINS_PER_DECADE)
    index = np.clip(np.searchsorted(edges, rhat, "left") - 1, 0, len(edges) - 2)
    return edges, np.bincount(index, minlength=len(edges) - 1) / max(len(rhat), 1)


def _density(shares: Vector) -> Vector:
    """Return the heights of bars whose areas are the shares: the first bar is wider than the others."""
    return np.concatenate(([shares[0] / (BINS_PER_DECADE * (FLOOR - START))], shares[1:]))


def _panel(group: str, rhat: Vector, axis: Axis, tallest: float, total: xr.Dataset, is_last: bool) -> Markup:
    words, style = SPACES[group], STYLES[group]
    edges, shares = _histogram(rhat, axis)
    chart = Chart(f"Histogram of R-hat of {words}", axis, Axis(0, tallest), HEADROOM + BARS, HEADROOM)
    ranges = [f"R-hat below {edges[1]:.4f}", *(f"R-hat {low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges[1:]))]
    titles = [f"{share(value)} of the {words}: {where}" for value, where in zip(shares, ranges, strict=True)]
    for threshold in THRESHOLDS:
        chart.vertical(threshold, "threshold")
    chart.bars(edges, _density(shares), style, titles)
    for threshold, above, expected, largest in _shares(total):
        chart.text(threshold, 13, f"{share(1 - above)} below {threshold}", f"wide strong {style}", "end", -6)
        chart.text(threshold, 29, f"stationary: {share(1 - expected)}", "wide tick", "end", -6)
        chart.text(threshold, 43, f"at least {share(1 - largest)}", "wide tick", "end", -6)
    chart.text(1 + 10 ** ((START + FLOOR) / 2), HEADROOM + BARS + 17, f"below {1 + 10**FLOOR:.4f}", "tick", "middle")
    chart.frame("R-hat, on a logarithmic scale of R-hat minus 1" if is_last else "")
    return chart.markup()


def _layer_rows(group: str, table: xr.Dataset, rhats: Mapping[str, Vector], axis: Axis) -> list[LayerRow]:
    names = [str(name) for name in table["layer"].values]
    if len(names) == 2:  # one layer: the total says the same
        names = names[:1]
    return [_layer_row(name, group, table.sel(layer=name), rhats, axis) for name in names]


def _layer_row(name: str, group: str, row: xr.Dataset, rhats: Mapping[str, Vector], axis: Axis) -> LayerRow:
    rhat = np.concatenate(list(rhats.values())) if name == TOTAL else rhats[name]
    edges, shares = _histogram(rhat, axis)
    chart = Chart(f"Histogram of R-hat of {name}", axis, Axis(0, max(_density(shares).max(), 1e-9)), 26)
    for threshold in THRESHOLDS:
        chart.vertical(threshold, "threshold")
    chart.bars(edges, _density(shares), STYLES[group])
    return LayerRow(
        name="all" if name == TOTAL else name,
        is_total=name == TOTAL,
        histogram=chart.markup(),
        num_scalars=f"{int(row['num_scalars']):,}",
        shares=[(share(above), f"{share(mean)},\nat most {share(most)}") for _, above, mean, most in _shares(row)],
        inside=(_rhat(row["rhat_chainwise_median"]), _rhat(row["rhat_classic_median"])),
        ess_bulk=number(float(row["ess_bulk_median"])),
        ess_tail=number(float(row["ess_tail_median"])),
        ess_within=number(float(row["ess_within_low"])),
        mcse=share(float(row["mcse_ratio_median"])),
    )


def _rhat(value: xr.DataArray) -> str:
    return "" if np.isnan(value) else f"{float(value):.3f}"
