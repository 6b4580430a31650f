"""The state of a run on disk: durable once it is written, and checked when it is read, so that a torn one is noticed."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from samplers import processes
from samplers.mesh import BY_CHAIN, run_spec, tuning_spec
from samplers.types import Run

# File of a checkpoint that holds the digest of all others.
DIGEST = "digest"
DIGEST_BYTES = 16
# File of a part, by its first chain.
PART = "{:010d}.npz"
NO_CHAIN = -1
# What each process tells the others of its part. Bytes as numbers, for strings lose zeros at their end.
PART_RECORD = np.dtype([("first", np.int64), ("digest", np.uint8, DIGEST_BYTES)])


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged, or of another run."""


def save_run(path: Path, run: Run) -> str:
    """Write a run as NumPy archives, durably, in place of what is there.

    Files that were there are overwritten, not kept until the new ones are whole: give every checkpoint a name of its own, and
    remove the old one afterwards. Of a run over several processes each writes a part of its own, with the chains that it keeps,
    and then waits, once, for the others; the first one does the rest alone, so that only it may remove what is old.

    Returns:
        A digest of the written files, for a record that this checkpoint and no other belongs to.
    """
    is_alone = processes.is_local(run.chain)
    path.mkdir(parents=True, exist_ok=True)
    own = np.array(_save_part(path, run), PART_RECORD)
    everyone = own[None] if is_alone else processes.gather(own)
    parts = {PART.format(one["first"]): one["digest"].tobytes() for one in everyone if one["first"] != NO_CHAIN}
    together = _together(parts)
    if is_alone or processes.is_first():
        for stray in path.iterdir():  # of an attempt by other processes, which never came to their record
            if stray.is_dir():
                shutil.rmtree(stray)
            elif stray.name not in parts:
                stray.unlink(missing_ok=True)
        (path / DIGEST).write_text(together)
        for written in (path / DIGEST, path, path.parent):  # folders, too: a file is not on disk before its name is
            _sync(written)
    return together


def _save_part(path: Path, run: Run) -> tuple[int, np.ndarray]:
    """Write the chains that this process keeps; return the first of them, and a digest."""
    chain = processes.own(run.chain)
    if not chain.size:
        return NO_CHAIN, np.zeros(DIGEST_BYTES, np.uint8)
    first, is_by_chain = int(chain[0]), _is_by_chain(run)
    arrays = {name: jax.random.key_data(x) if _is_key(x) else x for name, x in _named_leaves(run)}
    leaves: dict[str, Any] = {name: processes.own(x) if is_by_chain[name] else processes.whole(x) for name, x in arrays.items()}
    part = path / PART.format(first)
    np.savez(part, **leaves)
    _sync(part)
    return first, np.frombuffer(_digest_of_part(part), np.uint8)


def load_run(path: Path, like: Run, digest: str | None = None) -> Run:
    """Read a run, whole, however many processes wrote it.

    Args:
        path: What `save_run` wrote.
        like: A run of the same structure and shapes; abstract leaves (`jax.eval_shape` of `samplers.start`) will do.
        digest: What `save_run` returned; None trusts the checkpoint's own record of it.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or incomplete, or does not fit `like`.
    """
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint at {path}")
    if digest is None:
        digest = (path / DIGEST).read_text(errors="replace") if (path / DIGEST).is_file() else ""
    files = sorted(file for file in path.iterdir() if file.name != DIGEST)
    if _together({file.name: _digest_of_part(file) for file in files if file.is_file()}) != digest:
        raise CheckpointError(f"the checkpoint at {path} is damaged or incomplete: its files are not those that were written")
    try:
        parts = [dict(np.load(file, allow_pickle=False)) for file in files]
    except (OSError, ValueError) as error:  # written by something else, which also kept the digest
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({error})") from error
    leaves = parts[0]
    if len(parts) > 1:
        joined = [name for name, is_by_chain in _is_by_chain(like).items() if is_by_chain and name in leaves]
        leaves |= {name: np.concatenate([part[name] for part in parts]) for name in joined}
    wanted = {name: _shape_on_disk(leaf) for name, leaf in _named_leaves(like)}
    found = {name: (tuple(x.shape), np.dtype(x.dtype)) for name, x in leaves.items()}
    if found != wanted:
        names = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
        differing = "; ".join(f"{n} is {found.get(n)} on disk, {wanted.get(n)} expected" for n in names[:3])
        raise CheckpointError(f"the checkpoint at {path} is of another run, or of another version: {differing}")
    restored = [_typed(jnp.asarray(leaves[name]), leaf) for name, leaf in _named_leaves(like)]
    return jax.tree.unflatten(jax.tree.structure(like), restored)


def _sync(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest_of_part(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).digest()


def _together(parts: dict[str, bytes]) -> str:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for name, part in sorted(parts.items()):
        digest.update(name.encode() + part)
    return digest.hexdigest()


def _is_by_chain(run: Run) -> dict[str, bool]:
    """Return which leaves have a row for every chain, and which are one for all."""
    by_chain = jax.tree.map(
        lambda spec, part: jax.tree.map(lambda _: spec == BY_CHAIN, part), run_spec(tuning_spec(run.tuning)), run
    )
    return dict(_named_leaves(by_chain))


def _named_leaves(run: Run) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path, simple=True, separator="."), x) for path, x in jax.tree_util.tree_leaves_with_path(run)]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _typed(array: Any, like: Any) -> Any:
    """Make a key of an array where its like is a key."""
    if not _is_key(like):
        return array
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(jnp.empty((), like.dtype)))


def _shape_on_disk(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    data = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return tuple(data.shape), np.dtype(data.dtype)
