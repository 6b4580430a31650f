"""When a run has enough: its effective draws or R-hat reach what is asked for, or its budget is spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesnn.config import Stop
from bayesnn.errors import UsageError
from bayesnn.shard import Commit

if TYPE_CHECKING:
    from bayesnn.problem import Problem

# Share of the functions that must reach a target: judging all of them would wait for the extreme of thousands of estimates.
SHARE = 0.95
# Blocks of a run that may end early, at the end of one.
BLOCKS = 100
# Draws grow by this factor between two looks at convergence, which then cost a bounded share of the run.
GROWTH = 1.2


def judged(chosen: Collection[str], names: Collection[str]) -> list[str]:
    """Return the arrays of a draw whose convergence decides.

    Args:
        chosen: Names of functions, of layers or of weights (`Stop.functions`); none for all predictions, or for all weights where
            there are no predictions.
        names: Of all arrays of a draw, `group/variable`.

    Raises:
        UsageError: A name that is not there.
    """
    functions, weights = ([name for name in names if name.startswith(f"{group}/")] for group in ("functions", "posterior"))
    if not chosen:
        return [name for name in functions if not name.endswith("/log_likelihood")] or weights
    arrays = {name.partition("/")[2]: name for name in [*functions, *weights]}
    found = {name: [array for key, array in arrays.items() if key == name or key.startswith(f"{name}.")] for name in chosen}
    if unknown := [name for name in chosen if not found[name]]:
        raise UsageError(f"stop.functions: nothing of a draw is called {', '.join(unknown)}; there are {', '.join(arrays)}")
    return list(dict.fromkeys(array for same in found.values() for array in same))


def check_functions(stop: Stop, problem: Problem) -> None:
    """Refuse names that no draw of a problem will have.

    Raises:
        UsageError: It lists the names that there are.
    """
    if not stop.functions:
        return
    import jax

    def kept(position: Any, arrays: Any) -> Any:
        return problem.save.function(SimpleNamespace(position=position), arrays)

    draw = jax.eval_shape(kept, problem.like, problem.save.arrays)
    judged(stop.functions, [f"{group}/{name}" for group in ("functions", "posterior") for name in draw.get(group, ())])


def reason_to_stop(stop: Stop, done: Commit, block: int, names: Collection[str], read: Callable[[str], np.ndarray]) -> str | None:
    """Return why chains may stop, or None. Asked where blocks of draws end, so that a resumed run decides alike.

    Args:
        stop: What is asked for.
        done: How far the chains are, and what they have spent.
        block: Draws of a block.
        names: Of all arrays of a draw, `group/variable`.
        read: Name -> all draws of an array so far, [chain, draw, ...].
    """
    if stop.gradients is not None and done.gradients >= stop.gradients:
        return f"{done.gradients:,.0f} gradients are spent, of {stop.gradients:,.0f}"
    if stop.seconds is not None and done.seconds >= stop.seconds:
        return f"{done.seconds:,.0f} s of sampling are spent, of {stop.seconds:,.0f}"
    is_asked = stop.ess is not None or stop.rhat is not None
    if not is_asked or not _is_time_to_look(done.draws, block):
        return None
    from diagnostics.convergence import ess_bulk, rhat

    values = [read(name) for name in judged(stop.functions, names)]
    flat = np.concatenate([value.reshape(*value.shape[:2], -1) for value in values], axis=2).astype(np.float64)
    of_chosen = f" of {', '.join(stop.functions)}" if stop.functions else ""
    found = []
    if stop.ess is not None:
        ess = np.nanquantile(ess_bulk(flat), 1 - SHARE)
        if not ess >= stop.ess:
            return None
        found.append(f"{SHARE:.0%} of {flat.shape[2]:,} values{of_chosen} have {ess:,.0f} effective draws or more")
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
