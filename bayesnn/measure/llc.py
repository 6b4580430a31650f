"""`bayesnn measure FOLDER llc`: local learning coefficients at the minima of the loss below a run's best draws.

The settings are here, and import no JAX; what they mean is in `bayesnn.measure.learning`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from bayesnn.config import Frozen, Seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from rich.console import Console

    from bayesnn.load import LoadedRun
    from diagnostics.claims import Finding

# The shortest warm-up that adapts a metric, see `samplers.window_adaptation`.
SHORTEST_WARM_UP = 20


class LocalSampling(Frozen):
    """Chains around a minimum of the loss, at one or several temperatures."""

    sampler: Literal["sgld", "mala", "hmc", "nuts"] = "sgld"
    """SGLD is biased by its step, and says by how much; the others are exact, full-batch, and tune themselves."""
    inverse_temperatures: tuple[PositiveFloat, ...] = ()
    """Powers of the likelihood; by default 1 / log n and three halves of it. The first gives the mean form, a second the
    two-temperature form, a third the slope."""
    localisation: NonNegativeFloat = 1.0
    """Precision of the Gaussian around the centre, which takes the place of the prior."""
    step_size: PositiveFloat | None = None
    """Of SGLD at the first temperature; at others in proportion to 1 / inverse temperature. By default it adds 2 % where
    the loss is quadratic, and less where chains meet larger curvatures than the centre's."""
    batch_size: PositiveInt | None = None
    """Examples in a minibatch of SGLD, drawn with replacement; all by default. Losses of draws are of all examples anyway."""
    chains: PositiveInt = 4
    """Chains at each temperature; all run in one program."""
    draws: Annotated[int, Field(ge=20)] = 500
    """Draws kept of each chain."""
    thin: PositiveInt = 4
    """Steps for each draw kept."""
    burn_in: NonNegativeInt = 500
    """Steps from the centre before the first draw; the warm-up of an exact sampler."""

    @model_validator(mode="after")
    def _fits(self) -> LocalSampling:
        if len(set(self.inverse_temperatures)) < len(self.inverse_temperatures):
            raise ValueError(f"inverse temperatures must differ, got {self.inverse_temperatures}")
        if self.sampler != "sgld" and (self.step_size is not None or self.batch_size is not None):
            raise ValueError(f"step_size and batch_size are settings of sgld; {self.sampler} tunes itself on all examples")
        if self.sampler != "sgld" and self.burn_in < SHORTEST_WARM_UP:
            raise ValueError(f"{self.sampler} needs a burn_in of at least {SHORTEST_WARM_UP} steps to tune itself")
        return self


class LLC(LocalSampling):
    """Local learning coefficients at the minima of the loss below a run's best draws."""

    centres: PositiveInt = 1
    """Minima at which it is measured: those below the best draws of so many chains, the best first."""
    descent_steps: NonNegativeInt = 1000
    """At most so many steps of L-BFGS from a draw to a minimum of the loss."""
    parameters: str = "*"
    """Only these move, the others stay at the centre: a pattern of dotted names, such as `layer_0.*`."""
    examples: Literal["train", "test"] = "train"
    """The data whose loss it is."""
    resamples: NonNegativeInt = 0
    """Data sets drawn again from the examples, for the error over data; each costs as much as the estimate."""
    seed: Seed = 0
    """Of everything random."""


def measure(run: LoadedRun, settings: LLC, console: Console) -> tuple[xr.DataTree, Sequence[Finding]]:
    """Measure learning coefficients at the best draws of a run.

    Returns:
        A tree with a group for each centre, and one with WAIC and the singular fluctuation of the run's own draws; and the
        findings, which name their centre.

    Raises:
        UsageError: A run without a likelihood, or settings that do not fit it.
    """
    from bayesnn.measure.centres import measure_centres

    return measure_centres(run, settings, console)
