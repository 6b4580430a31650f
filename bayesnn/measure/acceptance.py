"""`bayesnn measure FOLDER acceptance`: what an accept step would say of a sampler that has none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from bayesnn.config import SGLD, Frozen, Seed
from bayesnn.errors import UsageError

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import Console

    from bayesnn.config import Sampler
    from bayesnn.load import LoadedRun
    from diagnostics.claims import Finding


class Acceptance(Frozen):
    """Metropolis acceptance of full-data steps of `sgld`, which are those of `mala`, from its own draws."""

    draws: Annotated[int, Field(ge=4)] = 16
    """Of each chain, from the last backwards, evenly spread."""
    momenta: PositiveInt = 4
    """Steps from each draw."""
    step_size: PositiveFloat | None = None
    """Instead of the sampler's own, in its units."""
    seed: Seed = 0
    """Of the momenta."""


def measure(run: LoadedRun, settings: Acceptance, console: Console) -> tuple[xr.DataTree, Sequence[Finding]]:
    """Take one leapfrog step from each of many draws, with all data, and average the acceptance.

    Returns:
        Dataset `acceptance_rate` (chain, draw), mean over momenta, with the index of each draw. The finding is on its mean.

    Raises:
        UsageError: Another sampler, moves that no accept step is known for, a schedule of step sizes where none is given, too few
            draws, or a model that fixes its own precision.
    """
    import numpy as np
    import xarray as xr

    from bayesnn.measure.continued import positions_at, spread_draws
    from bayesnn.measure.leapfrog import energy_errors
    from bayesnn.measure.problem import problem_of
    from diagnostics.step_error import acceptance_finding

    step_size = leapfrog_step(run.config.sampler, settings.step_size)
    sizes = run.tree["posterior"].sizes
    if settings.draws > sizes["draw"]:
        raise UsageError(f"chains of {sizes['draw']} draws have no {settings.draws} of them: lower --draws")
    problem = problem_of(run)
    shape = (settings.draws, sizes["chain"])
    chain, draw = spread_draws(run, math.prod(shape))
    chains, draws = (np.tile(index, settings.momenta) for index in (chain, draw))
    try:
        errors = energy_errors(
            problem.target,
            problem.batch,
            problem.tempering,
            positions_at(run, problem, chains, draws),
            np.ones((len(chains), sum(problem.layers.values()))),
            step_size=np.full(len(chains), step_size),
            num_steps=1,
            seed=settings.seed,
        )
    except TypeError as error:
        raise UsageError(str(error)) from error
    rates = np.where(np.isfinite(errors), np.exp(-np.maximum(errors, 0)), 0).reshape(settings.momenta, *shape).mean(0).T
    found = xr.Dataset(
        {"acceptance_rate": (("chain", "draw"), rates[:, ::-1])},
        {"draw": draw.reshape(shape)[::-1, 0]},
        {"leapfrog_step_size": step_size},
    )
    return xr.DataTree(found), [acceptance_finding(rates[:, ::-1])]


def leapfrog_step(sampler: Sampler, step_size: float | None = None) -> float:
    r"""Return the step of a leapfrog that moves as `sgld` does, with a fresh momentum and all data: :math:`\sqrt{\epsilon}`.

    Args:
        sampler: The settings of a run's sampler.
        step_size: epsilon, instead of its own.

    Raises:
        UsageError: Another sampler, moves that no accept step is known for, or a schedule of step sizes where none is given.
    """
    if not isinstance(sampler, SGLD):
        raise UsageError(f"acceptance is measured of sgld, whose exact counterpart is mala; this run is of {sampler.kind}")
    if sampler.preconditioner != "none":
        raise UsageError("a preconditioner that remembers earlier gradients makes moves that no accept step is known for")
    if step_size is None and (sampler.cycle_length or sampler.decay_offset):
        raise UsageError("the step sizes of this run follow a schedule: choose one of them with --step-size")
    return math.sqrt(step_size or sampler.step_size)
