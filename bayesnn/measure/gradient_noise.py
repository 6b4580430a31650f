"""`bayesnn measure FOLDER gradient-noise`: how heavy the tails of minibatch gradients are at draws of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt

from bayesnn.config import Frozen, Seed
from bayesnn.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from jaxtyping import Float
    from rich.console import Console

    from bayesnn.load import LoadedRun
    from diagnostics.claims import Finding


class GradientNoise(Frozen):
    """Tail index of minibatch noise: Gaussian noise, which stochastic-gradient samplers take it for, has 2."""

    batch_size: PositiveInt | None = None
    """Examples in a minibatch; by default those of the run's sampler."""
    minibatches: Annotated[int, Field(ge=40)] = 400
    """Minibatches drawn at each place, each on its own."""
    places: PositiveInt = 4
    """Draws of the run at which gradients are taken."""
    coordinates: PositiveInt = 2000
    """Scalars looked at, drawn by lot from all weights."""
    seed: Seed = 0
    """Of minibatches and coordinates."""


def measure(run: LoadedRun, settings: GradientNoise, console: Console) -> tuple[xr.DataTree, Sequence[Finding]]:
    """Estimate the tail index of gradient noise at some draws.

    Returns:
        Dataset over `place`: `stable` and `hill` with `_lower` and `_upper`, which hold together at all places with 95 %,
        `num_coordinates`, and the `chain` and `draw` of each place. The finding is about the heaviest tail of all places.

    Raises:
        UsageError: A density without data, or no batch size smaller than the data.
    """
    import numpy as np
    import xarray as xr

    from bayesnn.measure.continued import positions_at, spread_draws
    from bayesnn.measure.problem import problem_of
    from diagnostics.hypotheses import simultaneous_level
    from diagnostics.tails import noise_finding, tail_index

    problem = problem_of(run)
    num_data = problem.target.num_data
    size = settings.batch_size or getattr(run.config.sampler, "batch_size", None)
    if size is None or size >= num_data:
        found = "this run has none" if size is None else f"got {size}"
        raise UsageError(f"minibatches must be smaller than the {num_data} examples; {found}: choose --batch-size")
    chain, draw = spread_draws(run, settings.places)
    noises = _noise(problem, positions_at(run, problem, chain, draw), size, settings)
    try:
        indices = [tail_index(noise, simultaneous_level(len(noises))) for noise in noises]
    except ValueError as error:
        raise UsageError(str(error)) from error
    ends = ("", "_lower", "_upper")
    columns = {
        f"{name}{end}": ("place", np.array([getattr(index, name)[i] for index in indices]))
        for name in ("stable", "hill")
        for i, end in enumerate(ends)
    }
    counts = {"num_coordinates": ("place", np.array([index.num_coordinates for index in indices]))}
    places = {"chain": ("place", chain), "draw": ("place", draw)}
    return xr.DataTree(xr.Dataset(columns | counts | places, attrs={"batch_size": size})), [noise_finding(indices)]


def _noise(problem: Any, positions: Any, size: int, settings: GradientNoise) -> Float[np.ndarray, "place minibatch coordinate"]:
    """Return minibatch gradients of the log density less the full one."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.flatten_util import ravel_pytree

    from samplers import log_density, num_params

    rng = np.random.default_rng(settings.seed)
    one = jax.tree.map(lambda x: x[0], positions)
    coordinates = rng.choice(num_params(one), min(settings.coordinates, num_params(one)), replace=False)
    # Rows of padding come last, and are not among the examples.
    rows = np.stack([rng.choice(problem.target.num_data, size, replace=False) for _ in range(settings.minibatches)])
    whole = problem.target._replace(microbatch=None, data_blocks=1)

    @jax.jit
    def noise(position: Any, rows: Any, batch: Any, tempering: Any) -> Any:
        def gradient(target: Any, batch: Any) -> Any:
            return ravel_pytree(jax.grad(log_density(target, batch, tempering))(position))[0][coordinates]

        def less_full(chosen: Any) -> Any:
            data = jax.tree.map(lambda x: x[chosen], batch.data)
            return gradient(whole, batch._replace(data=data, weight=jnp.ones(size, batch.weight.dtype))) - full

        full = gradient(problem.target, batch)
        return jax.lax.map(less_full, rows)

    each = [jax.tree.map(lambda x, i=i: x[i], positions) for i in range(settings.places)]
    return np.stack([noise(position, rows, problem.batch, problem.tempering) for position in each])
