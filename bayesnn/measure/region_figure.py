"""One figure that explains itself: do the chains visit the regions by their mass, and do they come and go between them?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from diagnostics.claims import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VISITS, MASSES = "#1b6ca8", ("#d1802f", "#8a5a9e", "#4f8f4f", "#777777")
MOST_NAMES = 8  # regions whose transitions are written out in numbers
HEADROOM = 1.3  # above the bars and curves, for the legend
WIDTH, HEIGHT = 12.0, 3.8  # inches


def region_figure(table: xr.Dataset, title: str = "") -> Figure:
    """Draw visits beside masses, transitions, and shares against run length.

    Args:
        table: Made by `diagnostics.regions.regions_table`, or group `regions` of the measure `basins`.
        title: Above the figure; nothing by default.

    Returns:
        A figure of three panels, of its own; it belongs to no window.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=130, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 0.9, 1.25))
    _draw_shares(left, table)
    _draw_transitions(middle, table)
    _draw_lengths(right, table)
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def _draw_shares(axes: Axes, table: xr.Dataset) -> None:
    names = [str(name) for name in table["region"].values]
    place = np.arange(len(names))
    estimators = [str(name) for name in table["estimator"].values]
    width = 0.8 / (1 + len(estimators))
    rows = [("visits", VISITS, table["visit_share"], table["visit_lower"], table["visit_upper"])]
    for index, estimator in enumerate(estimators):
        mass = table.isel(estimator=index)
        label = f"mass, {estimator}"
        rows.append((label, MASSES[index % len(MASSES)], mass["mass"], mass["mass_lower"], mass["mass_upper"]))
    for index, (label, colour, share, lower, upper) in enumerate(rows):
        at = place + (index - len(estimators) / 2) * width
        reach = np.stack([share - lower, upper - share]).clip(0)
        axes.bar(at, share, 0.92 * width, color=colour, label=label, yerr=reach, error_kw={"elinewidth": 1, "capsize": 2})
    if "prior_volume" in table:
        axes.plot(place, table["prior_volume"], "_", color="0.4", markersize=18, label="prior volume")
    axes.set_xticks(place, names)
    axes.set(xlabel="region", ylabel="share", ylim=(0, HEADROOM * axes.get_ylim()[1]))
    axes.legend(frameon=False, fontsize="small", loc="upper left", ncols=2)
    axes.set_title("Are regions visited by their mass?\n(95 % intervals)", loc="left", size="medium")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_transitions(axes: Axes, table: xr.Dataset) -> None:
    matrix, names = table["transition"].values, [str(name) for name in table["region"].values]
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1.3)  # the darkest blue would hide the numbers
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    if len(names) <= MOST_NAMES:
        for (row, column), share in np.ndenumerate(matrix):
            words = percent(share).replace("below ", "<") if np.isfinite(share) else ""
            axes.text(column, row, words, ha="center", va="center", size="x-small")
    axes.set(xlabel="to region", ylabel="from region")
    axes.set_title("Do the chains come and go?\n(share of steps, by row)", loc="left", size="medium")


def _draw_lengths(axes: Axes, table: xr.Dataset) -> None:
    heaviest = int(np.argmax(table["mass"].values.mean(0)))
    name = str(table["region"].values[heaviest])
    shares = table["share_by_length"].isel(region=heaviest)
    axes.plot(table["length"], shares, color=VISITS, alpha=0.3, linewidth=0.8)
    axes.plot(table["length"], shares.mean("chain"), color=VISITS, linewidth=2.2, label="all chains")
    axes.plot([], [], color=VISITS, alpha=0.4, linewidth=0.8, label="each chain")
    for index, estimator in enumerate(table["estimator"].values):
        colour, row = MASSES[index % len(MASSES)], table.isel(estimator=index, region=heaviest)
        axes.axhline(float(row["mass"]), color=colour, linestyle="--", linewidth=1.2, label=f"mass, {estimator}")
        axes.axhspan(float(row["mass_lower"]), float(row["mass_upper"]), color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set(xlabel="first draws of each chain", ylabel=f"share in region {name}", ylim=(-0.03, HEADROOM))
    axes.legend(frameon=False, fontsize="small", loc="upper left", ncols=2)
    axes.set_title(
        "Does the share depend on the run's length?\n(a chain that never leaves keeps its start)", loc="left", size="medium"
    )
    axes.spines[["top", "right"]].set_visible(False)
