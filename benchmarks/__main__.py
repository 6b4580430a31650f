"""Run the benchmarks: the usual ones, or those named on the command line."""

from __future__ import annotations

import importlib
import os
import sys

BENCHMARKS = (
    "overhead",
    "layouts",
    "kernels",
    "devices",
    "scaling",
    "numpyro_hmc",
    "start",
    "memory",
    "convergence",
    "llc",
    "blackjax_hmc",
    "numpyro_nuts",
    "posteriors_sgmcmc",
    "devinterp_llc",
    "bde_mile",
)
# For an accelerator, or for half an hour.
ON_REQUEST = ("resnet20", "stream", "faults")


def main() -> None:
    """Run benchmarks and print their ratios."""
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(len(os.sched_getaffinity(0))))
    from benchmarks.timing import header

    names = sys.argv[1:] or BENCHMARKS
    unknown = set(names) - {*BENCHMARKS, *ON_REQUEST}
    if unknown:
        sys.exit(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join((*BENCHMARKS, *ON_REQUEST))}")
    header()
    for name in names:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
