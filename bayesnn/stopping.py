"""When a run has enough: its effective draws or R-hat reach what is asked for, or its budget is spent."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from bayesnn.config import Stop
from bayesnn.shard import Commit, Shard

# Share of the functions that must reach a target: judging all of them would wait for the extreme of thousands of estimates.
SHARE = 0.95
# Blocks of a run that may end early, at the end of one.
BLOCKS = 100
# Draws grow by this factor between two looks at convergence, which then cost a bounded share of the run.
GROWTH = 1.2


def reason_to_stop(stop: Stop, shard: Shard, commit: Commit, block: int, names: Iterable[str]) -> str | None:
    """Return why the chains of a shard may stop, or None. Asked where blocks of draws end, so that a resumed run decides alike.

    Args:
        stop: What is asked for.
        shard: The chains, their draws on disk.
        commit: How far they are.
        block: Draws of a block.
        names: Of all arrays in the store.
    """
    if stop.gradients is not None and commit.gradients >= stop.gradients:
        return f"{commit.gradients:,.0f} gradients are spent, of {stop.gradients:,.0f}"
    if stop.seconds is not None and commit.seconds >= stop.seconds:
        return f"{commit.seconds:,.0f} s of sampling are spent, of {stop.seconds:,.0f}"
    is_asked = stop.ess is not None or stop.rhat is not None
    if not is_asked or not _is_time_to_look(commit.draws, block):
        return None
    from diagnostics.convergence import ess_bulk, rhat

    functions = [name for name in names if name.startswith("functions/") and not name.endswith("/log_likelihood")]
    judged = functions or [name for name in names if name.startswith("posterior/")]
    values = [shard.draws.read(name, commit.draws) for name in judged]
    flat = np.concatenate([value.reshape(*value.shape[:2], -1) for value in values], axis=2).astype(np.float64)
    found = []
    if stop.ess is not None:
        ess = np.nanquantile(ess_bulk(flat), 1 - SHARE)
        if not ess >= stop.ess:
            return None
        found.append(f"{SHARE:.0%} of {flat.shape[2]:,} values have {ess:,.0f} effective draws or more")
    if stop.rhat is not None:
        largest = np.nanquantile(rhat(flat), SHARE)
        if not largest <= stop.rhat:
            return None
        found.append(f"{SHARE:.0%} have an R-hat of {largest:.4f} or less")
    return " and ".join(found)


def _is_time_to_look(draws: int, block: int) -> bool:
    def level(count: int) -> int:
        return math.floor(math.log(count) / math.log(GROWTH)) if count >= 4 else -1  # R-hat needs four draws

    return level(draws) > level(draws - block)
