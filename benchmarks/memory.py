"""Resident memory of a run against its number of draws: draws stream to disk, so it must not grow with them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

DRAWS = (100, 1_000, 10_000)
# Short trajectories: what is measured is what draws cost, not gradients.
WORDS = ("--sampler.max-num-steps", "2", "--warmup.steps", "0", "--chains", "4", "--test-points", "50")


def peak(words: Sequence[str]) -> float:
    """Run a `bayesnn` command in a process of its own; return its peak resident memory, bytes."""
    # A process begins with the peak of the one that made it; the kernel's own mark, high water, begins anew.
    report = "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    code = f"import sys; from bayesnn.cli import main; status = main({list(words)!r}); {report}; sys.exit(status)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1]) * 1024  # the kernel counts kilobytes


def of_digits(draws: int, folder: Path) -> float:
    """Return the peak of digits-hmc with so many draws."""
    return peak(["run", "digits-hmc", "--draws", str(draws), *WORDS, "--runs", str(folder), "--name", str(draws)])


def main() -> None:
    """Print peaks and their ratio."""
    print("\nPeak resident memory of a run by its number of draws: digits, 3,760 parameters, 4 chains")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "first").mkdir()
        for draws in DRAWS:
            of_digits(draws, folder / "first")  # compiles, which takes memory of its own
        peaks = {draws: of_digits(draws, folder) for draws in DRAWS}
        for draws, size in peaks.items():
            stored = sum(file.stat().st_size for file in (folder / str(draws)).rglob("*") if file.is_file())
            print(f"  {draws:>6,} draws  {size / 1e6:8.0f} MB resident   {stored / 1e6:8.0f} MB on disk")
    print(f"  => {DRAWS[-1]:,} draws / {DRAWS[0]:,}: {peaks[DRAWS[-1]] / peaks[DRAWS[0]]:.3f}   (wanted <= 1.05)")


if __name__ == "__main__":
    main()
