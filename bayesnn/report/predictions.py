"""How good are the predictions, beside those of other runs, and what did they cost?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from markupsafe import Markup
from scipy.special import betaincinv

from bayesnn.comparison import CLOSENESS, LOG_SCORE, SCORES, Measure, compare_runs, outcomes
from bayesnn.notation import MISSING, Interval, interval, number
from bayesnn.report.plots import Axis, Chart
from bayesnn.report.sampling import Strip, strips
from diagnostics.calibration import LEVELS, NUM_BINS
from diagnostics.costs import Efficiency, efficiency
from diagnostics.estimates import LEVEL, Estimate
from diagnostics.fidelity import Comparison
from diagnostics.predictive import mixture_probability

RELIABILITY_HEIGHT = 190  # pixels
LARGEST_DOT, SMALLEST_DOT = 7.0, 2.0  # radius, pixels; areas are shares of the test points
UNIT_TICKS = tuple((value, f"{100 * value:.0f}") for value in (0, 0.25, 0.5, 0.75, 1))


class Cell(NamedTuple):
    """A number in a table.

    Attributes:
        value: With its interval.
        note: Further lines; may be empty.
        style: "better" or "worse" for a difference whose interval excludes zero, "other" where that is neither.
    """

    value: Interval
    note: str = ""
    style: str = ""


class Table(NamedTuple):
    """Runs by measures: headings with what is better, rows by name."""

    headings: list[Measure]
    rows: dict[str, list[Cell]]


class Reliability(NamedTuple):
    """How often predictions come true, for one run."""

    name: str
    chart: Markup


class Cost(NamedTuple):
    """What effective draws of one run cost, as text."""

    name: str
    gradients: str
    seconds: str
    spaces: list[tuple[str, str, str]]  # effective draws, per 1,000 gradients, per second; functions, then weights


class Predictions(NamedTuple):
    """The section on predictions.

    Attributes:
        scores: Of each run.
        differences: Of each other run to the subject.
        strips: Differences in log score, drawn, and their axis.
        closeness: Of each other run to the subject, and of the subject's chains to each other.
        outcomes: Sentences.
        reliability: Diagrams.
    """

    scores: Table
    differences: Table | None
    strips: tuple[list[Strip], Markup] | None
    closeness: Table | None
    outcomes: list[str]
    reliability: list[Reliability]


def predictions(trees: Mapping[str, xr.DataTree]) -> Predictions | None:
    """Compare the predictions of runs with those of the first; None if it is alone and predicts nothing.

    Raises:
        UsageError: Runs that cannot be compared.
    """
    subject = next(iter(trees.values()))
    if len(trees) == 1 and not {"functions", "observed_data"} <= subject.children.keys():
        return None
    comparison = compare_runs(trees)
    shown = {key: SCORES[key] for key in SCORES if key in comparison.scores[comparison.reference]}
    log_scores = {name: one[LOG_SCORE] for name, one in comparison.differences.items() if LOG_SCORE in one}
    scores = {name: _score_cells(one, shown) for name, one in comparison.scores.items()}
    differences = {name: _difference_cells(one, shown) for name, one in comparison.differences.items()}
    return Predictions(
        scores=Table(list(shown.values()), scores),
        differences=Table(list(shown.values()), differences) if differences else None,
        strips=strips(log_scores, 0.0, is_signed=True) if log_scores else None,
        closeness=_closeness(comparison),
        outcomes=outcomes(comparison),
        reliability=[Reliability(name, _reliability(tree, comparison.scores[name])) for name, tree in trees.items()],
    )


def costs(summaries: Mapping[str, xr.DataTree]) -> list[Cost]:
    """Return effective draws per gradient and per second of every run.

    Args:
        summaries: From `diagnostics.summarise`, by run.
    """
    rows = []
    for name, summary in summaries.items():
        found = efficiency(summary)
        nothing = Efficiency(np.nan, np.nan, np.nan)
        spaces = [found.get(group, nothing) for group in ("functions", "posterior")]
        cells = [(number(one.ess), number(1000 * one.per_gradient), number(one.per_second)) for one in spaces]
        gradients, seconds = (number(summary.attrs.get(cost) or np.nan) for cost in ("gradients", "seconds"))
        rows.append(Cost(name, gradients, seconds, cells))
    return rows


def _score_cells(scores: Mapping[str, Estimate], shown: Mapping[str, Measure]) -> list[Cell]:
    cells = []
    for key, measure in shown.items():
        note = ""
        if (calibrated := scores.get(f"{key}_if_calibrated")) is not None:
            written = interval(calibrated, measure.unit)
            note = "\n".join(part for part in (f"if calibrated {written.value}", written.ends) if part)
        cells.append(Cell(interval(scores[key], measure.unit), note) if key in scores else Cell(Interval(MISSING, "")))
    return cells


def _difference_cells(differences: Mapping[str, Estimate], shown: Mapping[str, Measure]) -> list[Cell]:
    cells = []
    for key, measure in shown.items():
        if key not in differences:
            cells.append(Cell(Interval(MISSING, "")))
            continue
        estimate, style = differences[key], ""
        if estimate.lower > 0 or estimate.upper < 0:
            is_higher = "higher" if estimate.lower > 0 else "lower"
            style = "other" if not measure.better else "better" if measure.better == is_higher else "worse"
        cells.append(Cell(interval(estimate, measure.unit, is_signed=True), style=style))
    return cells


def _closeness(comparison: Comparison) -> Table | None:
    runs = dict(comparison.closeness)
    if comparison.noise_floor:
        runs |= {"noise floor: half of its own chains against the other": comparison.noise_floor}
    keys = [key for key in CLOSENESS if any(key in one for one in runs.values())]
    if not keys:
        return None
    rows = {
        name: [Cell(interval(one[key], CLOSENESS[key].unit)) if key in one else Cell(Interval(MISSING, "")) for key in keys]
        for name, one in runs.items()
    }
    return Table([CLOSENESS[key] for key in keys], rows)


def _reliability(tree: xr.DataTree, scores: Mapping[str, Estimate]) -> Markup:
    functions = tree["functions"].to_dataset()
    axis = Axis(0, 1, UNIT_TICKS)
    chart = Chart("Reliability diagram", axis, axis, RELIABILITY_HEIGHT)
    is_classes = "probability" in functions
    chart.frame("confidence, %" if is_classes else "level of the interval, %", "correct, %" if is_classes else "covered, %")
    chart.segment((0, 1), (0, 1), "threshold")
    if is_classes:
        y = tree["observed_data"].to_dataset()["y_test"].values
        _confidence_dots(chart, mixture_probability(functions["probability"].values), y)
        return chart.markup()
    for level in LEVELS:
        estimate = scores.get(f"coverage_{level:.0%}".rstrip("%"))
        if estimate is not None:
            chart.segment((level, level), (estimate.lower, estimate.upper), "whisker")
            chart.point(level, estimate.value, "mark", title=f"{level:.0%}: {100 * estimate.value:.1f} % covered")
    return chart.markup()


def _confidence_dots(chart: Chart, probability: np.ndarray, y: np.ndarray) -> None:
    """Draw a dot a bin of `diagnostics.calibration_error`: mean confidence, share of correct ones with Jeffreys' interval."""
    known = np.isfinite(probability).all(-1)
    confidence, correct = probability[known].max(-1), probability[known].argmax(-1) == y[known]
    index = np.clip(np.ceil(confidence * NUM_BINS) - 1, 0, NUM_BINS - 1)
    for chosen in [index == bin_index for bin_index in np.unique(index)]:
        count, hits, mean = int(chosen.sum()), int(correct[chosen].sum()), float(confidence[chosen].mean())
        lower, upper = betaincinv(hits + 0.5, count - hits + 0.5, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        chart.segment((mean, mean), (lower if hits else 0.0, upper if hits < count else 1.0), "whisker")
        radius = max(SMALLEST_DOT, LARGEST_DOT * np.sqrt(count / len(confidence)))
        chart.point(mean, hits / count, "mark", radius, f"{hits} of {count} correct at a mean confidence of {100 * mean:.1f} %")
