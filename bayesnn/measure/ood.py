"""`bayesnn measure FOLDER ood`: how unsure a run is on images of other sets, beside those of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from bayesnn.errors import UsageError
from bayesnn.sampler_config import Frozen

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import Console

    from bayesnn.load import LoadedRun
    from diagnostics.claims import Finding

INSIDE = "inside"
# What each set is usually told apart from; of CIFAR-10, as in Izmailov et al. 2021, section 6.4.
OTHERS = {
    "digits_images": ("notmnist", "fashion_mnist"),
    "mnist": ("notmnist", "fashion_mnist"),
    "fashion_mnist": ("mnist", "notmnist"),
    "cifar10": ("cifar100", "svhn"),
    "cifar100": ("cifar10", "svhn"),
    "svhn": ("cifar10", "cifar100"),
}


class OOD(Frozen):
    """How well a run tells images of other sets from its own, by the doubt of its predictions."""

    sets: tuple[str, ...] = ()
    """Other image sets, `notmnist` included; by default two that suit the run's own."""
    points: PositiveInt = 1000
    """At most so many test images of each, the first ones."""


def measure(run: LoadedRun, settings: OOD, console: Console) -> tuple[xr.DataTree, Sequence[Finding]]:
    """Score the doubt of a run's predictions on its own test images and on those of other sets.

    Returns:
        A tree with one data set: `auroc` (set, score, bound), the probability that an outside image has the larger score,
        which is `confidence` (1 - largest probability) or `entropy`; `entropy` (set and `inside`, bin), shares of images by the
        entropy of their prediction, and the bins' edges `edge`, nats. No findings: areas alone are neither good nor bad.

    Raises:
        UsageError: A run without images or classes, an unknown set, or files that are missing.
    """
    import numpy as np
    import xarray as xr

    from bayesnn import data
    from bayesnn.notation import interval
    from diagnostics.ood import auroc
    from diagnostics.predictive import entropy_histogram, mixture_probability, predictive_entropy

    names = settings.sets or OTHERS.get(run.config.data.name, ())
    if run.tree.attrs["task"] != "classification":
        raise UsageError(f"out-of-distribution images are for classifiers of images; this run is of {run.tree.attrs['task']}")
    if not names:
        raise UsageError(f"no other images are known for {run.tree.attrs.get('data', 'a density')}; name image sets with --sets")
    dataset = data.load(**run.config.data.model_dump())
    predicted = {INSIDE: mixture_probability(run.tree["functions"].to_dataset()["probability"].values[:, :, : settings.points])}
    for name in names:
        try:
            x = data.outside(dataset, name)[: settings.points]
        except ValueError as error:
            raise UsageError(str(error)) from None
        predicted[name] = run.predict(dataset.original_inputs(x))["probability"]
    doubt = {name: {"confidence": 1 - p.max(-1), "entropy": predictive_entropy(p)} for name, p in predicted.items()}
    areas = {name: {score: auroc(doubt[INSIDE][score], doubt[name][score]) for score in doubt[name]} for name in names}
    for name, by_score in areas.items():
        value, ends = interval(by_score["entropy"])
        console.print(f"  {name}: area under the ROC curve {value} ({ends}), by entropy", markup=False)
    histograms = [entropy_histogram(p) for p in predicted.values()]
    result = xr.Dataset(
        {
            "auroc": (("set", "score", "bound"), np.array([list(by_score.values()) for by_score in areas.values()])),
            "entropy": (("predicted", "bin"), np.array([histogram.shares for histogram in histograms])),
            "edge": (("edges",), histograms[0].edges),
        },
        {
            "set": list(names),
            "score": ["confidence", "entropy"],
            "bound": ["value", "lower", "upper"],
            "predicted": list(predicted),
        },
    )
    return xr.DataTree(result), ()
