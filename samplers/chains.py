"""The chains of a run as a sampler of all of them sees them: to be mapped over, and to be added up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from samplers.blocks import map_blocks, tree_sum

CHAIN_AXIS = "chain"


@dataclasses.dataclass(frozen=True)
class Chains:
    """What a `Sampler` knows of the chains that it moves; of use on the devices of a run only, while `sample` runs it.

    Rows are what a device has of arrays with a leading chain axis: those of its own chains, then perhaps copies of chains, which
    fill up its blocks.

    Attributes:
        number: Chains of the run, on all devices.
        block: Chains that move together in one vmap.
    """

    number: int
    block: int

    def map(self, function: Callable[..., Any], *rows: PyTree) -> Any:
        """Apply a function of one chain to every row."""
        return map_blocks(function, self.block, *rows)

    def sum(self, rows: PyTree) -> PyTree:
        """Add up the rows of all chains, on every device, in an order and so with bits that do not depend on the mesh."""
        # Barriers, lest XLA fuse the sum with what is around it, and round in another way on another mesh.
        return jax.lax.optimization_barrier(jax.tree.map(self._sum, jax.lax.optimization_barrier(rows)))

    def _sum(self, rows: Float[Array, "chain ..."]) -> Float[Array, "..."]:
        flat = rows.reshape(rows.shape[0], -1)
        width, num_devices = flat.shape[1], jax.lax.axis_size(CHAIN_AXIS)
        # Each device adds up a share of the columns, so that none holds the positions of all chains.
        share = jnp.pad(flat, ((0, 0), (0, -width % num_devices)))
        share = jax.lax.all_to_all(share, CHAIN_AXIS, split_axis=1, concat_axis=0, tiled=True)[: self.number]
        size = 1 << (self.number - 1).bit_length()
        total = tree_sum(jnp.pad(share, ((0, size - self.number), (0, 0))), size)
        return jax.lax.all_gather(total, CHAIN_AXIS, tiled=True)[:width].reshape(rows.shape[1:])
