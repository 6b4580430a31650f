r"""Hidden units that are alike: what each of them owns, so that they can change places and signs.

Nothing here knows networks: a symmetry is declared by which axes of which arrays run over the units of a group.

- A convolution's channels own an axis of its kernel, as units of a layer do.
- The channels of a residual stream own a part of every array that writes to the stream or reads from it: one group.
- Behind a flattened image of p places, and in an LSTM whose gates lie side by side, a unit owns several places of one axis: the
  axis is `repeats` blocks, each with one place for every unit.
- What a recurrent unit feeds is its own group: the group owns two axes of one array.
- Signs may turn in part of what a unit owns. A tanh unit turns all of it. A convolution followed by filter response
  normalisation, :math:`\gamma\, x / \sqrt{\overline{x^2} + \epsilon}`, turns with :math:`\gamma` whatever follows, and in a
  residual stream every branch that ends so turns for itself.

References:
    Hecht-Nielsen 1990, "On the algebraic structure of feedforward network weight spaces" (permutations and signs); Chen, Lu &
    Hecht-Nielsen 1993, "On the geometry of feedforward neural network error surfaces", Neural Computation 5(6).
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

type Arrays = dict[str, np.ndarray]
type Part = tuple[str, int] | tuple[str, int, int]  # array by dotted path, its axis over the units, and repeats if not 1
type Owned = tuple[Part, ...]

# activation: is it odd (Chen et al. 1993: signs can turn), is it positively homogeneous (units can be rescaled)
ACTIVATIONS = {"tanh": (True, False), "relu": (False, True), "silu": (False, False), "gelu": (False, False)}


class UnitGroup(NamedTuple):
    """Hidden units that are alike: which parts of which arrays each of them owns.

    Attributes:
        name: Name of the group, as that of its layer.
        incoming: Arrays by dotted path with the axis of each that runs over the units, for what feeds the units: biases, kernels;
            (path, axis), or (path, axis, repeats) for an axis of several blocks of units. Axes are those of a single network,
            without chain and draw.
        outgoing: The same for what the units feed.
        flips: Sets of the parts above. A unit can turn the sign of all that it owns in one set without a change of the outputs.
        rescales: Whether a unit's incoming arrays can be multiplied and its outgoing ones divided by a positive number without a
            change of the outputs. Checked, never used to align: it is a symmetry of the likelihood alone.
    """

    name: str
    incoming: Owned
    outgoing: Owned
    flips: tuple[Owned, ...] = ()
    rescales: bool = False

    @property
    def owned(self) -> Owned:
        """All arrays that the units have a part of."""
        return self.incoming + self.outgoing

    @property
    def recurrent(self) -> frozenset[str]:
        """Arrays from the units to the units themselves."""
        names = [part[0] for part in self.owned]
        return frozenset(name for name in names if names.count(name) > 1)


type Architecture = tuple[UnitGroup, ...]  # from the inputs to the outputs


def hidden_layer(name: str, incoming: Owned, outgoing: Owned, activation: str) -> UnitGroup:
    """Return the group of units of one activation, whose signs turn in all that they own where it is odd.

    Raises:
        ValueError: An unknown activation.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}{nearest(activation, ACTIVATIONS)}"
        )
    is_odd, rescales = ACTIVATIONS[activation]
    return UnitGroup(name, incoming, outgoing, (incoming + outgoing,) if is_odd else (), rescales)


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
        >>> [group] = mlp_symmetries(["layer_0", "layer_1"], "relu")
        >>> group.incoming, group.outgoing, group.rescales
        ((('layer_0.bias', 0), ('layer_0.kernel', 1)), (('layer_1.kernel', 0),), True)
    """
    if len(layers) < 2 or len(set(layers)) < len(layers):
        raise ValueError(f"an MLP with hidden units has two or more layers of different names, got {', '.join(layers) or 'none'}")
    return tuple(
        hidden_layer(layer, ((f"{layer}.bias", 0), (f"{layer}.kernel", 1)), ((f"{following}.kernel", 0),), activation)
        for layer, following in itertools.pairwise(layers)
    )


def to_json(architecture: Architecture) -> str:
    """Write an architecture as text, for the attribute `architecture` of a run's tree."""
    return json.dumps([group._asdict() for group in architecture])


def from_json(text: str) -> Architecture:
    """Return the architecture that `to_json` wrote."""

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    return tuple(UnitGroup(**{key: frozen(value) for key, value in group.items()}) for group in json.loads(text))


def group_sizes(architecture: Architecture, shapes: Mapping[str, Sequence[int]]) -> list[int]:
    """Check an architecture against the shapes of the arrays of one network and return the number of units of each group.

    Raises:
        ValueError: No groups, two that share their name or an axis, an array that is not there (the nearest name is suggested),
            an axis that it does not have, arrays that disagree about the number of units, signs that turn in what the units do
            not own, or in two sets.
    """
    if not architecture:
        raise ValueError("the architecture has no groups of hidden units")
    _check_once("name", [group.name for group in architecture])
    _check_once("array axis", [part[:2] for group in architecture for part in group.owned])
    sizes = []
    for group in architecture:
        owned: dict[str, float] = {}
        for part in group.owned:
            name, axis, repeats = _complete(part)
            if name not in shapes:
                known = f"; there are {', '.join(shapes)}"
                raise ValueError(f"group {group.name} owns {name}, which is not there{nearest(name, shapes) or known}")
            if not 0 <= axis < len(shapes[name]):
                raise ValueError(f"group {group.name} owns axis {axis} of {name}, which has shape {tuple(shapes[name])}")
            owned[f"axis {axis} of {name}" if name in group.recurrent else name] = shapes[name][axis] / repeats
        if len(set(owned.values())) != 1 or not next(iter(owned.values())).is_integer():
            found = ", ".join(f"{name} has {size:g}" for name, size in owned.items()) or "no arrays"
            raise ValueError(f"the arrays of group {group.name} must agree about its number of units: {found}")
        turned = [part for flip in group.flips for part in flip]
        _check_once(f"part of group {group.name} that turns sign", turned)
        if other := set(turned) - set(group.owned):
            raise ValueError(f"group {group.name} turns the sign of {sorted(other)[0]}, which is not among what it owns")
        sizes.append(int(next(iter(owned.values()))))
    return sizes


def unit_rows(
    weights: Mapping[str, np.ndarray], owned: Iterable[Part], num_leading: int
) -> Shaped[np.ndarray, "*leading unit feature"]:
    """Return what each unit owns as one row, [..., unit, feature], behind `num_leading` leading axes."""
    parts = [_units_first(weights[part[0]], part, num_leading) for part in owned]
    return np.concatenate([part.reshape(*part.shape[: num_leading + 1], -1) for part in parts], -1)


def move_units(
    weights: Mapping[str, np.ndarray],
    owned: Iterable[Part],
    permutation: Int[np.ndarray, "*leading unit"],
    factor: Shaped[np.ndarray, "*leading unit"],
) -> Arrays:
    """Return the weights with unit `permutation[i]`, times `factor[i]`, in place i; arrays that are not owned are shared."""
    num_leading = permutation.ndim - 1
    moved = dict(weights)
    for part in owned:
        name, axis, _ = _complete(part)
        units = _units_first(moved[name], part, num_leading)
        index, scale = (values.reshape(*values.shape, *[1] * (units.ndim - values.ndim)) for values in (permutation, factor))
        units = np.take_along_axis(units, index, num_leading) * scale
        moved[name] = np.moveaxis(units, num_leading, num_leading + axis + 1).reshape(moved[name].shape)
    return moved


def copy_units(
    weights: Mapping[str, np.ndarray],
    group: UnitGroup,
    permutation: Int[np.ndarray, "*leading unit"],
    signs: Int[np.ndarray, "*leading flip unit"],
) -> Arrays:
    """Return the copy with unit `permutation[i]` in place i, its parts of each of `group.flips` times `signs[flip, i]`."""
    moved = dict(weights)
    kept = np.ones(permutation.shape, np.int8)
    for part in group.owned:
        flip = next((signs[..., index, :] for index, parts in enumerate(group.flips) if part in parts), kept)
        moved = move_units(moved, (part,), permutation, flip)
    return moved


def nearest(name: str, known: Mapping[str, Any]) -> str:
    """Suggest the known name that is nearest, as the end of a message."""
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _complete(part: Part) -> tuple[str, int, int]:
    return (*part, 1) if len(part) == 2 else part


def _units_first(array: np.ndarray, part: Part, num_leading: int) -> np.ndarray:
    """Return an array [..., unit, rest] of one that has the units on an axis behind the leading ones, in blocks or not."""
    _, axis, repeats = _complete(part)
    place = num_leading + axis
    split = array.reshape(*array.shape[:place], repeats, array.shape[place] // repeats, *array.shape[place + 1 :])
    return np.moveaxis(split, place + 1, num_leading)


def _check_once(what: str, values: Sequence[Any]) -> None:
    if twice := [value for place, value in enumerate(values) if value in values[:place]]:
        raise ValueError(f"each {what} belongs to one group of units, got {twice[0]!r} twice")
