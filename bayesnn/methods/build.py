"""From settings to a method."""

from __future__ import annotations

import math

import jax
import optax

import samplers
from bayesnn import config as c
from bayesnn.methods.approximation import Approximation
from bayesnn.methods.laplace import laplace
from bayesnn.methods.mc_dropout import mc_dropout
from bayesnn.methods.mean_field_vi import mean_field_vi
from bayesnn.methods.swag import swag
from bayesnn.methods.tempered_particles import tempered_particles
from bayesnn.problem import Problem

MOMENTUM = 0.9  # as in the experiments of Maddox et al. 2019, and of `samplers.optimise` by the command line


def build_approximation(settings: c.Approximation, num_steps: int, problem: Problem) -> Approximation:
    """Build a method that fits and then draws.

    Args:
        settings: The method and its settings.
        num_steps: Steps of the fit, >= 1.
        problem: What it is fitted to.

    Raises:
        ValueError: Settings that do not fit the problem.
    """
    target, tempering, batch_size = problem.target, problem.tempering, settings.batch_size
    if isinstance(settings, c.SWAG):
        epoch = math.ceil(target.num_data / batch_size) if batch_size else 1
        first, period = math.floor(settings.burn_in * num_steps), settings.period or epoch
        path = samplers.optimise(target, _sgd(settings, first, period), batch_size=batch_size, tempering=tempering)
        return swag(path, problem.like, num_steps=num_steps, first=first, period=period, rank=settings.rank)
    adam = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, num_steps))
    if isinstance(settings, c.MeanFieldVI):
        return mean_field_vi(
            target,
            adam,
            problem.like,
            num_samples=settings.samples,
            initial_scale=settings.initial_scale,
            batch_size=batch_size,
            tempering=tempering,
        )
    if problem.posterior is None:
        raise ValueError(f"{settings.kind} needs a network: a density has neither outputs nor hidden units")
    if isinstance(settings, c.MCDropout):
        return mc_dropout(
            target,
            adam,
            problem.like,
            rate=settings.rate,
            kernels=settings.kernels or None,
            num_samples=settings.samples,
            batch_size=batch_size,
            tempering=tempering,
        )
    trainer = samplers.optimise(target, adam, batch_size=batch_size, tempering=tempering)
    return laplace(trainer, problem.posterior, num_steps=num_steps, structure=settings.structure, linearised=settings.linearised)


def build_particles(settings: c.TemperedSMC, config: c.RunConfig, problem: Problem) -> Approximation:
    """Build tempered SMC.

    Raises:
        ValueError: Settings that do not fit the problem.
    """
    if problem.posterior is None:
        raise ValueError(
            "tempered-smc begins with draws of a prior, and a density of your own has none: give a network, or use nuts"
        )
    if config.start != "prior":
        raise ValueError(
            f"tempered-smc begins with draws of the prior, so start {config.start} would have no effect: leave it out"
        )
    if not config.warmup.steps:
        raise ValueError("tempered-smc moves its particles in the warm-up: warmup.steps, the most stages, must be at least 1")
    on_cpu = jax.devices()[0].platform == "cpu"
    return tempered_particles(
        problem.posterior,
        num_particles=settings.particles,
        num_moves=settings.moves,
        conditional_ess=settings.conditional_ess,
        step_size=settings.step_size,
        max_num_steps=settings.max_num_steps,
        particle_block=1 if on_cpu else settings.particles,
    )


def _sgd(settings: c.SWAG, first: int, period: int) -> optax.GradientTransformation:
    """Return SGD at a constant learning rate, or at one that falls to zero in every cycle after the first steps."""
    if settings.schedule == "constant":
        return optax.sgd(settings.learning_rate, momentum=MOMENTUM)
    burn_in = optax.constant_schedule(settings.learning_rate)
    cycle = optax.cosine_decay_schedule(settings.learning_rate, period)
    return optax.sgd(optax.join_schedules([burn_in, lambda step: cycle(step % period)], [first]), momentum=MOMENTUM)
