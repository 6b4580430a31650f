"""HMC's time a leapfrog step over the time of one bare jitted value-and-gradient on the same layout."""

from __future__ import annotations

import functools

import jax

import samplers
from benchmarks.digits import NUM_CHAINS, NUM_LEAPFROG, STEP_SIZE, digits_posterior, starts
from benchmarks.kernels import floor
from benchmarks.timing import interleave, report, report_ratio, seconds

STEPS = 20  # trajectories a repeat
REPEATS = 7


def main() -> None:
    """Print the ratio for chain blocks of 1 and 2."""
    posterior = digits_posterior()
    positions = starts(posterior)
    kernel = samplers.hmc(posterior.target, step_size=STEP_SIZE, trajectory_length=STEP_SIZE * NUM_LEAPFROG, jitter=0.0)
    run = functools.partial(samplers.sample, jax.random.key(0), kernel, positions, posterior.batch, chunk_draws=STEPS, save=None)
    cases = {}
    for block in (1, 2):
        warm = run(num_steps=STEPS, chain_block=block).run
        once, many = floor(posterior, 1, 0, 1, block), floor(posterior, NUM_LEAPFROG, 0, 1, block)
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
