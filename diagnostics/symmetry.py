r"""Symmetries of networks: hidden units that can change places or signs, checked by numbers, and copies made the same.

Exchanging the hidden units of a layer leaves what a network computes as it is, and so does turning the sign of all weights into
and out of a unit whose activation is odd. Both move the weights orthogonally, so that under a prior that does not tell units or
signs apart the posterior of a layer of n units consists of n! (times 2^n) copies of one part. ReLU units can also be rescaled,
:math:`w_{in} \to c\, w_{in}, w_{out} \to w_{out} / c`, which the usual priors see: a direction of the likelihood alone.

Symmetries are declared (`diagnostics.units`), and `check_symmetries` holds the declaration against the network's own outputs and
log prior.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import cast

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from diagnostics import trees
from diagnostics.units import Architecture, Arrays, UnitGroup, copy_units, from_json, group_sizes, move_units, unit_rows

type Transformation = Callable[[Arrays, np.random.Generator], Mapping[str, ArrayLike]]

NUM_TRIALS = 10  # random transformations of each kind; all n! cannot be tried, and a wrong declaration fails the first
ROUNDING = 1000.0  # units of the last place by which sums in another order may differ: 1e-4 in float32, 2e-13 in float64


def architecture_of(run: xr.DataTree) -> Architecture:
    """Return the symmetries that a run's network has declared; built-in networks declare theirs.

    Raises:
        ValueError: The run says nothing of them.
    """
    text = run.attrs.get("architecture")
    if not text:
        raise ValueError(
            "the run does not say what symmetries its network has: give them as `architecture` (diagnostics.UnitGroup), or "
            "declare them with the model (bayesnn.models.Model.symmetries)"
        )
    return from_json(cast(str, text))


def shift_of_logits(kernel: str, bias: str) -> Transformation:
    """Return the transformation that adds the same to all logits of a softmax, for `others` of `check_symmetries`.

    It keeps the probabilities and, under the usual priors, not the log prior: a direction of the likelihood alone.

    Args:
        kernel: Dotted path of the last layer's kernel, [in, class].
        bias: Of its bias, [class].
    """

    def shift(weights: Arrays, rng: np.random.Generator) -> Arrays:
        moved = dict(weights)
        for name in (kernel, bias):
            added = rng.normal(size=(*weights[name].shape[:-1], 1)).astype(weights[name].dtype)
            moved[name] = weights[name] + added
        return moved

    return shift


def check_symmetries(
    architecture: Architecture,
    weights: Mapping[str, ArrayLike],
    outputs: Callable[[Arrays], ArrayLike],
    log_prior: Callable[[Arrays], ArrayLike],
    *,
    others: Mapping[str, Transformation] | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Measure what random permutations, sign flips and rescalings of each group change.

    A transformation is a symmetry of the posterior only if outputs and log prior *both* keep their values and volumes do, too;
    permutations and sign flips keep volumes. One that keeps the outputs alone is a direction of the likelihood, as rescaling is.
    Use weights without zeros and in float64 where possible: rounding in float32 hides changes of the log prior below 1e-4.

    Args:
        architecture: Declared symmetries.
        weights: One network, arrays by dotted path.
        outputs: From weights to the outputs at some inputs, any shape: what the likelihood is made of.
        log_prior: From weights to the log prior, nats.
        others: Further transformations by name, such as a shift of logits; they get the weights and a random generator.
        seed: Of the random transformations.

    Returns:
        Dataset over `transformation` ("layer_0: permutation"): the largest change in 10 random ones of the outputs, over the
        largest output, and of the log prior, over its size or 1 nat if that is larger, as `outputs_change` and
        `log_prior_change`; `keeps_outputs` and `keeps_log_prior`: is that rounding? Changes that are not finite are not.

    Raises:
        ValueError: The architecture does not fit the weights (`group_sizes`).
    """
    arrays = {name: np.asarray(value) for name, value in weights.items()}
    sizes = group_sizes(architecture, {name: array.shape for name, array in arrays.items()})
    rng = np.random.default_rng(seed)
    named = [kind for group, size in zip(architecture, sizes, strict=True) for kind in _declared(group, size)]
    named += list((others or {}).items())
    before = [np.asarray(oracle(arrays)) for oracle in (outputs, log_prior)]
    scale = [max(np.abs(before[0]).max(), np.finfo(float).tiny), max(1.0, np.abs(before[1]))]
    coarsest = max(np.finfo(array.dtype).eps for array in arrays.values() if array.dtype.kind == "f")
    rounding = [ROUNDING * max(coarsest, np.finfo(value.dtype).eps) for value in before]
    rows = []
    for _, transformation in named:
        changes = []
        for _ in range(NUM_TRIALS):
            moved = {name: np.asarray(value) for name, value in transformation(arrays, rng).items()}
            after = [np.asarray(oracle(moved)) for oracle in (outputs, log_prior)]
            changes.append([np.abs(new - old).max() for new, old in zip(after, before, strict=True)])
        rows.append(np.max(changes, 0) / scale)
    table = np.array(rows)
    return xr.Dataset(
        {
            "outputs_change": ("transformation", table[:, 0]),
            "log_prior_change": ("transformation", table[:, 1]),
            "keeps_outputs": ("transformation", table[:, 0] <= rounding[0]),
            "keeps_log_prior": ("transformation", table[:, 1] <= rounding[1]),
        },
        {"transformation": [name for name, _ in named]},
    )


def _declared(group: UnitGroup, size: int) -> Iterator[tuple[str, Transformation]]:
    """Yield the random transformations that a group declares, by name."""
    in_place, kept = np.arange(size), np.ones((len(group.flips), size), np.int8)

    def permute(weights: Arrays, rng: np.random.Generator) -> Arrays:
        return copy_units(weights, group, rng.permutation(size), kept)

    def flip(weights: Arrays, rng: np.random.Generator) -> Arrays:
        signs = rng.choice(np.array([-1, 1], np.int8), kept.shape)
        signs[:, rng.integers(size)] = -1  # at least one
        return copy_units(weights, group, in_place, signs)

    def rescale(weights: Arrays, rng: np.random.Generator) -> Arrays:
        factors = np.exp(rng.normal(size=size))
        moved = move_units(move_units(weights, group.incoming, in_place, factors), group.outgoing, in_place, 1 / factors)
        return {name: array.astype(weights[name].dtype, copy=False) for name, array in moved.items()}

    yield f"{group.name}: permutation", permute
    if group.flips:
        yield f"{group.name}: sign flip", flip
    if group.rescales:
        yield f"{group.name}: rescaling", rescale


def draws_of(run: xr.DataTree | Mapping[str, ArrayLike]) -> Arrays:
    """Return the weights of a run, or of a mapping of arrays (chain, draw, ...), as arrays by name.

    Raises:
        ValueError: Arrays that disagree about chains and draws.
    """
    given = trees.weights(run) if isinstance(run, xr.DataTree) else run
    arrays = {str(name): np.asarray(value) for name, value in given.items()}
    shapes = {name: array.shape[:2] for name, array in arrays.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) < 2 for shape in shapes.values()):
        raise ValueError(f"weights must be arrays (chain, draw, ...) with the same chains and draws, got {shapes}")
    return arrays


def canonical(run: xr.DataTree | Mapping[str, ArrayLike], architecture: Architecture) -> Arrays:
    """Move every draw to the one of its copies that has a standard form, the same to the last bit for all of them.

    Units are ordered by the norm of what they feed, largest first, and ties by what they own, entry by entry; of each set of
    parts that can turn sign (`UnitGroup.flips`), the first entry that is not zero is positive. Good to count distinct networks
    or to label copies. Not good to compare chains: two units of nearly the same norm change places from draw to draw, where
    `align` keeps them.

    Units that agree in all that they are fed by and in that norm, or flip and are fed by nothing, are told apart by what they
    feed; in a layer before the last hidden one the form of such networks, which have probability zero, is not unique. For the
    signs to be standard, too, a set has to begin with what later groups do not move: a bias, or the scale of a normalisation.

    Args:
        run: A run, or arrays (chain, draw, ...) by dotted path.
        architecture: Symmetries, from the inputs to the outputs.

    Returns:
        Arrays of the same shapes and types.

    Raises:
        ValueError: The architecture does not fit the weights (`group_sizes`).
    """
    draws, _ = canonical_moves(run, architecture)
    return draws


def canonical_moves(
    run: xr.DataTree | Mapping[str, ArrayLike], architecture: Architecture
) -> tuple[Arrays, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return the standard form of every draw, and by group what moved it there.

    Returns:
        Arrays as `canonical`; by group, permutation (chain, draw, unit), unit `permutation[i]` having come to place i, and signs
        (chain, draw, flip, unit) of the units as they were.
    """
    draws = draws_of(run)
    group_sizes(architecture, {name: array.shape[2:] for name, array in draws.items()})
    moves = {}
    for group in architecture:
        signs = _standard_signs(draws, group)
        in_place = np.broadcast_to(np.arange(signs.shape[-1]), (*signs.shape[:2], signs.shape[-1]))
        draws = copy_units(draws, group, in_place, signs)
        # Sorted before they are summed: the later layers' order and signs then cannot change the rounding.
        norm = np.sort(np.abs(unit_rows(draws, group.outgoing or group.incoming, 2)), -1).astype(float)
        keys = [*np.moveaxis(unit_rows(draws, group.owned, 2), -1, 0)[::-1], -np.square(norm).sum(-1)]
        order = np.lexsort(keys)
        draws = copy_units(draws, group, order, np.ones_like(signs))
        moves[group.name] = (order, signs)
    return draws, moves


def _standard_signs(draws: Arrays, group: UnitGroup) -> np.ndarray:
    """Return the signs (chain, draw, flip, unit) that make the first entry of each set positive."""
    size = unit_rows(draws, group.owned[:1], 2).shape[2]
    signs = np.ones((*draws[group.owned[0][0]].shape[:2], len(group.flips), size), np.int8)
    for index, parts in enumerate(group.flips):
        rows = unit_rows(draws, parts, 2)
        first = (rows != 0).argmax(-1)[..., None]
        signs[:, :, index][np.take_along_axis(rows, first, -1)[..., 0] < 0] = -1
    return signs
