"""What the processes of one computation need: arrays that lie over all of them, and decisions that they take alike.

Every process runs the same program on the same arguments (`jax.distributed`). A function here that waits for the others says so:
all processes must call it, at the same place. With a single process each of them costs nothing.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding
from jaxtyping import PyTree
from numpy.typing import ArrayLike


def is_first() -> bool:
    """Return whether this process is the one that writes what all have in common."""
    return jax.process_index() == 0


def gather(value: ArrayLike) -> np.ndarray:
    """Return a small array of every process, [process, ...], bit for bit; waits for all of them."""
    array = np.asarray(value)
    if jax.process_count() == 1:
        return array[None]
    # As bytes, since JAX would round float64 to float32.
    gathered = np.asarray(multihost_utils.process_allgather(np.frombuffer(array.tobytes(), np.uint8)))
    return np.frombuffer(gathered.tobytes(), array.dtype).reshape(-1, *array.shape)


def from_first(tree: PyTree, like: PyTree) -> PyTree:
    """Return in every process the arrays of the first; waits for it.

    Args:
        tree: What the first process has; that of others is not looked at.
        like: Its structure, shapes and types.
    """
    if jax.process_count() == 1:
        return tree
    own = tree if is_first() else jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    return multihost_utils.broadcast_one_to_all(own)


def place(array: Any, sharding: Sharding) -> Any:
    """Put an array that every process has alike on the devices of a sharding; each process reads only what its devices need."""
    if isinstance(array, jax.core.Tracer):
        return array
    if not is_local(array) or sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = place(jax.random.key_data(array), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def is_local(array: Any) -> bool:
    """Return whether this process has all of an array, as nothing but an array over several processes' devices has not."""
    return not isinstance(array, jax.Array) or array.is_fully_addressable


def own(array: Any) -> np.ndarray:
    """Return the rows of an array that this process keeps, in their order; each row is kept by exactly one process.

    Of the processes that have a copy of a row, the one with the first copy keeps it.
    """
    return np.asarray(array) if is_local(array) else np.concatenate(own_parts(array))


def own_parts(array: jax.Array) -> list[np.ndarray]:
    """Return the same in parts, as they lie on the devices of this process; on a CPU nothing is copied."""
    kept = [shard for shard in array.addressable_shards if shard.replica_id == 0]
    kept.sort(key=lambda shard: shard.index[0].start or 0)
    return [np.zeros((0, *array.shape[1:]), array.dtype), *(np.asarray(shard.data) for shard in kept)]


def whole(array: Any) -> np.ndarray:
    """Return an array with the rows of all processes; waits for all of them."""
    if is_local(array) or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def whole_columns(columns: tuple[Any, ...]) -> list[Any]:
    """Return arrays of one shape and type with the rows of all processes; waits for these once."""
    if is_local(columns[0]):
        return [np.asarray(x) for x in columns]
    return list(np.moveaxis(whole(jnp.stack(columns, axis=-1)), -1, 0))
