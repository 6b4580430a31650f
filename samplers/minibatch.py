"""Minibatches, each chain its own: without replacement by epochs, or with."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from samplers.types import Batch, Info, Kernel, Position, State, Tuning


class MinibatchState(NamedTuple):
    """State of a kernel that sees minibatches.

    Attributes:
        inner: State of the kernel.
        order: [epoch] this epoch's permutation of the examples, filled up to whole batches. Made once an epoch: a permutation a
            step would cost more than the gradient. () with replacement.
    """

    inner: State
    order: Int[Array, " epoch"] | tuple[()]

    @property
    def position(self) -> Position:
        """Position of the kernel."""
        return self.inner.position


def minibatch(kernel: Kernel, num_data: int, batch_size: int | None, *, replacement: bool = False) -> Kernel:
    """Feed a kernel minibatches: every example once an epoch, in an order that is new in every epoch and chain.

    The last batch of an epoch is filled with examples of weight 0, so that nothing is dropped; its likelihood is scaled by the
    examples that it really has. It is as loud as a batch of so few: choose a size that leaves nothing over, or much. Without
    replacement the errors of an epoch's gradients cancel, which lowers the bias that they cause; theory is mostly written for
    batches with replacement, which are there for comparison with it.

    Args:
        kernel: A kernel that accepts any batch.
        num_data: Examples in the data; rows beyond it are padding.
        batch_size: Examples in a batch, from 1 to num_data; None leaves the kernel as it is, with all data at every step.
        replacement: Draw every batch afresh, each example independently.

    Raises:
        ValueError: A batch size outside its range; when traced, data that are cut over devices.
    """
    if batch_size is None:
        return kernel
    if not 1 <= batch_size <= num_data:
        raise ValueError(f"batch_size must be from 1 to the number of examples ({num_data}), got {batch_size}")
    return Kernel(*_functions(kernel.init, kernel.step, num_data, batch_size, replacement), kernel.initial_tuning)


@functools.lru_cache(maxsize=64)  # the same functions for the same kernel, so that nothing recompiles
def _functions(kernel_init: Any, kernel_step: Any, num_data: int, batch_size: int, replacement: bool) -> tuple[Any, Any]:
    batches_an_epoch = -(-num_data // batch_size)
    padding = batches_an_epoch * batch_size - num_data

    def shuffle(key: Key[Array, ""]) -> Int[Array, " epoch"]:
        return jnp.pad(jax.random.permutation(key, num_data).astype(jnp.int32), (0, padding))

    def take(rows: Int[Array, " batch"], is_real: Any, batch: Batch) -> Batch:
        if (num_rows := batch.weight.shape[0]) < num_data:
            raise ValueError(f"a device has {num_rows} of {num_data} examples; minibatches need them all: use a mesh with data=1")
        return Batch(jax.tree.map(lambda x: x[rows], batch.data), batch.weight[rows] * is_real, batch.constants)

    def part(key: Key[Array, ""], order: Any, number: Int[Array, ""], batch: Batch) -> Batch:
        if replacement:
            return take(jax.random.randint(key, (batch_size,), 0, num_data), 1, batch)
        first = number * batch_size
        rows = jax.lax.dynamic_slice(order, (first,), (batch_size,))
        return take(rows, first + jnp.arange(batch_size) < num_data, batch)

    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: Tuning) -> MinibatchState:
        order_key, kernel_key = jax.random.split(key)
        order = () if replacement else shuffle(order_key)
        return MinibatchState(kernel_init(kernel_key, position, part(order_key, order, jnp.int32(0), batch), tuning), order)

    def step(
        key: Key[Array, ""], state: MinibatchState, batch: Batch, tuning: Tuning, step: Int[Array, ""]
    ) -> tuple[MinibatchState, Info]:
        order_key, kernel_key = jax.random.split(key)
        number, order = step % batches_an_epoch, state.order
        if not replacement:
            order = jax.lax.cond(number == 0, lambda: shuffle(order_key), lambda: state.order)
        inner, info = kernel_step(kernel_key, state.inner, part(order_key, order, number, batch), tuning, step)
        return MinibatchState(inner, order), info._replace(num_gradients=info.num_gradients * batch_size / num_data)

    return init, step
