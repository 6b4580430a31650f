"""From configuration to things that run: the problem (what is sampled) and the method (how)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import optax
from jax.flatten_util import ravel_pytree

import samplers
from bayesnn import config as c
from bayesnn import data, likelihoods, models, priors
from bayesnn.errors import UsageError
from bayesnn.imports import call, is_import_path, own_error
from bayesnn.methods.build import build_approximation
from bayesnn.posteriors import Posterior, posterior
from bayesnn.problem import Problem, density_problem, network_problem, numpyro_problem
from samplers import Kernel, WarmUp

# What the diagnostics need to know of a sampler: whether its draws have a history, and whether it is exact.
KINDS = {
    **dict.fromkeys(("hmc", "nuts", "dynamic-hmc", "ghmc", "mala", "barker", "adjusted-mclmc"), "mcmc"),
    **dict.fromkeys(("sgld", "sghmc", "sgnht"), "sgmcmc"),
    "mclmc": "unadjusted",
    "optimise": "ensemble",
    **dict.fromkeys(("swag", "mean-field-vi", "laplace", "mc-dropout"), "approximation"),
}
# Acceptance at which each sampler is most efficient: HMC Beskos et al. 2013 and Stan's default, MALA Roberts & Rosenthal 1998,
# Barker Vogrinc et al. 2023, adjusted MCLMC Robnik et al. 2025. One-step GHMC reverses at rejections and wants few of them.
# Across chains it is their harmonic mean, which is lower: Hoffman et al. 2021.
ACCEPTANCE = {"hmc": 0.8, "nuts": 0.8, "dynamic-hmc": 0.8, "ghmc": 0.95, "mala": 0.574, "barker": 0.4, "adjusted-mclmc": 0.9}
ACROSS_CHAINS = 0.651
# Networks by the kind of their settings, which are their arguments.
BUILT_IN: dict[str, Callable[..., models.Model]] = {
    "mlp": models.mlp,
    "lenet": lambda **settings: models.lenet(**settings),
    "resnet": lambda **settings: models.resnet(**settings),
    "cnn-lstm": lambda **settings: models.cnn_lstm(**settings),
}
# Layers that see the inputs themselves; an embedding sees tokens.
FIRST_LAYERS = {"mlp": "layer_0", "lenet": "convs.0", "resnet": "stem.conv"}


@dataclass(frozen=True)
class Method:
    """How it is sampled: a kernel and, where it can be tuned or must be fitted, the warm-up that does so."""

    kernel: Kernel
    warmup: WarmUp | None

    @property
    def first_kernel(self) -> Kernel | samplers.Sampler:
        """The kernel that runs before the first draw."""
        return self.warmup.kernel if self.warmup else self.kernel


def build_problem(config: c.RunConfig) -> Problem:
    """Build what a configuration says is sampled.

    Raises:
        UsageError: It names what does not exist, or parts that do not fit together.
    """
    jax.config.update("jax_enable_x64", config.precision == "float64")
    try:
        if config.density is None:
            return network_problem(build_posterior(config), config.test_points)
        return _own_density(config.density, config.temperature)
    except (ValueError, TypeError) as error:
        raise UsageError(own_error(error) or str(error)) from error


def build_posterior(config: c.RunConfig) -> Posterior:
    """Build network, prior, likelihood and data of a configuration.

    Raises:
        UsageError: It asks for a density instead.
    """
    if config.density is not None:
        raise UsageError(f"{config.density.source} is a density: it has no network, and so no predictions")
    dataset = _dataset(config.data)
    match config.likelihood:
        case c.Categorical():
            likelihood = likelihoods.categorical()
        case c.Augmented(augmentation=augmentation):
            likelihood = likelihoods.augmented(augmentation)
        case c.GaussianNoise(noise=noise):
            likelihood = likelihoods.gaussian(noise)
        case c.Heteroscedastic():
            likelihood = likelihoods.heteroscedastic()
        case c.Imported() as own:
            likelihood = _own(own, likelihoods.Likelihood)
    match config.model:
        case c.Imported() as own:
            model = call(own.source, own.arguments)
        case built_in:
            settings = built_in.model_dump(exclude={"kind"})
            model = BUILT_IN[built_in.kind](num_outputs=likelihood.num_outputs(dataset), **settings)
    return posterior(
        model,
        _prior(config.prior, config.model, dataset),
        likelihood,
        dataset,
        temperature=config.temperature,
        likelihood_temperature=config.likelihood_temperature,
        microbatch=config.microbatch,
        data_blocks=config.data_blocks,
    )


def _prior(settings: c.Prior, model: c.Model, dataset: data.Dataset) -> priors.Prior:
    match settings:
        case c.GaussianPrior(scale=scale, layer_scales=layers, fan_in=fan_in):
            return priors.gaussian(_scales(scale, layers), fan_in=fan_in)
        case c.FamilyPrior(name=name, scale=scale, layer_scales=layers) as s:
            return priors.family(name, _scales(scale, layers), fan_in=s.fan_in, df=s.df, ratio=s.ratio)
        case c.EmpiricalCovariancePrior(scale=scale, diagonal=diagonal, layer=layer):
            first = layer or FIRST_LAYERS.get(model.kind)
            if first is None:
                raise UsageError(
                    f"the first layer of a {model.kind} network is not known, or sees no plain inputs: set prior.layer"
                )
            rest = priors.gaussian(scale)
            return priors.empirical_covariance(dataset.x_train, rest, layer=first, scale=scale, diagonal=diagonal)
        case c.DistributionPrior(name=name, arguments=arguments):
            return priors.from_name(name, **arguments)
        case c.Imported() as own:
            return _own(own, priors.Prior)


def _scales(scale: float, layers: dict[str, float]) -> float | dict[str, float]:
    return {**layers, "*": scale} if layers else scale


def _dataset(settings: c.Data) -> data.Dataset:
    if not is_import_path(settings.name):
        return data.load(**settings.model_dump())
    if settings != c.Data(name=settings.name):
        raise UsageError(f"{settings.name} makes its data itself: leave out split, gap, num_train and size, which have no effect")
    return _own(c.Imported(source=settings.name), data.Dataset)


def build_method(config: c.RunConfig, problem: Problem) -> Method:
    """Build sampler and warm-up.

    Raises:
        UsageError: Settings that do not fit the problem.
    """
    try:
        if isinstance(config.sampler, c.APPROXIMATIONS):
            _check_batch(config.sampler.batch_size, problem.target.microbatch)
            return Method(*build_approximation(config.sampler, config.warmup.steps, problem))
        kernel = _kernel(config, problem)
        return Method(kernel, _warmup(config, kernel) if config.warmup.steps else None)
    except ValueError as error:
        raise UsageError(str(error)) from error


def trajectory_rule(problem: Problem, *, is_adapted: bool = False) -> tuple[float, Any]:
    """Return trajectory length and inverse mass matrix: a quarter period of the prior oscillator.

    For one prior scale alpha: identity metric and pi alpha sqrt(T) / 2 (Izmailov et al. 2021, section 3; with temperature, from
    the commands they published). For several, or a metric that a warm-up adapts: the prior variances as the (first) inverse mass
    matrix, in which every direction has the period 2 pi, and pi sqrt(T) / 2. T is the temperature of prior and likelihood
    together; tempering the likelihood alone leaves the prior's period as it is.

    Raises:
        ValueError: There is no prior standard deviation to start from.
    """
    scale, inverse_mass = _prior_metric(problem, is_adapted)
    if scale is None:
        raise ValueError("there is no prior standard deviation to derive a trajectory length from: set sampler.trajectory_length")
    return math.pi / 2 * math.sqrt(float(problem.tempering.temperature)) * scale, inverse_mass


def _prior_metric(problem: Problem, is_adapted: bool) -> tuple[float | None, Any]:
    """Return the one scale of the prior and the identity metric, or else 1 and the prior variances as inverse mass matrix."""
    scales = problem.posterior.prior_scales() if problem.posterior else None
    if scales is None:
        return None, 1.0
    flat, _ = ravel_pytree(scales)
    return (float(flat[0]), 1.0) if float(flat.min()) == float(flat.max()) and not is_adapted else (1.0, flat**2)


def _distance_rule(problem: Problem, *, is_adapted: bool) -> tuple[float, Any]:
    """Return the trajectory rule for dynamics of unit speed: HMC's momentum has a length of about sqrt(d)."""
    length, inverse_mass = trajectory_rule(problem, is_adapted=is_adapted)
    return length * math.sqrt(sum(problem.layers.values())), inverse_mass


def _warmup(config: c.RunConfig, kernel: Kernel) -> WarmUp | None:
    sampler, settings = config.sampler, config.warmup
    if isinstance(sampler, c.MCLMC):
        if settings.metric == "layer":
            raise ValueError("mclmc adapts a diagonal metric or none: set warmup.metric to diagonal or identity")
        return samplers.mclmc_adaptation(
            kernel,
            num_steps=settings.steps,
            energy_variance=sampler.energy_variance,
            is_diagonal=settings.metric == "diagonal",
        )
    if sampler.kind not in ACCEPTANCE:
        return None
    is_joint = settings.scheme == "cross-chain"
    adaptation = samplers.cross_chain_adaptation if is_joint else samplers.window_adaptation
    rate = settings.target_acceptance_rate or (ACROSS_CHAINS if is_joint else ACCEPTANCE[sampler.kind])
    return adaptation(kernel, num_steps=settings.steps, target_acceptance_rate=rate, metric=settings.metric)


def _kernel(config: c.RunConfig, problem: Problem) -> Kernel:
    assert not isinstance(config.sampler, c.APPROXIMATIONS)  # `build_approximation` makes these
    target, tempering = problem.target, problem.tempering
    is_adapted = config.warmup.steps > 0 and config.warmup.metric != "identity"
    metric = _prior_metric(problem, is_adapted)[1]

    def motion(length: float | None, rule: Any, step_size: float) -> tuple[float, Any]:
        if not length and config.warmup.scheme == "cross-chain":  # which climbs from a length that is too short
            return step_size, metric
        return (length, 1.0) if length else rule(problem, is_adapted=is_adapted)

    match config.sampler:
        case c.HMC() as s:
            length, inverse_mass = motion(s.trajectory_length, trajectory_rule, s.step_size)
            return samplers.hmc(
                target,
                step_size=s.step_size,
                trajectory_length=length,
                jitter=s.jitter,
                max_num_steps=s.max_num_steps,
                inverse_mass_matrix=inverse_mass,
                tempering=tempering,
            )
        case c.NUTS() as s:
            return samplers.nuts(
                target,
                step_size=s.step_size,
                max_num_doublings=s.max_num_doublings,
                inverse_mass_matrix=metric,
                tempering=tempering,
            )
        case c.DynamicHMC() as s:
            length, inverse_mass = motion(s.trajectory_length, trajectory_rule, s.step_size)
            return samplers.dynamic_hmc(
                target,
                step_size=s.step_size,
                trajectory_length=length,
                max_num_steps=s.max_num_steps,
                inverse_mass_matrix=inverse_mass,
                tempering=tempering,
            )
        case c.GHMC() as s:
            return samplers.ghmc(
                target, step_size=s.step_size, refreshment=s.refreshment, inverse_mass_matrix=metric, tempering=tempering
            )
        case c.MALA() as s:
            return samplers.mala(target, step_size=s.step_size, inverse_mass_matrix=metric, tempering=tempering)
        case c.Barker() as s:
            return samplers.barker(target, step_size=s.step_size, inverse_mass_matrix=metric, tempering=tempering)
        case c.MCLMC() as s:
            # Momentum of HMC has length sqrt(d); a direction has length 1. A quarter period is pi / 2 scales.
            length, inverse_mass = motion(s.decoherence_length, _distance_rule, s.step_size)
            return samplers.mclmc(
                target,
                step_size=s.step_size,
                decoherence_length=length * (1.0 if s.decoherence_length else 2 / math.pi),
                inverse_mass_matrix=inverse_mass,
                tempering=tempering,
            )
        case c.AdjustedMCLMC() as s:
            length, inverse_mass = motion(s.trajectory_length, _distance_rule, s.step_size)
            return samplers.adjusted_mclmc(
                target,
                step_size=s.step_size,
                trajectory_length=length,
                jitter=s.jitter,
                max_num_steps=s.max_num_steps,
                inverse_mass_matrix=inverse_mass,
                tempering=tempering,
            )
        case c.SGLD() as s:
            _check_batch(s.batch_size, target.microbatch)
            without = s.preconditioner == "rmsprop-without-divergence"
            rmsprop = samplers.rmsprop(num_data=target.num_data, without_divergence=without)
            return samplers.sgld(
                target,
                step_size=s.step_size,
                batch_size=s.batch_size,
                replacement=s.replacement,
                preconditioner=None if s.preconditioner == "none" else rmsprop,
                schedule=_schedule(config, s),
                tempering=tempering,
            )
        case c.SGHMC() | c.SGNHT() as s:
            _check_batch(s.batch_size, target.microbatch)
            make = samplers.sghmc if isinstance(s, c.SGHMC) else samplers.sgnht
            return make(target, **s.model_dump(exclude={"kind"}), tempering=tempering)
        case c.Optimise() as s:
            _check_batch(s.batch_size, target.microbatch)
            rate = optax.cosine_decay_schedule(s.learning_rate, config.warmup.steps + config.draws * config.thin)
            transformation = optax.adam(rate) if s.optimiser == "adam" else optax.sgd(rate, momentum=0.9)
            return samplers.optimise(target, transformation, batch_size=s.batch_size, tempering=tempering)


def _schedule(config: c.RunConfig, sampler: c.SGLD) -> samplers.Schedule | None:
    if sampler.decay_offset and sampler.cycle_length:
        raise ValueError("sampler.decay_offset and sampler.cycle_length are two schedules: choose one")
    if sampler.decay_offset:
        return samplers.polynomial(sampler.decay_offset, sampler.decay_power)
    if sampler.cycle_length is None:
        return None
    # Every draw is then the last step of a cycle: none is of the first half, whose positions are not draws of the target.
    for name, steps in (("thin", config.thin), ("warmup.steps", config.warmup.steps)):
        if steps % sampler.cycle_length:
            raise ValueError(
                f"{name} must be a multiple of sampler.cycle_length, so that draws come at the ends of cycles; "
                f"got {steps} and {sampler.cycle_length}"
            )
    return samplers.cyclical(sampler.cycle_length)


def _check_batch(batch_size: int | None, microbatch: int | None) -> None:
    if batch_size and microbatch and batch_size % microbatch:
        raise ValueError(
            f"sampler.batch_size {batch_size} must be a multiple of microbatch {microbatch}, or leave microbatch out"
        )


def _own_density(own: c.Imported, temperature: float) -> Problem:
    made = call(own.source, own.arguments)
    if isinstance(made, Problem):
        return made
    if not (isinstance(made, tuple) and len(made) == 2 and callable(made[0])):
        raise UsageError(
            f"{own.source} must return (log density, start) or (NumPyro model, tuple of its arguments), got {made!r:.80}"
        )
    function, rest = made
    return (
        numpyro_problem(function, *rest) if isinstance(rest, tuple) else density_problem(function, rest, temperature=temperature)
    )


def _own[T](own: c.Imported, kind: type[T]) -> T:
    """Return what a function of the user's own makes, which must be of this kind."""
    made = call(own.source, own.arguments)
    if not isinstance(made, kind):
        raise UsageError(f"{own.source} must return a {kind.__name__}, it returned {type(made).__name__}")
    return made
