"""Stochastic-gradient Hamiltonian Monte Carlo: Langevin dynamics with momentum."""

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


class SGHMCTuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        step_size: h in the update below, > 0; multiplied by the schedule.
        friction: gamma, > 0; 1 / friction is the time over which momentum is forgotten.
        inverse_mass_matrix: Scalar, or [d] in the order of `ravel_pytree`.
        tempering: Temperatures of the target.
    """

    step_size: Float[Array, ""]
    friction: Float[Array, ""]
    inverse_mass_matrix: Float[Array, "..."]
    tempering: Tempering


class SGHMCState(NamedTuple):
    """Position, and the momentum that is carried from step to step."""

    position: Position
    momentum: Position


def sghmc(
    target: Target,
    *,
    step_size: float,
    friction: float,
    batch_size: int | None = None,
    replacement: bool = False,
    schedule: Schedule | None = None,
    inverse_mass_matrix: float | Float[Array, " d"] = 1.0,
    tempering: Tempering | None = None,
) -> Kernel:
    r"""Sample with (stochastic-gradient) Hamiltonian Monte Carlo: momentum carried between steps, no accept step.

    Underdamped Langevin dynamics by a second-order splitting, one gradient a step:

    .. math:: p \leftarrow p + h\, \nabla \log \pi(\theta), \quad \theta \leftarrow \theta + \tfrac{h}{2} M^{-1} p, \quad
        p \leftarrow e^{-\gamma h} p + \sqrt{1 - e^{-2 \gamma h}}\, M^{1/2} \xi, \quad
        \theta \leftarrow \theta + \tfrac{h}{2} M^{-1} p

    Positions have the law of the BAOAB scheme: with full-batch gradients a Gaussian is sampled without any bias of its variance,
    other targets with a bias O(h^2). Minibatch noise of
    covariance C heats the momentum by h C / (2 gamma) on top: more friction, smaller steps, larger batches, `control_variates` or
    `sgnht`, which measures the heat and takes it out.

    Args:
        target: The distribution.
        step_size: h, > 0.
        friction: gamma, > 0.
        batch_size: Examples in a minibatch; None takes all data at every step.
        replacement: Draw every minibatch afresh instead of by epochs.
        schedule: Multiplies the step size; default constant.
        inverse_mass_matrix: Scalar or [d] diagonal; about the posterior variance of each direction.
        tempering: Temperatures; default the posterior itself.

    Returns:
        A kernel whose state is `SGHMCState` and whose tuning is `SGHMCTuning`.

    Raises:
        ValueError: An argument outside its range.

    References:
        Chen, Fox & Guestrin 2014, arXiv 1402.4102; second-order splittings: Chen, Ding & Carin 2015, arXiv 1610.06665; BAOAB:
        Leimkuhler & Matthews 2013, arXiv 1203.5428.
    """
    require_positive(step_size=step_size, friction=friction)
    tuning = SGHMCTuning(
        jnp.asarray(step_size, jnp.float32),
        jnp.asarray(friction, jnp.float32),
        jnp.asarray(inverse_mass_matrix, jnp.float32),
        Tempering.at() if tempering is None else tempering,
    )
    kernel = Kernel(*_functions(target, schedule or constant()), tuning)
    return minibatch(kernel, target.num_data, batch_size, replacement=replacement)


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(target: Target, schedule: Schedule) -> tuple[Any, Any]:
    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: SGHMCTuning) -> SGHMCState:
        inverse_mass = shaped(tuning.inverse_mass_matrix, position)
        momentum = jax.tree.map(lambda n, m: n / jnp.sqrt(m), normal_like(key, position), inverse_mass)
        return SGHMCState(position, momentum)

    def step(
        key: Key[Array, ""], state: SGHMCState, batch: Batch, tuning: SGHMCTuning, step: Int[Array, ""]
    ) -> tuple[SGHMCState, Info]:
        h, is_noisy = scheduled(schedule, tuning.step_size, step)
        kept, renewed = jnp.exp(-tuning.friction * h), is_noisy * jnp.sqrt(-jnp.expm1(-2 * tuning.friction * h))
        gradient = jax.grad(log_density(target, batch, tuning.tempering))(state.position)
        inverse_mass = shaped(tuning.inverse_mass_matrix, state.position)

        def move(x: Array, p: Array, g: Array, m: Array, noise: Array) -> tuple[Array, Array]:
            half, keep, renew = (0.5 * h).astype(x.dtype), kept.astype(x.dtype), renewed.astype(x.dtype)
            p = p + 2 * half * g
            x = x + half * m * p
            p = keep * p + renew * noise / jnp.sqrt(m)
            return x + half * m * p, p

        noise = normal_like(key, state.position)
        moved = jax.tree.map(move, state.position, state.momentum, gradient, inverse_mass, noise)
        position, momentum = jax.tree.transpose(jax.tree.structure(state.position), jax.tree.structure((0, 0)), moved)
        info = stochastic_info(position, kinetic_temperature=kinetic_temperature(momentum, inverse_mass))
        return SGHMCState(position, momentum), info

    return init, step
