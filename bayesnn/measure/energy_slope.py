"""`bayesnn measure FOLDER energy-slope`: energy error against step size, and whether trajectories can be run backwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from bayesnn.config import Frozen, Seed
from bayesnn.errors import UsageError

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import Console

    from bayesnn.load import LoadedRun
    from diagnostics.claims import Finding


class EnergySlope(Frozen):
    """Order of the energy error in the step size (2 where the potential is smooth, 1 where it has kinks), and reversibility."""

    starts: Annotated[int, Field(ge=4)] = 32
    """Draws of the run from which paths set out."""
    steps: PositiveInt = 8
    """Length of a path, in steps of the run's own size."""
    sizes: Annotated[int, Field(ge=3)] = 4
    """Step sizes, each half the one before."""
    halvings: NonNegativeInt = 2
    """Halvings of the run's step size before the first: at full size higher orders would count."""
    step_size: PositiveFloat | None = None
    """Instead of that of the run."""
    most_steps: PositiveInt = 1000
    """Of the trajectories that are run backwards; the run's own are taken where they are shorter."""
    seed: Seed = 0
    """Of the momenta."""


def measure(run: LoadedRun, settings: EnergySlope, console: Console) -> tuple[xr.DataTree, Sequence[Finding]]:
    """Fit the order of the energy error in the step size, in float64, and check reversibility in both precisions.

    Returns:
        Dataset: `energy_error` (step_size, start), nats; `step_size`, in units of the run's; `order` with `order_lower` and
        `order_upper`; `return_error` (precision, start), relative. Findings on both.

    Raises:
        UsageError: The sampler has no step size of leapfrogs and none is given, or the model fixes its own precision.
    """
    import numpy as np
    import xarray as xr

    from bayesnn.measure.continued import positions_at, spread_draws
    from bayesnn.measure.leapfrog import PRECISIONS, energy_errors, return_errors
    from bayesnn.measure.problem import problem_of
    from diagnostics.step_error import energy_order, reversibility_finding, smoothness_finding

    problem = problem_of(run)
    chain, draw = spread_draws(run, settings.starts)
    step_size, inverse_mass, own_steps = _motion(run, problem, settings, chain)
    what = (problem.target, problem.batch, problem.tempering, positions_at(run, problem, chain, draw), inverse_mass)
    shrink = 0.5 ** np.arange(settings.halvings, settings.halvings + settings.sizes)
    errors = []
    try:
        for factor in shrink:
            num_steps = round(settings.steps / factor)
            console.print(f"{settings.starts} paths of {num_steps} leapfrogs, {factor:g} of the run's step size", markup=False)
            errors.append(energy_errors(*what, step_size=step_size * factor, num_steps=num_steps, seed=settings.seed))
        order = energy_order(shrink, np.array(errors))
        missed = [
            return_errors(*what, step_size=step_size, num_steps=own_steps, seed=settings.seed, precision=precision)
            for precision in PRECISIONS
        ]
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    columns = dict(zip(("order", "order_lower", "order_upper"), order.order, strict=True))
    found = xr.Dataset(
        {"energy_error": (("step_size", "start"), np.array(errors)), "return_error": (("precision", "start"), np.array(missed))}
        | columns,
        {"step_size": shrink, "precision": list(PRECISIONS)},
        {"steps_backwards": own_steps, "run_step_size": float(np.median(step_size))},
    )
    reversible = reversibility_finding(dict(zip(PRECISIONS, missed, strict=True)), run.config.precision)
    return xr.DataTree(found), [smoothness_finding(order), reversible]


def _motion(run: LoadedRun, problem: Any, settings: EnergySlope, chain: Any) -> tuple[Any, Any, int]:
    """Return the step size and the inverse mass matrix of each start, and the number of steps of the run's trajectories."""
    import numpy as np

    from bayesnn.measure.continued import tuning_by_chain

    tuning: Any = tuning_by_chain(run, problem).tuning
    num_params = sum(problem.layers.values())
    has_motion = hasattr(tuning, "inverse_mass_matrix") and hasattr(tuning, "step_size")
    if settings.step_size is None and not has_motion:
        raise UsageError(f"{run.config.sampler.kind} takes no leapfrog steps: choose their size with --step-size")
    step_size = np.full(len(chain), settings.step_size) if settings.step_size else np.asarray(tuning.step_size, float)[chain]
    mass = np.asarray(tuning.inverse_mass_matrix, float)[chain] if has_motion else np.ones(len(chain))
    length = float(np.median(np.asarray(getattr(tuning, "trajectory_length", settings.steps * np.median(step_size)))))
    num_steps = int(np.clip(np.ceil(length / np.median(step_size)), 1, settings.most_steps))
    return step_size, np.broadcast_to(mass.reshape(len(chain), -1), (len(chain), num_params)), num_steps
