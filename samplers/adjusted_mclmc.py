"""Microcanonical Hamiltonian Monte Carlo with an accept step."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from samplers import isokinetic
from samplers.arguments import require_positive
from samplers.isokinetic import GRADIENTS_A_STEP, IsokineticState
from samplers.targets import log_density
from samplers.trajectory import count_steps, spread
from samplers.types import Batch, Info, Kernel, Target, Tempering


class AdjustedMCLMCTuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        step_size: Of the integrator, > 0.
        trajectory_length: Mean length of a trajectory, > 0.
        jitter: Relative half-width of the uniform spread of trajectory lengths, in [0, 1).
        max_num_steps: Upper bound on the integrator steps of a trajectory.
        inverse_mass_matrix: Scalar, or [d] in the order of `ravel_pytree`.
        tempering: Temperatures of the target.
    """

    step_size: Float[Array, ""]
    trajectory_length: Float[Array, ""]
    jitter: Float[Array, ""]
    max_num_steps: Int[Array, ""]
    inverse_mass_matrix: Float[Array, "..."]
    tempering: Tempering


def adjusted_mclmc(
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
    """Sample with Metropolis-adjusted microcanonical dynamics: exact for any step size, by its accept step.

    The exact counterpart of `mclmc`: a direction drawn evenly, isokinetic dynamics of constant speed for a trajectory, then a
    Metropolis test of its energy error. Speed is constant where HMC's follows the density, so trajectories are measured as
    distances: about sqrt(d) times the posterior scale.

    Args:
        target: The distribution, of two or more dimensions.
        step_size: Of the minimal-norm integrator (two gradients a step), > 0.
        trajectory_length: Mean distance of a trajectory, > 0.
        jitter: Relative half-width of the spread of trajectory lengths, in [0, 1); shared by all chains.
        max_num_steps: Upper bound on the integrator steps of a trajectory, >= 1.
        inverse_mass_matrix: Scalar or [d] diagonal; about the posterior variance of each direction.
        tempering: Temperatures; default the posterior itself.
        divergence_threshold: Energy error, nats, above which a trajectory counts as divergent.

    Returns:
        A kernel whose state is `IsokineticState` and whose tuning is `AdjustedMCLMCTuning`.

    Raises:
        ValueError: An argument outside its range; when traced, a position of one dimension.

    References:
        Robnik, Cohn-Gordon & Seljak 2025, arXiv 2503.01707 (optimal acceptance about 0.9).
    """
    require_positive(step_size=step_size, trajectory_length=trajectory_length, max_num_steps=max_num_steps)
    if not 0 <= jitter < 1:
        raise ValueError(f"jitter must be in [0, 1), got {jitter}; 0.2 spreads trajectory lengths by +-20 %")
    tuning = AdjustedMCLMCTuning(
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
    def init(key: Array, position: PyTree, batch: Batch, tuning: AdjustedMCLMCTuning) -> IsokineticState:
        return isokinetic.start(log_density(target, batch, tuning.tempering), position, key)

    def step(
        key: Array, state: IsokineticState, batch: Batch, tuning: AdjustedMCLMCTuning, step: Int[Array, ""]
    ) -> tuple[IsokineticState, Info]:
        direction_key, accept_key = jax.random.split(key)
        density = log_density(target, batch, tuning.tempering)
        scale = jnp.sqrt(tuning.inverse_mass_matrix)
        length = spread(tuning.trajectory_length, tuning.jitter, step)
        num_steps = count_steps(length, tuning.step_size, tuning.max_num_steps)

        def advance(_: Any, carry: tuple[IsokineticState, Array]) -> tuple[IsokineticState, Array]:
            moved, change = isokinetic.move(density, carry[0], tuning.step_size, scale)
            return moved._replace(direction=isokinetic.unit(moved.direction)), carry[1] + change  # lest rounding add up

        begun = state._replace(direction=isokinetic.even_direction(direction_key, state.direction))
        end, kinetic = jax.lax.fori_loop(0, num_steps, advance, (begun, jnp.zeros_like(state.logdensity)))
        energy_error = kinetic - end.logdensity + state.logdensity
        acceptance_rate = jnp.where(jnp.isfinite(energy_error), jnp.exp(jnp.minimum(-energy_error, 0)), 0.0)
        is_accepted = jax.random.uniform(accept_key, dtype=acceptance_rate.dtype) < acceptance_rate
        new = jax.tree.map(lambda a, b: jnp.where(is_accepted, a, b), end, begun)
        nan = jnp.full_like(energy_error, jnp.nan)
        info = Info(
            num_gradients=(GRADIENTS_A_STEP * num_steps).astype(jnp.float32),
            acceptance_rate=acceptance_rate,
            energy=nan,
            energy_error=energy_error,
            kinetic_temperature=nan,
            is_divergent=~(energy_error < divergence_threshold),
            is_finite=jnp.isfinite(new.logdensity),
        )
        return new, info

    return init, step
