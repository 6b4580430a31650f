"""Draws on disk: a zarr v3 hierarchy, written by whole blocks of draws, every block with a checksum."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bayesnn.errors import UsageError

# Of all arrays of a block together. On its way from device to disk a block is in memory several times over, which must not be
# seen beside the half gigabyte that a process with JAX has anyway.
BLOCK_BYTES = 4 * 2**20
# At most this many blocks a run: few enough files, and often enough a commit.
BLOCKS = 20
CHECKSUM_BYTES = 4
DIGEST_BYTES = 16
# What zarr calls the description of an array or group.
METADATA = "zarr.json"
DIMS = ["chain", "draw"]
# Attributes of the root: the names of all arrays, so that one that is gone is missed, and a digest of all descriptions, where a
# flipped bit may mean another temperature or task.
ARRAYS, DIGEST = "arrays", "digest"

type Draws = dict[str, np.ndarray]


def block_length(num_chains: int, num_draws: int, draw: Mapping[str, tuple[tuple[int, ...], Any]]) -> int:
    """Return how many draws make a block: a twentieth of the run, or fewer where draws are large."""
    size = num_chains * sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in draw.values())
    return int(np.clip(BLOCK_BYTES // max(size, 1), 1, math.ceil(num_draws / BLOCKS)))


class Block:
    """Draws that wait until they fill a block; a list of chunks, joined at the end, would be in memory twice."""

    def __init__(self, length: int):
        self._length, self._count = length, 0
        self._arrays: Draws = {}

    def append(self, draws: Draws) -> None:
        """Put draws [chain, count, ...] behind those that are here: copied, but for a whole block, which is kept as it is."""
        count = next(iter(draws.values())).shape[1]
        if not self._arrays and count == self._length:
            self._arrays, self._count = draws, count
            return
        if not self._arrays:
            self._arrays = {name: np.empty((x.shape[0], self._length, *x.shape[2:]), x.dtype) for name, x in draws.items()}
        end = self._count + count
        for name, x in draws.items():
            self._arrays[name][:, self._count : end] = x
        self._count = end

    def take(self) -> Draws:
        """Return the draws that are here, and begin anew."""
        taken = {name: x[:, : self._count] for name, x in self._arrays.items()}
        self._arrays, self._count = {}, 0
        return taken


class DrawStore:
    """Arrays [chain, draw, ...] by name `group/variable`, of a fixed number of draws, filled from the front.

    A block file is replaced whole (temporary name, fsync, rename), so a kill leaves it as it was or as it should be. It holds
    chains of one process alone. Processes that go on with a run that fewer of them began do share files; tensorstore's locks then
    have them take turns. How many draws count is not said here but in the commit record.
    """

    def __init__(self, path: Path):
        self.path = path
        self._begun: list[Any] = []

    def create(
        self,
        num_chains: int,
        num_draws: int,
        block: int,
        draw: Mapping[str, tuple[tuple[int, ...], Any]],
        constants: Mapping[str, tuple[np.ndarray, list[str]]],
        description: Mapping[str, Any],
        first_chains: Sequence[int] = (0,),
    ) -> None:
        """Make the hierarchy.

        Args:
            num_chains: Chains.
            num_draws: Draws of the complete run.
            block: Draws in a block.
            draw: Shape and dtype of one draw of one chain, by name.
            constants: Arrays without chain and draw, such as test labels, and the names of their axes, by name.
            description: Attributes of the whole, plain data.
            first_chains: The first chain, from 0, of each process that will write; no two of them get to write into one file.
        """
        self._write_group(self.path, {**description, ARRAYS: [*draw, *constants]})
        rows = math.gcd(*first_chains) or num_chains  # of a file: none goes across the first chain of a process
        for name, (shape, dtype) in draw.items():
            group, _, variable = name.partition("/")
            self._write_group(self.path / group)
            self._open(
                name,
                create=True,
                metadata={
                    "shape": [num_chains, num_draws, *shape],
                    "data_type": np.dtype(dtype).name,
                    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [rows, block, *shape]}},
                    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
                    "fill_value": "NaN" if np.issubdtype(dtype, np.floating) else False if dtype == np.bool_ else 0,
                    "dimension_names": [*DIMS, *dimension_names(group, variable, len(shape))],
                },
            )
        for name, (value, dims) in constants.items():
            self._write_constant(name, value, dims)
        root = json.loads(self._description())
        root["attributes"][DIGEST] = self._digest(root["attributes"])
        (self.path / METADATA).write_text(json.dumps(root, indent=1))

    def write(self, start: int, draws: Draws, first_chain: int = 0) -> None:
        """Begin to write draws [chain, count, ...] at `start`; several processes may write their own chains at the same time.

        They are on disk after `flush`, and what was begun before is so when this returns. The arrays must not be changed
        afterwards, since they are not copied.

        Raises:
            UsageError: The block that they, or those begun before, begin in holds other draws, and is damaged.
        """
        self.flush()
        for name, x in draws.items():
            rows, columns = slice(first_chain, first_chain + x.shape[0]), slice(start, start + x.shape[1])
            place = self._open(name)[rows, columns]
            self._begun.append(place.write(np.ascontiguousarray(x), can_reference_source_data_indefinitely=True))

    def flush(self) -> None:
        """Wait until what was begun to be written is on disk, durably.

        Raises:
            UsageError: The block that it begins in holds other draws, and is damaged.
        """
        begun, self._begun = self._begun, []
        for future in begun:
            future.exception()  # waits: none is left on its way when the first error is raised
        for future in begun:
            _result(future)

    def read(self, name: str, num_draws: int) -> np.ndarray:
        """Return the first draws of an array, [chain, draw, ...].

        Raises:
            UsageError: A block of them is damaged.
        """
        self.flush()
        return np.asarray(_result(self._open(name)[:, :num_draws].read()))

    def check(self, num_draws: int) -> None:
        """Look for missing and torn files of the first `num_draws`.

        A flipped bit fails its checksum when it is read.

        Raises:
            UsageError: Names the first bad file.
        """
        if num_draws == 0:
            return  # the store is made with the first draws
        names = self._metadata(lambda root: root["attributes"][ARRAYS])
        attributes = self._metadata(lambda root: root["attributes"])
        if DIGEST in attributes and self._digest(attributes) != attributes[DIGEST]:  # older stores have none
            raise UsageError(
                f"the draw store is damaged: files {METADATA} in {self.path} are not those that were written; "
                "restore them from a copy, or run again"
            )
        for name in names:
            shape, chunk, dtype, dims = self._metadata(_layout, name)
            size = math.prod(chunk) * np.dtype(dtype).itemsize + CHECKSUM_BYTES
            is_by_draw = dims[:2] == DIMS
            parts = math.ceil(shape[0] / chunk[0]) if is_by_draw else 1
            blocks = math.ceil(num_draws / chunk[1]) if is_by_draw else 1
            for block, part in itertools.product(range(blocks), range(parts)):
                index = [part, block, *[0] * (len(chunk) - 2)] if is_by_draw else [0] * len(chunk)
                file = self.path.joinpath(name, "c", *map(str, index))
                found = file.stat().st_size if file.exists() else 0
                if found != size:
                    intact = f"draws before {block * chunk[1]} of {name} are intact: " if is_by_draw else ""
                    raise UsageError(
                        f"the draw store is damaged: {file} has {found} bytes instead of {size}; "
                        f"{intact}restore the file from a copy, or run again"
                    )

    def _metadata[T](self, select: Callable[[Any], T], name: str = "") -> T:
        try:
            return select(json.loads(self._description(name)))
        except (ValueError, KeyError, TypeError) as error:
            raise self._unreadable(name, error) from None

    def _description(self, name: str = "") -> bytes:
        """Return the description of an array, or of the whole, as it is on disk."""
        try:
            return (self.path / name / METADATA).read_bytes()
        except OSError as error:
            raise self._unreadable(name, error) from None

    def _unreadable(self, name: str, error: Exception) -> UsageError:
        file = self.path / name / METADATA
        return UsageError(
            f"the draw store is damaged: {file} cannot be read ({error}); restore the file from a copy, or run again"
        )

    def _digest(self, attributes: Mapping[str, Any]) -> str:
        """Return the digest of the root's attributes and of all arrays' descriptions."""
        own = {name: value for name, value in attributes.items() if name != DIGEST}
        digest = hashlib.blake2b(json.dumps(own, sort_keys=True).encode(), digest_size=DIGEST_BYTES)
        for name in attributes[ARRAYS]:
            digest.update(self._description(name))
        return digest.hexdigest()

    def _write_constant(self, name: str, value: np.ndarray, dims: list[str]) -> None:
        self._write_group(self.path / name.partition("/")[0])
        metadata = {
            "shape": list(value.shape),
            "data_type": value.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(n, 1) for n in value.shape]}},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "dimension_names": dims,
        }
        self._open(name, create=True, metadata=metadata).write(value).result()

    def _open(self, name: str, **extra: Any) -> Any:
        import tensorstore

        # A block that holds nothing but zeros must be on disk too, or it would look lost.
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{self.path / name}/"},
            "store_data_equal_to_fill_value": True,
            **extra,
        }
        return tensorstore.open(spec).result()

    def _write_group(self, path: Path, attributes: Mapping[str, Any] = types.MappingProxyType({})) -> None:
        path.mkdir(parents=True, exist_ok=True)
        if not (path / METADATA).exists():
            (path / METADATA).write_text(
                json.dumps({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}, indent=1)
            )


def _layout(array: Any) -> tuple[list[int], list[int], str, list[str]]:
    """Return shape, shape of a file's part, type and names of the axes from the description of an array."""
    return array["shape"], array["chunk_grid"]["configuration"]["chunk_shape"], array["data_type"], array["dimension_names"]


def _result(future: Any) -> Any:
    """Return what tensorstore's future holds, telling a block that does not have its checksum from other errors."""
    try:
        return future.result()
    except ValueError as error:
        if "DATA_LOSS" not in str(error):
            raise
        raise UsageError(f"the draw store is damaged: {error}; restore the file from a copy, or run again") from None


def dimension_names(group: str, variable: str, ndim: int) -> list[str]:
    """Name the axes after chain and draw, as the diagnostics expect them."""
    known = {"probability": ["point", "class"], "mean": ["point"], "scale": ["point"], "log_likelihood": ["point"]}
    if group == "functions" and variable in known:
        return known[variable]
    if variable == "virial":
        return ["layer"]
    return [f"{variable}_dim_{i}" for i in range(ndim)]
