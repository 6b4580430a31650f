"""Microcanonical Langevin Monte Carlo, unadjusted."""

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
from samplers.types import Batch, Info, Kernel, Target, Tempering


class MCLMCTuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        step_size: Of the integrator, > 0.
        decoherence_length: Distance over which the direction of motion is forgotten, > 0.
        inverse_mass_matrix: Scalar, or [d] in the order of `ravel_pytree`.
        tempering: Temperatures of the target.
    """

    step_size: Float[Array, ""]
    decoherence_length: Float[Array, ""]
    inverse_mass_matrix: Float[Array, "..."]
    tempering: Tempering


def mclmc(
    target: Target,
    *,
    step_size: float,
    decoherence_length: float,
    inverse_mass_matrix: float | Float[Array, " d"] = 1.0,
    tempering: Tempering | None = None,
    divergence_threshold: float = 1000.0,
) -> Kernel:
    r"""Sample with microcanonical Langevin Monte Carlo: no accept step, a bias set by the energy error.

    Often the cheapest way to a given accuracy in high dimension, two gradients a step and no rejections. Its bias cannot be read
    off the draws: the variance of the energy error per dimension governs it (the authors recommend 5e-4), so `mclmc_adaptation`
    tunes to that and every step reports its energy error. To measure the bias, compare with `adjusted_mclmc` or halve the step
    size.

    Args:
        target: The distribution, of two or more dimensions.
        step_size: Of the minimal-norm integrator, > 0.
        decoherence_length: L, > 0; about sqrt(d) times the posterior scale.
        inverse_mass_matrix: Scalar or [d] diagonal; about the posterior variance of each direction.
        tempering: Temperatures; default the posterior itself.
        divergence_threshold: Energy error of one step, nats, above which the step is undone and a new direction drawn.

    Returns:
        A kernel whose state is `IsokineticState` and whose tuning is `MCLMCTuning`.

    Raises:
        ValueError: A step size or length outside its range; when traced, a position of one dimension.

    References:
        Robnik, De Luca, Silverstein & Seljak 2023, arXiv 2212.08549; Robnik & Seljak 2024, arXiv 2303.18221.
    """
    require_positive(step_size=step_size, decoherence_length=decoherence_length)
    tuning = MCLMCTuning(
        jnp.asarray(step_size, jnp.float32),
        jnp.asarray(decoherence_length, jnp.float32),
        jnp.asarray(inverse_mass_matrix, jnp.float32),
        Tempering.at() if tempering is None else tempering,
    )
    return Kernel(*_functions(target, divergence_threshold), tuning)


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(target: Target, divergence_threshold: float) -> tuple[Any, Any]:
    def init(key: Array, position: PyTree, batch: Batch, tuning: MCLMCTuning) -> IsokineticState:
        return isokinetic.start(log_density(target, batch, tuning.tempering), position, key)

    def step(
        key: Array, state: IsokineticState, batch: Batch, tuning: MCLMCTuning, step: Int[Array, ""]
    ) -> tuple[IsokineticState, Info]:
        density = log_density(target, batch, tuning.tempering)
        # The noise of two half steps that meet between two draws is drawn at once: one normal a parameter and step.
        direction = isokinetic.turn(key, state.direction, tuning.step_size, tuning.decoherence_length)
        scale = jnp.sqrt(tuning.inverse_mass_matrix)
        moved, kinetic = isokinetic.move(density, state._replace(direction=direction), tuning.step_size, scale)
        energy_error = kinetic - moved.logdensity + state.logdensity
        is_divergent = ~(jnp.abs(energy_error) < divergence_threshold)
        stay = state._replace(direction=-direction)
        new = jax.tree.map(lambda a, b: jnp.where(is_divergent, a, b), stay, moved)
        nan = jnp.full_like(energy_error, jnp.nan)
        info = Info(
            num_gradients=jnp.float32(GRADIENTS_A_STEP),
            acceptance_rate=nan,
            energy=nan,
            energy_error=energy_error,
            kinetic_temperature=nan,
            is_divergent=is_divergent,
            is_finite=jnp.isfinite(new.logdensity),
        )
        return new, info

    return init, step
