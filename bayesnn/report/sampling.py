"""How did the chains run? Traces, energies and temperatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from markupsafe import Markup

from bayesnn.notation import Interval, interval, number, share
from bayesnn.report.plots import MAX_COLUMNS, Axis, Chart, axis_of_most, linear_axis, thinned
from diagnostics.convergence import rhat
from diagnostics.estimates import Estimate
from diagnostics.evidence import Evidence
from diagnostics.health import MIN_BFMI

NUM_STYLES = 8  # of chains; more of them share colours
TRACE_HEIGHT, STRIP_HEIGHT, HISTOGRAM_HEIGHT = 170, 26, 120  # pixels; a strip as high as a line of its table, so that bands join
LINE_POINTS, MIN_COLUMNS = 6000, 50  # of all chains; many chains are drawn more coarsely, so that the page stays small
NUM_ERROR_BINS = 40
CENTRAL = 0.99  # share of energy errors that the histogram spans; the rest counts in its first and last bin

type Draws = Float[np.ndarray, "chain draw"]


class Trace(NamedTuple):
    """One quantity over the draws, a line a chain, or a dot a chain where there is a single draw."""

    title: str
    chart: Markup
    rhat: str


class Strip(NamedTuple):
    """A row of a table: a number with its interval, written and drawn beside its reference."""

    name: str
    value: Interval
    chart: Markup


class ChainRow(NamedTuple):
    """What the sampler reports of one chain, as text."""

    name: str
    style: str
    bfmi: Strip
    acceptance: str
    divergent: str
    error_sd: str
    error_largest: str


class Energies(NamedTuple):
    """Energies by chain, the bound of BFMI, and the histogram of energy errors with a sentence on it; None if there are none."""

    rows: list[ChainRow]
    ticks: Markup
    min_bfmi: str
    errors: Markup | None
    errors_note: str


class Temperatures(NamedTuple):
    """Temperatures with their intervals on one axis."""

    rows: list[Strip]
    ticks: Markup
    nominal: str


def chain_style(chain: int) -> str:
    """Return the class of a chain's marks."""
    return f"chain-{chain % NUM_STYLES}"


def chain_names(tree: xr.DataTree) -> list[tuple[str, str]]:
    """Return number and style of each chain."""
    posterior = tree["posterior"].to_dataset()
    return [(str(label), chain_style(index)) for index, label in enumerate(posterior["chain"].values)]


def traces(tree: xr.DataTree) -> list[Trace]:
    """Return the traces of the log posterior and of the log likelihood of an example, in training and in test."""
    stats = tree["sample_stats"].to_dataset() if "sample_stats" in tree.children else xr.Dataset()
    functions = tree["functions"].to_dataset() if "functions" in tree.children else xr.Dataset()
    found: dict[str, Draws] = {}
    if "lp" in stats:
        found["Log posterior, nats"] = stats["lp"].values
    if "log_likelihood" in stats and tree.attrs.get("num_data"):
        found["Training log likelihood, nats an example"] = stats["log_likelihood"].values / tree.attrs["num_data"]
    if "log_likelihood" in functions:
        found["Test log likelihood, nats an example"] = functions["log_likelihood"].values.mean(-1, dtype=np.float64)
    noun = "member" if tree.attrs["kind"] == "ensemble" else "chain"
    drawn = {title: np.asarray(values, np.float64) for title, values in found.items() if np.isfinite(values).any()}
    return [_trace(title, values, noun) for title, values in drawn.items()]


def _trace(title: str, values: Draws, noun: str) -> Trace:
    num_chains, num_draws = values.shape
    is_single, num_pieces = num_draws == 1, max(MIN_COLUMNS, min(MAX_COLUMNS, LINE_POINTS // num_chains))
    count = num_chains if is_single else num_draws
    x = linear_axis([0, max(count - 1, 1)])
    x = Axis(-0.5 if is_single else 0, count - 0.5 if is_single else count - 1, tuple(t for t in x.ticks if t[0] < count))
    chart = Chart(title, x, linear_axis(values.ravel(), 4), TRACE_HEIGHT)
    chart.frame(noun if is_single else "draw")
    for chain, row in enumerate(values):
        if is_single:
            chart.point(chain, row[0], chain_style(chain), title=f"{noun} {chain}: {number(row[0], 5)}")
        else:
            chart.line(*thinned(row, num_pieces), f"trace {chain_style(chain)}")
    value = float(rhat(values))
    return Trace(title, chart.markup(), "" if np.isnan(value) else number(value, 4))


def energies(evidence: Evidence) -> Energies | None:
    """Return the energies of a run; None if its sampler reports nothing about them."""
    summary = evidence.energy
    if summary is None or all(np.isnan(column).all() for column in (summary.bfmi, summary.acceptance, summary.error_sd)):
        return None
    half = 1.96 * summary.bfmi_error  # 95 % of a normal distribution
    estimates = [Estimate(*map(float, row)) for row in zip(summary.bfmi, summary.bfmi - half, summary.bfmi + half, strict=True)]
    bfmi, ticks = strips({str(chain): row for chain, row in enumerate(estimates)}, MIN_BFMI, include=(0, 1))
    columns = (summary.acceptance, summary.divergent, summary.error_sd, summary.error_largest)
    rows = [
        ChainRow(name, style, strip, number(acceptance), share(divergent), number(sd), number(largest))
        for (name, style), strip, acceptance, divergent, sd, largest in zip(
            chain_names(evidence.tree), bfmi, *(column.tolist() for column in columns), strict=True
        )
    ]
    errors = evidence.sample_stats["energy_error"].values if "energy_error" in evidence.sample_stats else np.empty(0)
    return Energies(rows, ticks, number(MIN_BFMI), *_energy_errors(np.asarray(errors, float).ravel()))


def _energy_errors(errors: Float[np.ndarray, " step"]) -> tuple[Markup | None, str]:
    finite = errors[np.isfinite(errors)]
    if not finite.size:
        return None, ""
    low, high = np.quantile(finite, [(1 - CENTRAL) / 2, (1 + CENTRAL) / 2])
    x = linear_axis([low, high, 0.0])
    edges = np.linspace(x.lower, x.upper, NUM_ERROR_BINS + 1)
    counts, _ = np.histogram(np.clip(finite, x.lower, x.upper), edges)
    chart = Chart("Histogram of energy errors", x, Axis(0, counts.max()), HISTOGRAM_HEIGHT)
    chart.bars(edges, counts, "neutral", [f"{count} draws" for count in counts])
    chart.vertical(0, "threshold")
    chart.frame("energy error, nats")
    outside, infinite = int(np.sum((finite < x.lower) | (finite > x.upper))), errors.size - finite.size
    parts = [f"Mean {number(finite.mean())}, standard deviation {number(finite.std())}"]
    parts += [f"{outside:,} of {errors.size:,} beyond the axis, in its end bars"] if outside else []
    parts += [f"{infinite:,} not finite"] if infinite else []
    return chart.markup(), "; ".join(parts) + "."


def temperatures(evidence: Evidence) -> Temperatures | None:
    """Return the configurational temperature in total and by layer, and the kinetic one; None if neither is a number."""
    found: dict[str, Estimate] = {}
    if evidence.temperatures is not None:
        total, layers = evidence.temperatures
        found = {"configurational, all layers": total} | {f"configurational, {name}": layer for name, layer in layers.items()}
    if evidence.kinetic is not None:
        found["kinetic, all layers"] = evidence.kinetic
    if not any(np.isfinite(estimate).all() for estimate in found.values()):
        return None
    rows, ticks = strips(found, evidence.nominal_temperature)
    return Temperatures(rows, ticks, number(evidence.nominal_temperature))


def strips(
    estimates: Mapping[str, Estimate],
    *references: float,
    is_signed: bool = False,
    include: tuple[float, ...] = (),
    band: tuple[float, float] | None = None,
) -> tuple[list[Strip], Markup]:
    """Draw estimates one above the other on one axis; one that would squeeze all others lies off its scale.

    Args:
        estimates: By name.
        references: Values that lines mark in every row.
        is_signed: Whether positive numbers carry their sign.
        include: Values that the axis holds in any case.
        band: Ends of a stretch that is shaded in every row.

    Returns:
        A row for each estimate, and the axis below them.
    """
    axis = axis_of_most(list(estimates.values()), [*references, *include, *(band or ())], 4)
    rows = []
    for name, estimate in estimates.items():
        chart = Chart(f"{name}: {number(estimate.value)}", axis, Axis(0, 1), STRIP_HEIGHT)
        if band is not None:
            chart.area(np.array(band), np.zeros(2), np.ones(2), "band")
        for reference in references:
            chart.vertical(reference, "threshold")
        chart.estimate(estimate, 0.5, "whisker", "mark")
        rows.append(Strip(name, interval(estimate, is_signed=is_signed), chart.markup()))
    ticks = Chart("Axis", axis, Axis(0, 1), 1)
    ticks.frame()
    return rows, ticks.markup()
