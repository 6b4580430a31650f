"""From configuration to things that run: the problem (what is sampled) and the method (how)."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

import samplers
from bayesnn import config as c
from bayesnn import data, likelihoods, models, priors
from bayesnn.errors import UsageError
from bayesnn.full_batch_kernels import full_batch_kernel, full_batch_warmup, ladder_statistics
from bayesnn.imports import call, is_import_path, own_error
from bayesnn.methods.build import build_approximation, build_particles
from bayesnn.methods.tempered_particles import check_arrival, particle_statistics
from bayesnn.minibatch_kernels import check_batch, optimiser, stochastic_kernels
from bayesnn.posteriors import Posterior, posterior
from bayesnn.precision import set_arithmetic
from bayesnn.problem import Problem, density_problem, network_problem, numpyro_problem
from bayesnn.sampler_config import StochasticGradient
from bayesnn.stopping import check_functions
from samplers import Kernel, WarmUp

# What the diagnostics need to know of a sampler: whether its draws have a history, and whether it is exact.
KINDS = {
    **dict.fromkeys(("hmc", "nuts", "dynamic-hmc", "ghmc", "mala", "barker", "adjusted-mclmc", "parallel-tempering"), "mcmc"),
    **dict.fromkeys(("sgld", "sghmc", "sgnht"), "sgmcmc"),
    "mclmc": "unadjusted",
    "optimise": "ensemble",
    **dict.fromkeys(("swag", "mean-field-vi", "laplace", "mc-dropout", "tempered-smc"), "approximation"),
}
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
    """How it is sampled.

    Attributes:
        kernel: It draws.
        warmup: Tunes or fits it before the first draw; None where there is nothing to tune.
        burn_in: Runs before the first draw where there is no warm-up; None where it is `kernel`.
        statistics: State of one chain -> what is kept of it with each draw, besides what a problem keeps; None for nothing.
        check: Raises ValueError if the state in which the warm-up ended, of all chains, is not one to draw from; None never does.
    """

    kernel: Kernel
    warmup: WarmUp | None = None
    burn_in: Kernel | None = None
    statistics: Callable[[Any], dict[str, Any]] | None = None
    check: Callable[[Any], None] | None = None

    @property
    def first_kernel(self) -> Kernel | samplers.Sampler:
        """The kernel that runs before the first draw."""
        return self.warmup.kernel if self.warmup else self.burn_in or self.kernel

    def finish(self, run: samplers.Run) -> samplers.Run:
        """Hand the chains over to the kernel that draws.

        Raises:
            UsageError: The warm-up did not come to its end.
        """
        try:
            if self.check is not None:
                self.check(run.state)
        except ValueError as error:
            raise UsageError(str(error)) from error
        return samplers.finish(self.warmup, run) if self.warmup else run._replace(phase=run.phase + 1)

    def save(self, problem: Problem) -> samplers.Save:
        """Return what is kept of a draw."""
        if self.statistics is None:
            return problem.save
        return problem.save._replace(function=_with_statistics(problem.save.function, self.statistics))


@functools.lru_cache(maxsize=64)  # the same function for the same functions, so that nothing recompiles
def _with_statistics(save: Callable[[Any, Any], Any], statistics: Callable[[Any], dict[str, Any]]) -> Callable[[Any, Any], Any]:
    return lambda state, arrays: {**save(state, arrays), **statistics(state)}


def describe_sampler(settings: c.Sampler) -> dict[str, str]:
    """Return what a run's tree says of how it was sampled: `sampler`, for people, and `kind`, a key of `diagnostics.KINDS`."""
    name: str = settings.kind
    if isinstance(settings, StochasticGradient):
        name = f"cyclical {name}" if settings.cycle_length else name
        name = f"{name} with control variates" if settings.control_variates else name
    return {"sampler": name, "kind": KINDS[settings.kind]}


def build_problem(config: c.RunConfig, mesh: Mesh | None = None) -> Problem:
    """Build what a configuration says is sampled.

    Args:
        config: The configuration.
        mesh: Over which to lay a network's training data, see `posterior`.

    Raises:
        UsageError: It names what does not exist, or parts that do not fit together.
    """
    set_arithmetic(config)
    try:
        if config.density is None:
            return network_problem(build_posterior(config, mesh), config.test_points)
        return _own_density(config.density, config.temperature)
    except (ValueError, TypeError) as error:
        raise UsageError(own_error(error) or str(error)) from error


def build_posterior(config: c.RunConfig, mesh: Mesh | None = None) -> Posterior:
    """Build network, prior, likelihood and data of a configuration, the data over a mesh if one is given.

    Raises:
        UsageError: It asks for a density instead.
    """
    if config.density is not None:
        raise UsageError(f"{config.density.source} is a density: it has no network, and so no predictions")
    dataset = _dataset(config.data)
    match config.likelihood:
        case c.Categorical():
            likelihood = likelihoods.categorical()
        case c.Bernoulli():
            likelihood = likelihoods.bernoulli()
        case c.Augmented(augmentation=augmentation):
            likelihood = likelihoods.augmented(augmentation)
        case c.GaussianNoise(noise=noise):
            likelihood = likelihoods.gaussian(noise)
        case c.Heteroscedastic():
            likelihood = likelihoods.heteroscedastic()
        case c.Poisson():
            likelihood = likelihoods.poisson()
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
        mesh=mesh,
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
    if settings.name in data.DATASETS:
        return _published(settings, os.environ.get("BAYESNN_DATA"))
    if not is_import_path(settings.name):
        return data.load(**settings.model_dump())
    if settings != c.Data(name=settings.name):
        raise UsageError(
            f"{settings.name} makes its data itself: leave out split, gap, num_train, size and task, which have no effect"
        )
    return _own(c.Imported(source=settings.name), data.Dataset)


@functools.lru_cache(maxsize=2)  # what suites build one after the other, and a rehearsal whole and cut: large sets take seconds
def _published(settings: c.Data, directory: str | None) -> data.Dataset:
    """Return a published data set, of which the files in a directory of data do not change."""
    return data.load(**settings.model_dump())


def build_method(config: c.RunConfig, problem: Problem) -> Method:
    """Build sampler and warm-up.

    Raises:
        UsageError: Settings that do not fit the problem, or a target on functions that it does not have.
    """
    check_functions(config.stop, problem)
    try:
        return _method(config, problem)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _method(config: c.RunConfig, problem: Problem) -> Method:
    sampler = config.sampler
    if isinstance(sampler, c.APPROXIMATIONS):
        check_batch(sampler.batch_size, problem.target)
        return Method(*build_approximation(sampler, config.warmup.steps, problem))
    if isinstance(sampler, c.TemperedSMC):
        particles = build_particles(sampler, config, problem)
        return Method(*particles, statistics=particle_statistics, check=check_arrival)
    if isinstance(sampler, StochasticGradient):
        burn_in, kernel = stochastic_kernels(sampler, config, problem)
        return Method(kernel, burn_in=burn_in)
    if isinstance(sampler, c.Optimise):
        return Method(optimiser(sampler, config, problem))
    kernel = full_batch_kernel(sampler, config, problem)
    warmup = full_batch_warmup(sampler, config, problem, kernel) if config.warmup.steps else None
    return Method(kernel, warmup, statistics=ladder_statistics if isinstance(sampler, c.ParallelTempering) else None)


def _own_density(own: c.Imported, temperature: float) -> Problem:
    made = call(own.source, own.arguments)
    if isinstance(made, tuple) and len(made) == 2 and callable(made[0]):
        function, rest = made
        if not isinstance(rest, tuple):
            return density_problem(function, rest, temperature=temperature)
        made = numpyro_problem(function, *rest)
    if not isinstance(made, Problem):
        raise UsageError(
            f"{own.source} must return (log density, start) or (NumPyro model, tuple of its arguments), got {made!r:.80}"
        )
    if temperature != 1:
        raise UsageError(f"{own.source} sets the temperature itself, so temperature {temperature:g} would have no effect")
    return made


def _own[T](own: c.Imported, kind: type[T]) -> T:
    """Return what a function of the user's own makes, which must be of this kind."""
    made = call(own.source, own.arguments)
    if not isinstance(made, kind):
        raise UsageError(f"{own.source} must return a {kind.__name__}, it returned {type(made).__name__}")
    return made
