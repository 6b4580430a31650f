"""Tempered sequential Monte Carlo as a method of runs: particles are carried to the posterior, then drawn by their weights."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

import samplers
from bayesnn.methods.approximation import Approximation, training_info
from bayesnn.posteriors import Posterior
from samplers import Batch, Info, Kernel, ParticleState, processes
from samplers.types import Position, Tuning

# A quarter period in the metric of the particles, whose unit is their standard deviation.
TRAJECTORY_LENGTH = math.pi / 2


class Drawn(NamedTuple):
    """State of the kernel that draws: a particle, and the log evidence that its system found, nats."""

    position: Position
    log_evidence: Float[Array, ""]


class WeightedParticles(NamedTuple):
    """Tuning of the kernel that draws: P particles [P, ...], their normalised log weights [P], and their log evidence, nats."""

    position: Position
    log_weights: Float[Array, " P"]
    log_evidence: Float[Array, ""]


class SystemState(NamedTuple):
    """State of a system of particles, which is a chain of the run; its position is the first particle's."""

    particles: ParticleState
    position: Position

    @classmethod
    def of(cls, particles: ParticleState) -> SystemState:
        """Return the state of one system."""
        return cls(particles, jax.tree.map(lambda x: x[0], particles.position))

    @property
    def inner(self) -> Drawn:
        """State from which the kernel that draws sets out."""
        return Drawn(self.position, self.particles.log_evidence)


def tempered_particles(
    posterior: Posterior,
    *,
    num_particles: int = 256,
    num_moves: int = 5,
    conditional_ess: float = 0.9,
    step_size: float = 0.1,
    max_num_steps: int = 12,
    particle_block: int = 1,
) -> Approximation:
    """Carry particles from the prior to the posterior by `samplers.tempered_smc` around HMC, and draw them by their weights.

    Each chain is a system of its own, from prior draws of its own: what a chain is given to start from is not used. A step of
    the fit is a stage, and the identity when the posterior has been reached; `check_arrival` tells whether it has. The draws of a
    chain are independent given its particles, of which some may come twice: more draws than particles say nothing new.

    Args:
        posterior: Of a network, at temperature 1; its likelihood may be tempered.
        num_particles: P, an even number.
        num_moves: HMC steps of a particle in each stage.
        conditional_ess: How far a stage goes, in (0, 1).
        step_size: Of HMC, in standard deviations of the particles; adapted from stage to stage.
        max_num_steps: Upper bound on the leapfrog steps of a trajectory.
        particle_block: Particles that move together in one vmap, a divisor of P.

    Raises:
        ValueError: A temperature other than 1, at which the prior cannot be drawn from, or a setting outside its range.

    References:
        Those of `samplers.tempered_smc`.
    """
    if (temperature := float(posterior.tempering.temperature)) != 1:
        raise ValueError(
            f"tempered-smc begins with draws of the prior, which temperature {temperature:g} tempers, too: use temperature 1 "
            "(likelihood_temperature may differ)"
        )
    hmc = samplers.hmc(
        posterior.target,
        step_size=step_size,
        trajectory_length=TRAJECTORY_LENGTH,
        max_num_steps=max_num_steps,
        tempering=posterior.tempering,
    )
    smc = samplers.tempered_smc(
        hmc, posterior.target, num_moves=num_moves, conditional_ess=conditional_ess, particle_block=particle_block
    )

    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: Tuning) -> SystemState:
        prior_key, smc_key = jax.random.split(key)
        return SystemState.of(smc.init(smc_key, posterior.init(prior_key, num_particles, "prior"), batch, tuning))

    def step(
        key: Key[Array, ""], state: SystemState, batch: Batch, tuning: Tuning, step: Int[Array, ""]
    ) -> tuple[SystemState, Info]:
        particles, info = smc.step(key, state.particles, batch, tuning, step)
        return SystemState.of(particles), info

    number = jnp.result_type(float)
    particles = jax.tree.map(lambda x: jnp.zeros((num_particles, *x.shape), x.dtype), posterior.like)
    tuning = WeightedParticles(particles, jnp.zeros(num_particles, number), jnp.zeros((), number))
    fit = samplers.WarmUp(Kernel(init, step, smc.initial_tuning), _particles_of)
    return Approximation(Kernel(_begin, _draw, tuning), fit)


def check_arrival(state: Any) -> None:
    """Check that all systems have reached the posterior.

    Args:
        state: `SystemState` of all chains.

    Raises:
        ValueError: Some have not.
    """
    beta = np.asarray(processes.whole(state.particles.beta), float)
    if (beta < 1).any():
        raise ValueError(
            f"{np.sum(beta < 1)} of {beta.size} systems of particles are still on their way to the posterior, the last one where "
            f"the likelihood has the power {beta.min():.3g} instead of 1: give a new run more stages (--warmup.steps)"
        )


def particle_statistics(state: Drawn) -> dict[str, Array]:
    """Return what is kept with each draw: the log evidence, nats, the same for all draws of a chain."""
    return {"log_evidence": state.log_evidence}


def _particles_of(state: SystemState, tuning: Tuning) -> WeightedParticles:
    return WeightedParticles(state.particles.position, state.particles.log_weights, state.particles.log_evidence)


def _begin(key: Key[Array, ""], position: Position, batch: Batch, tuning: WeightedParticles) -> Drawn:
    return Drawn(position, tuning.log_evidence)


def _draw(key: Key[Array, ""], state: Drawn, batch: Batch, tuning: WeightedParticles, step: Int[Array, ""]) -> tuple[Drawn, Info]:
    index = jax.random.categorical(key, tuning.log_weights)
    position = jax.tree.map(lambda x: x[index], tuning.position)
    return state._replace(position=position), training_info(position, 0.0)
