"""Two roads from the prior to a posterior, independent of each other: systems of particles, and ladders of replicas.

Both start from draws of the prior and end in draws of the posterior that weigh its regions rightly, as far as they mix; both
estimate the evidence. Repetitions, systems or ladders, give the errors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

import samplers
from samplers import Batch, Evidence, Kernel, Target
from samplers.types import Position

MAX_STAGES = 10_000  # of SMC; it ends by itself after some tens or hundreds
LADDER_POWER = 5  # betas as powers of equal steps, a usual start: Friel & Pettitt 2008
CHUNK = 8  # stages between two looks at whether all systems are done


class Particles(NamedTuple):
    """Systems of particles that have reached the posterior.

    Attributes:
        position: [system, particle, ...].
        log_weights: [system, particle], normalised in each system.
        log_evidence: [system], nats.
        gradients: Spent, in full-data gradients.
    """

    position: Position
    log_weights: Float[np.ndarray, "system particle"]
    log_evidence: Float[np.ndarray, " system"]
    gradients: float


class Ladders(NamedTuple):
    """Draws of ladders of replicas.

    Attributes:
        position: [ladder, draw, ...] of the coldest rungs, which sample the posterior.
        log_likelihood: [ladder, draw, rung], nats.
        betas: [ladder, rung] inverse likelihood temperatures, in units of the posterior's.
        round_trips: [ladder] of all its replicas between the prior and the posterior.
        gradients: Spent, in full-data gradients.
    """

    position: Position
    log_likelihood: Float[np.ndarray, "ladder draw rung"]
    betas: Float[np.ndarray, "ladder rung"]
    round_trips: Int[np.ndarray, " ladder"]
    gradients: float


class Roads(NamedTuple):
    """What weighs a posterior and its regions, each from prior draws of its own.

    Attributes:
        particles: By tempered SMC.
        ladders: By parallel tempering.
        nested: By nested sampling, if it was asked for.
    """

    particles: Particles
    ladders: Ladders
    nested: Particles | None


def run_particles(
    key: Key[Array, ""],
    kernel: Kernel,
    target: Target,
    batch: Batch,
    prior_draws: Position,
    *,
    num_moves: int = 5,
    conditional_ess: float = 0.9,
) -> Particles:
    """Carry systems of particles to the posterior by adaptive tempered SMC.

    Args:
        key: Key.
        kernel: An exact kernel with `step_size` and `inverse_mass_matrix`, both adapted on the way; its temperatures are those of
            the posterior.
        target: Its target.
        batch: The data.
        prior_draws: [system, particle, ...] independent draws of the prior.
        num_moves: Steps of the kernel in a stage.
        conditional_ess: How far a stage goes, see `samplers.tempered_smc`.
    """
    smc = samplers.tempered_smc(kernel, target, num_moves=num_moves, conditional_ess=conditional_ess)
    spent: list[float] = []
    state = samplers.sample(
        key,
        smc,
        prior_draws,
        batch,
        num_steps=MAX_STAGES,
        until=lambda run: bool(run.state.done.all()),
        on_chunk=lambda result: spent.append(spent_gradients(result)),
        save=None,
        chunk_draws=CHUNK,
    ).run.state
    position = jax.tree.map(np.asarray, state.position)
    return Particles(position, np.asarray(state.log_weights), np.asarray(state.log_evidence), sum(spent))


def run_ladders(
    key: Key[Array, ""],
    kernel: Kernel,
    target: Target,
    batch: Batch,
    positions: Position,
    *,
    num_rungs: int = 12,
    num_warmup: int = 500,
    num_draws: int = 500,
    thin: int = 1,
) -> Ladders:
    """Sample the posterior by parallel tempering, each ladder with temperatures and step sizes of its own.

    Args:
        key: Key.
        kernel: An exact kernel with `step_size`, which is adapted; its temperatures are those of the posterior.
        target: Its target.
        batch: The data.
        positions: [ladder, ...] where all replicas of a ladder start, draws of the prior.
        num_rungs: From the prior to the posterior.
        num_warmup: Steps that adapt and are dropped; in the second half the temperatures are fixed.
        num_draws: Kept of each ladder.
        thin: Steps for each draw kept.
    """
    ladder = samplers.parallel_tempering(kernel, target, (np.linspace(0, 1, num_rungs) ** LADDER_POWER).tolist())
    warmup = samplers.ladder_adaptation(ladder, target, num_steps=num_warmup)
    spent: list[float] = []
    warm = samplers.sample(
        key,
        warmup.kernel,
        positions,
        batch,
        num_steps=num_warmup,
        on_chunk=lambda result: spent.append(spent_gradients(result)),
        save=None,
    ).run
    warm = samplers.finish(warmup, warm)
    keep = samplers.Save(_position_and_log_likelihood)
    result = samplers.sample(key, ladder, positions, batch, num_steps=num_draws * thin, thin=thin, run=warm, save=keep)
    position, log_likelihood = result.draws
    temperature = np.asarray(result.run.tuning.tuning.tempering.likelihood_temperature, float)
    trips = np.asarray(samplers.round_trips(result.run.state))
    return Ladders(position, log_likelihood, temperature[:, -1:] / temperature, trips, sum(spent) + spent_gradients(result))


def spent_gradients(result: samplers.Result) -> float:
    """Return the full-data gradients of a result, of all its chains."""
    return 0.0 if result.info is None else float(result.info.num_gradients.sum())


def _position_and_log_likelihood(state: Any, arrays: PyTree) -> Any:
    return state.position, state.log_likelihood


def evidence_of_particles(particles: Particles) -> Evidence:
    """Return the log evidence of systems of tempered SMC, whose spread gives its error."""
    return samplers.mean_evidence(particles.log_evidence)


def evidence_of_ladders(ladders: Ladders, likelihood_temperature: float = 1.0) -> dict[str, Evidence]:
    """Return the log evidence by stepping stones and by thermodynamic integration, from the spread of the ladders.

    Evidences by stepping stones, each unbiased, are averaged: the mean of their logarithms would be low by half their variance.
    Integrals, which the rungs put off on every ladder alike, may be off by the mean of what each of them may be.

    Args:
        ladders: Four or more.
        likelihood_temperature: Of the posterior, times its temperature.
    """
    tempered = np.asarray(ladders.log_likelihood, float)[:, None] / likelihood_temperature
    stones, integrals = (
        [method(betas, rows) for betas, rows in zip(ladders.betas, tempered, strict=True)]
        for method in (samplers.stepping_stone, samplers.thermodynamic_integration)
    )
    integral = samplers.mean_log_evidence(np.array([one.log_evidence for one in integrals]))
    return {
        "stepping stone": samplers.mean_evidence(np.array([one.log_evidence for one in stones])),
        "thermodynamic integration": integral._replace(discretisation=float(np.mean([one.discretisation for one in integrals]))),
    }
