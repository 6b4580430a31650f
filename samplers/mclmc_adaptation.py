"""Warm-up of microcanonical Langevin Monte Carlo: step size by the energy error, metric and decoherence length by variances."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from samplers.arguments import require_positive, require_share
from samplers.types import Batch, Info, Kernel, Position, State, Tuning
from samplers.vectors import ravel
from samplers.warmup import WarmUp

# Energy errors of one step grow with its sixth power in variance (third in size); log-normal weight and memory of the running
# estimate are those of Robnik et al. 2023 (arXiv 2212.08549, section 4.2).
POWER = 6.0
LOG_WIDTH = 1.5 * POWER
MEMORY_STEPS = 150.0
# Share of the warm-up that only finds a step size; the next part measures variances; the last settles the step size again.
FIRST, SECOND = 0.3, 0.8
# The energy variance aimed at begins so many times higher and falls in a straight line until the variances are known: a chain on
# its way to the bulk gains more from long steps than from right ones. Five is what sklearn-contrib-bde 1.0.2 begins with.
SLACK = 5.0


class MCLMCAdaptationState(NamedTuple):
    """State of the warm-up of one chain.

    Attributes:
        inner: State of the tuned kernel.
        step: Warm-up steps taken.
        step_size: Present step size.
        weight: Sum of the weights of the running step-size estimate.
        average: Their weighted sum of (energy error variance / step size^6).
        num_positions: Positions in the running moments.
        mean: [d] running mean.
        squares: [d] running sum of squared deviations (Welford).
    """

    inner: State
    step: Int[Array, ""]
    step_size: Float[Array, ""]
    weight: Float[Array, ""]
    average: Float[Array, ""]
    num_positions: Float[Array, ""]
    mean: Float[Array, " d"]
    squares: Float[Array, " d"]

    @property
    def position(self) -> Position:
        """Position of the tuned kernel."""
        return self.inner.position


def mclmc_adaptation(kernel: Kernel, *, num_steps: int, energy_variance: float = 5e-4, is_diagonal: bool = False) -> WarmUp:
    """Adapt step size and decoherence length of `mclmc`, and its metric if asked, each chain on its own, with no history kept.

    The step size is the one at which the energy error of a step has the wanted variance per dimension; until the variances are
    known, a variance up to five times higher, with which chains that start far away arrive sooner. Energies in float32 carry a
    rounding error that no step size makes smaller; a tuner that took it for the integrator's would shrink the step to nothing. So
    the rounding variance of each energy is subtracted from its squared error first.

    Args:
        kernel: An `mclmc` kernel.
        num_steps: Length of the warm-up, >= 1.
        energy_variance: Wanted variance of a step's energy error per dimension; sets the bias of the draws.
        is_diagonal: Adapt a diagonal metric too; the decoherence length is then sqrt(d). Otherwise it is the square root of the
            summed variances, in the metric that the kernel has.

    Returns:
        The warm-up, for `finish`.

    Raises:
        ValueError: An argument outside its range, or a kernel without step size and decoherence length.

    References:
        Robnik et al. 2023, arXiv 2212.08549, section 4.2; the third phase there, which needs a history of draws, is left out.
        Sommer et al. 2025, arXiv 2502.06335, start from the members of an ensemble.
    """
    require_positive(num_steps=num_steps)
    require_share(energy_variance=energy_variance)
    if not hasattr(kernel.initial_tuning, "decoherence_length"):
        raise ValueError("only mclmc has a decoherence length to adapt; use window_adaptation for this kernel")
    init, step, tuning_of = _functions(kernel.init, kernel.step, num_steps, energy_variance, is_diagonal)
    return WarmUp(Kernel(init, step, kernel.initial_tuning), tuning_of)


@functools.lru_cache(maxsize=64)  # the same functions for the same kernel, so that nothing recompiles
def _functions(
    kernel_init: Any, kernel_step: Any, num_steps: int, energy_variance: float, is_diagonal: bool
) -> tuple[Any, Any, Any]:
    first, second = int(FIRST * num_steps), int(SECOND * num_steps)

    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: Tuning) -> MCLMCAdaptationState:
        zero, zeros = jnp.float32(0), jnp.zeros_like(ravel(position)[0])
        inner = kernel_init(key, position, batch, tuning)
        return MCLMCAdaptationState(inner, jnp.int32(0), tuning.step_size, zero, zero, zero, zeros, zeros)

    def current(state: MCLMCAdaptationState, tuning: Tuning) -> Tuning:
        """The tuning at a step: of the kernel's own until the variances are known."""
        is_known = (state.step >= second) & (state.num_positions > 1)
        variance = jnp.where(is_known, state.squares / jnp.maximum(state.num_positions - 1, 1), 1.0)
        inverse_mass = jnp.broadcast_to(tuning.inverse_mass_matrix, variance.shape)
        if is_diagonal:
            inverse_mass = jnp.where(is_known, variance, inverse_mass).astype(inverse_mass.dtype)
        length = jnp.sqrt(jnp.sum(variance / inverse_mass))
        decoherence = jnp.where(is_known, length, tuning.decoherence_length).astype(jnp.float32)
        if not is_diagonal:
            inverse_mass = tuning.inverse_mass_matrix
        return tuning._replace(step_size=state.step_size, decoherence_length=decoherence, inverse_mass_matrix=inverse_mass)

    def step(
        key: Key[Array, ""], state: MCLMCAdaptationState, batch: Batch, tuning: Tuning, step: Int[Array, ""]
    ) -> tuple[MCLMCAdaptationState, Info]:
        if is_diagonal:  # the metric, once it changes, is a vector
            tuning = tuning._replace(inverse_mass_matrix=jnp.broadcast_to(tuning.inverse_mass_matrix, state.mean.shape))
        inner, info = kernel_step(key, state.inner, batch, current(state, tuning), step)
        flat = ravel(inner.position)[0]
        step_size, weight, average = adapt(state, info, inner.logdensity, flat.size)
        is_restart = state.step + 1 == second  # a new metric has a new step size
        weight, average = (jnp.where(is_restart, 0.0, x) for x in (weight, average))
        is_measured = (state.step >= first) & (state.step < second) & ~info.is_divergent
        count = state.num_positions + is_measured
        delta = flat - state.mean
        mean = state.mean + is_measured * delta / jnp.maximum(count, 1).astype(flat.dtype)
        squares = state.squares + is_measured * delta * (flat - mean)
        moved = MCLMCAdaptationState(inner, state.step + 1, step_size, weight, average, count, mean, squares)
        return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), moved, state._replace(inner=inner)), info

    def adapt(state: MCLMCAdaptationState, info: Info, logdensity: Array, num_dims: int) -> tuple[Array, Array, Array]:
        # Energy errors are differences of two log densities, each rounded to half a unit in the last place or more.
        rounding = 2 * (jnp.finfo(logdensity.dtype).eps * jnp.abs(logdensity)) ** 2
        excess = jnp.maximum(info.energy_error**2 - rounding, 0.0)
        slack = 1 + (SLACK - 1) * jnp.maximum(1 - state.step / max(second, 1), 0)
        xi = (excess / (num_dims * energy_variance * slack) + 1e-8).astype(jnp.float32)
        weight = jnp.exp(-0.5 * (jnp.log(xi) / LOG_WIDTH) ** 2)
        kept = (MEMORY_STEPS - 1) / (MEMORY_STEPS + 1)
        weights = kept * state.weight + weight
        average = kept * state.average + weight * xi / state.step_size**POWER
        step_size = (average / weights) ** (-1 / POWER)
        # A step that the kernel undid says only that the step was far too large.
        undone = 0.5 * state.step_size, state.weight, state.average
        learned = jnp.minimum(step_size, 2 * state.step_size), weights, average
        return jax.tree.map(functools.partial(jnp.where, info.is_divergent), undone, learned)

    def tuning_of(state: MCLMCAdaptationState, tuning: Tuning) -> Tuning:
        return current(state._replace(step=jnp.int32(num_steps)), tuning)

    return init, step, tuning_of
