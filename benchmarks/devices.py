"""What a second device is worth: HMC of four chains with 2 devices on 2 cores, and with 1 device on 1 core."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

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


def main() -> None:
    """Print both times and their ratio."""
    with server(__spec__.name, "serve", devices=1, is_pinned=True) as one, server(__spec__.name, "serve", devices=2) as two:
        for size in WIDTHS:
            cases = {"1 device on 1 core": functools.partial(one, size), "2 devices on 2 cores": functools.partial(two, size)}
            figures = interleave(cases, REPEATS)
            report(f"HMC of 4 chains by devices: digits, {size} parameters, a leapfrog step of all", figures, "us", 1e6)
            report_ratio("1 device / 2 devices", figures, "1 device on 1 core", "2 devices on 2 cores", ">= 1.8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(hmc())
    else:
        main()
