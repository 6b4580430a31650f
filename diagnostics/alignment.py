r"""Alignment: every draw moved to the copy of itself that lies nearest to one reference.

.. math:: \min_{P_1, \dots, P_L} \lVert \theta^{P} - \theta^{ref} \rVert^2 = \lVert \theta \rVert^2 + \lVert \theta^{ref} \rVert^2
    - 2 \max_{P} \langle \theta^{P}, \theta^{ref} \rangle

over signed permutations of the units of each hidden layer. With one hidden layer that is one assignment problem a draw, solved
exactly; with more it is solved a layer at a time with the others fixed until no layer gains, which ends in a local minimum. What
units feed to themselves is a quadratic assignment problem: it is made linear at the present places, and a move that does not
bring the draw nearer is not made.

References:
    Ainsworth, Hayase & Srinivasa 2023, "Git Re-Basin", arXiv 2209.04836, section 3.2 (weight matching). Departures: signs are
    matched together with places, through the absolute value of the inner product of each set of parts that turns sign; layers are
    taken in order, and start from the better of no move and of a match of what units are fed by alone, layer after layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from diagnostics.symmetry import draws_of
from diagnostics.units import Architecture, Arrays, Owned, UnitGroup, copy_units, group_sizes, unit_rows

BLOCK_VALUES = 2**21  # weights held in float64 at a time: 16 MB
GAIN = 1e-12  # of squared norms: a smaller gain is rounding of inner products (4,000 terms in float64), and no reason to move


class Alignment(NamedTuple):
    """Draws moved to the copies nearest to a reference.

    Attributes:
        weights: Arrays (chain, draw, ...) of the types that came in.
        reference: The network that the draws were moved to.
        permutation: By group of units, (chain, draw, unit): place i holds unit `permutation[..., i]` of the draw as it was.
        sign: By group, (chain, draw, flip, unit): the sign by which what that unit owns in each of the group's `flips` was
            multiplied.
        distance: (sweep, chain, draw); squared distance to the reference over the arrays that units own, before the first and
            after every sweep over the layers; without a reference, those of the second pass. Never increases.
        transpositions: By group, (chain, draw): the least number of exchanges of two units that turn the permutation of the
            previous draw of the chain into this one; 0 for first draws. A chain that stays in one copy has none.
        flips: By group, (chain, draw): signs that differ from those in the previous draw; 0 for first draws.
    """

    weights: Arrays
    reference: Arrays
    permutation: dict[str, Int[np.ndarray, "chain draw unit"]]
    sign: dict[str, Int[np.ndarray, "chain draw flip unit"]]
    distance: Float[np.ndarray, "sweep chain draw"]
    transpositions: dict[str, Int[np.ndarray, "chain draw"]]
    flips: dict[str, Int[np.ndarray, "chain draw"]]


def align(
    run: xr.DataTree | Mapping[str, ArrayLike],
    architecture: Architecture,
    reference: Mapping[str, ArrayLike] | None = None,
) -> Alignment:
    """Move every draw to the copy of itself that is nearest to a reference; what it computes stays the same to rounding.

    Args:
        run: A run, or arrays (chain, draw, ...) by dotted path.
        architecture: Symmetries of the posterior (`mlp_symmetries`, checked by `check_symmetries`).
        reference: One network, arrays by dotted path. By default the last draw of chain 0, and then the mean of all draws as
            aligned to that, which is less noisy.

    Returns:
        The aligned draws, how they were moved and how far they are. Aligning them again to the same reference moves none.

    Raises:
        ValueError: The architecture or the reference does not fit the weights, or draws are not finite.
    """
    draws = draws_of(run)
    group_sizes(architecture, {name: array.shape[2:] for name, array in draws.items()})
    names = list(dict.fromkeys(name for group in architecture for name, *_ in group.owned))
    is_finite = np.all([np.isfinite(draws[name]).all(tuple(range(1, draws[name].ndim))) for name in names], 0)
    if not is_finite.all():
        raise ValueError(f"draws of the chains {np.flatnonzero(~is_finite).tolist()} are not all finite; leave these chains out")
    shape = draws[names[0]].shape[:2]
    moved = _Moved.nowhere({name: draws[name].reshape(-1, *draws[name].shape[2:]) for name in names}, architecture)
    if reference is None:
        moved, _ = _descend(moved, architecture, {name: draws[name][0, -1] for name in names})
        target = {name: array.mean(0, dtype=float) for name, array in moved.weights.items()}
    else:
        target = _checked_reference(reference, moved.weights)
    moved, distances = _descend(moved, architecture, target)
    aligned, permutation, sign = (
        {name: array.reshape(*shape, *array.shape[1:]) for name, array in arrays.items()} for arrays in moved
    )
    return Alignment(
        weights=draws | aligned,
        reference=target,
        permutation=permutation,
        sign=sign,
        distance=np.stack(distances).reshape(-1, *shape),
        transpositions={name: _transpositions(places) for name, places in permutation.items()},
        flips={name: np.diff(signs, axis=1, prepend=signs[:, :1]).astype(bool).sum((-2, -1)) for name, signs in sign.items()},
    )


class _Moved(NamedTuple):
    """Weights by name, (row, ...), and by group places (row, unit) and signs (row, flip, unit) that they have been moved to."""

    weights: Arrays
    permutation: Arrays
    sign: Arrays

    @classmethod
    def nowhere(cls, weights: Arrays, architecture: Architecture) -> _Moved:
        """Return weights that stay where they are."""
        num_rows = len(next(iter(weights.values())))
        sizes = group_sizes(architecture, {name: array.shape[1:] for name, array in weights.items()})
        permutation, sign = {}, {}
        for group, size in zip(architecture, sizes, strict=True):
            permutation[group.name] = np.tile(np.arange(size), (num_rows, 1))
            sign[group.name] = np.ones((num_rows, len(group.flips), size), np.int8)
        return cls(weights, permutation, sign)

    def then(self, group: UnitGroup, permutation: Int[np.ndarray, "row unit"], sign: Int[np.ndarray, "row flip unit"]) -> _Moved:
        """Move the units of a group once more."""
        places = np.take_along_axis(self.permutation[group.name], permutation, -1)
        signs = sign * np.take_along_axis(self.sign[group.name], permutation[:, None], -1)
        weights = copy_units(self.weights, group, permutation, sign)
        return _Moved(weights, self.permutation | {group.name: places}, self.sign | {group.name: signs})

    def where(self, chosen: Bool[np.ndarray, " row"], other: _Moved) -> _Moved:
        """Take the chosen rows from here and the rest from the other."""

        def merge(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            return np.where(chosen.reshape(-1, *[1] * (ours.ndim - 1)), ours, theirs)

        parts = zip(self, other, strict=True)
        return _Moved(*({name: merge(ours[name], theirs[name]) for name in ours} for ours, theirs in parts))


def _descend(moved: _Moved, architecture: Architecture, reference: Arrays) -> tuple[_Moved, list[np.ndarray]]:
    """Sweep over the groups until no row gains; also return the squared distances before, and after each sweep."""
    is_exact = len(architecture) == 1 and not architecture[0].recurrent  # matched from anywhere, in one sweep
    size = _squared_distance(moved.weights, dict.fromkeys(reference, np.zeros(())))
    least_gain = GAIN * (size + sum(float(np.square(array, dtype=float).sum()) for array in reference.values()))
    distances = [_squared_distance(moved.weights, reference)]
    # What units feed is in disorder until the next group is matched: planted copies of a 5-8-7-3 network with noise of 0.05 were
    # found for 33 draws of 60 without this start, for 60 with it.
    if not is_exact:
        start = moved
        for group in architecture:
            fed_by_others = tuple(part for part in group.incoming if part[0] not in group.recurrent)
            if fed_by_others:
                start, _ = _match(start, group, fed_by_others, reference, least_gain)
        moved = start.where(_squared_distance(start.weights, reference) < distances[0] - least_gain, moved)
    while True:
        num_gained = 0
        for group in architecture:
            moved, num_moved = _match(moved, group, group.owned, reference, least_gain)
            num_gained += num_moved
        distances.append(_squared_distance(moved.weights, reference))
        if is_exact or not num_gained:
            return moved, distances


def _match(
    moved: _Moved, group: UnitGroup, matched: Owned, reference: Arrays, least_gain: Float[np.ndarray, " row"]
) -> tuple[_Moved, int]:
    """Move the units of a group to where the arrays `matched` are nearest to the reference; count the rows that gain by it."""
    num_rows, num_flips, size = moved.sign[group.name].shape
    permutation, sign = np.tile(np.arange(size), (num_rows, 1)), np.ones((num_rows, num_flips, size), np.int8)
    turned = [tuple(part for part in matched if part in flip) for flip in group.flips]
    kept = tuple(part for part in matched if not any(part in flip for flip in turned))
    targets = [unit_rows(reference, parts, 0).astype(float).T if parts else None for parts in (*turned, kept)]
    width = max(len(target) for target in targets if target is not None)
    for block in _blocks(num_rows, size * max(width, size)):
        weights = {name: moved.weights[name][block] for name, *_ in matched}
        overlaps = np.zeros((len(targets), len(permutation[block]), size, size))  # (set, row, unit, place)
        for overlap, parts, target in zip(overlaps, (*turned, kept), targets, strict=True):
            if target is not None:
                overlap[:] = unit_rows(weights, parts, 1).astype(float) @ target
        score = np.abs(overlaps[:-1]).sum(0) + overlaps[-1]
        best = np.stack([linear_sum_assignment(matrix.T, maximize=True)[1] for matrix in score])
        found = np.take_along_axis(overlaps[:-1], best[None, :, None], 2)[:, :, 0]
        permutation[block], sign[block] = best, np.where(np.moveaxis(found, 0, 1) < 0, -1, 1)
    candidate = moved.then(group, permutation, sign)
    names = {name: reference[name] for name, *_ in matched}
    before, after = (_squared_distance({name: m.weights[name] for name in names}, names) for m in (moved, candidate))
    gains = before - after > least_gain
    return (candidate.where(gains, moved) if gains.any() else moved), int(gains.sum())


def _squared_distance(weights: Arrays, reference: Arrays) -> Float[np.ndarray, " row"]:
    total = np.zeros(len(next(iter(weights.values()))))
    for name, target in reference.items():
        flat, place = weights[name].reshape(len(total), -1), target.reshape(-1)
        for block in _blocks(*flat.shape):
            total[block] += np.square(flat[block] - place, dtype=float).sum(-1)
    return total


def _blocks(num_rows: int, values_a_row: int) -> list[slice]:
    step = max(1, BLOCK_VALUES // max(1, values_a_row))
    return [slice(start, start + step) for start in range(0, num_rows, step)]


def _checked_reference(reference: Mapping[str, ArrayLike], weights: Arrays) -> Arrays:
    """Return the arrays of a reference that the units own."""
    if missing := sorted(set(weights) - set(reference)):
        raise ValueError(f"the reference lacks {', '.join(missing)}; it has {', '.join(reference)}")
    arrays = {name: np.asarray(reference[name], float) for name in weights}
    for name, array in arrays.items():
        if array.shape != weights[name].shape[1:] or not np.isfinite(array).all():
            raise ValueError(f"the reference needs finite {name} of shape {weights[name].shape[1:]}, got {array.shape}")
    return arrays


def _transpositions(permutation: Int[np.ndarray, "chain draw unit"]) -> Int[np.ndarray, "chain draw"]:
    """Count units less cycles of each draw's permutation relative to the previous draw's."""
    size = permutation.shape[-1]
    change = np.broadcast_to(np.arange(size), permutation.shape).copy()
    change[:, 1:] = np.take_along_axis(np.argsort(permutation[:, :-1], -1), permutation[:, 1:], -1)
    label = np.broadcast_to(np.arange(size), permutation.shape)
    for _ in range(size.bit_length()):  # the least unit of each cycle, by doubling the steps along it
        label = np.minimum(label, np.take_along_axis(label, change, -1))
        change = np.take_along_axis(change, change, -1)
    return size - (label == np.arange(size)).sum(-1)
