"""Faults, counted: small runs that are killed, stopped, starved and damaged, beside one that nothing happened to.

Each fault strikes a `bayesnn run` that commits after every piece. Then its cause is removed, the run is resumed to its end, and
every draw is compared bit for bit with the undisturbed run. *Lost* are draws that were committed when the fault struck and are
not those of the undisturbed run; *silent damage* is a run that says it is complete and is not that run.
`python -m benchmarks.faults` prints the table; a small disk, and a read-only one, need the right to mount them.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from bayesnn.load import read_tree
from bayesnn.run_folder import RunFolder
from benchmarks.disturbed import (
    CHAINS,
    DRAWS,
    EXPERIMENT,
    STEP_SIZE,
    THIN,
    WARM_UP,
    Scene,
    Trial,
    committed,
    draws_of,
    failed_claims,
)
from benchmarks.warm import PATIENCE, commit_often, end

# Bytes of a disk that is too small for the run, but for the smallest ones not for its beginning.
SMALLEST_DISK, LARGEST_DISK = 200_000, 1_200_000


def signalled(number: signal.Signals, scene: Scene, trials: int) -> Iterator[Trial]:
    """Send a signal to runs at random instants, and one more to the first resumption of each."""
    count = 0
    while count < trials:
        path, struck = scene.new(), list[tuple[int, str]]()
        while len(struck) < 2 and (status := scene.strike(path, number)) != 0:
            struck.append((committed(path), scene.told(status)))
        scene.finish(path)
        count += len(struck)
        yield from (scene.judge(path, draws_then, told) for draws_then, told in struck)


def one_of_two(victim: int, scene: Scene, trials: int) -> Iterator[Trial]:
    """Kill one of two processes of a run when so many draws are committed, a random number; one alone goes on."""
    for _ in range(trials):
        path = scene.new()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"
        together = ["--distributed", "--coordinator", address, "--num-processes", 2, "--process-id"]
        processes = [scene.begin(path, *together, number) for number in range(2)]
        target, deadline = scene.rng.integers(1, 3 * DRAWS // 4), time.monotonic() + PATIENCE
        while committed(path) < target and time.monotonic() < deadline:
            time.sleep(0.01)
        processes[victim].kill()
        end(processes[victim])
        told = f"the other: {scene.told(end(processes[1 - victim]))}"
        draws_then = committed(path)
        scene.finish(path)
        yield scene.judge(path, draws_then, told)


@contextlib.contextmanager
def disk(folder: Path, num_bytes: int) -> Iterator[Path]:
    """Mount a disk of a size.

    Raises:
        PermissionError: That is not allowed here.
    """
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
    if (done := subprocess.run(words, capture_output=True, text=True, check=False)).returncode:
        raise PermissionError(done.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a mounted disk."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def full_disk(scene: Scene, trials: int) -> Iterator[Trial]:
    """Run on a disk of a random size that is too small; then make room."""
    for _ in range(trials):
        with disk(scene.new(), int(scene.rng.integers(SMALLEST_DISK, LARGEST_DISK))) as folder:
            told = scene.told(end(scene.begin(folder / "run")))
            draws_then = committed(folder / "run")
            remount(folder, "size=50m")
            scene.finish(folder / "run")
            yield scene.judge(folder / "run", draws_then, told)


def read_only(scene: Scene, trials: int) -> Iterator[Trial]:
    """Resume in a folder that cannot be written; then make it writable."""
    for _ in range(trials):
        halfway = scene.halfway()
        with disk(scene.new(), 50 * 10**6) as folder:
            path = Path(shutil.copytree(halfway, folder / "run"))
            remount(folder, "ro")
            told = scene.told(end(scene.begin(path)))
            remount(folder, "rw")
            scene.finish(path)
            yield scene.judge(path, committed(halfway), told)


def torn(file: Path, rng: np.random.Generator) -> None:
    """Keep the first bytes of a file."""
    os.truncate(file, int(rng.integers(file.stat().st_size)))


def missing(file: Path, rng: np.random.Generator) -> None:
    """Remove a file."""
    file.unlink()


def flipped(file: Path, rng: np.random.Generator) -> None:
    """Flip one bit of a file."""
    content = bytearray(file.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    file.write_bytes(content)


# Files of a shard: the sampler's state, blocks of committed draws, and the records that say what both are.
STATE, BLOCKS, RECORDS = "checkpoints/*/*.npz", "draws.zarr/*/*/c/**/*", "**/*.json"


def damaged(damage: Callable[[Path, np.random.Generator], None], files: str, scene: Scene, trials: int) -> Iterator[Trial]:
    """Damage one file of a stopped run; resume it, and audit it if that goes well. Then restore the file, and resume."""
    halfway = scene.halfway()
    for _ in range(trials):
        path = Path(shutil.copytree(halfway, scene.new()))
        shard, draws_then = path / "shards" / f"0-{CHAINS}", committed(halfway)
        found = sorted(file for file in shard.glob(files) if file.is_file())
        chosen = found[scene.rng.integers(len(found))]
        whole = chosen.read_bytes()
        damage(chosen, scene.rng)
        if (status := end(scene.begin(path))) != 0:
            told = f"resume: {scene.told(status)}"
        elif (status := scene.audit(path)) == 2:
            told = f"audit: {scene.told(status)}"
        else:  # it did not matter, or nobody noticed
            yield scene.judge(path, draws_then, "came to its end")
            continue
        chosen.write_bytes(whole)
        scene.finish(path)
        yield scene.judge(path, draws_then, told)


def plant_not_a_number(step: int) -> None:
    """Let chain 1 lose its position when it has come to a step of sampling."""
    import jax

    import samplers

    commit_often()
    sample = samplers.sample
    is_planted = False

    def sample_and_plant(*arguments: object, **settings: object) -> samplers.Result:
        nonlocal is_planted
        result = sample(*arguments, **settings)  # type: ignore[arg-type]
        if is_planted or result.run.step < step:
            return result
        is_planted = True
        state = result.run.state
        position = jax.tree.map(lambda x: x.at[1].set(np.nan), state.position)
        return result._replace(run=result.run._replace(state=state._replace(position=position)))

    samplers.sample = sample_and_plant


def not_a_number(scene: Scene, trials: int) -> Iterator[Trial]:
    """Plant NaN in one of the chains at a random step: the other goes on, and the audit names the one."""
    for _ in range(trials):
        path, step = scene.new(), int(scene.rng.integers(WARM_UP + THIN, WARM_UP + THIN * (DRAWS - 2)))
        status = end(scene.begin(path, change=functools.partial(plant_not_a_number, step)))
        is_named = scene.audit(path) == 1 and any("chain 1" in note for note in failed_claims(path).values())
        found, wanted = draws_of(path), draws_of(scene.undisturbed)
        position = read_tree(RunFolder(path))["posterior"].to_dataset()
        alive = min(int(np.isfinite(x.values[1]).reshape(DRAWS, -1).all(axis=1).sum()) for x in position.data_vars.values())
        is_equal = np.ones((CHAINS, DRAWS), bool)
        for name, values in wanted.items():
            is_equal &= (found[name] == values).reshape(CHAINS, DRAWS, -1).all(axis=2)
        lost = DRAWS - int(is_equal[0].sum()) + alive - int(is_equal[1, :alive].sum())
        yield Trial(alive, lost, not is_named, f"run: exit {status}; audit: {'names the chain' if is_named else 'does not'}")


def too_large_a_step(scene: Scene, trials: int) -> Iterator[Trial]:
    """Sample with a step size a hundred times too large, from several seeds: the audit must fail."""
    for seed in range(trials):
        path = scene.new()
        change = ["--warmup.steps", 0, "--sampler.step-size", 100 * STEP_SIZE, "--seed", seed]
        status = end(scene.begin(path, *change))
        is_failed = scene.audit(path) == 1 and len(failed_claims(path)) > 0
        yield Trial(committed(path), 0, not is_failed, f"run: exit {status}; audit: {'fails' if is_failed else 'does not fail'}")


type Fault = Callable[[Scene, int], Iterator[Trial]]
WAYS = {"torn": torn, "missing": missing, "one bit flipped": flipped}
FILES = {"a file of the sampler's state": STATE, "a block of draws": BLOCKS, "a record": RECORDS}
# How often each strikes.
FAULTS: dict[str, tuple[Fault, int]] = {
    "`kill -9`": (functools.partial(signalled, signal.SIGKILL), 50),
    "SIGTERM": (functools.partial(signalled, signal.SIGTERM), 10),
    "SIGINT": (functools.partial(signalled, signal.SIGINT), 10),
    "`kill -9` of process 0 of two": (functools.partial(one_of_two, 0), 5),
    "`kill -9` of process 1 of two": (functools.partial(one_of_two, 1), 5),
    "disk full": (full_disk, 8),
    "folder read-only": (read_only, 2),
    **{
        f"{what}, {how}": (functools.partial(damaged, way, files), 8 if way is flipped else 4)
        for what, files in FILES.items()
        for how, way in WAYS.items()
    },
    "NaN in one chain": (not_a_number, 3),
    "step size 100 times too large": (too_large_a_step, 3),
}


def strike(scene: Scene, name: str, trials: int | None = None) -> tuple[list[Trial], str]:
    """Let a fault strike, and return its trials and its row of the table."""
    fault, usual = FAULTS[name]
    try:
        done = list(fault(scene, trials or usual))
    except PermissionError as error:
        return [], f"| {name} | not tried: {error} | | | | |"
    draws = sorted(trial.committed for trial in done)
    told = collections.Counter(trial.told for trial in done)
    words = "; ".join(f"{how} ({count})" if len(told) > 1 else how for how, count in told.most_common())
    lost, silent = sum(trial.lost for trial in done), sum(trial.is_silent for trial in done)
    return done, f"| {name} | {len(done)} | {draws[0]} to {draws[-1]} | {lost} | {silent} | {words} |"


def main(words: Sequence[str] = ()) -> None:
    """Print the table of all faults, or of those in whose names one of the words occurs."""
    chosen = [name for name in FAULTS if not words or any(word in name for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder))
        print(f"\nFaults in runs of {DRAWS} draws by {CHAINS} chains, {EXPERIMENT}; undisturbed {scene.seconds:.1f} s")
        print("| fault | times | draws committed then | of these lost | silent damage | what it said |")
        print("|---|---|---|---|---|---|", flush=True)
        for name in chosen:
            print(strike(scene, name)[1], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
