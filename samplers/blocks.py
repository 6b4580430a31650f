"""A function of one chain, or of one block of data, applied to many with the same bits however many they are; and their sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree


def map_blocks(function: Callable[..., Any], width: int, *rows: PyTree) -> Any:
    """Apply a function of one row to all of them, in blocks of `width` vmapped rows; every leaf has a leading axis of rows.

    What a row gives does not depend on the number of rows. Forward only: reverse-mode derivatives do not pass through.
    """
    return over_blocks(lambda *block: each_row(function, *block), width, *rows)


def over_blocks(function: Callable[..., Any], width: int, *rows: PyTree) -> Any:
    """Apply a function of `width` rows to all of them, one block after the other."""
    blocks = jax.tree.map(lambda x: x.reshape(-1, width, *x.shape[1:]), rows)
    num_blocks = jax.tree.leaves(blocks)[0].shape[0]

    def body(index: Any, done: Any) -> Any:
        # Barriers, lest XLA fuse a row's arithmetic with the arrays of all rows, whose number then decides about its bits.
        # With the index, lest XLA move a lone block, and what is computed of it alone, out of the loop.
        block, index = jax.lax.optimization_barrier((jax.tree.map(lambda x: x[index], blocks), index))
        result = jax.lax.optimization_barrier(function(*block))
        return jax.tree.map(lambda all_, x: jax.lax.dynamic_update_index_in_dim(all_, x, index, 0), done, result)

    types = jax.eval_shape(function, *jax.tree.map(lambda x: x[0], blocks))
    done = jax.tree.map(lambda t: jnp.zeros((num_blocks, *t.shape), t.dtype), types)
    # XLA must not see the trip count: it inlines a loop of one trip, and a lone row on a device would get other bits.
    done = jax.lax.fori_loop(0, _opaque(num_blocks), body, done)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), done)


def each_row(function: Callable[..., Any], *rows: PyTree) -> Any:
    """Apply a function of one row to all of them at once."""
    if jax.tree.leaves(rows)[0].shape[0] > 1:
        return jax.vmap(function)(*rows)
    one = function(*jax.tree.map(lambda x: x[0], rows))  # cheaper than a vmap of width 1
    return jax.tree.map(lambda x: jnp.asarray(x)[None], one)


def tree_sum(rows: PyTree, size: int) -> PyTree:
    """Add along the leading axis, whose size is a power of two, in a binary tree."""
    while size > 1:
        rows, size = jax.tree.map(lambda x: x[0::2] + x[1::2], rows), size // 2
    return jax.tree.map(lambda x: x[0], rows)


def _opaque(value: int) -> Int[Array, ""]:
    """Return a constant that the compiler cannot fold."""
    return jax.lax.optimization_barrier(jnp.int32(value))
