"""Weights from elsewhere, as starting points of chains: a file of them, or the last draws of another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnn.config import STARTS
from bayesnn.errors import UsageError
from bayesnn.npz import read_npz


def load_positions(path: Path, like: Any, num_chains: int, first_chain: int = 0) -> Any:
    """Read weights and start chains there.

    Args:
        path: An .npz whose keys are dotted parameter paths (layer_0.kernel), an orbax checkpoint of the parameter tree, or a run
            folder: chains then start from the last draws of its chains (members of an ensemble, say), in turn if there are more.
        like: Shapes and types of the position of one chain; weights of a file may have a leading axis of chains, from chain 0 to
            the last of those that are started.
        num_chains: Chains to start.
        first_chain: Index of the first of them.

    Returns:
        Positions, every leaf with a leading axis of the chains that are started.

    Raises:
        UsageError: No such file, or weights that do not fit the model; names them.
    """
    if not path.exists():
        raise UsageError(f"start: no file {path}; use {', '.join(STARTS)}, a file of weights (.npz or orbax), or a run folder")
    named = [(jax.tree_util.keystr(p, simple=True, separator="."), x) for p, x in jax.tree_util.tree_leaves_with_path(like)]
    is_run = (path / "config.json").exists()
    end = first_chain + num_chains
    found = _read_run(path, end) if is_run else _read_weights(path)
    missing, unknown = [n for n, _ in named if n not in found], sorted(set(found) - {n for n, _ in named})
    if missing or unknown:
        raise UsageError(
            f"start: {path} does not fit the model: missing {missing}, unknown {unknown}; keys are paths like {named[0][0]}"
        )
    leaves = []
    for name, leaf in named:
        if not jnp.issubdtype(found[name].dtype, jnp.floating):
            raise UsageError(f"start: {name} in {path} has dtype {found[name].dtype}, expected real numbers")
        value = jnp.asarray(found[name], leaf.dtype)
        if value.shape not in (leaf.shape, (end, *leaf.shape)):
            raise UsageError(f"start: {name} in {path} has shape {value.shape}, the model has {leaf.shape}")
        if not bool(jnp.isfinite(value).all()):
            raise UsageError(f"start: {name} in {path} is not finite")
        own = value if value.shape == leaf.shape else value[first_chain:]
        leaves.append(jnp.broadcast_to(own, (num_chains, *leaf.shape)))
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _read_run(path: Path, num_chains: int) -> dict[str, Any]:
    from bayesnn.load import load_run

    last = load_run(path).tree["posterior"].to_dataset().isel(draw=-1)
    return {str(name): np.resize(x.values, (num_chains, *x.shape[1:])) for name, x in last.data_vars.items()}


def _read_weights(path: Path) -> dict[str, Any]:
    if path.suffix != ".npz":
        return _read_orbax(path)
    try:
        return read_npz(path)
    except ValueError as error:
        raise UsageError(f"start: {error}") from None


def _read_orbax(path: Path) -> dict[str, Any]:
    import orbax.checkpoint.experimental.v1 as orbax

    try:
        tree = orbax.load(path.resolve())
    except Exception as error:  # orbax raises many kinds
        raise UsageError(f"start: {path} cannot be read as an orbax checkpoint ({type(error).__name__})") from None
    return {jax.tree_util.keystr(p, simple=True, separator="."): x for p, x in jax.tree_util.tree_leaves_with_path(tree)}
