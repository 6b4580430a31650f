"""HMC's time a leapfrog step over that of a bare gradient on the same layout, and what keeping its draws adds."""

from __future__ import annotations

import functools
import itertools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

import samplers
from bayesnn.draw_store import DrawStore
from bayesnn.draws import by_name
from benchmarks.digits import NUM_CHAINS, NUM_LEAPFROG, STEP_SIZE, continuing, digits_posterior, starts
from benchmarks.kernels import floor
from benchmarks.timing import interleave, report, report_ratio, seconds

STEPS = 50  # trajectories of a block of draws, which is written at once, of a run of 1,000
BLOCKS = 4  # of a repeat, whose last one is waited for
REPEATS = 7
TEST_POINTS = 50


def bare(posterior: Any, positions: Any, chain_block: int, gradients: int) -> Callable[[], float]:
    """Return a case that times the gradient in a jitted function that computes so many of them."""
    loop, calls = floor(posterior, gradients, 0, 1, chain_block), 4 * NUM_LEAPFROG // gradients
    return lambda: seconds(lambda: [loop(positions, posterior.batch) for _ in range(calls)]) / (calls * gradients)


def sampled(
    run: Callable[..., samplers.Result], chain_block: int, done: Callable[[], None] = lambda: None, **options: Any
) -> Callable[[], float]:
    """Return a case that times a leapfrog step of HMC; `done` ends a repeat."""
    blocks = functools.partial(run, num_steps=BLOCKS * STEPS, chunk_draws=STEPS, chunk_seconds=math.inf)
    call = continuing(functools.partial(blocks, chain_block=chain_block, **options))
    return lambda: seconds(lambda: (call().run.state, done())) / (BLOCKS * STEPS * NUM_LEAPFROG)


def new_store(posterior: Any, run: Callable[..., samplers.Result], folder: str) -> DrawStore:
    """Return a store for the draws of a repeat."""
    save = posterior.save(TEST_POINTS)
    draws = by_name(run(num_steps=1, save=save))
    store = DrawStore(Path(folder))
    store.create(NUM_CHAINS, BLOCKS * STEPS, STEPS, {name: (x.shape[2:], x.dtype) for name, x in draws.items()}, {}, {})
    return store


def main() -> None:
    """Print the ratio for chain blocks of 1 and 2, and that of draws kept, folded and written to draws thrown away."""
    posterior = digits_posterior()
    positions = starts(posterior)
    kernel = samplers.hmc(posterior.target, step_size=STEP_SIZE, trajectory_length=STEP_SIZE * NUM_LEAPFROG, jitter=0.0)
    run = functools.partial(samplers.sample, jax.random.key(0), kernel, positions, posterior.batch)
    with tempfile.TemporaryDirectory() as folder:
        cases = {}
        for block in (1, 2):
            cases[f"HMC, chain_block {block}"] = sampled(run, block, save=None)
            cases[f"gradients in a loop, chain_block {block}"] = bare(posterior, positions, block, NUM_LEAPFROG)
            cases[f"one call a gradient, chain_block {block}"] = bare(posterior, positions, block, 1)
        store, begin = new_store(posterior, run, folder), itertools.cycle(range(0, BLOCKS * STEPS, STEPS))
        cases["HMC with its draws"] = sampled(
            run,
            1,
            store.flush,
            save=posterior.save(TEST_POINTS),
            fold=samplers.moments(lambda position, arrays: position),
            on_chunk=lambda result: store.write(next(begin), by_name(result)),
        )
        figures = interleave(cases, REPEATS)
    report(f"HMC against its gradient: digits, MLP 64-50-10, {NUM_CHAINS} chains, {NUM_LEAPFROG} leapfrogs", figures, "us", 1e6)
    for block in (1, 2):
        for name in (f"gradients in a loop, chain_block {block}", f"one call a gradient, chain_block {block}"):
            report_ratio(f"HMC / {name}", figures, f"HMC, chain_block {block}", name, "<= 1.10")
    report_ratio("draws saved, folded and written / thrown away", figures, "HMC with its draws", "HMC, chain_block 1", "<= 1.05")


if __name__ == "__main__":
    main()
