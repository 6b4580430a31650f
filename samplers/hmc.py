"""Hamiltonian Monte Carlo with jittered trajectories."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from blackjax.mcmc import hmc as blackjax_hmc
from blackjax.mcmc import metrics
from jaxtyping import Array, Float, Int, PyTree

from samplers.targets import log_density
from samplers.types import Batch, Info, Kernel, Target, Tempering, num_params

# A counter times 2^32 / golden ratio, overflow dropped, is an equidistributed sequence (Knuth, TAOCP 3, 6.4).
GOLDEN = 2654435769


class HMCTuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        step_size: Of the leapfrog integrator, > 0.
        trajectory_length: Mean integration time, > 0; pi * scale / 2 is a quarter period of a Gaussian prior of that scale.
        jitter: Relative half-width of the uniform spread of trajectory lengths, in [0, 1).
        max_num_steps: Upper bound on the leapfrog steps of a trajectory.
        inverse_mass_matrix: Scalar, or [d] in the order of `ravel_pytree`.
        tempering: Temperatures of the target.
    """

    step_size: Float[Array, ""]
    trajectory_length: Float[Array, ""]
    jitter: Float[Array, ""]
    max_num_steps: Int[Array, ""]
    inverse_mass_matrix: Float[Array, "..."]
    tempering: Tempering


def hmc(
    target: Target,
    *,
    step_size: float,
    trajectory_length: float,
    jitter: float = 0.2,
    max_num_steps: int = 1000,
    inverse_mass_matrix: float | Float[Array, " d"] = 1.0,
    tempering: Tempering | None = None,
    divergence_threshold: float = 1000.0,
) -> Kernel:
    r"""Sample with Hamiltonian Monte Carlo: exact for any step size, by its accept step.

    The first choice for a full-batch posterior when a good trajectory length is known. Every trajectory has
    :math:`\lceil \tau_t / \epsilon \rceil` leapfrog steps, :math:`\tau_t` spread evenly over :math:`\tau (1 \pm \mathrm{jitter})`
    by a deterministic sequence that all chains share. Without jitter some directions resonate and do not mix, even on an exact
    Gaussian; jitter = 0 is there to show it.

    Args:
        target: The distribution.
        step_size: Of the leapfrog integrator, > 0.
        trajectory_length: Mean integration time, > 0.
        jitter: Relative half-width of the spread of trajectory lengths, in [0, 1).
        max_num_steps: Upper bound on the leapfrog steps of a trajectory, >= 1; shortens trajectories whose step size is small,
            which costs mixing and never exactness.
        inverse_mass_matrix: Scalar or [d] diagonal; about the posterior variance of each direction.
        tempering: Temperatures; default the posterior itself.
        divergence_threshold: Energy error, nats, above which a trajectory counts as divergent.

    Returns:
        A kernel whose state is BlackJAX's HMCState and whose tuning is `HMCTuning`.

    Raises:
        ValueError: A step size, trajectory length or jitter outside its range.

    References:
        Duane et al. 1987; Neal 2011, arXiv 1206.1901. Jitter: Mackenzie 1989; Hoffman et al. 2021 (ChEES) share it over chains.
    """
    for name, value in (("step_size", step_size), ("trajectory_length", trajectory_length)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite, got {value}")
    if not 0 <= jitter < 1:
        raise ValueError(f"jitter must be in [0, 1), got {jitter}; 0.2 spreads trajectory lengths by +-20 %")
    if max_num_steps < 1:
        raise ValueError(f"max_num_steps must be at least 1, got {max_num_steps}")
    tuning = HMCTuning(
        jnp.asarray(step_size, jnp.float32),
        jnp.asarray(trajectory_length, jnp.float32),
        jnp.asarray(jitter, jnp.float32),
        jnp.asarray(max_num_steps, jnp.int32),
        jnp.asarray(inverse_mass_matrix, jnp.float32),
        Tempering.at() if tempering is None else tempering,
    )
    return Kernel(*_functions(target, divergence_threshold), tuning)


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(target: Target, divergence_threshold: float) -> tuple[Any, Any]:
    transition = blackjax_hmc.build_kernel(divergence_threshold=divergence_threshold)

    def init(key: Array, position: PyTree, batch: Batch, tuning: HMCTuning) -> blackjax_hmc.HMCState:
        return blackjax_hmc.init(position, log_density(target, batch, tuning.tempering))

    def step(
        key: Array, state: blackjax_hmc.HMCState, batch: Batch, tuning: HMCTuning, step: Int[Array, ""]
    ) -> tuple[blackjax_hmc.HMCState, Info]:
        density = log_density(target, batch, tuning.tempering)
        inverse_mass = jnp.broadcast_to(tuning.inverse_mass_matrix, (num_params(state.position),))
        num_steps = num_leapfrog_steps(tuning, step)
        new, details = transition(key, state, density, tuning.step_size, inverse_mass, num_steps)
        kinetic_energy = metrics.gaussian_euclidean(inverse_mass).kinetic_energy
        start_kinetic = kinetic_energy(details.momentum)
        start_energy = start_kinetic - state.logdensity
        # If rejected, the state keeps the momentum it set out with (reversed).
        end_kinetic = jnp.where(details.is_accepted, kinetic_energy(details.proposal.momentum), start_kinetic)
        info = Info(
            num_gradients=num_steps.astype(jnp.float32),
            acceptance_rate=details.acceptance_rate,
            energy=jnp.where(details.is_accepted, details.energy, start_energy),
            energy_error=details.energy - start_energy,
            kinetic_temperature=2 * end_kinetic / num_params(state.position),
            is_divergent=details.is_divergent | ~jnp.isfinite(details.energy),
            is_finite=jnp.isfinite(new.logdensity),
        )
        return new, info

    return init, step


def num_leapfrog_steps(tuning: HMCTuning, step: Int[Array, ""]) -> Int[Array, ""]:
    """Return the leapfrog steps of the trajectory at a step of the run."""
    uniform = (step.astype(jnp.uint32) * jnp.uint32(GOLDEN)).astype(jnp.float32) / 2.0**32
    length = tuning.trajectory_length * (1 + tuning.jitter * (2 * uniform - 1))
    return jnp.clip(jnp.ceil(length / tuning.step_size), 1, tuning.max_num_steps).astype(jnp.int32)
