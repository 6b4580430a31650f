"""Settings of every sampler, as plain data; `bayesnn.config` puts them into a run's configuration."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from tyro.conf import Suppress


class Frozen(BaseModel):
    """Base of all configurations: unknown keys and non-finite numbers are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class HMC(Frozen):
    """Hamiltonian Monte Carlo: exact, full-batch."""

    kind: Annotated[Literal["hmc"], Suppress] = "hmc"
    step_size: PositiveFloat = 0.01
    """Of the leapfrog integrator; where a warm-up adapts it, its first value."""
    trajectory_length: PositiveFloat | None = None
    """Mean integration time; by default a quarter period of the prior, pi * scale * sqrt(temperature) / 2."""
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Relative spread of trajectory lengths; 0 resonates."""
    max_num_steps: PositiveInt = 1000
    """Upper bound on the leapfrog steps of a trajectory; the shortfall is reported."""


class NUTS(Frozen):
    """The No-U-Turn sampler: exact, full-batch, finds its trajectory length."""

    kind: Annotated[Literal["nuts"], Suppress] = "nuts"
    step_size: PositiveFloat = 0.01
    """Of the leapfrog integrator; where a warm-up adapts it, its first value."""
    max_num_doublings: Annotated[int, Field(ge=1, le=20)] = 8
    """A trajectory has at most 2^max_num_doublings leapfrog steps."""


class DynamicHMC(Frozen):
    """Randomised HMC: exact, full-batch, trajectories of exponentially distributed length."""

    kind: Annotated[Literal["dynamic-hmc"], Suppress] = "dynamic-hmc"
    step_size: PositiveFloat = 0.01
    """Of the leapfrog integrator; where a warm-up adapts it, its first value."""
    trajectory_length: PositiveFloat | None = None
    """Mean integration time; by default a quarter period of the prior."""
    max_num_steps: PositiveInt = 1000
    """Upper bound on the leapfrog steps of a trajectory."""


class GHMC(Frozen):
    """Generalised HMC: exact, full-batch, one gradient a step, momentum kept between steps."""

    kind: Annotated[Literal["ghmc"], Suppress] = "ghmc"
    step_size: PositiveFloat = 0.005
    """Of the leapfrog integrator; where a warm-up adapts it, its first value."""
    refreshment: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the momentum's variance that is renewed at every step."""


class MALA(Frozen):
    """Metropolis-adjusted Langevin: exact, full-batch, one gradient a step; the exact counterpart of SGLD."""

    kind: Annotated[Literal["mala"], Suppress] = "mala"
    step_size: PositiveFloat = 0.005
    """Of one leapfrog step; where a warm-up adapts it, its first value."""


class Barker(Frozen):
    """The Barker proposal: exact, full-batch, one gradient a step, forgiving of a wrong step size."""

    kind: Annotated[Literal["barker"], Suppress] = "barker"
    step_size: PositiveFloat = 0.005
    """Standard deviation of the moves; where a warm-up adapts it, its first value."""


class MCLMC(Frozen):
    """Microcanonical Langevin: full-batch, no accept step, biased by its energy error."""

    kind: Annotated[Literal["mclmc"], Suppress] = "mclmc"
    step_size: PositiveFloat = 0.1
    """Of the integrator; where a warm-up adapts it, its first value."""
    decoherence_length: PositiveFloat | None = None
    """Distance over which the direction is forgotten; by default sqrt(d) prior scales, and then what the warm-up finds."""
    energy_variance: Annotated[float, Field(gt=0, le=1)] = 5e-4
    """Variance of a step's energy error per dimension that the warm-up aims at; sets the bias."""


class AdjustedMCLMC(Frozen):
    """Microcanonical HMC with an accept step: exact, full-batch."""

    kind: Annotated[Literal["adjusted-mclmc"], Suppress] = "adjusted-mclmc"
    step_size: PositiveFloat = 0.1
    """Of the integrator; where a warm-up adapts it, its first value."""
    trajectory_length: PositiveFloat | None = None
    """Mean distance of a trajectory; by default pi / 2 sqrt(d) prior scales, an HMC trajectory's at its usual speed."""
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Relative spread of trajectory lengths."""
    max_num_steps: PositiveInt = 1000
    """Upper bound on the integrator steps of a trajectory."""


class SGLD(Frozen):
    """Stochastic-gradient Langevin dynamics: biased by its step size, no accept step."""

    kind: Annotated[Literal["sgld"], Suppress] = "sgld"
    step_size: PositiveFloat = 1e-5
    """epsilon in theta += epsilon/2 gradient + sqrt(epsilon) noise."""
    batch_size: PositiveInt | None = 100
    """Examples in a minibatch, without replacement by epoch; none takes all data at every step."""
    replacement: bool = False
    """Draw every minibatch afresh instead of by epochs."""
    preconditioner: Literal["none", "rmsprop", "rmsprop-without-divergence"] = "none"
    """rmsprop costs three gradients a step; without its divergence term one, with a bias that no step size removes."""


class SGHMC(Frozen):
    """Stochastic-gradient HMC: momentum kept between steps; biased by its step size and by gradient noise."""

    kind: Annotated[Literal["sghmc"], Suppress] = "sghmc"
    step_size: PositiveFloat = 3e-3
    """h in p += h gradient, theta += h p."""
    friction: PositiveFloat = 30.0
    """1 / friction is the time over which momentum is forgotten; gradient noise heats less at higher friction."""
    batch_size: PositiveInt | None = 100
    """Examples in a minibatch, without replacement by epoch; none takes all data at every step."""
    replacement: bool = False
    """Draw every minibatch afresh instead of by epochs."""


class SGNHT(Frozen):
    """Stochastic-gradient Nose-Hoover thermostat: SGHMC that measures its own heat and takes it out."""

    kind: Annotated[Literal["sgnht"], Suppress] = "sgnht"
    step_size: PositiveFloat = 3e-3
    """h in p += h gradient, theta += h p."""
    friction: PositiveFloat = 30.0
    """Sets the injected noise; the friction with which the thermostat begins."""
    thermostat_time: PositiveFloat = 0.1
    """Time in which the thermostat answers."""
    batch_size: PositiveInt | None = 100
    """Examples in a minibatch, without replacement by epoch; none takes all data at every step."""
    replacement: bool = False
    """Draw every minibatch afresh instead of by epochs."""


class Optimise(Frozen):
    """An optimiser: one chain is a MAP estimate, several a deep ensemble."""

    kind: Annotated[Literal["optimise"], Suppress] = "optimise"
    optimiser: Literal["adam", "sgd"] = "adam"
    """Adam, or gradient descent with momentum 0.9."""
    learning_rate: PositiveFloat = 1e-2
    """Of the mean log density, decayed to zero by a cosine."""
    batch_size: PositiveInt | None = 100
    """Examples in a minibatch; none takes all data at every step."""


type Sampler = Annotated[
    HMC | NUTS | DynamicHMC | GHMC | MALA | Barker | MCLMC | AdjustedMCLMC | SGLD | SGHMC | SGNHT | Optimise,
    Field(discriminator="kind"),
]
SAMPLERS: tuple[type[Frozen], ...] = get_args(get_args(Sampler.__value__)[0])
