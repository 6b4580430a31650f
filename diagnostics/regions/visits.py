"""Visits of chains to regions: shares, transitions, and how often the chains came and went."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

NUM_LENGTHS = 24  # of a curve of shares against run length, evenly spaced in the logarithm
MAX_REGIONS = 12  # of which all 2,047 ways to part them into two are looked at


def checked_labels(labels: ArrayLike, num_regions: int) -> Int[np.ndarray, "chain draw"]:
    """Return labels as integers [chain, draw].

    Raises:
        ValueError: Another shape, no draws, or labels outside 0 to num_regions - 1.
    """
    array = np.asarray(labels)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers [chain, draw], got {array.dtype} of shape {array.shape}")
    if array.min() < 0 or array.max() >= num_regions:
        raise ValueError(f"labels of {num_regions} regions run from 0 to {num_regions - 1}, got {array.min()} to {array.max()}")
    return array


def visit_shares(labels: ArrayLike, num_regions: int) -> Float[np.ndarray, "chain region"]:
    """Return the share of each chain's draws in each region; regions that were never visited stay in, at zero."""
    array = checked_labels(labels, num_regions)
    return np.stack([np.bincount(chain, minlength=num_regions) for chain in array]) / array.shape[1]


def transition_counts(labels: ArrayLike, num_regions: int) -> Int[np.ndarray, "chain region region"]:
    """Count the steps of each chain from one region (first axis of regions) to another, or to itself."""
    array = checked_labels(labels, num_regions)
    pairs = array[:, :-1] * num_regions + array[:, 1:]
    return np.stack([np.bincount(chain, minlength=num_regions**2) for chain in pairs]).reshape(-1, num_regions, num_regions)


def transition_matrix(labels: ArrayLike, num_regions: int) -> Float[np.ndarray, "region region"]:
    """Return how often all chains together went from each region (row) to each other one; NaN for regions that none left."""
    counts = transition_counts(labels, num_regions).sum(0)
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(1, keepdims=True)


def round_trips(labels: ArrayLike, side: Bool[np.ndarray, " region"]) -> int:
    """Count how often chains went from the regions of a side to the others and back, or the other way round; all chains."""
    inside = np.asarray(side, bool)[checked_labels(labels, len(side))]
    return int(((inside[:, 1:] != inside[:, :-1]).sum(1) // 2).sum())


def fewest_round_trips(
    labels: ArrayLike, share: Float[np.ndarray, " region"], least: float
) -> tuple[int, tuple[int, ...]] | None:
    """Find the two parts of the posterior between which the chains came and went least often.

    Between single regions would not do: two pairs of regions, each mixing within itself, have many round trips each.

    Args:
        labels: [chain, draw].
        share: [region] the share that each region has or should have; at most 12 regions.
        least: Parts of a smaller share are not looked at.

    Returns:
        Round trips between the parts, and the regions of the lighter part; None if there are no two parts of that share.

    Raises:
        ValueError: More than 12 regions.
    """
    num_regions = len(share)
    if num_regions > MAX_REGIONS:
        raise ValueError(f"at most {MAX_REGIONS} regions can be parted in all ways, got {num_regions}: merge the lightest ones")
    counts = transition_counts(labels, num_regions)
    found: tuple[int, tuple[int, ...]] | None = None
    for size in range(1, num_regions // 2 + 1):
        for part in itertools.combinations(range(num_regions), size):
            side = np.isin(np.arange(num_regions), part)
            if min(share[side].sum(), share[~side].sum()) < least:
                continue
            crossings = counts[:, side][:, :, ~side].sum((1, 2)) + counts[:, ~side][:, :, side].sum((1, 2))
            trips = int((crossings // 2).sum())
            if found is None or trips < found[0]:
                lighter = side if share[side].sum() <= share[~side].sum() else ~side
                found = trips, tuple(np.flatnonzero(lighter).tolist())
    return found


def first_entry_shares(labels: ArrayLike, starts: ArrayLike, num_regions: int) -> Float[np.ndarray, "start region"]:
    """Return in which regions the chains of each start have their first draw.

    Chains that never mix keep these shares for ever: they show the weights of their starts, not those of the posterior.

    Args:
        labels: [chain, draw].
        starts: [chain] which start each chain had, integers from 0.
        num_regions: Number of regions.

    Raises:
        ValueError: Not one start a chain.
    """
    array, groups = checked_labels(labels, num_regions), np.asarray(starts)
    if groups.shape != array.shape[:1]:
        raise ValueError(f"starts must be [chain] for {len(array)} chains, got the shape {groups.shape}")
    counts = np.zeros((int(groups.max()) + 1, num_regions))
    np.add.at(counts, (groups, array[:, 0]), 1)
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(1, keepdims=True)


def shares_by_length(
    labels: ArrayLike, num_regions: int
) -> tuple[Int[np.ndarray, " length"], Float[np.ndarray, "length chain region"]]:
    """Return the visit shares of each chain's first draws, for lengths evenly spaced in the logarithm, and these lengths."""
    array = checked_labels(labels, num_regions)
    num_draws = array.shape[1]
    lengths = np.unique(np.geomspace(1, num_draws, NUM_LENGTHS).round().astype(int))
    visited = np.cumsum(array[..., None] == np.arange(num_regions), axis=1)
    return lengths, np.moveaxis(visited[:, lengths - 1], 1, 0) / lengths[:, None, None]
