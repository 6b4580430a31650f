"""What is left of the disagreement about weights once symmetry is undone: raw and aligned, side by side."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from bayesnn.notation import Interval, interval, number, share
from diagnostics.aligned import aligned_summary
from diagnostics.claims import Finding
from diagnostics.copies import census
from diagnostics.estimates import Estimate
from diagnostics.summary import TOTAL

# Weights times draws that are aligned for a page: ten seconds or so on one core.
MAX_VALUES = 2e7


class AlignedRow(NamedTuple):
    """A layer as drawn and as aligned, as text."""

    name: str
    is_total: bool
    rhat: list[str]  # median: as drawn, as aligned
    shares: list[tuple[str, str]]  # above 1.1: measured, and most of stationary chains; as drawn, as aligned
    removed: Interval
    by_chance: str


class Symmetry(NamedTuple):
    """The section on symmetry.

    Attributes:
        rows: By layer.
        moves: Group of units, transpositions and flips from draw to draw.
        census: Of visits to symmetric copies.
        too_large: Whether there are too many draws of too many weights for a page; all else is then empty.
    """

    rows: list[AlignedRow]
    moves: list[tuple[str, str, str]]
    census: Finding | None
    too_large: bool


def symmetry(tree: xr.DataTree, summary: xr.DataTree) -> Symmetry | None:
    """Return the section; None where the network declares no symmetries, or chains cannot be compared.

    Args:
        tree: The run.
        summary: From `diagnostics.summarise`.
    """
    weights = tree["posterior"].to_dataset()
    if not tree.attrs.get("architecture") or weights.sizes["chain"] < 2 or weights.sizes["draw"] < 4:
        return None
    if not all(np.isfinite(variable.values).all() for variable in weights.values()):
        return None  # the verdicts say so
    if sum(variable.size for variable in weights.values()) > MAX_VALUES:
        return Symmetry([], [], None, too_large=True)
    table = aligned_summary(tree, summary=summary)
    moves = [
        (str(group.values), number(float(row["transpositions"])), number(float(row["flips"])))
        for group, row in ((group, table.sel(group=group)) for group in table["group"])
    ]
    return Symmetry([_row(table, layer) for layer in table["layer"].values], moves, census(tree), too_large=False)


def _row(table: xr.Dataset, layer: str) -> AlignedRow:
    row = table.sel(layer=layer)
    above = row.sel(threshold=1.1)
    removed = Estimate(*(float(row[name]) for name in ("removed", "removed_lower", "removed_upper")))
    return AlignedRow(
        name="all" if layer == TOTAL else layer,
        is_total=layer == TOTAL,
        rhat=[number(value, 4) for value in row["rhat_median"].values.tolist()],
        shares=[(share(a), share(b)) for a, b in zip(above["share"].values, above["share_largest"].values, strict=True)],
        removed=interval(removed),
        by_chance=number(float(row["removed_by_chance"]), 2),
    )
