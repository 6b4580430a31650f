"""Gradients per second of HMC here over those of a loop written by hand around BlackJAX's HMC: what the engine costs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

import samplers
from bayesnn import models
from benchmarks.digits import NUM_CHAINS, NUM_LEAPFROG, PRIOR_SCALE, STEP_SIZE, continuing, digits_posterior, starts
from benchmarks.timing import cpu_seconds, interleave, report, report_ratio

STEPS = 40  # trajectories a repeat, some two seconds: a call of `sample` costs as much as a third of one
REPEATS = 7
BY_HAND = ("vmap, one device", "vmap, all devices", "map, all devices")


def log_density(position: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the log density of the digits posterior up to a constant, written as for a script around the same network."""
    logits = models.mlp([50], 10).apply(position, x)
    log_prior = -0.5 * sum(jnp.sum((w / PRIOR_SCALE) ** 2) for w in jax.tree.leaves(position))
    return log_prior + jnp.sum(jax.nn.one_hot(y, 10) * jax.nn.log_softmax(logits))


def by_hand(way: str, x: jax.Array, y: jax.Array, positions: Any) -> Callable[[], Any]:
    """Return a function that runs all chains by one jitted loop, data as arguments, and keeps all draws."""
    num_params = samplers.num_params(positions) // NUM_CHAINS

    def chains(keys: jax.Array, positions: Any, x: jax.Array, y: jax.Array) -> Any:
        density = functools.partial(log_density, x=x, y=y)
        kernel = blackjax.hmc(density, STEP_SIZE, jnp.ones(num_params), NUM_LEAPFROG)

        def step(state: Any, key: jax.Array) -> Any:
            state, _ = kernel.step(key, state)
            return state, state.position

        def chain(key: jax.Array, position: Any) -> Any:
            return jax.lax.scan(step, kernel.init(position), jax.random.split(key, STEPS))[1]

        return (
            jax.lax.map(lambda args: chain(*args), (keys, positions))
            if way[:8] == "map, all"
            else jax.vmap(chain)(keys, positions)
        )

    program = chains
    if "all devices" in way:
        mesh = jax.make_mesh((jax.local_device_count(),), ("chain",), axis_types=(AxisType.Auto,))
        by_chain, whole = PartitionSpec("chain"), PartitionSpec()
        program = jax.shard_map(
            chains, mesh=mesh, in_specs=(by_chain, by_chain, whole, whole), out_specs=by_chain, check_vma=False
        )
    program, keys = jax.jit(program), jax.random.split(jax.random.key(0), NUM_CHAINS)
    return lambda: jax.block_until_ready(program(keys, positions, x, y))


def here(posterior: Any, positions: Any, chain_block: int) -> Callable[[], Any]:
    """Return a function that runs all chains by `samplers.sample`, which keeps all draws too, and brings them to the host."""
    length = STEP_SIZE * (NUM_LEAPFROG - 0.5)  # rounded up to NUM_LEAPFROG
    kernel = samplers.hmc(posterior.target, step_size=STEP_SIZE, trajectory_length=length, jitter=0.0)
    run = functools.partial(
        samplers.sample, jax.random.key(0), kernel, positions, posterior.batch, num_steps=STEPS, chain_block=chain_block
    )
    more = continuing(run)
    return lambda: more().draws


def main() -> None:
    """Print gradients per second and their ratios."""
    posterior = digits_posterior()
    positions = starts(posterior)
    x, y = posterior.batch.data
    runs = {f"here, chain_block {block}": here(posterior, positions, block) for block in (1, 2)}
    runs |= {f"BlackJAX by hand, {way}": by_hand(way, x, y, positions) for way in BY_HAND}
    cases = {name: functools.partial(lambda run: cpu_seconds(run) / (STEPS * NUM_LEAPFROG), run) for name, run in runs.items()}
    figures = interleave(cases, REPEATS)
    report(f"CPU time of a gradient of all {NUM_CHAINS} chains inside HMC, digits, MLP 64-50-10", figures, "us", 1e6)
    best = min((name for name in figures if name.startswith("BlackJAX")), key=lambda name: min(figures[name]))
    for block in (1, 2):
        report_ratio(
            f"gradients per second, chain_block {block} over {best}", figures, best, f"here, chain_block {block}", ">= 0.97"
        )


if __name__ == "__main__":
    main()
