"""What a run says against itself at its end, so that nobody needs an audit to learn that it went plainly wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from bayesnn.sampler_config import HMC, Frozen
from diagnostics.health import MAX_DIVERGENT, MIN_ACCEPTANCE, NAMED


class Settings(NamedTuple):
    """How the settings that help are written where a run was started."""

    steps: str
    target: str
    retry: str
    start: str


COMMAND = Settings("--warmup.steps", "--warmup.target-acceptance-rate", "--sampler.delayed-rejection", "--start map")
PYTHON = Settings("WarmUp(steps=...)", "WarmUp(target_acceptance_rate=...)", "HMC(delayed_rejection=True)", 'start="map"')


def alarm(
    stats: Mapping[str, Shaped[np.ndarray, "chain draw"]],
    num_nonfinite: Sequence[int],
    first_chain: int = 0,
    *,
    sampler: Frozen,
    has_warmup: bool,
    settings: Settings = COMMAND,
) -> str | None:
    """Return what an audit of these draws would surely fail for, and what to do about it, or None.

    Args:
        stats: `diverging` and `acceptance_rate` of every draw; NaN where a sampler has no acceptance rate.
        num_nonfinite: Steps of each chain that left a state that is not finite.
        first_chain: Number of the first of these chains.
        sampler: Settings of the sampler.
        has_warmup: A warm-up found the step size.
        settings: How the advice spells them.
    """
    divergent, acceptance = (np.mean(stats[name], axis=1, dtype=float) for name in ("diverging", "acceptance_rate"))
    lost = np.asarray(num_nonfinite) > 0
    diverged, stuck = ~lost & (divergent > MAX_DIVERGENT), ~lost & (acceptance < MIN_ACCEPTANCE)
    found = []
    if lost.any():
        found.append(f"{_named(lost, first_chain)} left the finite numbers")
    if diverged.any():
        found.append(f"{_named(diverged, first_chain)} diverged on the way to {divergent[diverged].max():.0%} of the draws")
    if stuck.any():
        found.append(f"{_named(stuck, first_chain)} accepted {acceptance[stuck].min():.0%} of the proposals")
    if not found:
        return None
    if has_warmup and not lost.any():
        retry = (
            f"try failed trajectories again ({settings.retry}), "
            if isinstance(sampler, HMC) and not sampler.delayed_rejection
            else ""
        )
        advice = f"lengthen the warm-up ({settings.steps}), raise {settings.target}, {retry}or start nearer ({settings.start})"
    else:
        advice = f"lower the step size or the learning rate, or start nearer ({settings.start})"
    return f"{', '.join(found)}. Do not use these draws: in a new run, {advice}"


def _named(is_meant: Bool[np.ndarray, " chain"], first_chain: int) -> str:
    """Return chains in words, the first few by number."""
    numbers = first_chain + np.flatnonzero(is_meant)
    if len(numbers) > NAMED:
        return f"{len(numbers)} of {len(is_meant)} chains"
    return ("chain " if len(numbers) == 1 else "chains ") + ", ".join(map(str, numbers))
