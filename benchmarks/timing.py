"""Interleaved timing: whatever slows the machine down slows all cases down alike."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]


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


def geometric(values: Sequence[float]) -> str:
    """Return the geometric mean of ratios with its 95 % interval, from Student's t on their logarithms."""
    from scipy import stats

    logs = [math.log(value) for value in values]
    half = stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    low, middle, high = (math.exp(statistics.mean(logs) + shift) for shift in (-half, 0, half))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


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


@contextlib.contextmanager
def server(
    module: str, *arguments: str, devices: int = 1, core: int | None = None, python: str | Path = sys.executable
) -> Iterator[Callable[[str], Any]]:
    """Start a process that measures cases one by one, as they are asked for, and keeps what it compiled.

    Args:
        module: Calls `serve` when run.
        *arguments: Of its command line.
        devices: CPU devices of JAX.
        core: Give it one core alone: the place of that among those of this process.
        python: Interpreter, of another environment where a peer needs one.

    Yields:
        case -> what the process says of it.
    """
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    if core is not None:
        environment |= {"OMP_NUM_THREADS": "1"}
    command = [str(python), "-W", "ignore", "-m", module, *arguments]
    with tempfile.TemporaryFile("w+") as errors:
        with contextlib.nullcontext() if core is None else _pinned(core):
            process = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        with process:
            yield _asking(process, command, errors)


@contextlib.contextmanager
def _pinned(core: int) -> Iterator[None]:
    """Keep this thread, and processes that it starts meanwhile, on one core: to pin a child itself takes a fork, and JAX none."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[core]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _asking(process: subprocess.Popen[str], command: list[str], errors: IO[str]) -> Callable[[str], Any]:
    """Return what asks a process for a case."""
    assert process.stdout is not None
    answers = process.stdout

    def measure(case: str) -> Any:
        print(case, file=process.stdin, flush=True)
        answer = answers.readline()
        if not answer:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed on {case!r}:\n{errors.read()[-2000:]}")
        return json.loads(answer)

    return measure


def serve(measure: Callable[[str], Any]) -> None:
    """Answer every line, a case, with what is measured of it, as JSON; until there are no more."""
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):  # libraries talk
            answer = measure(line.strip())
        print(json.dumps(answer), flush=True)


def cpu_seconds(function: Callable[[], object]) -> float:
    """Time one call by the CPU time of all threads, which other processes on the same cores do not lengthen."""
    began = time.process_time()
    function()
    return time.process_time() - began


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
