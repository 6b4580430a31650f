"""Where a finished run left its chains: the tuning of each, and positions from which to go on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import samplers
from bayesnn.build import build_method
from bayesnn.load import LoadedRun
from bayesnn.models.parameters import nest
from bayesnn.problem import Problem
from samplers import PerChain, Run


def tuning_by_chain(run: LoadedRun, problem: Problem) -> PerChain:
    """Return the tuning with which each chain of a run drew, in the order of its chains."""
    method, config = build_method(run.config, problem), run.config

    def start(positions: Any) -> Run:
        begun = samplers.start(
            jax.random.key(config.seed), method.first_kernel, positions, problem.batch, chain_block=config.chain_block
        )
        return samplers.finish(method.warmup, begun) if method.warmup else begun

    tunings = []
    for shard in run.folder.shards():
        positions = jax.tree.map(lambda x: jax.ShapeDtypeStruct((shard.num_chains, *x.shape), x.dtype), problem.like)  # noqa: B023
        tuning = shard.load_run(shard.read_commit(), jax.eval_shape(start, positions)).tuning
        if not isinstance(tuning, PerChain):
            tuning = PerChain(jax.tree.map(lambda x: jnp.broadcast_to(x, (shard.num_chains, *x.shape)), tuning))  # noqa: B023
        tunings.append(tuning)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *tunings)


def spread_draws(run: LoadedRun, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose draws of a run: the last of every chain first, then those as far from them and from each other as there are.

    Returns:
        Index of chain and of draw, each [count].
    """
    sizes = run.tree["posterior"].sizes
    chain, turn = np.arange(count) % sizes["chain"], np.arange(count) // sizes["chain"]
    gap = max(1, sizes["draw"] // (int(turn.max()) + 1))
    return chain, (sizes["draw"] - 1 - turn * gap) % sizes["draw"]


def positions_at(run: LoadedRun, problem: Problem, chain: np.ndarray, draw: np.ndarray) -> Any:
    """Return the positions of some draws of a run, stacked, in the types of its problem."""
    weights = {str(name): x.values[chain, draw] for name, x in run.tree["posterior"].data_vars.items()}
    if problem.posterior is not None:
        positions = problem.posterior.unflatten(weights)
    elif isinstance(problem.like, dict):
        positions = nest(weights)
    else:
        positions = jax.tree.unflatten(jax.tree.structure(problem.like), list(weights.values()))
    return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), positions, problem.like)
