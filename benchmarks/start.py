"""Start-up: help, and the time from a command to the first step of a run whose programs are in the compilation cache."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.timing import interleave, report

COMMAND = str(Path(sys.executable).parent / "bayesnn")
REPEATS = 5


def help_seconds(*words: str) -> float:
    """Time a help page."""
    began = time.perf_counter()
    subprocess.run([COMMAND, *words, "--help"], capture_output=True, check=True)
    return time.perf_counter() - began


def first_step_seconds() -> float:
    """Time from the command to its first line of progress."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        process = subprocess.Popen(
            [COMMAND, "run", "digits-hmc", "--runs", folder], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        elapsed = time.perf_counter() - began
        process.kill()
        process.wait()
        process.stdout.close()
    return elapsed


def main() -> None:
    """Print start-up times."""
    cases = {
        "bayesnn --help (wanted 0.5 s)": lambda: help_seconds(),
        "bayesnn run digits-hmc --help (wanted 1.5 s)": lambda: help_seconds("run", "digits-hmc"),
        "second run of digits-hmc to its first step (wanted 6 s)": first_step_seconds,
    }
    report("Start-up", interleave(cases, REPEATS), "s")


if __name__ == "__main__":
    main()
