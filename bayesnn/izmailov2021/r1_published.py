"""R1: the published HMC predictions, beside small networks of the same kind. Nothing is decided.

Run: HMC on the scale's residual network and on its recurrent network, with the data of the paper: CIFAR-10 and IMDB.

Compared, on those of the published test points that the run keeps: accuracy and log density of the test labels of both; how
often both prefer the same class, and the total variation distance between them. Beside them the prediction that is the same for
all points, the shares of the classes: a small network on few data may have learnt no more.

Decides: nothing. Another network on other amounts of data has another posterior, and its distance from the published one says
nothing about how well either was sampled; the note says in what they differ. Where they do not, `bayesnn reference compare` holds
a run against the published predictions.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import xarray as xr

from bayesnn.config import RunConfig
from bayesnn.errors import UsageError
from bayesnn.izmailov2021.scales import Scale, World
from bayesnn.reference import PUBLISHED, differences, published
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Planned
from diagnostics.claims import Finding, interval_text, percent
from diagnostics.estimates import mean_score
from diagnostics.fidelity import closeness, closeness_scores
from diagnostics.hypotheses import constant_scores, inconclusive, point_scores
from diagnostics.predictive import mixture_probability

TITLE = "How do the published HMC predictions compare with those of small networks?"
SOURCE = "predictions of Izmailov et al. 2021, released for a NeurIPS 2021 competition"
PREFIX = "bdl-"  # of the names of published references; the rest names their data
SHORTER = 3  # runs that nothing else needs: they decide nothing
SCORES = {
    "accuracy": ("Test accuracy; the line is the published one.", "share"),
    "log_score": ("Test log density; the line is the published one.", "nats a point"),
}


def plan(scale: Scale) -> Hypothesis:
    """Return what is set side by side at a scale: each published reference that has a network of its kind there."""
    runs, claims = {}, {}
    for reference, known in PUBLISHED.items():
        data = reference.removeprefix(PREFIX)
        kind = known.posterior["model"]["kind"]
        for world in [one for one in scale.worlds.values() if one.posterior.model.kind == kind][:1]:
            config = world.posterior if world.posterior.data.name == data else on_data(world, data)
            runs[data] = Planned(config)
            claims[f"R1 {data}"] = functools.partial(judge, reference=reference, config=config)
    return Hypothesis("R1", TITLE, SOURCE, __doc__ or "", runs, claims)


def on_data(world: World, data: str) -> RunConfig:
    """Return the reference run of a world on other data, and shorter."""
    config = world.posterior
    return world.vary(
        data=config.data.model_copy(update={"name": data}),
        warmup=config.warmup.model_copy(update={"steps": config.warmup.steps // SHORTER}),
        draws=config.draws // SHORTER,
    )


def judge(trees: Mapping[str, xr.DataTree], reference: str, config: RunConfig) -> Judgement:
    """Set a published reference and a run side by side."""
    data = reference.removeprefix(PREFIX)
    claim, tree = f"R1 {data}", trees[data]
    try:
        bundle = published(reference)
    except UsageError as error:
        return Judgement(Finding(claim, "hypothesis", "not applicable", note=f"Not compared: {error}."))
    y = tree["observed_data"].to_dataset()["y_test"].values
    if not np.array_equal(y, bundle.y_test[: len(y)]):
        raise ValueError(f"{data} has its test points in another order than {reference}")
    (theirs,) = (part[0, 0, : len(y)] for part in bundle.prefixes.parts)
    ours = mixture_probability(tree["functions"].to_dataset()["probability"].values)
    of_ours = {name: rows[0] for name, rows in point_scores(tree).items()}
    of_theirs = {"accuracy": theirs.argmax(1) == y, "log_score": np.log(theirs[np.arange(len(y)), y])}
    by_chance = {name: rows[0] for name, rows in constant_scores(tree).items()}
    exhibits = []
    for name, (caption, unit) in SCORES.items():
        rows = {"published": of_theirs[name], f"{config.model.kind} of this scale": of_ours[name], "constant": by_chance[name]}
        estimates = {who: mean_score(values).estimate() for who, values in rows.items()}
        exhibits.append(Exhibit(caption, unit, estimates, (estimates["published"].value,)))
    measured = closeness_scores([closeness((ours,), (theirs,), (theirs,))])
    words = {name.replace("_", " "): estimate for name, estimate in measured.items()}
    exhibits.append(Exhibit("Agreement of the most probable class, and total variation distance.", "share", words, (0.0, 1.0)))
    parts = {name: part.model_dump(mode="json") for name, part in (("model", config.model), ("prior", config.prior))}
    unlike = differences({**parts, "num_data": tree.attrs["num_data"]}, bundle.posterior)
    told = f"These are other models ({'; '.join(unlike)}), so nothing follows." if unlike else "No difference is known."
    accuracies = [percent(of["accuracy"].mean()) for of in (of_theirs, of_ours, by_chance)]
    note = (
        f"{told} Total variation {interval_text(*measured['total_variation'])} on {len(y):,} test points, of which "
        f"{accuracies[0]} are right there and {accuracies[1]} here; the most frequent class alone is right at {accuracies[2]}."
    )
    return Judgement(inconclusive(claim, note), tuple(exhibits))
