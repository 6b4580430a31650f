r"""Symmetries of networks: hidden units that can change places or signs, checked by numbers, and copies made the same.

Exchanging the hidden units of a layer leaves what a network computes as it is, and so does turning the sign of all weights into
and out of a unit whose activation is odd. Both move the weights orthogonally, so that under a prior that does not tell units or
signs apart the posterior of a layer of n units consists of n! (times 2^n) copies of one part. ReLU units can also be rescaled,
:math:`w_{in} \to c\, w_{in}, w_{out} \to w_{out} / c`, which the usual priors see: a direction of the likelihood alone.

Nothing here knows networks: a symmetry is declared by which axes of which arrays run over the units of a layer, and
`check_symmetries` holds the declaration against the network's own outputs and log prior.

References:
    Hecht-Nielsen 1990, "On the algebraic structure of feedforward network weight spaces" (permutations and signs); Chen, Lu &
    Hecht-Nielsen 1993, "On the geometry of feedforward neural network error surfaces", Neural Computation 5(6).
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Int, Shaped
from numpy.typing import ArrayLike

from diagnostics import trees

type Arrays = dict[str, np.ndarray]
type Owned = tuple[tuple[str, int], ...]  # arrays by dotted path, and the axis of each that runs over the units
type Transformation = Callable[[Arrays, np.random.Generator], Mapping[str, ArrayLike]]

# activation: is it odd (Chen et al. 1993: signs can turn), is it positively homogeneous (units can be rescaled)
ACTIVATIONS = {"tanh": (True, False), "relu": (False, True), "silu": (False, False), "gelu": (False, False)}
NUM_TRIALS = 10  # random transformations of each kind; all n! cannot be tried, and a wrong declaration fails the first
ROUNDING = 1000.0  # units of the last place by which sums in another order may differ: 1e-4 in float32, 2e-13 in float64


class UnitGroup(NamedTuple):
    """Hidden units that are alike: which parts of which arrays each of them owns.

    Attributes:
        name: Name of the group, as that of its layer.
        incoming: Arrays by dotted path with the axis of each that runs over the units, for what feeds the units: biases, kernels.
            Axes are those of a single network, without chain and draw.
        outgoing: The same for what the units feed.
        flips: Whether a unit can turn the sign of all that it owns (odd activation).
        rescales: Whether a unit's incoming arrays can be multiplied and its outgoing ones divided by a positive number without a
            change of the outputs. Checked, never used to align: it is a symmetry of the likelihood alone.
    """

    name: str
    incoming: Owned
    outgoing: Owned
    flips: bool = False
    rescales: bool = False

    @property
    def owned(self) -> Owned:
        """All arrays that the units have a part of."""
        return self.incoming + self.outgoing


type Architecture = tuple[UnitGroup, ...]  # from the inputs to the outputs


def mlp_symmetries(layers: Sequence[str], activation: str) -> Architecture:
    """Return the symmetries of a fully connected network with arrays `LAYER.kernel` [in, out] and `LAYER.bias` [out].

    Args:
        layers: Paths of all its layers, from the inputs to the outputs; each but the last feeds hidden units.
        activation: "tanh" (units and signs), "relu" (units; rescaling declared, too), "silu" or "gelu" (units).

    Returns:
        One group of units a hidden layer, named after it.

    Raises:
        ValueError: An unknown activation, fewer than two layers, a layer named twice.

    Example:
        >>> [group] = mlp_symmetries(["layer_0", "layer_1"], "tanh")
        >>> group.incoming, group.outgoing, group.flips
        ((('layer_0.bias', 0), ('layer_0.kernel', 1)), (('layer_1.kernel', 0),), True)
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}{_nearest(activation, ACTIVATIONS)}"
        )
    if len(layers) < 2 or len(set(layers)) < len(layers):
        raise ValueError(f"an MLP with hidden units has two or more layers of different names, got {', '.join(layers) or 'none'}")
    flips, rescales = ACTIVATIONS[activation]
    return tuple(
        UnitGroup(layer, ((f"{layer}.bias", 0), (f"{layer}.kernel", 1)), ((f"{following}.kernel", 0),), flips, rescales)
        for layer, following in itertools.pairwise(layers)
    )


def group_sizes(architecture: Architecture, shapes: Mapping[str, Sequence[int]]) -> list[int]:
    """Check an architecture against the shapes of the arrays of one network and return the number of units of each group.

    Raises:
        ValueError: No groups, two that share their name or an axis, an array that is not there (the nearest name is suggested),
            an axis that it does not have, a group that owns two axes of one array, arrays that disagree about the number of
            units.
    """
    if not architecture:
        raise ValueError("the architecture has no groups of hidden units")
    names, axes = [group.name for group in architecture], [axis for group in architecture for axis in group.owned]
    for what, values in (("name", names), ("array axis", axes)):
        if twice := [value for place, value in enumerate(values) if value in values[:place]]:
            raise ValueError(f"each {what} belongs to one group of units, got {twice[0]!r} twice")
    sizes = []
    for group in architecture:
        owned: dict[str, int] = {}
        for name, axis in group.owned:
            if name not in shapes:
                known = f"; there are {', '.join(shapes)}"
                raise ValueError(f"group {group.name} owns {name}, which is not there{_nearest(name, shapes) or known}")
            if not 0 <= axis < len(shapes[name]):
                raise ValueError(f"group {group.name} owns axis {axis} of {name}, which has shape {tuple(shapes[name])}")
            if name in owned:
                raise ValueError(f"group {group.name} owns two axes of {name}; units that feed their own group cannot be aligned")
            owned[name] = shapes[name][axis]
        if len(set(owned.values())) != 1:
            found = ", ".join(f"{name} has {size}" for name, size in owned.items()) or "no arrays"
            raise ValueError(f"the arrays of group {group.name} must agree about its number of units: {found}")
        sizes.append(next(iter(owned.values())))
    return sizes


def unit_rows(weights: Mapping[str, np.ndarray], owned: Owned, num_leading: int) -> Shaped[np.ndarray, "*leading unit feature"]:
    """Return what each unit owns as one row, [..., unit, feature], behind `num_leading` leading axes."""
    parts = [np.moveaxis(weights[name], num_leading + axis, num_leading) for name, axis in owned]
    return np.concatenate([part.reshape(*part.shape[: num_leading + 1], -1) for part in parts], -1)


def move_units(
    weights: Mapping[str, np.ndarray],
    owned: Owned,
    permutation: Int[np.ndarray, "*leading unit"],
    factor: Shaped[np.ndarray, "*leading unit"],
) -> Arrays:
    """Return the weights with unit `permutation[i]`, times `factor[i]`, in place i; arrays that are not owned are shared."""
    num_leading = permutation.ndim - 1
    moved = dict(weights)
    for name, axis in owned:
        array = np.moveaxis(weights[name], num_leading + axis, num_leading)
        index, scale = (values.reshape(*values.shape, *[1] * (array.ndim - values.ndim)) for values in (permutation, factor))
        moved[name] = np.moveaxis(np.take_along_axis(array, index, num_leading) * scale, num_leading, num_leading + axis)
    return moved


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
    in_place = np.arange(size)

    def permute(weights: Arrays, rng: np.random.Generator) -> Arrays:
        return move_units(weights, group.owned, rng.permutation(size), np.ones(size, np.int8))

    def flip(weights: Arrays, rng: np.random.Generator) -> Arrays:
        signs = rng.choice(np.array([-1, 1], np.int8), size)
        signs[rng.integers(size)] = -1  # at least one
        return move_units(weights, group.owned, in_place, signs)

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

    Units are ordered by the norm of what they feed, largest first, and ties by what they own, entry by entry; a unit that can
    flip has a positive bias, or first entry that is not zero. Good to count distinct networks or to label copies. Not good to
    compare chains: two units of nearly the same norm change places from draw to draw, where `align` keeps them.

    Units that agree in all that they are fed by and in that norm, or flip and are fed by nothing, are told apart by what they
    feed; in a layer before the last hidden one the form of such networks, which have probability zero, is not unique.

    Args:
        run: A run, or arrays (chain, draw, ...) by dotted path.
        architecture: Symmetries, from the inputs to the outputs.

    Returns:
        Arrays of the same shapes and types.

    Raises:
        ValueError: The architecture does not fit the weights (`group_sizes`).
    """
    draws = draws_of(run)
    group_sizes(architecture, {name: array.shape[2:] for name, array in draws.items()})
    for group in architecture:
        rows = unit_rows(draws, group.owned, 2)
        first = (rows != 0).argmax(-1)[..., None]
        is_negative = np.take_along_axis(rows, first, -1)[..., 0] < 0
        signs = np.where(is_negative & group.flips, -1, 1).astype(np.int8)
        # Sorted before they are summed: the later layers' order and signs then cannot change the rounding.
        norm = np.sort(np.abs(unit_rows(draws, group.outgoing, 2)), -1).astype(float)
        keys = [*np.moveaxis(rows * signs[..., None], -1, 0)[::-1], -np.square(norm).sum(-1)]
        order = np.lexsort(keys)
        draws = move_units(draws, group.owned, order, np.take_along_axis(signs, order, -1))
    return draws


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""
