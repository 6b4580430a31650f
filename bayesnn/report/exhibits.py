"""What each measure found, drawn: its result, as `bayesnn measure` stored it, in panels and a few facts."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import xarray as xr

from bayesnn.measure.store import Measure
from bayesnn.notation import interval, number, share
from bayesnn.report.panels import Panel, Value, panel
from diagnostics import regions
from diagnostics.estimates import Estimate
from diagnostics.regions.weighting import BOUND as ROBUST
from diagnostics.resonance import HELD
from diagnostics.step_error import KINKED, NEARLY_EXACT, SMOOTH, mean_acceptance
from diagnostics.summary import TOTAL

NORMAL = 1.96  # standard errors to each side of a 95 % interval
FREE_ENERGY = "wbic"  # the form of a learning coefficient that is none, but a free energy in nats
GAUSSIAN = 2.0  # tail index of Gaussian noise
WEIGHTINGS = {"visits": "as visited", "mass": "by mass", "stacking": "stacked"}  # of regions
TENTH = 10  # percent: the least that an axis of shares spans, lest noise look large
CHANCE = 0.5  # area under the ROC curve of a score that knows nothing


class Exhibit(NamedTuple):
    """What a measure found: numbers with intervals in panels, and facts by name."""

    panels: list[Panel]
    facts: list[tuple[str, str]]


def resonance(measure: Measure) -> Exhibit:
    """Show the shares of bad R-hats with trajectories of one length, and with jittered ones."""
    table = measure.tree.to_dataset().stack(row=("direction", "threshold"))
    names = [f"{direction}, above {threshold:g}" for direction, threshold in table["row"].values]
    series = {
        f"{trajectory} lengths": _values(
            table.sel(trajectory=trajectory), "share", "share_lower", "share_upper", largest="share_largest"
        )
        for trajectory in table["trajectory"].values
    }
    return Exhibit([panel("Share of R-hats above a threshold, %", "R-hat of", names, series, unit=0.01, include=(0, TENTH))], [])


def directions(measure: Measure) -> Exhibit:
    """Show the share of leading directions with a bad R-hat by layer, and the spread of weights where the data say nothing."""
    table = measure.tree["leading"].to_dataset().sel(threshold=HELD)
    layers = ["all" if layer == TOTAL else str(layer) for layer in table["layer"].values]
    series = {
        str(tested): _values(table.sel(tested=tested), "share", largest="share_largest") for tested in table["tested"].values
    }
    title = f"Share of leading directions with an R-hat above {HELD:g}, %"
    panels = [panel(title, "layer", layers, series, unit=0.01, include=(0, TENTH))]
    null = measure.tree["null"].to_dataset() if "null" in measure.tree.children else xr.Dataset()
    if null.attrs.get("num_directions"):
        values = _values(null, "spread", "spread_lower", "spread_upper")
        title = "Mean square of the weights where the data say nothing, over the prior's variance"
        panels.append(panel(title, "kernel", [null.attrs["kernel"]], {"ratio": values}, reference=measure.findings[0].bound))
    return Exhibit(panels, [])


def energy_slope(measure: Measure) -> Exhibit:
    """Show the order of the energy error in the step size."""
    table = measure.tree.to_dataset()
    values = _values(table, "order", "order_lower", "order_upper")
    title = f"Order of the energy error in the step size: {SMOOTH:g} if the potential is smooth, {KINKED:g} if it has kinks"
    return Exhibit([panel(title, "", ["order"], {"value": values}, reference=SMOOTH, include=(KINKED,))], [])


def acceptance(measure: Measure) -> Exhibit:
    """Show the acceptance of all chains and of each."""
    rates = measure.tree.to_dataset()["acceptance_rate"].values
    names = ["all chains", *(f"chain {chain}" for chain in range(len(rates)))]
    means = [Value(mean_acceptance(rows), math.nan) for rows in (rates, *rates[:, None])]
    title = "Share of the steps that an accept step would take, %"
    return Exhibit([panel(title, "", names, {"value": means}, unit=0.01, reference=100 * NEARLY_EXACT, include=(100,))], [])


def gradient_noise(measure: Measure) -> Exhibit:
    """Show the tail indices of minibatch noise at each place."""
    table = measure.tree.to_dataset()
    places = [f"chain {chain}, draw {draw}" for chain, draw in zip(table["chain"].values, table["draw"].values, strict=True)]
    series = {
        words: _values(table, name, f"{name}_lower", f"{name}_upper") for words, name in (("stable", "stable"), ("Hill", "hill"))
    }
    title = f"Tail index of minibatch gradients: {GAUSSIAN:g} if they are Gaussian"
    return Exhibit([panel(title, "at", places, series, reference=GAUSSIAN)], [])


def basins(measure: Measure) -> Exhibit:
    """Show visits beside masses, what the difference does to predictions, and the evidence that came with the masses."""
    tree = measure.tree
    table = tree["regions"].to_dataset()
    shares = [_visits("Visits to each region beside its mass, %", table)]
    if "weights" in tree.children:
        shares.append(_visits("Visits to each cluster of weights beside its mass, %", tree["weights"].to_dataset()))
    labels = tree["labels"].to_dataset()["run"].values
    seen = (table["chain_share"].values > 0).sum(1)
    facts = [
        ("regions", str(tree.attrs["classifier"])),
        ("regions that a chain visits", f"{seen.min()} to {seen.max()} of {table.sizes['region']}"),
        ("steps from region to region", share(float(np.mean(labels[:, 1:] != labels[:, :-1])))),
        ("distinct minima", _minima(tree)),
    ]
    minima = tree["minima"].to_dataset() if "minima" in tree.children else xr.Dataset()
    if "barrier" in minima:
        heights = minima["barrier"].values[np.tril_indices(minima.sizes["reference"], -1)]
        facts.append(("barriers between minima", f"{number(heights.min())} to {number(heights.max())} nats, the lowest found"))
    masses = evidence(measure)
    return Exhibit([*shares, *_weightings(tree), *masses.panels], facts + masses.facts)


def _visits(title: str, table: xr.Dataset) -> Panel:
    """Show shares of visits, masses by every method and perhaps prior volumes, of the regions of one table."""
    series = {"visits": _values(table, "visit_share", "visit_lower", "visit_upper")}
    for name in table["estimator"].values:
        series[f"mass, {name}"] = _values(table.sel(estimator=name), "mass", "mass_lower", "mass_upper")
    if "prior_volume" in table:
        series["prior volume"] = _values(table, "prior_volume")
    return panel(title, "region", [str(name) for name in table["region"].values], series, unit=0.01, include=(0,))


def evidence(measure: Measure) -> Exhibit:
    """Show the log evidence by method."""
    table = measure.tree["evidence"].to_dataset()
    methods = [str(name) for name in table["estimator"].values]
    trips = table["round_trips"].values
    facts = [("round trips of a ladder", f"{trips.min()} to {trips.max()}")]
    facts += [(f"gradients, {road}", number(float(table["gradients"].sel(road=road)))) for road in table["road"].values]
    return Exhibit(
        [panel("Log evidence, nats", "by", methods, {"value": _values(table, "log_evidence", "lower", "upper")})], facts
    )


def learning_coefficients(measure: Measure) -> Exhibit:
    """Show every form of the learning coefficient at each centre, beside half the number of weights."""
    tree = measure.tree
    centres = {name.replace("_", " "): tree[name] for name in tree.children if name.startswith("centre_")}
    tables = {name: _of_errors(centre["estimates"].to_dataset()) for name, centre in centres.items()}
    forms = list(dict.fromkeys(form for table in tables.values() for form in table["form"].values.tolist()))
    half = next(iter(centres.values())).attrs["num_params"] / 2
    panels, facts = [], []
    if shown := [form for form in forms if form != FREE_ENERGY]:
        series = {name: _values(table.reindex(form=shown), "value", "lower", "upper") for name, table in tables.items()}
        title = f"Learning coefficient by form: {number(half)} if the minimum were regular"
        panels.append(panel(title, "form", [form.replace("_", "-") for form in shown], series, reference=half))
    for name, table in tables.items():
        if FREE_ENERGY in table["form"].values:
            (energy,) = _values(table.sel(form=[FREE_ENERGY]), "value", "lower", "upper")
            facts.append((f"free energy (WBIC), {name}", f"{_written(energy)} nats"))
    if "fluctuation" in tree.children:
        spread = tree["fluctuation"].to_dataset()
        spread = xr.Dataset({"value": spread["singular_fluctuation"], "standard_error": spread["singular_fluctuation_error"]})
        (fluctuation,) = _values(_of_errors(spread), "value", "lower", "upper")
        facts.append(("singular fluctuation of the draws", f"{_written(fluctuation)}; {number(half)} in a regular model"))
    return Exhibit(panels, facts)


def out_of_distribution(measure: Measure) -> Exhibit:
    """Show how well the doubt of predictions tells images of other sets from the run's own."""
    table = measure.tree.to_dataset()
    by_bound = table["auroc"].to_dataset("bound")
    series = {str(name): _values(by_bound.sel(score=name), "value", "lower", "upper") for name in table["score"].values}
    sets = [str(name) for name in table["set"].values]
    title = f"Area under the ROC curve: {CHANCE:g} if by chance, 1 if told apart without fail"
    return Exhibit([panel(title, "images of", sets, series, reference=CHANCE, include=(1,))], [])


def shift(measure: Measure) -> Exhibit:
    """Show the accuracy on corrupted test inputs, by corruption and intensity."""
    accuracy = measure.tree.to_dataset()["accuracy"]
    error = accuracy.std("point", ddof=1) / np.sqrt(accuracy.sizes["point"])
    table = _of_errors(xr.Dataset({"value": accuracy.mean("point"), "standard_error": error}))
    series = {
        f"intensity {level}": _values(table.sel(intensity=level), "value", "lower", "upper")
        for level in table["intensity"].values
    }
    corruptions = [str(name) for name in table["corruption"].values]
    return Exhibit([panel("Accuracy on corrupted test inputs, %", "corruption", corruptions, series, unit=0.01)], [])


def _weightings(tree: xr.DataTree) -> list[Panel]:
    """Show how well the mixture of regions predicts under three weightings; nothing where the run keeps no predictions."""
    if "predictions" not in tree.children:
        return []
    names = ("predictions", "labels", "particles", "replicas", "evidence")
    predicted, labels, particles, replicas, found = (tree[name].to_dataset() for name in names)
    count = predicted.sizes["region"]
    weights, log_evidence = particles["log_weight"].values, found["by_system"].values
    by_particles = regions.masses_from_weights("particles", particles["label"].values, weights, log_evidence, count)
    by_replicas = regions.masses_from_systems("replicas", regions.visit_shares(replicas["label"].values, count))
    scored = regions.weightings(
        predicted["log_predictive"].values, labels["run"].values, regions.combined([by_particles, by_replicas])
    )
    scores = {"log score": [Value(scored.scores[name]) for name in WEIGHTINGS]}
    gains = {"gain": [Value(estimate) for estimate in scored.gain.values()]}
    return [
        panel("Log score of the mixture of regions, nats a test point", "weighted", list(WEIGHTINGS.values()), scores),
        panel(
            "The same less that of the visits, paired",
            "weighted",
            [WEIGHTINGS[name] for name in scored.gain],
            gains,
            reference=0,
            include=(-ROBUST, ROBUST),
        ),
    ]


def _values(table: xr.Dataset, value: str, lower: str = "", upper: str = "", *, largest: str = "") -> list[Value]:
    """Return the estimates of a table of one axis or none, and the most that stationary chains show; NaN if not named."""
    columns = [np.atleast_1d(table[name].values) if name else None for name in (value, lower, upper, largest)]
    size = np.size(table[value])
    rows = zip(*(np.full(size, np.nan) if column is None else column for column in columns), strict=True)
    return [Value(Estimate(*map(float, row[:3])), float(row[3])) for row in rows]


def _of_errors(table: xr.Dataset) -> xr.Dataset:
    """Return values with the ends of their normal intervals, from values and standard errors."""
    half = NORMAL * table["standard_error"]
    return xr.Dataset({"value": table["value"], "lower": table["value"] - half, "upper": table["value"] + half})


def _written(value: Value) -> str:
    written = interval(value.estimate)
    return f"{written.value} ({written.ends})" if written.ends else written.value


def _minima(tree: xr.DataTree) -> str:
    per_100 = float(tree.attrs["minima_per_100_draws"])
    if math.isnan(per_100):
        return "not counted: too many weights, or the density is not smooth"
    labels = tree["minima"].to_dataset()["number"].values
    return f"{labels.max() + 1} below {len(labels)} draws: {number(per_100)} per 100"
