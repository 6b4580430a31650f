"""The state of a run on disk: written whole or not at all, and checked when it is read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from samplers.types import Run

# File of a checkpoint that holds the digest of all others.
DIGEST = "digest"


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged, or of another run."""


def save_run(path: Path, run: Run) -> str:
    """Write a run with orbax, synchronously, replacing what is there.

    Returns:
        A digest of the written files, for a record that this checkpoint and no other belongs to.
    """
    import orbax.checkpoint.experimental.v1 as orbax

    path = path.resolve()
    leaves = {name: np.asarray(jax.random.key_data(x) if _is_key(x) else x) for name, x in _named_leaves(run)}
    orbax.save(path, leaves, overwrite=True)
    digest = digest_of(path)
    (path / DIGEST).write_text(digest)
    return digest


def load_run(path: Path, like: Run, digest: str | None = None) -> Run:
    """Read a run.

    Args:
        path: What `save_run` wrote.
        like: A run of the same structure and shapes; abstract leaves (`jax.eval_shape` of `samplers.start`) will do.
        digest: What `save_run` returned; None trusts the checkpoint's own record of it.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or incomplete, or does not fit `like`.
    """
    import orbax.checkpoint.experimental.v1 as orbax

    path = path.resolve()
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint at {path}")
    if digest is None:
        digest = (path / DIGEST).read_text(errors="replace") if (path / DIGEST).is_file() else ""
    if digest_of(path) != digest:  # looked at first, since orbax prints tracebacks of its own for damaged files
        raise CheckpointError(f"the checkpoint at {path} is damaged or incomplete: its files are not those that were written")
    try:
        leaves = orbax.load(path)
    except Exception as error:  # orbax raises many kinds for what it cannot read, such as files of a later version
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({type(error).__name__})") from error
    wanted = {name: _shape_on_disk(leaf) for name, leaf in _named_leaves(like)}
    found = {name: (tuple(x.shape), np.dtype(x.dtype)) for name, x in leaves.items()}
    if found != wanted:
        names = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
        differing = "; ".join(f"{n} is {found.get(n)} on disk, {wanted.get(n)} expected" for n in names[:3])
        raise CheckpointError(f"the checkpoint at {path} is of another run: {differing}")
    restored = [_typed(jnp.asarray(leaves[name]), leaf) for name, leaf in _named_leaves(like)]
    return jax.tree.unflatten(jax.tree.structure(like), restored)


def digest_of(folder: Path) -> str:
    """Return a digest of the names and bytes of all files in a folder, save the recorded digest."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / DIGEST):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


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
