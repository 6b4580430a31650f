"""Estimates of several kinds in every row, written side by side and drawn on one axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from bayesnn.notation import interval, number
from bayesnn.report.plots import Axis, Chart, axis_of_most
from bayesnn.report.predictions import Cell
from diagnostics.estimates import Estimate

SERIES_HEIGHT, MARGIN = 14, 8  # pixels: of a series in a row, and around all of them
LEAST = 0.01  # of the most that stationary chains show, as written; below it stands 0
NUM_STYLES = 5  # of series; more of them share colours


class Value(NamedTuple):
    """An estimate, and what it is held against in its own row.

    Attributes:
        estimate: The number with its interval; NaN ends where it has none.
        largest: The most that stationary chains show; NaN where nothing says so.
    """

    estimate: Estimate
    largest: float = math.nan


class PanelRow(NamedTuple):
    """A row: its name, a cell for each series, and the same drawn."""

    name: str
    cells: list[Cell]
    chart: Markup


class Panel(NamedTuple):
    """A table of estimates with a figure in its last column.

    Attributes:
        title: What the numbers are, with their unit.
        first: What the rows are.
        headings: Name and style of each series.
        rows: Rows.
        ticks: The axis below them.
    """

    title: str
    first: str
    headings: list[tuple[str, str]]
    rows: list[PanelRow]
    ticks: Markup


def panel(
    title: str,
    first: str,
    names: Sequence[str],
    series: Mapping[str, Sequence[Value]],
    *,
    unit: float = 1,
    reference: float | None = None,
    include: Sequence[float] = (),
) -> Panel:
    """Lay out and draw estimates; a row that would squeeze all others lies off the scale.

    Args:
        title: What the numbers are, with their unit.
        first: What the rows are.
        names: Of the rows.
        series: By name, a value for each row.
        unit: In what all numbers are written, 0.01 for percent.
        reference: Value that a line marks in every row, in that unit; none by default.
        include: Values that the axis holds in any case, in that unit.
    """
    scaled = {name: [_scaled(value, unit) for value in values] for name, values in series.items()}
    marks = [*include, *([] if reference is None else [reference])]
    ends = [
        [end for value in values for end in (*value.estimate, value.largest)] for values in zip(*scaled.values(), strict=True)
    ]
    axis = axis_of_most(ends, marks)
    styles = [f"series-{index % NUM_STYLES}" for index in range(len(scaled))]
    rows = []
    for name, values in zip(names, zip(*scaled.values(), strict=True), strict=True):
        cells = [Cell(interval(value.estimate), _largest(value)) for value in values]
        rows.append(PanelRow(name, cells, _draw(name, values, styles, axis, reference)))
    ticks = Chart("Axis", axis, Axis(0, 1), 1)
    ticks.frame()
    return Panel(title, first, list(zip(scaled, styles, strict=True)), rows, ticks.markup())


def _scaled(value: Value, unit: float) -> Value:
    largest = value.largest / unit
    return Value(Estimate(*(part / unit for part in value.estimate)), 0.0 if largest < LEAST else largest)


def _largest(value: Value) -> str:
    return "" if math.isnan(value.largest) else f"stationary: at most {number(value.largest)}"


def _draw(name: str, values: Sequence[Value], styles: Sequence[str], axis: Axis, reference: float | None) -> Markup:
    written = ", ".join(number(value.estimate.value) for value in values)
    chart = Chart(f"{name}: {written}", axis, Axis(0, 1), SERIES_HEIGHT * len(values) + MARGIN)
    if reference is not None:
        chart.vertical(reference, "threshold")
    for index, (value, style) in enumerate(zip(values, styles, strict=True)):
        middle, half = 1 - (index + 0.5) / len(values), 0.4 / len(values)
        chart.segment((value.largest, value.largest), (middle - half, middle + half), f"largest {style}")
        chart.estimate(value.estimate, middle, f"whisker {style}", style)
    return chart.markup()
