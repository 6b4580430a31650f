"""The sampling steps of a cyclical schedule as the steps of a kernel, so that every draw is one that counts."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from samplers.schedules import num_exploring
from samplers.types import Batch, Info, Kernel, State, Tuning


def skip_exploration(kernel: Kernel, cycle_length: int, *, exploration: float = 0.5, first_step: int = 0) -> Kernel:
    r"""Return a kernel whose steps are those of another one that sample; those that explore are taken on the way to them.

    Draws of a cyclical schedule count only where noise is injected. With c steps in a cycle, of which the first e explore, step t
    of this kernel is step :math:`f + c \lfloor (t - f) / (c - e) \rfloor + e + (t - f) \bmod (c - e)` of the other one, and the
    first one of a cycle takes the e steps before it as well. Draws kept every so many steps, from a multiple of c - e on, are
    therefore the same distance apart in every cycle, and none is of a step that explores.

    Args:
        kernel: With the schedule `cyclical(cycle_length, exploration)`.
        cycle_length: c, steps of a cycle.
        exploration: Share of a cycle, from its start, that explores; e is its number of steps.
        first_step: f, step at which a cycle begins and from which steps are skipped: the length of a burn-in with the given
            kernel, a multiple of c.

    Returns:
        A kernel whose state and tuning are the given one's. Info is that of the last step; its gradients are summed, and it tells
        of divergent and non-finite steps if there was any.

    Raises:
        ValueError: No step of a cycle samples, or `first_step` begins no cycle.

    References:
        Zhang et al. 2020, arXiv 1902.03932, algorithm 1.
    """
    exploring = num_exploring(cycle_length, exploration)
    if first_step % cycle_length:
        raise ValueError(f"first_step must be a multiple of cycle_length {cycle_length}, where a cycle begins; got {first_step}")
    step = _step(kernel.step, cycle_length, exploring, first_step)
    return Kernel(kernel.init, step, kernel.initial_tuning)


@functools.lru_cache(maxsize=64)  # the same function for the same kernel, so that nothing recompiles
def _step(kernel_step: Any, cycle_length: int, exploring: int, first_step: int) -> Any:
    def steps_before(step: Int[Array, ""]) -> Int[Array, ""]:
        cycle, place = jnp.divmod(step - first_step, cycle_length - exploring)
        return first_step + cycle * cycle_length + jnp.where(place > 0, exploring + place, 0)

    def step(key: Key[Array, ""], state: State, batch: Batch, tuning: Tuning, step: Int[Array, ""]) -> tuple[State, Info]:
        def one(index: Int[Array, ""], carry: tuple[State, Info]) -> tuple[State, Info]:
            state, before = carry
            state, info = kernel_step(jax.random.fold_in(key, index), state, batch, tuning, index)
            return state, info._replace(
                num_gradients=before.num_gradients + info.num_gradients,
                is_divergent=before.is_divergent | info.is_divergent,
                is_finite=before.is_finite & info.is_finite,
            )

        types: Info = jax.eval_shape(kernel_step, key, state, batch, tuning, step)[1]
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), types)
        carry = (state, nothing._replace(is_finite=~nothing.is_finite))
        return jax.lax.fori_loop(steps_before(step), steps_before(step + 1), one, carry)

    return step
