"""Settings of every sampler, as plain data; `bayesnn.config` puts them into a run's configuration."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt
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
    """Mean integration time; by default a quarter period of the prior, pi * scale * sqrt(temperature) / 2; where a cross-chain
    warm-up finds it, its first value, by default one step."""
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Relative spread of trajectory lengths; 0 resonates."""
    max_num_steps: PositiveInt = 1000
    """Upper bound on the leapfrog steps of a trajectory; the shortfall is reported."""
    delayed_rejection: bool = False
    """Try a failed trajectory once more, with a quarter of the step size; frees chains that stand still in narrow places."""


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
    """Mean integration time; by default a quarter period of the prior; where a cross-chain warm-up finds it, its first value."""
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


class ParallelTempering(Frozen):
    """HMC on a ladder of temperatures from the prior to the posterior: exact, full-batch, crosses between modes."""

    kind: Annotated[Literal["parallel-tempering"], Suppress] = "parallel-tempering"
    rungs: Annotated[int, Field(ge=2)] = 12
    """Replicas of each chain, which cost as many; only the coldest one's draws are kept. Twice the barrier that a run reports."""
    step_size: PositiveFloat = 0.01
    """Of the leapfrog integrator; a warm-up adapts it, and the temperatures, on each rung."""
    trajectory_length: PositiveFloat | None = None
    """Mean integration time; by default a quarter period of the prior."""
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Relative spread of trajectory lengths."""
    max_num_steps: PositiveInt = 1000
    """Upper bound on the leapfrog steps of a trajectory."""


class TemperedSMC(Frozen):
    """Particles from the prior to the posterior by tempered SMC, drawn by their weights; a chain is a system of particles."""

    kind: Annotated[Literal["tempered-smc"], Suppress] = "tempered-smc"
    particles: Annotated[int, Field(ge=16, multiple_of=2)] = 256
    """Of each system; some come several times in as many draws."""
    moves: PositiveInt = 5
    """HMC steps of a particle in each stage; `warmup.steps` is the most stages that there may be."""
    conditional_ess: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """How far a stage goes: nearer to 1 makes more of them."""
    step_size: PositiveFloat = 0.1
    """Of the leapfrog integrator at first, in standard deviations of the particles; adapted from stage to stage."""
    max_num_steps: PositiveInt = 12
    """Upper bound on the leapfrog steps of a trajectory."""


class StochasticGradient(Frozen):
    """What the samplers on minibatches have in common."""

    batch_size: PositiveInt | None = 100
    """Examples in a minibatch, without replacement by epoch; none takes all data at every step."""
    replacement: bool = False
    """Draw every minibatch afresh instead of by epochs."""
    control_variates: bool = False
    """Quieten minibatch gradients near where each chain starts, at twice their cost; start at a MAP estimate, then."""
    decay_offset: PositiveFloat | None = None
    """Let the step size decay as (1 + step / decay_offset)^-decay_power; by default it stays."""
    decay_power: PositiveFloat = 1 / 3
    """A third makes plain averages of a run most exact; it has no effect without decay_offset."""
    cycle_length: Annotated[int, Field(ge=2)] | None = None
    """Let the step size fall to 0 by a cosine in cycles of so many steps, without noise in their first halves, of which no draw
    is kept."""


class SGLD(StochasticGradient):
    """Stochastic-gradient Langevin dynamics: biased by its step size, no accept step."""

    kind: Annotated[Literal["sgld"], Suppress] = "sgld"
    step_size: PositiveFloat = 1e-5
    """epsilon in theta += epsilon/2 gradient + sqrt(epsilon) noise."""
    preconditioner: Literal["none", "rmsprop", "rmsprop-without-divergence"] = "none"
    """rmsprop costs three gradients a step, without its divergence term one; both have a bias that no step size removes."""


class SGHMC(StochasticGradient):
    """Stochastic-gradient HMC: momentum kept between steps; biased by its step size and by gradient noise."""

    kind: Annotated[Literal["sghmc"], Suppress] = "sghmc"
    step_size: PositiveFloat = 3e-3
    """h in p += h gradient, theta += h p."""
    friction: PositiveFloat = 30.0
    """1 / friction is the time over which momentum is forgotten; gradient noise heats less at higher friction."""


class SGNHT(StochasticGradient):
    """Stochastic-gradient Nose-Hoover thermostat: SGHMC that measures its own heat and takes it out."""

    kind: Annotated[Literal["sgnht"], Suppress] = "sgnht"
    step_size: PositiveFloat = 3e-3
    """h in p += h gradient, theta += h p."""
    friction: PositiveFloat = 30.0
    """Sets the injected noise; the friction with which the thermostat begins."""
    thermostat_time: PositiveFloat = 0.1
    """Time in which the thermostat answers."""


class Optimise(Frozen):
    """An optimiser: one chain is a MAP estimate, several a deep ensemble."""

    kind: Annotated[Literal["optimise"], Suppress] = "optimise"
    optimiser: Literal["adam", "sgd"] = "adam"
    """Adam, or gradient descent with momentum 0.9."""
    learning_rate: PositiveFloat = 1e-2
    """Of the mean log density, decayed to zero by a cosine."""
    batch_size: PositiveInt | None = 100
    """Examples in a minibatch; none takes all data at every step."""


class SWAG(Frozen):
    """SWAG: a Gaussian with the moments of SGD's path, an approximation; several chains are multi-SWAG."""

    kind: Annotated[Literal["swag"], Suppress] = "swag"
    learning_rate: PositiveFloat = 0.05
    """Of SGD with momentum 0.9 on the mean log density; with the batch size it sets the spread."""
    schedule: Literal["constant", "cyclical"] = "constant"
    """Learning rate after the burn-in: constant, or falling to zero by a cosine in every period."""
    burn_in: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the fit (`warmup.steps`) before the first period."""
    period: PositiveInt | None = None
    """Steps between the positions that are gathered; by default an epoch."""
    rank: NonNegativeInt = 20
    """Positions that make the low-rank part of the covariance; 0 leaves the diagonal."""
    batch_size: PositiveInt | None = 100
    """Examples in a minibatch; none takes all data at every step, and leaves hardly any spread."""


class MeanFieldVI(Frozen):
    """Mean-field variational inference: independent Gaussians, an approximation fitted by the evidence lower bound."""

    kind: Annotated[Literal["mean-field-vi"], Suppress] = "mean-field-vi"
    learning_rate: PositiveFloat = 1e-2
    """Of Adam, decayed to zero by a cosine over `warmup.steps`."""
    samples: PositiveInt = 1
    """Draws of the approximation for each gradient; each costs one."""
    initial_scale: PositiveFloat = 0.05
    """Standard deviation of every weight at the start."""
    batch_size: PositiveInt | None = 100
    """Examples in a minibatch; none takes all data at every step."""


class Laplace(Frozen):
    """The Laplace approximation: a Gaussian at a MAP estimate, with the Gauss-Newton curvature there."""

    kind: Annotated[Literal["laplace"], Suppress] = "laplace"
    structure: Literal["full", "kronecker", "diagonal", "last-layer"] = "kronecker"
    """Of the curvature; full inverts a matrix of all weights, last-layer one of the output layer's."""
    linearised: bool = False
    """Predict by the network linearised at the MAP estimate."""
    learning_rate: PositiveFloat = 1e-2
    """Of Adam, decayed to zero by a cosine over `warmup.steps`."""
    batch_size: PositiveInt | None = 100
    """Examples in a minibatch of the optimiser; the curvature takes all data."""


class MCDropout(Frozen):
    """MC dropout: hidden units switched off at random in training and in every draw, an approximation."""

    kind: Annotated[Literal["mc-dropout"], Suppress] = "mc-dropout"
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of hidden units that are off; sets the spread."""
    kernels: tuple[str, ...] = ()
    """Kernels that hidden units feed, as layer_1.kernel; found by themselves in an MLP."""
    learning_rate: PositiveFloat = 1e-2
    """Of Adam, decayed to zero by a cosine over `warmup.steps`."""
    samples: PositiveInt = 1
    """Masks for each gradient; each costs one."""
    batch_size: PositiveInt | None = 100
    """Examples in a minibatch; none takes all data at every step."""


type Approximation = SWAG | MeanFieldVI | Laplace | MCDropout
APPROXIMATIONS = (SWAG, MeanFieldVI, Laplace, MCDropout)

type Sampler = Annotated[
    HMC
    | NUTS
    | DynamicHMC
    | GHMC
    | MALA
    | Barker
    | MCLMC
    | AdjustedMCLMC
    | ParallelTempering
    | TemperedSMC
    | SGLD
    | SGHMC
    | SGNHT
    | Optimise
    | SWAG
    | MeanFieldVI
    | Laplace
    | MCDropout,
    Field(discriminator="kind"),
]
SAMPLERS: tuple[type[Frozen], ...] = get_args(get_args(Sampler.__value__)[0])
