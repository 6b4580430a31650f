"""The command line as a user meets it, in this process, and finished or interrupted runs to work on copies of."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from bayesnn import manifest
from bayesnn.cli import main
from bayesnn.progress import Reporter

EXPERIMENTS = Path(__file__).with_name("experiments.py")


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def one_code():
    """Let nobody's editing during the tests look like a run under other code."""
    code = manifest.code()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(manifest, "code", lambda: code)
        yield


def command(*words):
    """Run a command line in this process; return its exit status."""
    try:
        return main([str(word) for word in words])
    except SystemExit as end:  # as the parser ends help and unknown flags
        return end.code


@pytest.fixture
def cli(capfd):
    """Run a command line; return exit status and what it wrote, that of C++ libraries included."""

    def run(*words):
        capfd.readouterr()
        return Outcome(command(*words), *capfd.readouterr())

    return run


@pytest.fixture
def refused(cli):
    """Run a command line that must fail, with exit status 2 and nothing but one message; return the message."""

    def run(*words):
        status, _, err = cli(*words)
        assert status == 2, f"exit status {status}; stderr: {err}"
        assert err.startswith("bayesnn: "), err
        assert err.count("\n") == 1, err
        return err.removeprefix("bayesnn: ").strip()

    return run


@pytest.fixture
def own():
    """Name an experiment of the tests."""
    return lambda name: f"{EXPERIMENTS}:{name}"


def interrupt_in(monkeypatch, phase, step):
    """Send SIGINT to this process when a run has come so far."""
    update = Reporter.update

    def update_and_interrupt(self, progress):
        update(self, progress)
        if progress.phase == phase and progress.step >= step:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)  # for the thread that takes it

    monkeypatch.setattr(Reporter, "update", update_and_interrupt)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A complete run of wine; not to be changed, see `finished_copy`."""
    path = tmp_path_factory.mktemp("finished") / "wine"
    assert command("run", f"{EXPERIMENTS}:wine", "--name", path.name, "--runs", path.parent) == 0
    return path


@pytest.fixture(scope="session")
def halfway(tmp_path_factory):
    """The same run, interrupted in sampling; not to be changed, see `halfway_copy`."""
    path = tmp_path_factory.mktemp("halfway") / "wine"
    with pytest.MonkeyPatch.context() as monkeypatch:
        interrupt_in(monkeypatch, "sampling", 9)
        assert command("run", f"{EXPERIMENTS}:wine", "--name", path.name, "--runs", path.parent) == 130
    return path


@pytest.fixture
def finished_copy(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "wine"))


@pytest.fixture
def halfway_copy(halfway, tmp_path):
    return Path(shutil.copytree(halfway, tmp_path / "wine"))
