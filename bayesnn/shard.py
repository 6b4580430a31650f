"""The chains that one job runs, on disk: their draws, their state, and the record that says how much of both counts."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pydantic import BaseModel, ConfigDict, ValidationError

from bayesnn.draw_store import DrawStore
from bayesnn.errors import UsageError

if TYPE_CHECKING:
    from samplers import Run


class Commit(BaseModel):
    """The commit record of a shard: all that counts is what it names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    phase: int = 0
    """0 warm-up, 1 sampling."""
    step: int = 0
    """Steps taken."""
    draws: int = 0
    """Draws that count, from the front of the store."""
    is_complete: bool = False
    """All draws are there, or what ends the run before came about."""
    checkpoint: str = ""
    """Folder of the sampler state, below checkpoints/."""
    digest: str = ""
    """Of the checkpoint's files."""
    gradients: float = 0
    """Full-data gradients spent in sampling, all chains."""
    seconds: float = 0
    """Wall time spent in sampling, compilation included."""
    warmup_gradients: float = 0
    """Full-data gradients spent before, all chains."""
    warmup_seconds: float = 0
    """Wall time spent before, compilation included."""
    num_divergent: list[int] = []
    """Divergent steps of each chain."""
    num_nonfinite: list[int] = []
    """Steps of each chain that left a non-finite state."""
    first_divergent: list[int] = []
    """Step of each chain's first divergence, -1 if never."""
    first_nonfinite: list[int] = []
    """Step at which each chain first left the finite numbers, -1 if never."""


class Record(BaseModel):
    """What commit.json holds: a commit, and a checksum by which an edit or a torn file is noticed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checksum: str
    commit: Commit

    @classmethod
    def of(cls, commit: Commit) -> Record:
        """Return the record of a commit."""
        return cls(checksum=hashlib.blake2b(commit.model_dump_json().encode(), digest_size=16).hexdigest(), commit=commit)


class TakenError(UsageError):
    """Another process runs these chains."""


# A look at whether a shard is run holds its lock for an instant, for which who wants to run it waits.
LOOK_SECONDS = 0.5
# A folder of this name is a shard that a job is about to begin: its chains are taken.
CLAIMED = ".{}.claimed"


class Shard:
    """The chains that one job runs."""

    def __init__(self, path: Path):
        self.path = path
        self.first_chain, self.num_chains = (int(part) for part in path.name.strip(".").split(".")[0].split("-"))
        self.draws = DrawStore(path / "draws.zarr")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from running these chains at the same time; a kill releases it.

        Raises:
            TakenError: One does.
        """
        with self._lock_file() as file:
            deadline = time.monotonic() + LOOK_SECONDS
            while not _takes(file, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise TakenError(f"another process is running {self.path}; wait for it, or stop it first")
                time.sleep(LOOK_SECONDS / 10)
            for leftover in self.path.glob(".*.tmp"):  # what a kill left in the middle of a write
                leftover.unlink()
            yield

    @property
    def is_locked(self) -> bool:
        """Whether a process runs these chains."""
        with self._lock_file() as file:
            return not _takes(file, fcntl.LOCK_SH)

    def _lock_file(self) -> TextIO:
        return (self.path / ".lock").open("a+")

    def read_commit(self) -> Commit:
        """Return the last commit.

        Raises:
            UsageError: The commit record is missing, damaged or edited.
        """
        path = self.path / "commit.json"
        try:
            record = Record.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            record = None
        if record is None or record != Record.of(record.commit):
            raise UsageError(f"{path} is missing, damaged or edited; without it no draw counts: restore it from a copy")
        return record.commit

    def commit(self, commit: Commit, run: Run) -> Commit:
        """Make a commit: draws that are still on their way to the disk, the state of the chains, then the record.

        Each process writes the state of its own chains, the first one the record.

        Returns:
            The record, with the digest of the state and the health of the chains.
        """
        import samplers

        self.draws.flush()
        (self.path / "checkpoints").mkdir(exist_ok=True)
        name = f"{commit.step:012d}"
        digest = samplers.save_run(self._checkpoint(name), run)
        counts = samplers.processes.whole_columns(run.health)
        health = {name: count.tolist() for name, count in zip(run.health._fields, counts, strict=True)}
        commit = commit.model_copy(update={"checkpoint": name, "digest": digest, **health})
        if not samplers.processes.is_first():
            return commit
        write_atomically(self.path / "commit.json", Record.of(commit).model_dump_json(indent=1))
        for other in (self.path / "checkpoints").iterdir():  # older ones, and what a kill left unfinished or uncommitted
            if other.name != name:
                shutil.rmtree(other)
        return commit

    def load_run(self, commit: Commit, like: Run) -> Run:
        """Return the state of the chains at a commit.

        Raises:
            UsageError: The checkpoint is missing, damaged, or of another run than `like`.
        """
        import samplers

        try:
            return samplers.load_run(self._checkpoint(commit.checkpoint), like, commit.digest)
        except samplers.CheckpointError as error:
            raise UsageError(f"{error}; committed draws are intact, but to continue, restore it from a copy") from error

    def _checkpoint(self, name: str) -> Path:
        return (self.path / "checkpoints" / name).resolve()


def _takes(file: TextIO, kind: int) -> bool:
    """Take a lock of this kind, which closing the file gives back, unless another process has one that excludes it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def refuse_object_store(path: Path) -> None:
    """Raise UsageError for a path such as gs://bucket/run, which pathlib takes for a folder named gs: here."""
    scheme, *rest = path.parts or ("",)
    if scheme.endswith(":"):
        raise UsageError(
            f"{scheme}//{'/'.join(rest)} is in an object store, which has no atomic rename, as commits need: use a local or "
            "network disk, and copy folders there when they are complete"
        )


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a kill, sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
