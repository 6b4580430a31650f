"""From settings to the kernels that take all data at every step, and to their warm-ups."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

import samplers
from bayesnn import config as c
from bayesnn.problem import Problem
from samplers import Kernel, LadderState, WarmUp

# Acceptance at which each sampler is most efficient: HMC Beskos et al. 2013 and Stan's default, MALA Roberts & Rosenthal 1998,
# Barker Vogrinc et al. 2023, adjusted MCLMC Robnik et al. 2025. One-step GHMC reverses at rejections and wants few of them.
# Across chains it is their harmonic mean, which is lower: Hoffman et al. 2021.
ACCEPTANCE = {
    **dict.fromkeys(("hmc", "nuts", "dynamic-hmc", "parallel-tempering"), 0.8),
    "ghmc": 0.95,
    "mala": 0.574,
    "barker": 0.4,
    "adjusted-mclmc": 0.9,
}
ACROSS_CHAINS = 0.651
# Temperatures of a ladder at first: betas as powers of equal steps (Friel & Pettitt 2008).
LADDER_POWER = 5

type FullBatch = c.HMC | c.NUTS | c.DynamicHMC | c.GHMC | c.MALA | c.Barker | c.MCLMC | c.AdjustedMCLMC | c.ParallelTempering


def full_batch_kernel(settings: FullBatch, config: c.RunConfig, problem: Problem) -> Kernel:
    """Build a kernel that takes all data at every step.

    Raises:
        ValueError: Settings that do not fit the problem.
    """
    target, tempering = problem.target, problem.tempering
    metric = _prior_metric(problem, _is_metric_adapted(config))[1]
    match settings:
        case c.NUTS() as s:
            return samplers.nuts(
                target,
                step_size=s.step_size,
                max_num_doublings=s.max_num_doublings,
                inverse_mass_matrix=metric,
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
        case c.MCLMC() | c.AdjustedMCLMC() as s:
            return _unit_speed_kernel(s, config, problem)
        case s:
            return _hamiltonian_kernel(s, config, problem)


def _hamiltonian_kernel(settings: c.HMC | c.DynamicHMC | c.ParallelTempering, config: c.RunConfig, problem: Problem) -> Kernel:
    target, tempering, is_adapted = problem.target, problem.tempering, _is_metric_adapted(config)
    if config.warmup.scheme == "cross-chain" and not settings.trajectory_length:
        # Which climbs from a length that is too short.
        length, inverse_mass = settings.step_size, _prior_metric(problem, is_adapted)[1]
    else:
        length, inverse_mass = _motion(settings.trajectory_length, trajectory_rule, problem, is_adapted)
    if isinstance(settings, c.DynamicHMC):
        return samplers.dynamic_hmc(
            target,
            step_size=settings.step_size,
            trajectory_length=length,
            max_num_steps=settings.max_num_steps,
            inverse_mass_matrix=inverse_mass,
            tempering=tempering,
        )
    hmc = samplers.hmc(
        target,
        step_size=settings.step_size,
        trajectory_length=length,
        jitter=settings.jitter,
        max_num_steps=settings.max_num_steps,
        inverse_mass_matrix=inverse_mass,
        tempering=tempering,
        delayed_rejection=isinstance(settings, c.HMC) and settings.delayed_rejection,
    )
    return _ladder(hmc, settings.rungs, problem) if isinstance(settings, c.ParallelTempering) else hmc


def _ladder(hmc: Kernel, rungs: int, problem: Problem) -> Kernel:
    if problem.target.num_data == 0:
        raise ValueError(
            "parallel-tempering goes from the prior to the posterior, and a density of your own does not say which part of it is "
            "the prior: give a network, or use nuts with many chains"
        )
    on_cpu = jax.devices()[0].platform == "cpu"
    betas = np.linspace(0, 1, rungs) ** LADDER_POWER
    return samplers.parallel_tempering(hmc, problem.target, betas.tolist(), rung_block=1 if on_cpu else rungs)


def ladder_statistics(state: LadderState) -> dict[str, Any]:
    """Return what is kept of a ladder with each draw, counted since its temperatures were last adapted.

    `round_trips` of all replicas from end to end and back; `lowest_swap_rate`, the mean probability that the two neighbours that
    exchange least often do so; `barrier`, the sum of the probabilities that neighbours do not.
    """
    rejections = samplers.rejection_rates(state)
    return {
        "round_trips": samplers.round_trips(state),
        "lowest_swap_rate": 1 - rejections.max(),
        "barrier": rejections.sum(),
    }


def _unit_speed_kernel(settings: c.MCLMC | c.AdjustedMCLMC, config: c.RunConfig, problem: Problem) -> Kernel:
    target, tempering, is_adapted = problem.target, problem.tempering, _is_metric_adapted(config)
    if isinstance(settings, c.MCLMC):
        # Momentum of HMC has length sqrt(d); a direction has length 1. A quarter period is pi / 2 scales.
        length, inverse_mass = _motion(settings.decoherence_length, _distance_rule, problem, is_adapted)
        return samplers.mclmc(
            target,
            step_size=settings.step_size,
            decoherence_length=length * (1.0 if settings.decoherence_length else 2 / math.pi),
            inverse_mass_matrix=inverse_mass,
            tempering=tempering,
        )
    length, inverse_mass = _motion(settings.trajectory_length, _distance_rule, problem, is_adapted)
    return samplers.adjusted_mclmc(
        target,
        step_size=settings.step_size,
        trajectory_length=length,
        jitter=settings.jitter,
        max_num_steps=settings.max_num_steps,
        inverse_mass_matrix=inverse_mass,
        tempering=tempering,
    )


def full_batch_warmup(settings: FullBatch, config: c.RunConfig, problem: Problem, kernel: Kernel) -> WarmUp:
    """Build the warm-up of such a kernel.

    Raises:
        ValueError: A warm-up that does not suit the sampler.
    """
    warmup = config.warmup
    if isinstance(settings, c.MCLMC):
        if warmup.metric == "layer":
            raise ValueError("mclmc adapts a diagonal metric or none: set warmup.metric to diagonal or identity")
        return samplers.mclmc_adaptation(
            kernel,
            num_steps=warmup.steps,
            energy_variance=settings.energy_variance,
            is_diagonal=warmup.metric == "diagonal",
        )
    is_joint = warmup.scheme == "cross-chain"
    rate = warmup.target_acceptance_rate or (ACROSS_CHAINS if is_joint else ACCEPTANCE[settings.kind])
    if isinstance(settings, c.ParallelTempering):
        if warmup.metric != "identity":
            raise ValueError(
                "parallel-tempering adapts temperatures and step sizes, and keeps the metric of the prior; "
                f"got warmup.metric {warmup.metric}: leave it out"
            )
        return samplers.ladder_adaptation(kernel, problem.target, num_steps=warmup.steps, target_acceptance_rate=rate)
    adaptation = samplers.cross_chain_adaptation if is_joint else samplers.window_adaptation
    return adaptation(kernel, num_steps=warmup.steps, target_acceptance_rate=rate, metric=warmup.metric)


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


def _distance_rule(problem: Problem, *, is_adapted: bool) -> tuple[float, Any]:
    """Return the trajectory rule for dynamics of unit speed: HMC's momentum has a length of about sqrt(d)."""
    length, inverse_mass = trajectory_rule(problem, is_adapted=is_adapted)
    return length * math.sqrt(sum(problem.layers.values())), inverse_mass


def _motion(
    length: float | None, rule: Callable[..., tuple[float, Any]], problem: Problem, is_adapted: bool
) -> tuple[float, Any]:
    """Return a length that is set, with the identity metric, or those of the rule."""
    return (length, 1.0) if length else rule(problem, is_adapted=is_adapted)


def _is_metric_adapted(config: c.RunConfig) -> bool:
    return config.warmup.steps > 0 and config.warmup.metric != "identity"


def _prior_metric(problem: Problem, is_adapted: bool) -> tuple[float | None, Any]:
    """Return the one scale of the prior and the identity metric, or else 1 and the prior variances as inverse mass matrix."""
    scales = problem.posterior.prior_scales() if problem.posterior else None
    if scales is None:
        return None, 1.0
    flat, _ = ravel_pytree(scales)
    return (float(flat[0]), 1.0) if float(flat.min()) == float(flat.max()) and not is_adapted else (1.0, flat**2)
