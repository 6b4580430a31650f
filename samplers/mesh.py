"""Which chains run where: blocks of chains on a device, chains and data over a mesh of devices."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from samplers import processes
from samplers.chains import CHAIN_AXIS, Chains
from samplers.targets import DATA_AXIS
from samplers.types import Batch, PerChain, Run, Tuning

BY_CHAIN, BY_DATA, EVERYWHERE = PartitionSpec(CHAIN_AXIS), PartitionSpec(DATA_AXIS), PartitionSpec()


def make_mesh(num_chains: int, *, data: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh (chain, data) over the devices.

    Args:
        num_chains: Chains to be run; no more than this many devices are put on the chain axis.
        data: Devices that share the data of each chain, a power of two.
        devices: Defaults to all devices of this process; `jax.devices()` are those of all processes.

    Raises:
        ValueError: The devices do not divide by `data`, or some process would have none to work with.
    """
    devices = list(jax.local_devices() if devices is None else devices)
    if data < 1 or data & (data - 1) or data > len(devices):
        raise ValueError(f"data must be a power of two of at most {len(devices)} devices, got {data}")
    chain = min(len(devices) // data, num_chains)
    grid = np.array(_shared_out(devices, chain * data)).reshape(chain, data)
    # Auto axes: BlackJAX's NUTS and MCLMC do not trace under Explicit ones, the default of jax.make_mesh.
    return Mesh(grid, (CHAIN_AXIS, DATA_AXIS), axis_types=(AxisType.Auto, AxisType.Auto))


@functools.cache
def compiler_options() -> dict[str, str | int] | None:
    """Return XLA's options for programs that move chains: sums with the same bits on any mesh, and whole vector registers.

    On a CPU, XLA leaves a long sum to YNNPACK or splits it into a tree, depending on what surrounds it, which differs between
    programs for one device and for several (jaxlib 0.12). With products alone left to YNNPACK, every long sum is a tree. By
    itself it uses half of a vector register of 512 bits, for the sake of processors that slow down when all of it is used; with
    whole ones steps of a small network take 6 to 9 % less time (`benchmarks/RESULTS.md`).

    Returns:
        Options for `jax.jit`; None where XLA does not know them.
    """
    options: dict[str, str | int] = {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
        "xla_cpu_prefer_vector_width": 512,
    }
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return options


def mesh_shape(num_chains: int, data_blocks: int, num_devices: int) -> tuple[int, int]:
    """Return over how many devices to spread chains, and the data of each chain: chains first, data over what is left.

    Args:
        num_chains: Chains to be run.
        data_blocks: Of the target; as many devices at most share the data of a chain.
        num_devices: That there are.
    """
    to_share = min(data_blocks, max(num_devices // num_chains, 1))
    data = 1 << (to_share.bit_length() - 1)
    return min(num_devices // data, num_chains), data


def _shared_out(devices: Sequence[jax.Device], number: int) -> list[jax.Device]:
    """Return so many devices, as evenly as can be from every process, those of a process beside each other."""
    by_process: dict[int, list[jax.Device]] = {}
    for device in sorted(devices, key=lambda device: (device.process_index, device.id)):
        by_process.setdefault(device.process_index, []).append(device)
    if number < len(by_process):
        raise ValueError(
            f"{len(by_process)} processes have work for {number} devices only: start fewer processes, or ask for more chains "
            "or data blocks"
        )
    # Devices of processes in turn: the first of each, the second of each, ...
    turns = sorted((place, process) for process, own in by_process.items() for place in range(len(own)))[:number]
    return [by_process[process][place] for process, place in sorted((process, place) for place, process in turns)]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where chains and data live; compared by value, since compiled programs are cached on it.

    Attributes:
        mesh: Of devices.
        num_chains: Chains that are run.
        chain_block: Chains that move together in one vmap.
    """

    mesh: Mesh
    num_chains: int
    chain_block: int

    @classmethod
    def of(cls, num_chains: int, mesh: Mesh | None = None, chain_block: int | None = None) -> Layout:
        """Return the layout with the defaults of `samplers.sample`."""
        mesh = make_mesh(num_chains) if mesh is None else mesh
        if chain_block is None:
            on_cpu = mesh.devices.flat[0].platform == "cpu"
            chain_block = 1 if on_cpu else math.ceil(num_chains / mesh.shape[CHAIN_AXIS])
        if chain_block < 1:
            raise ValueError(f"chain_block must be at least 1, got {chain_block}")
        return cls(mesh, num_chains, chain_block)

    def pad(self, tree: PyTree) -> PyTree:
        """Repeat chains until every block on every device is full; the copies compute the same and are cut off again."""
        unit = self.chain_block * self.mesh.shape[CHAIN_AXIS]
        size = math.ceil(self.num_chains / unit) * unit
        if size == self.num_chains:
            return tree
        index = jnp.arange(size) % self.num_chains
        return jax.tree.map(lambda x: x[index], tree)

    def cut(self, tree: PyTree) -> PyTree:
        """Undo `pad`."""
        return jax.tree.map(lambda x: x[: self.num_chains], tree)

    @property
    def chains(self) -> Chains:
        """What a sampler is told of them."""
        return Chains(self.num_chains, self.chain_block)

    @property
    def is_local(self) -> bool:
        """Whether all devices are of this process."""
        return self.sharding(EVERYWHERE).is_fully_addressable

    def sharding(self, spec: PartitionSpec) -> NamedSharding:
        """Return how arrays lie between two programs: chains that do not divide over the devices lie on each of them."""
        divides = self.num_chains % self.mesh.shape[CHAIN_AXIS] == 0
        return NamedSharding(self.mesh, spec if divides or spec != BY_CHAIN else EVERYWHERE)

    def place(self, tree: PyTree, specs: PyTree) -> PyTree:
        """Put arrays on the devices that need them; `specs` is a prefix of the tree."""
        return jax.tree.map(lambda spec, part: jax.tree.map(lambda x: processes.place(x, self.sharding(spec)), part), specs, tree)


def place_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Put the data on the devices that need them, once and not at every call of `sample`.

    Raises:
        ValueError: The examples do not divide over the devices of the data axis.
    """
    return place_arrays(batch, mesh)


def read_batch(
    read: Callable[[np.ndarray], PyTree], num_examples: int, constants: PyTree, mesh: Mesh, multiple: int = 1
) -> Batch:
    """Make a batch of which each process reads, and keeps on its devices, only the examples that these need.

    Args:
        read: Numbers of examples, [k] -> their data, pytree of NumPy arrays, every leaf [k, ...].
        num_examples: That there are; filled up as by `pad_batch`.
        constants: Of the batch.
        mesh: Of devices, of all processes.
        multiple: Of which the number of examples is to be one, itself a multiple of the devices that share them.

    Returns:
        The batch, as `place_batch` puts it.
    """
    size = num_examples + -num_examples % multiple
    sharding = NamedSharding(mesh, BY_DATA)
    own = [index[0] for index in sharding.addressable_devices_indices_map((size,)).values() if index is not None]
    rows = {index.start or 0: np.arange(size)[index] for index in own}  # devices of several chains have the same
    parts = {start: read(np.where(numbers < num_examples, numbers, 0)) for start, numbers in rows.items()}
    weight = (jnp.arange(size) < num_examples).astype(float)

    def leaf(*of_parts: np.ndarray) -> jax.Array:
        by_start = dict(zip(parts, of_parts, strict=True))
        shape = (size, *of_parts[0].shape[1:])
        return jax.make_array_from_callback(shape, sharding, lambda index: by_start[index[0].start or 0])  # type: ignore[index]

    return place_batch(Batch(jax.tree.map(leaf, *parts.values()), weight, constants), mesh)


def place_arrays(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put the arrays of a `Save` or a `Fold` on the devices that need them: all on each, but of a batch what `place_batch` puts.

    Raises:
        ValueError: As there.
    """
    num_devices = mesh.shape[DATA_AXIS]
    for batch in filter(_is_batch, jax.tree.leaves(tree, is_leaf=_is_batch)):
        if (num_examples := batch.weight.shape[0]) % num_devices:
            raise ValueError(
                f"{num_examples} examples do not divide over {num_devices} devices; pad them with pad_batch(batch, data_blocks)"
            )
    return Layout(mesh, 1, 1).place(tree, arrays_spec(tree))


def arrays_spec(tree: PyTree) -> PyTree:
    """Return how arrays are laid over the mesh: a batch as such, all else everywhere."""
    return jax.tree.map(lambda part: batch_spec() if _is_batch(part) else EVERYWHERE, tree, is_leaf=_is_batch)


def _is_batch(part: Any) -> bool:
    return isinstance(part, Batch)


def batch_spec() -> Any:
    """Return how a batch is laid over the mesh: examples cut, constants everywhere."""
    return Batch._make((BY_DATA, BY_DATA, EVERYWHERE))


def run_spec(tuning: PartitionSpec) -> Any:
    """Return how a run is laid over the mesh."""
    return Run._make((EVERYWHERE, BY_CHAIN, EVERYWHERE, EVERYWHERE, BY_CHAIN, tuning, BY_CHAIN, BY_CHAIN))


def tuning_spec(tuning: Tuning) -> PartitionSpec:
    """Return how a tuning is laid over the mesh."""
    return BY_CHAIN if isinstance(tuning, PerChain) else EVERYWHERE


def over_mesh(function: Callable[..., Any], mesh: Mesh, in_specs: PyTree, out_specs: PyTree) -> Callable[..., Any]:
    """Run a function on every device of the mesh, on that device's part of chains and data.

    check_vma is off because the gradient's sum over devices sits in a custom_vjp, for which the check gives wrong derivatives.
    """
    return functools.partial(jax.shard_map, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)(function)
