"""Runs to be disturbed, and the one that nothing happened to, with which they are compared bit for bit."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bayesnn.load import read_tree
from bayesnn.run_folder import RunFolder
from bayesnn.shard import Commit
from benchmarks.warm import PATIENCE, begin, commit_often, end

EXPERIMENT, STEP_SIZE = "diabetes-hmc", 0.003
WARM_UP, DRAWS, THIN, CHAINS = 10, 40, 5, 2
SETTINGS = (
    *("--chains", CHAINS, "--warmup.steps", WARM_UP, "--draws", DRAWS, "--thin", THIN),
    *("--sampler.max-num-steps", 20, "--test-points", 20),
)
STEPS = WARM_UP + DRAWS * THIN
# About what a piece of the run and its commit take.
PIECE_SECONDS = 0.2
GROUPS = ("posterior", "functions", "sample_stats")


class Trial(NamedTuple):
    """One fault.

    Attributes:
        committed: Draws that were committed when it struck.
        lost: Of these, how many are gone or others in the end.
        is_silent: The run came to its end as if nothing were wrong, and is not the undisturbed one.
        told: How the commands that met the fault ended.
    """

    committed: int
    lost: int
    is_silent: bool
    told: str


class Scene:
    """Where runs are disturbed, and the run that nothing happened to."""

    def __init__(self, folder: Path, seed: int = 0):
        self.folder, self.rng = folder, np.random.default_rng(seed)
        self.log = folder / "log"
        self._numbers = itertools.count()
        self.finish(self.new())  # compiles
        self.undisturbed = self.new()
        began = time.monotonic()
        self.finish(self.undisturbed)
        self.seconds = time.monotonic() - began

    def new(self) -> Path:
        """Return where there is no run yet."""
        return self.folder / f"run-{next(self._numbers)}"

    def begin(self, path: Path, *more: object, change: Callable[[], None] = commit_often) -> BaseProcess:
        """Start a run, or its resumption, in a process of its own."""
        run = ["run", EXPERIMENT, "--name", path.name, "--runs", path.parent, *SETTINGS]
        return begin([*(["resume", path] if path.exists() else run), *more], self.log, change=change)

    def finish(self, path: Path) -> None:
        """Bring a run to its end."""
        if (status := end(self.begin(path))) != 0:
            raise RuntimeError(f"{path} could not be brought to its end: exit status {status}; {self.log.read_text()}")

    def audit(self, path: Path) -> int:
        """Audit a run; return the exit status."""
        return end(begin(["audit", path], self.log))

    def told(self, status: int) -> str:
        """Say how a command ended that had to fail."""
        words = self.log.read_text()
        is_clean = "Traceback" not in words and "should not happen" not in words
        return f"exit {status}, a message" if status == 2 and is_clean else f"exit {status}" + ("" if is_clean else ", TRACEBACK")

    def halfway(self) -> Path:
        """Return a run that was stopped in sampling."""
        while True:
            path = self.new()
            status = self.strike(path, signal.SIGTERM)
            if status == 130 and 0 < committed(path) < DRAWS:
                return path

    def strike(self, path: Path, number: signal.Signals) -> int:
        """Start a run, or its resumption, and send a signal at a random instant of what is left of it; return the exit status.

        Instants are drawn from the progress that is left, for how long it takes depends on what else the machine does; one in six
        lies in the start.
        """
        process, step = self.begin(path), last_commit(path).step
        target = self.rng.integers(step - STEPS // 5, STEPS)
        deadline = time.monotonic() + PATIENCE
        while process.exitcode is None and last_commit(path).step < target and time.monotonic() < deadline:
            process.join(0.01)
        process.join(self.rng.uniform(0, self.seconds / 2 if target <= step else PIECE_SECONDS))
        if process.exitcode is None and process.pid is not None:
            os.kill(process.pid, number)
        return end(process)

    def judge(self, path: Path, draws_then: int, told: str) -> Trial:
        """Compare a run that was brought to its end with the undisturbed one."""
        found, wanted = draws_of(path), draws_of(self.undisturbed)
        differs = np.zeros(DRAWS, bool)
        for name, values in wanted.items():
            differs |= (found[name] != values).reshape(CHAINS, DRAWS, -1).any(axis=(0, 2))
        return Trial(draws_then, int(differs[:draws_then].sum()), bool(differs.any()), told)


def last_commit(path: Path) -> Commit:
    """Return the last commit of a run, the empty one where there is no folder yet."""
    return RunFolder(path).shards()[0].read_commit() if path.exists() else Commit()


def committed(path: Path) -> int:
    """Return the committed draws of a run."""
    return last_commit(path).draws


def draws_of(path: Path) -> dict[str, np.ndarray]:
    """Return all that a run keeps of its draws, as bits, [chain, draw, ...]."""
    tree = read_tree(RunFolder(path))
    values = {f"{group}/{name}": one.values for group in GROUPS for name, one in tree[group].data_vars.items()}
    return {name: x.view(f"u{x.dtype.itemsize}") for name, x in values.items()}  # NaN equals itself


def failed_claims(path: Path) -> dict[str, str]:
    """Return the notes of the claims that failed in a run's audit, by claim."""
    findings = json.loads((path / "findings.json").read_text())
    return {finding["claim"]: finding["note"] for finding in findings if finding["verdict"] == "fail"}
