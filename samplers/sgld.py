"""Stochastic-gradient Langevin dynamics, with an optional preconditioner."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from samplers.arguments import require_positive
from samplers.minibatch import minibatch
from samplers.preconditioners import Preconditioner
from samplers.schedules import Schedule, constant
from samplers.stochastic import normal_like, scheduled, stochastic_info
from samplers.targets import log_density
from samplers.types import Batch, Info, Kernel, Position, Target, Tempering


class SGLDTuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        step_size: epsilon in the update below, > 0; multiplied by the schedule.
        tempering: Temperatures of the target.
    """

    step_size: Float[Array, ""]
    tempering: Tempering


class SGLDState(NamedTuple):
    """Position, and the state of the preconditioner."""

    position: Position
    preconditioner: Any


def sgld(
    target: Target,
    *,
    step_size: float,
    batch_size: int | None = None,
    replacement: bool = False,
    schedule: Schedule | None = None,
    preconditioner: Preconditioner | None = None,
    tempering: Tempering | None = None,
) -> Kernel:
    r"""Sample with (stochastic-gradient) Langevin dynamics: no accept step, bias O(step_size).

    For data too large for full-batch gradients, as a fast approximation whose bias must be measured, not assumed: halve the step
    size and see what moves. On a Gaussian direction of precision a, full-batch, the stationary variance is
    :math:`1 / (a (1 - \epsilon a / 4))`.

    .. math:: \theta \leftarrow \theta + \tfrac{\epsilon}{2} (G \nabla \log \pi(\theta) + \Gamma) + \sqrt{\epsilon G}\, \xi,
        \quad \xi \sim N(0, I)

    with :math:`\pi` the tempered target, its gradient estimated on a minibatch, G the preconditioner and
    :math:`\Gamma_i = \partial_i G_{ii}`.

    Args:
        target: The distribution.
        step_size: epsilon, > 0. (BlackJAX's step is half of it.)
        batch_size: Examples in a minibatch; None takes all data at every step.
        replacement: Draw every minibatch afresh instead of by epochs.
        schedule: Multiplies the step size, and says which steps sample; default constant.
        preconditioner: Such as `samplers.rmsprop()`; None is the identity.
        tempering: Temperatures; default the posterior itself.

    Returns:
        A kernel whose tuning is `SGLDTuning`.

    Raises:
        ValueError: A step size or batch size outside its range.

    References:
        Welling & Teh 2011. Preconditioned: Li et al. 2016, arXiv 1512.07666, eq. 4. Stationary variance: Vollmer et al. 2016,
        arXiv 1501.00438.
    """
    require_positive(step_size=step_size)
    tuning = SGLDTuning(jnp.asarray(step_size, jnp.float32), Tempering.at() if tempering is None else tempering)
    kernel = Kernel(*_functions(target, schedule or constant(), preconditioner), tuning)
    return minibatch(kernel, target.num_data, batch_size, replacement=replacement)


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(target: Target, schedule: Schedule, preconditioner: Preconditioner | None) -> tuple[Any, Any]:
    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: SGLDTuning) -> SGLDState:
        return SGLDState(position, preconditioner.init(position) if preconditioner else ())

    def step(
        key: Key[Array, ""], state: SGLDState, batch: Batch, tuning: SGLDTuning, step: Int[Array, ""]
    ) -> tuple[SGLDState, Info]:
        noise_key, probe_key = jax.random.split(key)
        gradient = jax.grad(log_density(target, batch, tuning.tempering))
        epsilon, is_noisy = scheduled(schedule, tuning.step_size, step)
        noise = normal_like(noise_key, state.position)
        if preconditioner is None:
            drift, carry, num_gradients = gradient(state.position), (), 1
        else:
            drift, scale, carry = preconditioner.apply(probe_key, state.preconditioner, state.position, gradient)
            noise = jax.tree.map(lambda s, n: jnp.sqrt(s) * n, scale, noise)
            num_gradients = preconditioner.num_gradients

        def move(x: Array, d: Array, n: Array) -> Array:
            e = epsilon.astype(x.dtype)  # a float32 step must not promote the position
            return x + 0.5 * e * d + is_noisy.astype(x.dtype) * jnp.sqrt(e) * n

        position = jax.tree.map(move, state.position, drift, noise)
        return SGLDState(position, carry), stochastic_info(position, num_gradients)

    return init, step
