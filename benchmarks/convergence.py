"""R-hat of a network's worth of scalars: how long it takes, against ArviZ's, and what memory it holds."""

from __future__ import annotations

import os
import time
import tracemalloc

import numpy as np
from arviz_stats.base import array_stats  # type: ignore[attr-defined]

from benchmarks.timing import interleave, report, report_ratio
from diagnostics import convergence

SCALARS, CHAINS, DRAWS = 270_000, 4, 200  # a ResNet-20's weights
BESIDE_ARVIZ = 2_000
REPEATS = 3


def main() -> None:
    """Print times, their ratio a scalar, and the peak of memory beyond the draws."""
    draws = np.empty((CHAINS, DRAWS, SCALARS), np.float32)
    rng = np.random.default_rng(0)
    for chain in draws:
        chain[:] = rng.standard_normal(chain.shape, np.float32)
    few = draws[..., :BESIDE_ARVIZ]

    def timed(function: object, values: np.ndarray) -> float:
        began = time.perf_counter()
        function(values)  # type: ignore[operator]
        return time.perf_counter() - began

    figures = interleave(
        {
            "split R-hat, all scalars": lambda: timed(convergence.rhat_split, draws),
            "exact rank R-hat, 2,000 scalars": lambda: timed(convergence.rhat, few),
            "arviz.rhat, 2,000 scalars": lambda: timed(
                lambda x: array_stats.rhat(x, chain_axis=0, draw_axis=1, method="rank"), few
            ),
        },
        REPEATS,
    )
    report(f"R-hat of {SCALARS:,} scalars x {CHAINS} chains x {DRAWS} draws (split: wanted < 2 s)", figures, "s")
    report_ratio("arviz.rhat / exact rank R-hat", figures, "arviz.rhat, 2,000 scalars", "exact rank R-hat, 2,000 scalars", ">= 6")
    tracemalloc.start()
    convergence.rhat_split(draws)
    peak = tracemalloc.get_traced_memory()[1] - 8 * SCALARS  # less the result
    tracemalloc.stop()
    share = peak / (8 * convergence.BLOCK_VALUES * (os.cpu_count() or 1))
    print(
        f"  => peak beyond the draws: {peak / 1e6:.0f} MB, {share:.1f} blocks a thread; the draws are {draws.nbytes / 1e6:.0f} MB"
    )
