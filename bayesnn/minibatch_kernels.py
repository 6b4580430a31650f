"""From settings to the kernels that take minibatches: stochastic-gradient samplers and optimisers."""

from __future__ import annotations

from collections.abc import Callable

import optax

import samplers
from bayesnn import config as c
from bayesnn.problem import Problem
from bayesnn.sampler_config import StochasticGradient
from samplers import Kernel, Target

# How a start is named that is no mode.
AWAY_FROM_MODES = ("prior", "model")
MAKERS: dict[str, Callable[..., Kernel]] = {"sgld": samplers.sgld, "sghmc": samplers.sghmc, "sgnht": samplers.sgnht}


def stochastic_kernels(settings: c.SGLD | c.SGHMC | c.SGNHT, config: c.RunConfig, problem: Problem) -> tuple[Kernel, Kernel]:
    """Build a stochastic-gradient sampler: the kernel of its burn-in, and the one that draws.

    They are the same, but for draws of the second half of cycles, between which the second one skips the first halves.

    Raises:
        ValueError: Settings that do not fit the problem or each other.
    """
    if settings.control_variates:
        _check_reference(settings, config.start, problem)
    check_batch(settings.batch_size, problem.target)
    own = settings.model_dump(include={"step_size", "friction", "thermostat_time", "batch_size", "replacement"})
    if isinstance(settings, c.SGLD) and settings.preconditioner != "none":
        without = settings.preconditioner == "rmsprop-without-divergence"
        own["preconditioner"] = samplers.rmsprop(num_data=max(problem.target.num_data, 1), without_divergence=without)
    schedule = _schedule(settings, config)

    def make(target: Target) -> Kernel:
        return MAKERS[settings.kind](target, **own, schedule=schedule, tempering=problem.tempering)

    kernel = samplers.control_from_start(make, problem.target) if settings.control_variates else make(problem.target)
    cycle = _skipped_cycle(config)
    return kernel, samplers.skip_exploration(kernel, cycle, first_step=config.warmup.steps) if cycle else kernel


def optimiser(settings: c.Optimise, config: c.RunConfig, problem: Problem) -> Kernel:
    """Build an optimiser, whose learning rate falls to zero at the end of the run.

    Raises:
        ValueError: A batch size that does not fit.
    """
    check_batch(settings.batch_size, problem.target)
    rate = optax.cosine_decay_schedule(settings.learning_rate, config.warmup.steps + config.draws * config.thin)
    transformation = optax.adam(rate) if settings.optimiser == "adam" else optax.sgd(rate, momentum=0.9)
    return samplers.optimise(problem.target, transformation, batch_size=settings.batch_size, tempering=problem.tempering)


def check_batch(batch_size: int | None, target: Target) -> None:
    """Check that a target has minibatches of this size.

    Raises:
        ValueError: It has no examples, minibatches do not divide into microbatches, or devices are to share them.
    """
    if batch_size is None:
        return
    if target.num_data == 0:
        raise ValueError("a density has no examples to take minibatches of: set sampler.batch_size to None")
    if target.microbatch and batch_size % target.microbatch:
        raise ValueError(
            f"sampler.batch_size {batch_size} must be a multiple of microbatch {target.microbatch}, or leave microbatch out"
        )
    if target.data_blocks > 1:
        raise ValueError(
            f"each device takes minibatches of its own chains from all data, so data_blocks {target.data_blocks} would have no "
            "effect: leave it out, or set sampler.batch_size to None"
        )


def steps_a_step(config: c.RunConfig) -> float:
    """Return the mean number of steps of the sampler in a step of the run: more than 1 where draws skip parts of cycles."""
    cycle = _skipped_cycle(config)
    return cycle / (cycle // 2) if cycle else 1.0


def _skipped_cycle(config: c.RunConfig) -> int | None:
    """Return the length of a cycle if several draws come from its second half; None if they come at the ends of cycles."""
    cycle = config.sampler.cycle_length if isinstance(config.sampler, StochasticGradient) else None
    return cycle if cycle and config.thin % cycle else None


def _schedule(settings: StochasticGradient, config: c.RunConfig) -> samplers.Schedule | None:
    if settings.decay_offset and settings.cycle_length:
        raise ValueError("sampler.decay_offset and sampler.cycle_length are two schedules: choose one")
    if settings.decay_offset:
        return samplers.polynomial(settings.decay_offset, settings.decay_power)
    if settings.cycle_length is None:
        return None
    cycle, sampling = settings.cycle_length, settings.cycle_length // 2
    if config.thin % cycle and sampling % config.thin:
        raise ValueError(
            "thin must be a multiple of sampler.cycle_length, for draws at the ends of cycles, or divide the "
            f"{sampling} steps of a cycle's second half, for several draws there; got {config.thin} and {cycle}"
        )
    if config.warmup.steps % cycle:
        raise ValueError(
            f"warmup.steps must be a multiple of sampler.cycle_length, so that the draws begin with a cycle; "
            f"got {config.warmup.steps} and {cycle}"
        )
    return samplers.cyclical(cycle)


def _check_reference(settings: StochasticGradient, start: str, problem: Problem) -> None:
    if settings.batch_size is None:
        raise ValueError("sampler.control_variates quietens minibatches, and there are none: set sampler.batch_size")
    if problem.target.num_data == 0:
        raise ValueError("sampler.control_variates needs examples to correct, and a density has none: leave it out")
    if start in AWAY_FROM_MODES:
        raise ValueError(
            f"sampler.control_variates quietens gradients near each chain's start and makes them louder far away; got the start "
            f"{start}: begin at a mode, by --start map, a file of weights, or the folder of a run of optimise"
        )
