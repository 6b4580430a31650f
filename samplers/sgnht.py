"""The stochastic-gradient Nosé-Hoover thermostat: momentum whose friction adapts to the gradient noise."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from samplers.arguments import require_positive
from samplers.minibatch import minibatch
from samplers.schedules import Schedule, constant
from samplers.stochastic import kinetic_temperature, normal_like, scheduled, shaped, stochastic_info
from samplers.targets import log_density
from samplers.types import Batch, Info, Kernel, Position, Target, Tempering


class SGNHTTuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        step_size: h in the update below, > 0; multiplied by the schedule.
        friction: gamma, > 0; sets the injected noise, and is the friction with which the thermostat begins.
        thermostat_time: tau, > 0; time in which the thermostat answers.
        inverse_mass_matrix: Scalar, or [d] in the order of `ravel_pytree`.
        tempering: Temperatures of the target.
    """

    step_size: Float[Array, ""]
    friction: Float[Array, ""]
    thermostat_time: Float[Array, ""]
    inverse_mass_matrix: Float[Array, "..."]
    tempering: Tempering


class SGNHTState(NamedTuple):
    """Position, momentum, and the present friction of the thermostat."""

    position: Position
    momentum: Position
    friction: Float[Array, ""]


def sgnht(
    target: Target,
    *,
    step_size: float,
    friction: float,
    thermostat_time: float = 1.0,
    batch_size: int | None = None,
    replacement: bool = False,
    schedule: Schedule | None = None,
    inverse_mass_matrix: float | Float[Array, " d"] = 1.0,
    tempering: Tempering | None = None,
) -> Kernel:
    r"""Sample with a stochastic-gradient Nosé-Hoover thermostat: SGHMC that measures its own heat and takes it out.

    Minibatch noise of unknown size heats the momentum; a thermostat :math:`\zeta` raises the friction until the kinetic
    temperature is 1 again. Exact, to the order of the step, if the noise is Gaussian and equal in all directions and at all
    positions; on networks it is neither, so look at the configurational temperature of each layer.

    .. math:: d\theta = M^{-1} p\, dt, \quad dp = \nabla \log \pi\, dt - \zeta p\, dt + \sqrt{2 \gamma M}\, dW, \quad
        d\zeta = \tfrac{1}{\tau^2} \left(\tfrac{p^\top M^{-1} p}{d} - 1\right) dt

    Integrated by a splitting (B A D O D A, each part solved exactly) with one gradient a step. Where a schedule injects no noise
    the thermostat rests, lest it take the cold for a lack of heat and drive the momentum.

    Args:
        target: The distribution.
        step_size: h, > 0.
        friction: gamma, > 0.
        thermostat_time: tau, > 0.
        batch_size: Examples in a minibatch; None takes all data at every step.
        replacement: Draw every minibatch afresh instead of by epochs.
        schedule: Multiplies the step size; default constant.
        inverse_mass_matrix: Scalar or [d] diagonal.
        tempering: Temperatures; default the posterior itself.

    Returns:
        A kernel whose state is `SGNHTState` and whose tuning is `SGNHTTuning`.

    Raises:
        ValueError: An argument outside its range.

    References:
        Ding et al. 2014; splitting: Leimkuhler & Shang 2016, arXiv 1505.06889, section 3 (BADODAB).
    """
    require_positive(step_size=step_size, friction=friction, thermostat_time=thermostat_time)
    tuning = SGNHTTuning(
        jnp.asarray(step_size, jnp.float32),
        jnp.asarray(friction, jnp.float32),
        jnp.asarray(thermostat_time, jnp.float32),
        jnp.asarray(inverse_mass_matrix, jnp.float32),
        Tempering.at() if tempering is None else tempering,
    )
    kernel = Kernel(*_functions(target, schedule or constant()), tuning)
    return minibatch(kernel, target.num_data, batch_size, replacement=replacement)


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(target: Target, schedule: Schedule) -> tuple[Any, Any]:
    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: SGNHTTuning) -> SGNHTState:
        inverse_mass = shaped(tuning.inverse_mass_matrix, position)
        momentum = jax.tree.map(lambda n, m: n / jnp.sqrt(m), normal_like(key, position), inverse_mass)
        return SGNHTState(position, momentum, tuning.friction)

    def step(
        key: Key[Array, ""], state: SGNHTState, batch: Batch, tuning: SGNHTTuning, step: Int[Array, ""]
    ) -> tuple[SGNHTState, Info]:
        h, is_noisy = scheduled(schedule, tuning.step_size, step)
        inverse_mass = shaped(tuning.inverse_mass_matrix, state.position)
        gradient = jax.grad(log_density(target, batch, tuning.tempering))(state.position)

        def add(x: Position, factor: Array, y: Position) -> Position:
            return jax.tree.map(lambda a, b: a + factor.astype(a.dtype) * b, x, y)

        def velocity(p: Position) -> Position:
            return jax.tree.map(jnp.multiply, inverse_mass, p)

        def answer(friction: Array, p: Position) -> Array:
            heat = is_noisy * (kinetic_temperature(p, inverse_mass) - 1)
            return (friction + 0.5 * h * heat / tuning.thermostat_time**2).astype(friction.dtype)

        momentum = add(state.momentum, h, gradient)
        position = add(state.position, 0.5 * h, velocity(momentum))
        friction = answer(state.friction, momentum)
        # dp = -zeta p dt + sqrt(2 gamma M) dW over h, solved exactly for any sign of zeta; its variance tends to 2 gamma h at 0.
        decay = 2 * h * friction
        small = jnp.abs(decay) < 1e-4
        spread = jnp.where(small, 1 - decay / 2, -jnp.expm1(-decay) / jnp.where(small, 1.0, decay))
        kept, injected = jnp.exp(-0.5 * decay), is_noisy * jnp.sqrt(2 * tuning.friction * h * spread)
        noise = jax.tree.map(lambda n, m: n / jnp.sqrt(m), normal_like(key, position), inverse_mass)
        momentum = add(jax.tree.map(lambda p: kept.astype(p.dtype) * p, momentum), injected, noise)
        friction = answer(friction, momentum)
        position = add(position, 0.5 * h, velocity(momentum))
        info = stochastic_info(position, kinetic_temperature=kinetic_temperature(momentum, inverse_mass))
        return SGNHTState(position, momentum, friction), info

    return init, step
