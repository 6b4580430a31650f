"""Resident memory of a run against its number of draws: draws stream to disk, so it must not grow with them."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

DRAWS = (100, 1_000, 10_000)
# Short trajectories: what is measured is what draws cost, not gradients.
WORDS = ("--sampler.max-num-steps", "2", "--warmup.steps", "0", "--chains", "4", "--test-points", "50")


def peak(draws: int, folder: Path) -> float:
    """Run digits-hmc in a process of its own; return its peak resident memory, bytes."""
    words = ["run", "digits-hmc", "--draws", str(draws), *WORDS, "--runs", str(folder), "--name", str(draws)]
    with (folder / "log").open("w") as log:
        process = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "bayesnn.cli", *words],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, log.fileno(), 1)],
        )
        _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"bayesnn {' '.join(words)} failed")
    return usage.ru_maxrss * 1024.0  # Linux counts kilobytes


def main() -> None:
    """Print peaks and their ratio."""
    print("\nPeak resident memory of a run by its number of draws: digits, 3,760 parameters, 4 chains")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "first").mkdir()
        for draws in DRAWS:
            peak(draws, folder / "first")  # compiles, which takes memory of its own
        peaks = {draws: peak(draws, folder) for draws in DRAWS}
        for draws, size in peaks.items():
            stored = sum(file.stat().st_size for file in (folder / str(draws)).rglob("*") if file.is_file())
            print(f"  {draws:>6,} draws  {size / 1e6:8.0f} MB resident   {stored / 1e6:8.0f} MB on disk")
    print(f"  => {DRAWS[-1]:,} draws / {DRAWS[0]:,}: {peaks[DRAWS[-1]] / peaks[DRAWS[0]]:.3f}   (wanted <= 1.05)")


if __name__ == "__main__":
    main()
