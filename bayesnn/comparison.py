"""Runs side by side: their predictions on the same test points, for the terminal and for the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import xarray as xr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bayesnn.errors import UsageError
from bayesnn.load import read_tree
from bayesnn.notation import interval
from bayesnn.run_folder import RunFolder
from diagnostics.estimates import Estimate
from diagnostics.fidelity import Comparison, compare

LOG_SCORE = "negative_log_likelihood"


class Measure(NamedTuple):
    """How a measure of `diagnostics.compare` is written.

    Attributes:
        label: In words.
        unit: In what it is written; 0.01 for percent.
        better: "higher" or "lower"; empty where neither is better.
    """

    label: str
    unit: float = 1
    better: str = ""


SCORES = {
    "accuracy": Measure("accuracy, %", 0.01, "higher"),
    "rmse": Measure("root mean square error", 1, "lower"),
    LOG_SCORE: Measure("negative log likelihood, nats", 1, "lower"),
    "brier": Measure("Brier score", 1, "lower"),
    "calibration_error": Measure("calibration error, %", 0.01, "lower"),
    "rms_calibration_error": Measure("RMS calibration error, debiased, %", 0.01, "lower"),
    "entropy": Measure("predictive entropy, nats"),
    "coverage_50": Measure("coverage of 50 % intervals, %", 0.01),
    "coverage_75": Measure("coverage of 75 % intervals, %", 0.01),
    "coverage_90": Measure("coverage of 90 % intervals, %", 0.01),
    "coverage_95": Measure("coverage of 95 % intervals, %", 0.01),
    "calibration_gap": Measure("mean gap between coverage and level, %", 0.01, "lower"),
}
CLOSENESS = {
    "agreement": Measure("same most probable class, %", 0.01),
    "total_variation": Measure("total variation distance"),
    "mean_difference": Measure("difference of means, in predictive standard deviations"),
    "gaussian_total_variation": Measure("total variation distance of normal predictions"),
}


def read_trees(folders: Sequence[RunFolder]) -> dict[str, xr.DataTree]:
    """Read runs, named by their folders, with as many parents as tell them apart.

    Raises:
        UsageError: A folder is given twice, or has no committed draws.
    """
    paths = [folder.path.resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(f"{path} is given more than once; name every run folder once")
    names = {}
    for path, folder in zip(paths, folders, strict=True):
        others = [other.parts for other in paths if other != path]
        endings = (path.parts[-length:] for length in range(1, len(path.parts) + 1))
        names["/".join(next(end for end in endings if not any(other[-len(end) :] == end for other in others)))] = folder
    return {name: read_tree(folder) for name, folder in names.items()}


def compare_runs(trees: Mapping[str, xr.DataTree]) -> Comparison:
    """Compare the predictions of runs with those of the first.

    Raises:
        UsageError: They are not of the same data and test points, or predict nothing; says what differs.
    """
    tested = "; ".join(f"{name}: {_tested_on(tree)}" for name, tree in trees.items())
    if len({tree.attrs["data_sha256"] for tree in trees.values() if "data_sha256" in tree.attrs}) > 1:
        raise UsageError(f"runs on different data, or on different splits of it, cannot be compared ({tested})")
    try:
        return compare(trees)
    except ValueError as error:
        raise UsageError(f"{error} ({tested})") from None


def _tested_on(tree: xr.DataTree) -> str:
    points = tree["observed_data"].sizes.get("point", 0) if "observed_data" in tree.children else 0
    digest = str(tree.attrs.get("data_sha256", ""))[:12]
    data = " ".join(part for part in (str(tree.attrs.get("data", "no data set")), digest) if part)
    return f"{tree.attrs['task']}, {data}, {points:,} test points"


def outcomes(comparison: Comparison) -> list[str]:
    """Say in a sentence a run whether it or the reference predicts better, as far as the test points can tell."""
    sentences = []
    for name, differences in comparison.differences.items():
        value, lower, upper = differences.get(LOG_SCORE, (math.nan,) * 3)
        if math.isnan(value):
            continue
        if lower <= 0 <= upper:
            gap, ends = interval(Estimate(-value, -upper, -lower), is_signed=True)
            words, end = f"{name} and {comparison.reference} cannot be told apart: {gap}", "includes"
        else:
            better, worse = (comparison.reference, name) if lower > 0 else (name, comparison.reference)
            gap, ends = interval(Estimate(abs(value), *sorted((abs(lower), abs(upper)))))
            words, end = f"{better} beats {worse} by {gap}", "excludes"
        sentences.append(f"On test log likelihood {words} nats a point (95 % interval {ends}, which {end} zero).")
    return sentences


def print_comparison(console: Console, trees: Mapping[str, xr.DataTree]) -> None:
    """Print scores, paired differences and closeness of runs side by side.

    Args:
        console: Where to.
        trees: Runs by name; the first is the reference.

    Raises:
        UsageError: Runs that cannot be compared.
    """
    comparison = compare_runs(trees)
    reference, closeness = comparison.reference, comparison.closeness | {"noise floor": comparison.noise_floor}
    parts = (
        ("Scores", SCORES, comparison.scores, False),
        (f"Difference to {reference}, paired over test points; * excludes zero", SCORES, comparison.differences, True),
        (f"Closeness to {reference}; noise floor: half of its own chains to the other", CLOSENESS, closeness, False),
    )
    for title, measures, estimates, is_difference in parts:
        if any(estimates.values()):
            console.print(Text(title, "bold"))
            console.print(_table(measures, estimates, is_difference))
            console.print()
    for sentence in outcomes(comparison):
        console.print(sentence, markup=False)


def _table(measures: Mapping[str, Measure], estimates: Mapping[str, Mapping[str, Estimate]], is_difference: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column()
    for name in estimates:
        table.add_column(Text(name), justify="right", overflow="fold")
    for key in [key for key in measures if any(key in run for run in estimates.values())]:
        cells = (_written(run.get(key), measures[key], is_difference) for run in estimates.values())
        table.add_row(Text(measures[key].label), *cells)
    return table


def _written(estimate: Estimate | None, measure: Measure, is_difference: bool) -> Text:
    if estimate is None:  # one half of a run's chains has no other
        return Text("one chain", "dim")
    value, ends = interval(estimate, measure.unit, is_difference)
    is_clear = is_difference and (estimate.lower > 0 or estimate.upper < 0)
    return Text.assemble(f"* {value}" if is_clear else value, (f"\n{ends}", "dim"))
