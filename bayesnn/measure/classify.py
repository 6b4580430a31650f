"""Classifiers of a network's draws, fixed on draws that are not under test: by functions, weights, minima, or a user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from bayesnn.errors import UsageError
from bayesnn.imports import load_function
from bayesnn.measure.barriers import barriers
from bayesnn.measure.gradient_flow import Minima, flow_to_minima
from bayesnn.models import named, nest
from bayesnn.posteriors import Posterior
from diagnostics.alignment import align
from diagnostics.regions import Clusters, find_clusters, merge_minima, same_minimum
from diagnostics.trees import predicted
from samplers.types import Position

BLOCK = 32  # draws whose predictions are computed at a time
ALIGNED = 2**22  # scalars of draws that are aligned at a time, in several copies of 8 bytes each
MOST_POINTS = 200  # test inputs at which functions are compared; more tell clusters of functions apart no better


class Classifier(NamedTuple):
    """From draws to regions.

    Attributes:
        description: How, in a few words.
        num_regions: Number of regions.
        label: [draw, ...] positions -> [draw] regions.
        clusters: What the regions are, if clusters (`diagnostics.regions.Clusters`; of weights, also the `reference` to which
            draws are aligned); else empty.
    """

    description: str
    num_regions: int
    label: Callable[[Position], Int[np.ndarray, " draw"]]
    clusters: xr.Dataset = xr.Dataset()


class Reference(NamedTuple):
    """Minima below draws.

    Attributes:
        minima: Ends of the flows that came to a minimum.
        nearest: [i, j, d] that copy of minimum i which is nearest to minimum j.
        number: [minimum] of distinct minima, from 0.
        found: [source, distinct minimum] whether a draw of that chain or system lies over it.
        unseen: Estimated probability that a draw of another source lies over none of them: the share of draws over minima that no
            other source has shown, or below which no flow came to its end (Good 1953, with sources for single draws).
    """

    minima: Minima
    nearest: Float[np.ndarray, "minimum minimum d"]
    number: Int[np.ndarray, " minimum"]
    found: Bool[np.ndarray, "source distinct"]
    unseen: float


def by_functions(posterior: Posterior, pilot: Position, num_regions: int, seed: int) -> Classifier:
    """Return clusters of what pilot draws predict at the test inputs."""
    x = jnp.asarray(posterior.dataset.x_test[:MOST_POINTS], float)

    @jax.jit
    def features(positions: Position) -> Float[Array, "draw feature"]:
        def one(position: Position) -> Float[Array, " feature"]:
            predicted = posterior.functions(position, x)
            return jnp.ravel(predicted["probability"] if "probability" in predicted else predicted["mean"])

        return jax.lax.map(one, positions, batch_size=BLOCK)

    clusters = find_clusters(np.asarray(features(pilot)), num_regions, seed=seed)

    def label(positions: Position) -> Int[np.ndarray, " draw"]:
        return clusters.label(np.asarray(features(positions)))

    return Classifier(f"{len(clusters.centre)} clusters of functions", len(clusters.centre), label, _table(clusters, "feature"))


def by_weights(posterior: Posterior, pilot: Position, num_regions: int, seed: int) -> Classifier:
    """Return clusters of the weights of pilot draws, each draw moved to the nearest copy to the first of them that is found.

    Distances are those of the weights as they are: layers of a wide prior count for more. Only declared symmetries are undone.
    """
    reference = jax.tree.map(lambda x: x[0], pilot)
    clusters = find_clusters(copies_near(posterior, pilot, reference), num_regions, seed=seed)
    rows = max(1, ALIGNED // posterior.num_params)

    def label(positions: Position) -> Int[np.ndarray, " draw"]:
        count = len(jax.tree.leaves(positions)[0])
        parts = (jax.tree.map(lambda x, at=first: x[at : at + rows], positions) for first in range(0, count, rows))
        return np.concatenate([clusters.label(copies_near(posterior, part, reference)) for part in parts])

    table = _table(clusters, "weight").assign(reference=("weight", np.asarray(ravel_pytree(reference)[0], float)))
    return Classifier(f"{len(clusters.centre)} clusters of weights", len(clusters.centre), label, table)


def _table(clusters: Clusters, feature: str) -> xr.Dataset:
    dims = {"mean": feature, "scale": (), "centre": ("region", feature)}
    return xr.Dataset({name: (dims[name], values) for name, values in clusters._asdict().items()})


def label_run(basins: xr.DataTree, tree: xr.DataTree) -> Int[np.ndarray, "chain draw"]:
    """Label the draws of a run by the clusters of functions of another run of the same data, from what they predict.

    Args:
        basins: What `bayesnn measure FOLDER basins` found on the other run.
        tree: The run; it keeps its predictions at the first test points.

    Raises:
        ValueError: Regions that are no clusters of functions, or predictions at too few points.
    """
    if "classifier" not in basins.children:
        raise ValueError("only clusters of functions label a run by its predictions: measure basins with --regions functions")
    table = basins["classifier"].to_dataset()
    clusters = Clusters(table["mean"].values, float(table["scale"]), table["centre"].values)
    functions = predicted(tree)
    values = functions["probability" if "probability" in functions else "mean"].values
    features = values.reshape(*values.shape[:2], -1)[..., : clusters.mean.size]
    if features.shape[-1] < clusters.mean.size:
        raise ValueError(f"the clusters know {clusters.mean.size} predicted numbers, the run keeps {features.shape[-1]}")
    return clusters.label(features)


def by_minima(
    posterior: Posterior, pilot: Position, system: Int[np.ndarray, " draw"]
) -> tuple[Classifier, Reference, Float[np.ndarray, "minimum minimum"]]:
    """Return regions of minima that are merged across low barriers, the minima below the pilot draws, and their barriers.

    A draw belongs to the region of that reference minimum which is nearest to the minimum below it, in nats of the reference's
    own parabola; a draw whose flow did not end, to that which is nearest to where it stopped. The pilot draws are of several
    systems of particles.

    Raises:
        UsageError: No flow came to a minimum.
    """
    target, batch, tempering = posterior.target, posterior.batch, posterior.tempering
    reference = find_minima(posterior, pilot, system)
    if reference is None:
        raise UsageError(
            "no gradient flow came to a minimum: the density is not smooth (ReLU?), or the weights are too many; take --regions "
            "functions"
        )
    first = np.unique(reference.number, return_index=True)[1]
    minima = jax.tree.map(lambda x: x[first], reference.minima)
    nearest = reference.nearest[np.ix_(first, first)]
    like = jax.tree.map(lambda x: x[0], minima.position)
    heights = barriers(target, batch, tempering, like, nearest, minima.log_density, minima.hessian)
    regions = merge_minima(heights)

    def label(positions: Position) -> Int[np.ndarray, " draw"]:
        ends = flow_to_minima(target, batch, tempering, positions).position
        energies = []
        for place, hessian in enumerate(minima.hessian):
            step = copies_near(posterior, ends, jax.tree.map(lambda x, i=place: x[i], minima.position)) - nearest[place, place]
            energies.append(np.einsum("nd,de,ne->n", step, hessian, step))
        return regions[np.argmin(energies, 0)]

    count = int(regions.max()) + 1
    return (
        Classifier(f"{count} regions of {len(first)} minima", count, label),
        Reference(minima, nearest, regions, reference.found, reference.unseen),
        heights,
    )


def by_own(source: str, num_regions: int) -> Classifier:
    """Return a user's own classifier: a function of weights by dotted path, each [draw, ...], to regions [draw] from 0.

    Raises:
        UsageError: When it labels: it does not return one integer below `num_regions` a draw.
    """
    function = load_function(source)

    def label(positions: Position) -> Int[np.ndarray, " draw"]:
        found = np.asarray(function({name: np.asarray(array) for name, array in named(positions).items()}))
        expected = (len(jax.tree.leaves(positions)[0]),)
        if found.shape != expected or found.dtype.kind not in "iu" or not 0 <= found.min() <= found.max() < num_regions:
            raise UsageError(
                f"{source} must return integers from 0 to {num_regions - 1} (--num-regions less 1) of shape {expected}, it "
                f"returned {found.dtype} {found.shape} from {found.min()} to {found.max()}"
            )
        return found

    return Classifier(f"{num_regions} regions by {source.rpartition(':')[2]}", num_regions, label)


def find_minima(posterior: Posterior, positions: Position, source: Int[np.ndarray, " draw"]) -> Reference | None:
    """Follow draws of several chains or systems to the minima below them, and tell which of these are the same up to symmetry.

    Returns:
        The minima; None if no flow came to one.
    """
    found = flow_to_minima(posterior.target, posterior.batch, posterior.tempering, positions)
    if not found.is_minimum.any():
        return None
    minima: Minima = jax.tree.map(lambda x: x[found.is_minimum], found)
    count = len(minima.log_density)
    at = [jax.tree.map(lambda x, i=place: x[i], minima.position) for place in range(count)]
    nearest = np.stack([copies_near(posterior, minima.position, one) for one in at], 1)
    step = nearest - nearest[np.arange(count), np.arange(count)]
    number = same_minimum(step, minima.log_density, minima.hessian)
    shown = np.zeros((source.max() + 1, number.max() + 1), bool)
    shown[source[found.is_minimum], number] = True
    shared = (shown.sum(0) > 1)[number]
    return Reference(minima, nearest, number, shown, float(1 - shared.sum() / len(source)))


def copies_near(posterior: Posterior, positions: Position, reference: Position) -> Float[np.ndarray, "draw d"]:
    """Return the copies of networks that are nearest to a reference, each as one vector."""
    draws: Mapping[str, Any] = {name: np.asarray(array) for name, array in named(positions).items()}
    if architecture := posterior.model.symmetries(posterior.like):
        to = {name: np.asarray(array) for name, array in named(reference).items()}
        moved = align({name: array[None] for name, array in draws.items()}, architecture, to).weights
        draws = {name: array[0] for name, array in moved.items()}
    return np.asarray(jax.vmap(lambda position: ravel_pytree(position)[0])(nest(draws)), float)
