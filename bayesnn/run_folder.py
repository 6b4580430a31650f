"""A run on disk: what was asked for, what ran, and its committed draws.

    runs/<name>/  config.json  manifest.json  status.json  metrics.jsonl  findings.json  report.html
                  shards/<first chain>-<count>/{draws.zarr, checkpoints/<step>, commit.json}

A folder appears under its name when it is whole, with a first commit of chains that have not moved. A commit is: draws, then
sampler state, then one small commit record (temporary name, fsync, rename) with the number of draws and the digest of the state.
A kill at any instant therefore loses at most what came after the last commit, and corrupts nothing.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from bayesnn import config as configs
from bayesnn.config import RunConfig
from bayesnn.errors import UsageError
from bayesnn.imports import source_of
from bayesnn.manifest import Launch, Manifest
from bayesnn.shard import CLAIMED, Commit, Shard, refuse_object_store, write_atomically

if TYPE_CHECKING:
    from samplers import Run

# What the jobs of a run write in common.
STATUS, MANIFEST = "status.json", "manifest.json"


class FolderExistsError(UsageError):
    """There is something where a new run folder should be."""


class RunFolder:
    """Reads and writes everything but draws and states, which are the shards'.

    Args:
        path: Where it is, or will be.

    Raises:
        UsageError: That is in an object store.
    """

    def __init__(self, path: Path):
        refuse_object_store(path)
        self.path = path

    @classmethod
    def create(cls, path: Path, config: RunConfig, manifest: dict[str, Any], sources: dict[str, str], run: Run) -> RunFolder:
        """Make a new folder, and its parents; it appears under its name when it is whole.

        Args:
            path: Where.
            config: What is asked for.
            manifest: What runs, on what: the manifest but for the configuration.
            sources: Copies of the user's own files, by name.
            run: Chains at step 0, the first commit.

        Raises:
            FolderExistsError: It exists, or another job was quicker to make it.
        """
        cls.refuse_existing(path)
        # Processes of two machines may have one number, as those in containers often do.
        draft = cls(path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp"))
        draft.path.mkdir(parents=True)
        try:
            for name, source in sources.items():
                (draft.path / "source").mkdir(exist_ok=True)
                write_atomically(draft.path / "source" / name, source)
            text = config.model_dump_json(indent=1)
            digest = hashlib.sha256(text.encode()).hexdigest()
            draft.write_manifest({**manifest, "config_sha256": digest, "config": json.loads(text)})
            write_atomically(draft.path / "config.json", text)
            shard = Shard(draft.path / "shards" / f"0-{config.chains}")
            shard.path.mkdir(parents=True)
            draft.write_status(shard, "running", shard.commit(Commit(), run))
            try:
                draft.path.rename(path)
            except OSError:
                cls.refuse_existing(path)
                raise
        except BaseException:
            shutil.rmtree(draft.path, ignore_errors=True)
            raise
        return cls(path)

    @staticmethod
    def refuse_existing(path: Path) -> None:
        """Raise FolderExistsError if there is something at the path."""
        if path.exists():
            raise FolderExistsError(
                f"{path} exists; continue it with `bayesnn resume {path}`, choose another --name, or remove it: "
                "a run folder is never overwritten"
            )

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the other jobs of this folder to finish what they write to it in common; a kill releases it."""
        with (self.path / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for name in (STATUS, MANIFEST):
                for leftover in self.path.glob(f".{name}.*.tmp"):  # what a kill left in the middle of a write
                    leftover.unlink()
            yield

    def claim(self, num_chains: int) -> Shard:
        """Take the next free chains for a new shard, which `begin` begins."""
        with self.turn():
            names = [path.name.strip(".").split(".")[0] for path in (self.path / "shards").iterdir()]
            first = max(sum(int(part) for part in name.split("-")) for name in names)
            path = self.path / "shards" / CLAIMED.format(f"{first}-{num_chains}")
            path.mkdir()
        return Shard(path)

    def begin(self, claimed: Shard, run: Run, launch: Launch) -> Shard:
        """Begin a claimed shard with chains at step 0; it appears when it is whole."""
        commit = claimed.commit(Commit(), run)
        shard = Shard(claimed.path.with_name(f"{claimed.first_chain}-{claimed.num_chains}"))
        claimed.path.rename(shard.path)
        self.write_status(shard, "running", commit)
        self.add_launch(launch)
        return shard

    def add_launch(self, launch: Launch) -> None:
        """Record another execution in manifest.json."""
        with self.turn():
            facts = self.manifest
            self.write_manifest({**facts, "launches": [*facts["launches"], launch]})

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a folder, checking that it is a run and that its configuration is the one it was made with.

        Raises:
            UsageError: Not a run folder, or an edited or damaged configuration or manifest.
        """
        folder = cls(path)
        if not path.is_dir():
            places = (path.parent, Path("runs"))  # the second is where `bayesnn run` makes them
            runs = {found.parent.name: found.parent for place in places for found in place.glob("*/config.json")}
            near = difflib.get_close_matches(path.name, runs, n=1)
            raise UsageError(f"no folder {path}{f'; did you mean {runs[near[0]]}?' if near else ''}")
        inside = sorted(path.glob("*/config.json"))
        if inside and not (path / "config.json").exists():
            raise UsageError(f"{path} is no run folder, it holds some: name one, such as {inside[0].parent}")
        configs.read(path / "config.json")
        found = hashlib.sha256((path / "config.json").read_bytes()).hexdigest()
        if found != folder.manifest["config_sha256"]:
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
    def manifest(self) -> Manifest:
        """What ran, on what, with which versions."""
        try:
            return TypeAdapter(Manifest).validate_python(self._read_json(MANIFEST))
        except ValidationError as error:
            entry = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise UsageError(
                f"{self.path / 'manifest.json'} is damaged at {entry}; restore it from a copy, or run again"
            ) from None

    @property
    def status(self) -> dict[str, Any]:
        """How far it is."""
        return self._read_json(STATUS)

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

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace manifest.json."""
        write_atomically(self.path / MANIFEST, json.dumps(manifest, indent=1))

    def write_status(self, shard: Shard, state: str, commit: Commit) -> None:
        """Say how far a shard is, and with it the whole run; after a kill, status.json says "running".

        Args:
            shard: The shard.
            state: Of it: "running", "interrupted", "failed" or "complete".
            commit: Its last commit.
        """
        config = self.config
        status = {
            "state": state,
            "phase": "sampling" if commit.phase else "warm-up",
            "step": commit.step,
            "steps": config.warmup.steps + config.draws * config.thin,
            "draws": commit.draws,
            "draws_asked": config.draws,
            "chains": shard.num_chains,
            "gradients": commit.gradients,
            "seconds": round(commit.seconds, 3),
            "warmup_gradients": commit.warmup_gradients,
            "warmup_seconds": round(commit.warmup_seconds, 3),
        }
        write_atomically(shard.path / STATUS, json.dumps(status, indent=1))
        with self.turn():
            files = [other.path / STATUS for other in self.shards()]
            parts = [json.loads(file.read_text()) for file in files if file.exists()]
            write_atomically(self.path / STATUS, json.dumps(_joined(parts), indent=1))

    def append_metrics(self, **metrics: Any) -> None:
        """Add a line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(metrics) + "\n")

    def shards(self) -> list[Shard]:
        """Return all shards that have begun, by first chain."""
        found = [Shard(path) for path in (self.path / "shards").glob("[0-9]*-*")]
        return sorted(found, key=lambda shard: shard.first_chain)

    def unfinished(self) -> list[Shard]:
        """Return the shards that are not complete."""
        return [shard for shard in self.shards() if not shard.read_commit().is_complete]

    def draws_by_chain(self) -> list[int]:
        """Return how many committed draws each chain has, but for chains without any, which are not read yet."""
        return [draws for shard in self.shards() if (draws := shard.read_commit().draws) for _ in range(shard.num_chains)]

    def left_out(self) -> str:
        """Say how many committed draws are not read, since chains are read as far as all of them are; empty where none are."""
        counts = self.draws_by_chain()
        if len(set(counts)) < 2:
            return ""
        fewest, total = min(counts), sum(counts)
        return (
            f"chains have {fewest:,} to {max(counts):,} draws, and the first {fewest:,} of each are read: "
            f"{total - fewest * len(counts):,} of {total:,} draws are left out, which gradients and seconds count"
        )

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            raise UsageError(f"{self.path} is no run folder: it has no {name}") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is damaged ({error}); restore it from a copy, or run again") from None
        if not isinstance(data, dict):
            raise UsageError(f"{path} is damaged (no object); restore it from a copy, or run again")
        return data


# The state of a run is the first of these that one of its shards is in.
STATES = ("running", "failed", "interrupted", "complete")


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the status of a run from those of its shards: the slowest decides how far it is, costs are added."""
    slowest = min(parts, key=lambda status: status["step"])
    costs = ("chains", "gradients", "seconds", "warmup_gradients", "warmup_seconds")
    state = min((status["state"] for status in parts), key=STATES.index)
    return {**slowest, "state": state, **{name: sum(status[name] for status in parts) for name in costs}}
