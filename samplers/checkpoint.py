"""The state of a run on disk: written whole or not at all, and checked when it is read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from samplers.types import Run


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged, or of another run."""


def save_run(path: Path, run: Run) -> str:
    """Write a run with orbax, synchronously, replacing what is there.

    Returns:
        A digest of the written files, for `load_run`.
    """
    import orbax.checkpoint.experimental.v1 as orbax

    leaves = {name: np.asarray(jax.random.key_data(x) if _is_key(x) else x) for name, x in _named_leaves(run)}
    orbax.save(path, leaves, overwrite=True)
    return digest_of(path)


def load_run(path: Path, like: Run, digest: str | None = None) -> Run:
    """Read a run.

    Args:
        path: What `save_run` wrote.
        like: A run of the same structure and shapes; abstract leaves (`jax.eval_shape` of `samplers.start`) will do.
        digest: What `save_run` returned; None skips the check.

    Raises:
        CheckpointError: The checkpoint is missing, differs from its digest, or does not fit `like`.
    """
    import orbax.checkpoint.experimental.v1 as orbax

    if not path.is_dir():
        raise CheckpointError(f"no checkpoint at {path}")
    if digest is not None and digest_of(path) != digest:
        raise CheckpointError(f"the checkpoint at {path} is damaged: its files are not those that the commit record names")
    try:
        leaves = orbax.load(path)
    except Exception as error:  # orbax raises many kinds for what is no checkpoint
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({type(error).__name__})") from error
    wanted = {name: _shape_on_disk(leaf) for name, leaf in _named_leaves(like)}
    found = {name: (tuple(x.shape), np.dtype(x.dtype)) for name, x in leaves.items()}
    if found != wanted:
        names = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
        differing = "; ".join(f"{n} is {found.get(n)} on disk, {wanted.get(n)} expected" for n in names[:3])
        raise CheckpointError(f"the checkpoint at {path} is of another run: {differing}")
    restored = [
        jax.random.wrap_key_data(jnp.asarray(leaves[name])) if _is_key(leaf) else jnp.asarray(leaves[name])
        for name, leaf in _named_leaves(like)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), restored)


def digest_of(folder: Path) -> str:
    """Return a digest of the names and bytes of all files in a folder."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _named_leaves(run: Run) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path, simple=True, separator="."), x) for path, x in jax.tree_util.tree_leaves_with_path(run)]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _shape_on_disk(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    data = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return tuple(data.shape), np.dtype(data.dtype)
