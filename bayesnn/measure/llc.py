"""`bayesnn measure FOLDER llc`: local learning coefficients at the minima of the loss below a run's best draws."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from bayesnn.config import Frozen, Seed


class LLC(Frozen):
    """Local learning coefficients at the minima of the loss below a run's best draws."""

    centres: PositiveInt = 1
    """Minima at which it is measured: those below the best draws of so many chains."""
    sampler: Literal["sgld", "mala", "hmc", "nuts"] = "sgld"
    """SGLD is biased by its step, and says by how much; the others are exact, full-batch, and tune themselves."""
    inverse_temperatures: tuple[PositiveFloat, ...] = ()
    """Of the likelihood, one or several; by default 1 / log n and three halves of it."""
    localisation: NonNegativeFloat = 1.0
    """Precision of the Gaussian around the centre, which takes the place of the prior."""
    step_size: PositiveFloat | None = None
    """Of the sampler; by default from the largest curvature at the centre."""
    batch_size: PositiveInt | None = None
    """Examples in a minibatch of SGLD; all by default. Losses of draws are of all examples in any case."""
    chains: Annotated[int, Field(ge=2)] = 4
    """Chains at each centre and temperature."""
    draws: Annotated[int, Field(ge=20)] = 500
    """Draws kept of each chain."""
    thin: PositiveInt = 2
    """Steps for each draw kept."""
    burn_in: NonNegativeInt = 500
    """Steps before the first draw; the warm-up of the exact samplers."""
    parameters: str = "*"
    """Only these move, the others stay at the centre: a pattern of dotted names, such as `layer_0.*`."""
    examples: Literal["train", "test"] = "train"
    """The distribution of the loss."""
    descent_steps: NonNegativeInt = 1000
    """At most so many steps of L-BFGS from a draw to a minimum of the loss."""
    seed: Seed = 0
    """Of everything random."""
