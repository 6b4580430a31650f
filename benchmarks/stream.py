"""A run of a million parameters: 6.5 GB of draws on their way to disk, and the memory that it takes."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.memory import peak

CHAINS, DRAWS = 8, 200
# Few examples and two leapfrogs: what is measured is what draws cost, not gradients.
WORDS = (
    *("run", "diabetes-hmc", "--model.widths", "1000", "1000", "--data.num-train", "16", "--test-points", "20"),
    *("--chains", str(CHAINS), "--draws", str(DRAWS), "--warmup.steps", "0"),
    *("--sampler.max-num-steps", "2", "--sampler.step-size", "1e-5"),
)  # fmt: skip
NEEDED_BYTES = 10 * 10**9


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Print the peak of resident memory, and how fast draws reach the disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if (free := shutil.disk_usage(folder).free) < NEEDED_BYTES:
            print(f"\nStreaming: {folder} has {free / 1e9:.1f} GB free, and {NEEDED_BYTES / 1e9:.0f} are needed; not measured")
            return
        began = time.perf_counter()
        resident = peak([*WORDS, "--runs", name, "--name", "run"])
        elapsed = time.perf_counter() - began
        shard = folder / "run" / "shards" / f"0-{CHAINS}"
        draws, states = size_of(shard / "draws.zarr"), size_of(shard / "checkpoints")
    print(f"\nStreaming draws: MLP 10-1000-1000-2, 1,014,002 parameters, {CHAINS} chains, {DRAWS} draws")
    print(f"  {draws / 1e9:.2f} GB of draws in {elapsed:.0f} s ({draws / elapsed / 1e6:.0f} MB/s); states {states / 1e6:.0f} MB")
    beyond = resident - states
    print(f"  => peak {resident / 2**30:.2f} GiB resident, {beyond / 2**30:.2f} beyond the states   (wanted < 2)")


if __name__ == "__main__":
    main()
