"""`bayesnn measure FOLDER resonance`: how much bad R-hat goes away when trajectory lengths are jittered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt

from bayesnn.config import Frozen, Seed
from bayesnn.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from rich.console import Console

    from bayesnn.load import LoadedRun
    from diagnostics.claims import Finding


class Resonance(Frozen):
    """Which share of bad R-hat a jitter of trajectory lengths removes, before any talk of basins."""

    chains: Annotated[int, Field(ge=2)] = 4
    """Chains of each kind; they begin at last draws of the run, with the tuning of the chain that drew them."""
    draws: Annotated[int, Field(ge=20)] = 200
    """Draws of each chain."""
    jitter: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Relative spread of the jittered lengths."""
    directions: PositiveInt = 20
    """Leading directions of each layer, from the draws of the run."""
    seed: Seed = 0
    """Of everything random; both kinds share it."""


def measure(run: LoadedRun, settings: Resonance, console: Console) -> tuple[xr.DataTree, Sequence[Finding]]:
    """Run short chains of fixed and of jittered trajectories from a run's draws, and compare their R-hats.

    Returns:
        The table of `diagnostics.resonance_table` for weights, leading directions of each layer, and functions; the finding is
        about the directions.

    Raises:
        UsageError: The run is not one of HMC.
    """
    import xarray as xr

    from bayesnn.measure.continued import tuning_by_chain
    from bayesnn.measure.problem import problem_of
    from diagnostics.resonance import resonance_finding, resonance_table

    if run.config.sampler.kind != "hmc":
        kind = run.config.sampler.kind
        raise UsageError(f"resonance is about trajectories of one length, which hmc has; this run is one of {kind}")
    problem = problem_of(run)
    tuning = tuning_by_chain(run, problem)
    draws = {}
    for trajectory, jitter in (("fixed", 0.0), ("jittered", settings.jitter)):
        console.print(f"{settings.chains} chains of {settings.draws} draws, {trajectory} trajectories", markup=False)
        draws[trajectory] = _draws(run, problem, tuning, jitter, settings)
    table = resonance_table(draws["fixed"], draws["jittered"])
    return xr.DataTree(table), [resonance_finding(table, "directions")]


def _draws(run: LoadedRun, problem: Any, tuning: Any, jitter: float, settings: Resonance) -> dict[str, np.ndarray]:
    """Return weights, their leading directions and functions of new chains, each (chain, draw, scalar)."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import xarray as xr

    import samplers
    from bayesnn.build import build_method
    from bayesnn.measure.continued import positions_at, spread_draws
    from diagnostics.directions import layer_arrays, leading_directions
    from diagnostics.trees import weights

    chain, draw = spread_draws(run, settings.chains)
    own = jax.tree.map(lambda x: x[chain], tuning)
    own = samplers.PerChain(own.tuning._replace(jitter=jnp.full_like(own.tuning.jitter, jitter)))
    result = samplers.sample(
        jax.random.key(settings.seed),
        build_method(run.config, problem).kernel,
        positions_at(run, problem, chain, draw),
        problem.batch,
        num_steps=settings.draws,
        tuning=own,
        save=problem.save,
        chain_block=run.config.chain_block,
        throw=False,
    )
    drawn = result.draws["posterior"]
    old = weights(run.tree)
    new = xr.Dataset({str(name): (x.dims, drawn[str(name)]) for name, x in old.drop_vars(("chain", "draw")).items()})
    layers = layer_arrays(new)
    projected = [layers[name] @ leading_directions(kept, settings.directions) for name, kept in layer_arrays(old).items()]
    found = {"weights": np.concatenate(list(layers.values()), -1), "directions": np.concatenate(projected, -1)}
    if functions := {name: x for name, x in result.draws.get("functions", {}).items() if name != "log_likelihood"}:
        found["functions"] = np.concatenate([np.reshape(x, (*x.shape[:2], -1)) for x in functions.values()], -1)
    return found
