"""Down to a minimum of the loss itself, which a minimum of the negative log posterior is not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

import samplers
from samplers import Batch, Target, Tempering

# Curvature pairs that L-BFGS remembers: the number that its authors recommend, 3 to 20 (Liu & Nocedal 1989).
MEMORY = 10


class Minimum(NamedTuple):
    """Where a descent ended.

    Attributes:
        position: The lowest position that it met.
        decrease: By how much the mean loss fell, nats an example.
        num_steps: Steps taken.
    """

    position: PyTree
    decrease: float
    num_steps: int


def minimise_loss(target: Target, batch: Batch, position: PyTree, *, num_steps: int, tolerance: float = 1e-6) -> Minimum:
    """Minimise the mean loss, minus the mean log likelihood, by L-BFGS.

    Args:
        target: Its prior does not count.
        batch: Its data.
        position: Where to set out, of one chain.
        num_steps: Steps at most.
        tolerance: Ends the descent when the gradient of the mean loss has shrunk below it, in the largest of its entries.

    Raises:
        ValueError: The target has no data, or the loss is not finite at the start.
    """
    if target.num_data == 0:
        raise ValueError("a target without data has no loss; give prior and likelihood apart (samplers.Target)")
    centred, data = samplers.centred(target._replace(log_prior=_flat), batch, position)
    lowest, loss, steps = _program(centred)(position, data, num_steps, tolerance)
    if not jnp.isfinite(loss):
        raise ValueError("the loss is not finite where the descent sets out")
    return Minimum(lowest, float(-loss), int(steps))


@functools.lru_cache(maxsize=64)  # the same program for the same target, so that nothing recompiles
def _program(target: Target) -> Callable[..., tuple[PyTree, Array, Array]]:
    optimiser = optax.lbfgs(memory_size=MEMORY)

    @jax.jit
    def descend(position: PyTree, batch: Batch, num_steps: Any, tolerance: Any) -> tuple[PyTree, Array, Array]:
        density = samplers.log_density(target, batch, Tempering.at())

        def loss(p: PyTree) -> Float[Array, ""]:
            return -density(p) / target.num_data

        def is_under_way(carry: Any) -> Any:
            *_, slope, steps = carry
            return (steps < num_steps) & (optax.tree.norm(slope, ord=jnp.inf) > tolerance)

        def step(carry: Any) -> Any:
            p, state, lowest, least, _, steps = carry
            value, slope = jax.value_and_grad(loss)(p)
            updates, state = optimiser.update(slope, state, p, value=value, grad=slope, value_fn=loss)
            p = optax.apply_updates(p, updates)
            value = loss(p)
            is_lower = value < least
            lowest = jax.tree.map(lambda new, old: jnp.where(is_lower, new, old), p, lowest)
            return p, state, lowest, jnp.minimum(value, least), slope, steps + 1

        value, slope = jax.value_and_grad(loss)(position)
        start = (position, optimiser.init(position), position, value, slope, jnp.int32(0))
        _, _, lowest, least, _, steps = jax.lax.while_loop(is_under_way, step, start)
        return lowest, least, steps

    return descend


def _flat(position: PyTree, constants: PyTree) -> Float[Array, ""]:
    return jnp.zeros((), jax.tree.leaves(position)[0].dtype)
