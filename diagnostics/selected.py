"""Chains left out, in the open: every number with and without them, and how many they are.

Leaving out chains that look bad makes any run look good. Where some must go (a chain that never left its start), what they
change stands beside what is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from diagnostics import trees
from diagnostics.summary import summarise_variables


def selected_summary(run: xr.DataTree, keep: Sequence[bool], reason: str) -> xr.DataTree:
    """Summarise the convergence of all chains and of those that are kept, side by side.

    Args:
        run: A run, see `diagnostics.trees`.
        keep: For each chain, whether it stays. Decide on training data and on how the chain ran: chains chosen by test scores
            or by R-hat make both meaningless.
        reason: Why the others go; kept with the numbers.

    Returns:
        Groups `posterior_layers` and `functions_layers` as in `summarise`, over `chains` ("all", "kept") and without the columns
        by chain. Attributes: those of the run, `num_chains`, `num_dropped`, `dropped` (names of the chains) and `reason`.

    Raises:
        ValueError: The tree is not one of a run, not one truth value a chain, no chain is kept, or no reason is given.
    """
    trees.check_tree(run)
    names = run["posterior"].to_dataset()["chain"].values.tolist()
    kept = np.asarray(keep)
    if kept.shape != (len(names),) or kept.dtype != bool:
        raise ValueError(f"keep must hold one truth value for each of {len(names)} chains, got {kept.dtype} {kept.shape}")
    if not kept.any():
        raise ValueError("no chain is kept")
    if not reason.strip():
        raise ValueError("say why chains are left out: reason is empty")
    groups = {}
    for group, variables in (("posterior", trees.weights(run)), ("functions", trees.predicted(run))):
        if variables.data_vars:
            tables = [summarise_variables(variables.isel(chain=rows))[1].drop_dims("chain") for rows in (slice(None), kept)]
            groups[f"{group}_layers"] = xr.concat(tables, "chains").assign_coords(chains=["all", "kept"])
    summary = xr.DataTree.from_dict(groups)
    dropped = [name for name, stays in zip(names, kept, strict=True) if not stays]
    summary.attrs = run.attrs | {
        "num_chains": len(names),
        "num_dropped": len(dropped),
        "dropped": dropped,
        "reason": reason,
    }
    return summary
