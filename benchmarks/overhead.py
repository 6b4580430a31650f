"""HMC's time a leapfrog step over the time of one bare jitted value-and-gradient on the same layout."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

import samplers
from benchmarks.digits import NUM_CHAINS, NUM_LEAPFROG, STEP_SIZE, digits_posterior, starts
from benchmarks.timing import interleave, report, report_ratio, seconds
from samplers import mesh as meshes
from samplers.blocks import map_blocks

STEPS = 20  # trajectories a repeat
REPEATS = 7


def bare_gradient(posterior: Any, chain_block: int, count: int) -> Any:
    """Return a jitted function of `count` value-and-gradients of all chains one after another, laid out as `sample` does."""

    def gradients(position: Any, batch: Any) -> Any:
        density = samplers.log_density(posterior.target, batch, posterior.tempering)

        def descend(_: Any, carry: Any) -> Any:
            x, _ = carry
            value, slope = jax.value_and_grad(density)(x)
            return jax.tree.map(lambda a, b: a + 1e-9 * b, x, slope), value  # each gradient needs the one before

        return jax.lax.fori_loop(0, count, descend, (position, jnp.float32(0)))

    def local(positions: Any, batch: Any) -> Any:
        return map_blocks(lambda x: gradients(x, batch), chain_block, positions)

    mesh = meshes.make_mesh(NUM_CHAINS)
    specs = (meshes.BY_CHAIN, meshes.batch_spec())
    return jax.jit(meshes.over_mesh(local, mesh, specs, meshes.BY_CHAIN))


def main() -> None:
    """Print the ratio for chain blocks of 1 and 2."""
    posterior = digits_posterior()
    positions = starts(posterior)
    kernel = samplers.hmc(posterior.target, step_size=STEP_SIZE, trajectory_length=STEP_SIZE * NUM_LEAPFROG, jitter=0.0)
    run = functools.partial(samplers.sample, jax.random.key(0), kernel, positions, posterior.batch, chunk_draws=STEPS, save=None)
    cases = {}
    for block in (1, 2):
        warm = run(num_steps=STEPS, chain_block=block).run
        once, many = bare_gradient(posterior, block, 1), bare_gradient(posterior, block, NUM_LEAPFROG)
        cases[f"HMC, chain_block {block}"] = functools.partial(
            lambda block, warm: (
                seconds(lambda: run(num_steps=STEPS, run=warm, chain_block=block, chunk_seconds=1e9).run.state)
                / (STEPS * NUM_LEAPFROG)
            ),
            block,
            warm,
        )
        cases[f"bare gradient in a loop, chain_block {block}"] = functools.partial(
            lambda many: seconds(lambda: [many(positions, posterior.batch) for _ in range(STEPS)]) / (STEPS * NUM_LEAPFROG), many
        )
        cases[f"bare gradient, one call each, chain_block {block}"] = functools.partial(
            lambda once: (
                seconds(lambda: [once(positions, posterior.batch) for _ in range(4 * NUM_LEAPFROG)]) / (4 * NUM_LEAPFROG)
            ),
            once,
        )
    figures = interleave(cases, REPEATS)
    report(f"HMC against its gradient: digits, MLP 64-50-10, {NUM_CHAINS} chains, {NUM_LEAPFROG} leapfrogs", figures, "us", 1e6)
    for block in (1, 2):
        for bare in ("in a loop", "one call each"):
            name = (
                f"bare gradient {bare}, chain_block {block}"
                if bare == "in a loop"
                else f"bare gradient, {bare}, chain_block {block}"
            )
            report_ratio(
                f"HMC / bare gradient {bare}, chain_block {block}", figures, f"HMC, chain_block {block}", name, "<= 1.10"
            )


if __name__ == "__main__":
    main()
