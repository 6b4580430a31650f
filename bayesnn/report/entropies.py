"""How sure are runs of their predictions on their own test inputs, on corrupted ones, and on images of other sets?

References:
    Izmailov et al. 2021, arXiv 2104.14421, section 6; Lakshminarayanan et al. 2017, arXiv 1612.01474, figure 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from bayesnn import data
from bayesnn.data.dataset import Dataset
from bayesnn.measure.ood import OTHERS
from bayesnn.notation import number
from bayesnn.report.pictures import Drawing, Shown
from bayesnn.report.plots import Axis, Chart, linear_axis
from bayesnn.report.sampling import chain_style
from diagnostics.predictive import entropy_histogram, predictive_entropy

if TYPE_CHECKING:
    from bayesnn.load import LoadedRun

POINTS = 1000  # at most, of each set, the first ones: as `bayesnn measure FOLDER ood`
WORST = 5  # intensity of the corruptions
HEIGHT = 130  # pixels
OWN, CORRUPTED = "own test inputs", f"the same, corrupted at intensity {WORST}"


def entropies(runs: Mapping[str, LoadedRun]) -> dict[str, Any]:
    """Compute the shares of inputs by the entropy of their prediction, for each run and each set of inputs.

    Args:
        runs: By name, on the same data; a run predicts as the mixture of all its draws.

    Returns:
        Plain data: `edges` of the bins, nats; `sets`, by set and run `shares` of the bins, and the `mean` entropy, nats;
        `left_out`, why other sets are not there, by set.

    Raises:
        UsageError: Runs that cannot predict on new inputs.
        ValueError: Runs on inputs that no corruption suits.
    """
    settings = next(iter(runs.values())).config.data
    dataset = data.load(**settings.model_dump())
    inputs, left_out = {OWN: dataset.x_test[:POINTS], CORRUPTED: _corrupted(dataset)[:POINTS]}, {}
    for name in OTHERS.get(settings.name, ()):
        try:
            inputs[f"images of {name}"] = data.outside(dataset, name)[:POINTS]
        except ValueError as error:
            left_out[name] = str(error)
    edges: list[float] = []
    sets: dict[str, dict[str, Any]] = {}
    for name, x in inputs.items():
        original = dataset.original_inputs(x)
        sets[name] = {}
        for label, run in runs.items():
            probability = run.predict(original)["probability"]
            edges, shares = (part.round(6).tolist() for part in entropy_histogram(probability))
            sets[name][label] = {"shares": shares, "mean": float(predictive_entropy(probability).mean())}
    return {"edges": edges, "sets": sets, "left_out": left_out}


def draw_entropies(found: Mapping[str, Any]) -> Drawing:
    """Draw histograms of entropy, one chart a set, the outline of each run in its colour.

    Args:
        found: From `entropies`.
    """
    edges = np.array(found["edges"])
    figures = []
    for name, by_run in found["sets"].items():
        tallest = max(max(one["shares"]) for one in by_run.values())
        chart = Chart(f"Entropy of predictions, {name}", linear_axis(edges, 4), linear_axis([0, 100 * tallest], 3), HEIGHT)
        chart.x = Axis(0, edges[-1], tuple(tick for tick in chart.x.ticks if tick[0] <= edges[-1]))
        chart.frame("entropy, nats", "share of inputs, %")
        notes = []
        for index, (label, one) in enumerate(by_run.items()):
            style, shares = chain_style(index), 100 * np.array(one["shares"])
            chart.line(np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(shares, 2), [0.0]]), f"outline {style}")
            notes.append(Markup('<strong class="{}">{}</strong> {}').format(style, label, number(one["mean"], 2)))
        figures.append(Shown(name, Markup("mean, nats: ") + Markup(", ").join(notes), chart.markup()))
    return Drawing(figures, " ".join(f"Without {name}: {reason}." for name, reason in found["left_out"].items()))


def _corrupted(dataset: Dataset) -> np.ndarray:
    """Return the test inputs, each under one of the corruptions, in turn."""
    names = data.corruptions_of(dataset)
    if not names:
        raise ValueError(f"no corruption suits {dataset.inputs} of {dataset.name}")
    x = dataset.x_test.copy()
    for index, name in enumerate(names):
        x[index :: len(names)] = data.corrupt(dataset, name, WORST)[index :: len(names)]
    return x
