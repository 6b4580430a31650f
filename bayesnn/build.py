"""From configuration to things that run: the problem (what is sampled) and the method (how)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import samplers
from bayesnn import config as c
from bayesnn.errors import UsageError
from bayesnn.imports import is_import_path, load_function
from samplers import Batch, Kernel, Save, Target, Tempering, WarmUp

if TYPE_CHECKING:
    from bayesnn.posterior import Posterior

KINDS = {"hmc": "mcmc", "nuts": "mcmc", "sgld": "sgmcmc", "optimise": "ensemble"}


@dataclass(frozen=True)
class Problem:
    """What is sampled.

    Attributes:
        target: The distribution.
        batch: Its data.
        tempering: Its temperatures.
        init: (key, number of chains, start) -> positions.
        save: What is kept of a draw: {"posterior": ..., "functions": ..., statistics ...}.
        description: Attributes of the run's tree, plain data.
        constants: Arrays of the tree without chain and draw: name -> (value, dims).
        posterior: The network's posterior; None for a density without one.
    """

    target: Target
    batch: Batch
    tempering: Tempering
    init: Callable[[Any, int, str], Any]
    save: Save
    description: dict[str, Any]
    constants: dict[str, tuple[np.ndarray, list[str]]]
    posterior: Posterior | None


@dataclass(frozen=True)
class Method:
    """How it is sampled: a kernel and, where it can be tuned, the warm-up that tunes it."""

    kernel: Kernel
    warmup: WarmUp | None

    @property
    def first_kernel(self) -> Kernel:
        """The kernel that runs before the first draw."""
        return self.warmup.kernel if self.warmup else self.kernel


def build_problem(config: c.RunConfig) -> Problem:
    """Build what a configuration says is sampled.

    Raises:
        UsageError: It names what does not exist, or parts that do not fit together.
    """
    jax.config.update("jax_enable_x64", config.precision == "float64")
    try:
        return _density_problem(config, config.density) if config.density else _network_problem(config)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def build_posterior(config: c.RunConfig) -> Posterior:
    """Build network, prior, likelihood and data of a configuration."""
    from bayesnn import data, likelihoods, models, posterior, priors

    name = config.data.name
    dataset = (
        load_function(name)() if is_import_path(name) else data.load(name, split=config.data.split)
    )
    match config.likelihood:
        case c.Categorical():
            likelihood = likelihoods.categorical()
        case c.GaussianNoise(noise=noise):
            likelihood = likelihoods.gaussian(noise)
        case c.Heteroscedastic():
            likelihood = likelihoods.heteroscedastic()
        case c.Imported() as own:
            likelihood = _call(own)
    match config.model:
        case c.MLP(widths=widths, activation=activation):
            model = models.mlp(widths, likelihood.num_outputs(dataset), activation)
        case c.Imported() as own:
            model = _call(own)
    match config.prior:
        case c.GaussianPrior(scale=scale, layer_scales=layers, fan_in=fan_in):
            prior = priors.gaussian({**layers, "*": scale} if layers else scale, fan_in=fan_in)
        case c.DistributionPrior(name=name, arguments=arguments):
            prior = priors.from_name(name, **arguments)
        case c.Imported() as own:
            prior = _call(own)
    return posterior.posterior(
        model,
        prior,
        likelihood,
        dataset,
        temperature=config.temperature,
        likelihood_temperature=config.likelihood_temperature,
        microbatch=config.microbatch,
    )


def build_method(config: c.RunConfig, problem: Problem) -> Method:
    """Build sampler and warm-up.

    Raises:
        UsageError: Settings that do not fit the problem.
    """
    try:
        kernel = _kernel(config, problem)
        is_tuned = config.warmup.steps > 0 and isinstance(config.sampler, c.HMC | c.NUTS)
        if not is_tuned:
            return Method(kernel, None)
        warmup = samplers.window_adaptation(
            kernel,
            num_steps=config.warmup.steps,
            target_acceptance_rate=config.warmup.target_acceptance_rate,
            metric=config.warmup.metric,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    return Method(kernel, warmup)


def trajectory_rule(config: c.RunConfig, problem: Problem) -> tuple[float, Any]:
    """Return trajectory length and inverse mass matrix: a quarter period of the prior oscillator.

    For one prior scale alpha: identity metric and pi alpha sqrt(T) / 2 (Izmailov et al. 2021, section 3; with temperature, from
    the appendix's commands). For several: the prior variances as the inverse mass matrix, in which every direction has the period
    2 pi, and pi sqrt(T) / 2. T is the temperature of prior and likelihood together; tempering the likelihood alone leaves the
    prior's period as it is.
    """
    root = math.sqrt(config.temperature)
    if problem.posterior is None:
        raise UsageError(
            "a density of one's own has no prior scale to derive a trajectory length from: set sampler.trajectory_length"
        )
    scales = problem.posterior.prior_scales()
    if scales is None:
        raise UsageError("this prior has no standard deviation to derive a trajectory length from: set sampler.trajectory_length")
    flat, _ = ravel_pytree(scales)
    if float(flat.min()) == float(flat.max()):
        return math.pi / 2 * float(flat[0]) * root, 1.0
    return math.pi / 2 * root, flat**2


def _kernel(config: c.RunConfig, problem: Problem) -> Kernel:
    target, tempering = problem.target, problem.tempering
    match config.sampler:
        case c.HMC() as s:
            inverse_mass: Any = 1.0
            if s.trajectory_length is None:
                length, inverse_mass = trajectory_rule(config, problem)
            else:
                length = s.trajectory_length
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
            return samplers.nuts(target, step_size=s.step_size, max_num_doublings=s.max_num_doublings, tempering=tempering)
        case c.SGLD() as s:
            preconditioner = samplers.rmsprop(num_data=target.num_data) if s.preconditioner == "rmsprop" else None
            return samplers.sgld(
                target, step_size=s.step_size, batch_size=s.batch_size, preconditioner=preconditioner, tempering=tempering
            )
        case c.Optimise() as s:
            steps = config.warmup.steps + config.draws * config.thin
            rate = optax.cosine_decay_schedule(s.learning_rate, steps)
            transformation = optax.adam(rate) if s.optimiser == "adam" else optax.sgd(rate, momentum=0.9)
            return samplers.optimise(target, transformation, batch_size=s.batch_size, tempering=tempering)


def _network_problem(config: c.RunConfig) -> Problem:
    posterior = build_posterior(config)
    layers = posterior.layers
    return Problem(
        target=posterior.target,
        batch=posterior.batch,
        tempering=posterior.tempering,
        init=lambda key, num_chains, start: _start(posterior, key, num_chains, start),
        save=posterior.save(config.test_points),
        description=_description(config, posterior.dataset.task, posterior.target.num_data, posterior.num_params)
        | {"layers": list(layers), "data": posterior.dataset.name, "data_sha256": posterior.dataset.hash},
        constants={
            "observed_data/y_test": (posterior.observed(config.test_points), ["point"]),
            "constant_data/layer_size": (np.array(list(layers.values()), np.int64), ["layer"]),
        },
        posterior=posterior,
    )


def _density_problem(config: c.RunConfig, own: c.Imported) -> Problem:
    """A log density on a pytree: the function returns (log density, position), or a NumPyro model with its arguments."""
    made = _call(own)
    if not (isinstance(made, tuple) and len(made) >= 2 and callable(made[0])):
        raise UsageError(
            f"{own.source} must return (log density, start position) or (NumPyro model, args, kwargs), got {made!r:.80}"
        )
    if isinstance(made[1], tuple):
        from bayesnn.models.numpyro_model import from_numpyro

        target, batch, init, _ = from_numpyro(made[0], *made[1], **(made[2] if len(made) > 2 else {}))
    else:
        target, batch = samplers.from_logdensity(made[0])
        init = _jittered(made[1])
    tempering = Tempering.at(config.temperature, config.likelihood_temperature)
    size = samplers.num_params(jax.eval_shape(lambda: init(jax.random.key(0), 1)))
    return Problem(
        target=target,
        batch=batch,
        tempering=tempering,
        init=lambda key, num_chains, start: init(key, num_chains),
        save=Save(_density_draw(target), (batch, tempering)),
        description=_description(config, "density", 0, size),
        constants={},
        posterior=None,
    )


def _jittered(position: Any) -> Callable[[Any, int], Any]:
    """Start chains around a position, a standard normal away, so that R-hat can see where they come from."""

    def init(key: Any, num_chains: int) -> Any:
        flat, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, float), position))
        return jax.vmap(unravel)(flat + jax.random.normal(key, (num_chains, flat.size), flat.dtype))

    return init


def _density_draw(target: Target) -> Callable[[Any, Any], Any]:
    def draw(state: Any, arrays: Any) -> Any:
        batch, tempering = arrays
        density = samplers.log_density(target, batch, tempering)
        value, gradient = jax.value_and_grad(density)(state.position)
        virial = -sum(jnp.vdot(x, g) for x, g in zip(jax.tree.leaves(state.position), jax.tree.leaves(gradient), strict=True))
        named = {
            jax.tree_util.keystr(path, simple=True, separator=".") or "x": leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(state.position)
        }
        return {"posterior": named, "lp": value, "virial": jnp.reshape(virial, (1,))}

    return draw


def _start(posterior: Posterior, key: Any, num_chains: int, start: str) -> Any:
    match start:
        case "prior" | "model":
            return posterior.init(key, num_chains, start)
    from bayesnn.weights import load_positions

    return load_positions(Path(start), posterior.init(key, num_chains, "model"))


def _description(config: c.RunConfig, task: str, num_data: int, num_params: int) -> dict[str, Any]:
    return {
        "kind": KINDS[config.sampler.kind],
        "sampler": config.sampler.kind,
        "task": task,
        "temperature": config.temperature,
        "likelihood_temperature": config.likelihood_temperature,
        "num_data": num_data,
        "num_params": num_params,
    }


def _call(own: c.Imported) -> Any:
    try:
        return load_function(own.source)(**own.arguments)
    except TypeError as error:
        raise UsageError(f"{own.source} cannot be called with {own.arguments}: {error}") from error
