"""What a second device is worth: HMC of four chains with 2 devices on 2 cores, and with 1 device on 1 core.

The limit is what two processes that know nothing of each other get out of the cores, one on each.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.timing import interleave, report, report_ratio, serve, server

WIDTHS = {"3,760": (50,), "106,150": (290, 290)}  # by their numbers of parameters
STEPS, REPEATS = 20, 7


def hmc() -> Callable[[str], float]:
    """Return what measures seconds a leapfrog step of all chains, for the network named."""
    import jax

    import samplers
    from benchmarks.digits import NUM_LEAPFROG, STEP_SIZE, continuing, digits_posterior, starts
    from benchmarks.timing import seconds

    @functools.cache
    def case(size: str) -> Callable[[], float]:
        posterior = digits_posterior(WIDTHS[size])
        run = functools.partial(
            samplers.sample,
            jax.random.key(0),
            samplers.hmc(posterior.target, step_size=STEP_SIZE, trajectory_length=STEP_SIZE * NUM_LEAPFROG, jitter=0.0),
            starts(posterior),
            posterior.batch,
            num_steps=STEPS,
            save=None,
            chain_block=1,
            chunk_draws=STEPS,
        )
        more = continuing(run)
        return lambda: seconds(lambda: more().run.state) / (STEPS * NUM_LEAPFROG)

    return lambda size: case(size)()


def at_once(*processes: Callable[[str], float]) -> Callable[[str], float]:
    """Return what measures the time for the work of one process, where all work at the same time."""

    def measure(size: str) -> float:
        with ThreadPoolExecutor(len(processes)) as pool:
            return max(pool.map(lambda process: process(size), processes)) / len(processes)

    return measure


def main() -> None:
    """Print the times and their ratios."""
    start = functools.partial(server, __spec__.name, "serve")
    with start(core=0) as one, start(core=1) as other, start(devices=2) as two:
        measures = {"1 device on 1 core": one, "2 devices on 2 cores": two, "2 processes on 2 cores": at_once(one, other)}
        for size in WIDTHS:
            figures = interleave({name: functools.partial(measure, size) for name, measure in measures.items()}, REPEATS)
            report(f"HMC of 4 chains by devices: digits, {size} parameters, a leapfrog step of all", figures, "us", 1e6)
            report_ratio("1 device / 2 devices", figures, "1 device on 1 core", "2 devices on 2 cores", ">= 1.8")
            report_ratio("1 device / 2 processes", figures, "1 device on 1 core", "2 processes on 2 cores", "the limit")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(hmc())
    else:
        main()
