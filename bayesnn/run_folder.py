"""A run on disk: what was asked for, what ran, and its committed draws.

    runs/<name>/  config.json  manifest.json  status.json  metrics.jsonl  findings.json  report.html
                  shards/<first chain>-<count>/{draws.zarr, checkpoints/<step>, commit.json}

A commit is: draws, then sampler state, then one small commit record (temporary name, fsync, rename) with the number of draws and
the digest of the state. A kill at any instant therefore loses at most what came after the last commit, and corrupts nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bayesnn import config as configs
from bayesnn.config import RunConfig
from bayesnn.draw_store import DrawStore
from bayesnn.errors import UsageError
from bayesnn.imports import source_of

# The newest checkpoint, and the one before it in case a kill comes between a checkpoint and its commit record.
KEPT_CHECKPOINTS = 2


class Commit(BaseModel):
    """The commit record of a shard: all that counts is what it names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    phase: int = 0
    """0 warm-up, 1 sampling."""
    step: int = 0
    """Steps taken."""
    draws: int = 0
    """Draws that count, from the front of the store."""
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


class Shard:
    """The chains that one job runs."""

    def __init__(self, path: Path):
        self.path = path
        self.first_chain, self.num_chains = (int(part) for part in path.name.split("-"))
        self.draws = DrawStore(path / "draws.zarr")

    def read_commit(self) -> Commit | None:
        """Return the last commit, None if there is none yet."""
        path = self.path / "commit.json"
        if not path.exists():
            return None
        try:
            return Commit.model_validate_json(path.read_text())
        except (ValidationError, UnicodeDecodeError):
            raise UsageError(f"{path} is damaged; without it no draw counts: restore it from a copy, or run again") from None

    def commit(self, commit: Commit) -> None:
        """Make a commit: the draws and the checkpoint that it names are on disk already."""
        write_atomically(self.path / "commit.json", commit.model_dump_json(indent=1))
        checkpoints = sorted((self.path / "checkpoints").iterdir())
        for old in checkpoints[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old)

    def checkpoint_path(self, name: str) -> Path:
        """Return where a checkpoint lies."""
        return self.path / "checkpoints" / name


class RunFolder:
    """Reads and writes everything but draws and states, which are the shards'."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, path: Path, config: RunConfig, manifest: dict[str, Any], sources: dict[str, str]) -> RunFolder:
        """Make a new folder; its parents too.

        Raises:
            UsageError: It exists.
        """
        cls.refuse_existing(path)
        path.mkdir(parents=True)
        folder = cls(path)
        text = config.model_dump_json(indent=1)
        for name, source in sources.items():
            (path / "source").mkdir(exist_ok=True)
            write_atomically(path / "source" / name, source)
        folder.write_manifest(
            {**manifest, "config_sha256": hashlib.sha256(text.encode()).hexdigest(), "config": json.loads(text)}
        )
        write_atomically(path / "config.json", text)
        return folder

    @staticmethod
    def refuse_existing(path: Path) -> None:
        """Raise UsageError if there is something at the path."""
        if path.exists():
            raise UsageError(
                f"{path} exists; continue it with `bayesnn resume {path}`, choose another --name, or remove it: "
                "a run folder is never overwritten"
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from running this folder at the same time; a kill releases it.

        Raises:
            UsageError: One does.
        """
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"another process is running {self.path}; wait for it, or stop it first") from None
            yield

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a folder, checking that it is a run and that its configuration is the one it was made with.

        Raises:
            UsageError: Not a run folder, or an edited or damaged configuration or manifest.
        """
        folder = cls(path)
        if not path.is_dir():
            raise UsageError(f"no folder {path}")
        configs.read(path / "config.json")
        found = hashlib.sha256((path / "config.json").read_bytes()).hexdigest()
        if found != folder.manifest.get("config_sha256"):
            raise UsageError(
                f"{path / 'config.json'} was changed since the run began, so its draws are of another configuration; "
                "the original is in manifest.json: restore it, or start a new run"
            )
        return folder

    @property
    def config(self) -> RunConfig:
        """What was asked for."""
        return configs.read(self.path / "config.json")

    @property
    def manifest(self) -> dict[str, Any]:
        """What ran, on what, with which versions."""
        return self._read_json("manifest.json")

    @property
    def status(self) -> dict[str, Any]:
        """How far it is."""
        return self._read_json("status.json")

    def changed_sources(self) -> list[str]:
        """Return the user's own functions whose files are no longer those with which the run began."""
        return [name for name, digest in self.manifest["sources"].items() if source_of(name)[1] != digest]

    def check_sources(self, *, accept_changed_code: bool = False) -> list[str]:
        """Return the changed sources if they are accepted, or else refuse them.

        Raises:
            UsageError: Some changed, and that is not accepted.
        """
        changed = self.changed_sources()
        if changed and not accept_changed_code:
            raise UsageError(
                f"{', '.join(changed)} changed since this run began, and would give other results: restore it "
                f"(a copy is in {self.path / 'source'}), or say --accept-changed-code"
            )
        return changed

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace manifest.json."""
        write_atomically(self.path / "manifest.json", json.dumps(manifest, indent=1))

    def write_status(self, **status: Any) -> None:
        """Replace status.json."""
        write_atomically(self.path / "status.json", json.dumps(status, indent=1))

    def append_metrics(self, **metrics: Any) -> None:
        """Add a line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(metrics) + "\n")

    def shard(self, first_chain: int, num_chains: int) -> Shard:
        """Return the shard of these chains, its folder made."""
        path = self.path / "shards" / f"{first_chain}-{num_chains}"
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        return Shard(path)

    def shards(self) -> list[Shard]:
        """Return all shards, by first chain."""
        found = [Shard(path) for path in (self.path / "shards").glob("*-*")]
        return sorted(found, key=lambda shard: shard.first_chain)

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise UsageError(f"{self.path} is no run folder: it has no {name}") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is damaged ({error}); restore it from a copy, or run again") from None


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a kill, sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
