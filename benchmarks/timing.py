"""Interleaved timing: whatever slows the machine down slows all cases down alike."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime


def interleave(cases: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Run all cases in turn, `repeats` times after one uncounted round; a case returns its own figure (seconds, say)."""
    for case in cases.values():
        case()
    figures: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            figures[name].append(case())
    return figures


def ratios(figures: Mapping[str, list[float]], numerator: str, denominator: str) -> tuple[float, float, float]:
    """Return median, least and largest ratio of the pairs of one round."""
    pairs = [a / b for a, b in zip(figures[numerator], figures[denominator], strict=True)]
    return statistics.median(pairs), min(pairs), max(pairs)


def seconds(function: Callable[[], object]) -> float:
    """Time one call."""
    import jax

    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


def worker(module: str, case: str, devices: int) -> Callable[[], float]:
    """Return a case that runs in a process of its own, with its own number of CPU devices, and prints its figure as JSON."""

    def run() -> float:
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-W", "ignore", "-m", module, case]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        return float(json.loads(done.stdout.splitlines()[-1]))

    return run


def report(title: str, figures: Mapping[str, list[float]], unit: str, scale: float = 1.0) -> None:
    """Print the median, least and largest figure of every case."""
    print(f"\n{title}")
    for name, values in figures.items():
        low, middle, high = min(values) * scale, statistics.median(values) * scale, max(values) * scale
        print(f"  {name:<52} {middle:10.1f} {unit}   ({low:.1f} to {high:.1f})")


def report_ratio(label: str, figures: Mapping[str, list[float]], numerator: str, denominator: str, bar: str) -> None:
    """Print a ratio with its spread and the bar that it should meet."""
    middle, low, high = ratios(figures, numerator, denominator)
    print(f"  => {label}: {middle:.3f}   ({low:.3f} to {high:.3f}; wanted {bar})")


def header() -> None:
    """Say when and on what."""
    import jax

    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {len(os.sched_getaffinity(0))} cores ({platform.machine()}), load {load}")
    print(f"jax {jax.__version__}, python {platform.python_version()}")
