"""Runs that are killed, stopped and starved at chosen instants end with the draws of a run that nothing happened to.

Random instants: `tests/benchmarks/test_faults.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bayesnn.run_folder import RunFolder
from tests.bayesnn.conftest import EXPERIMENTS, command
from tests.bayesnn.test_execute import commit_of, trees_are_equal

ROOT = Path(__file__).parents[2]
SETTINGS = ("--warmup.steps", "20", "--draws", "100", "--thin", "20")
# Longer than a process may take to say its next word, on a loaded machine.
PATIENCE = 120

pytestmark = pytest.mark.slow


def begin(*words, point="nowhere", call=1):
    """Start a command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.bayesnn.killed", point, str(call), *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process):
    """Wait for a process; return exit status, stdout and stderr."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def wait_for(process, word):
    """Read what a process says until a word comes."""
    for line in process.stdout:
        if word in line:
            return
    pytest.fail(f"it never said {word!r}: {process.stderr.read()}")


def words_for(run):
    """Return the command that brings a run on: its start, or its resumption."""
    return (
        ("resume", run) if run.exists() else ("run", f"{EXPERIMENTS}:wine", "--name", run.name, "--runs", run.parent, *SETTINGS)
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The run that nothing happened to, audited."""
    run = tmp_path_factory.mktemp("reference") / "wine"
    assert command(*words_for(run)) == 0
    command("audit", run)
    return run


def assert_is_the_reference(run, reference):
    """Compare draws, statistics and findings bit for bit, and look for what should not be left over."""
    assert trees_are_equal(run, reference)
    assert RunFolder(run).status["state"] == "complete"
    command("audit", run)
    assert (run / "findings.json").read_bytes() == (reference / "findings.json").read_bytes()
    assert not list(run.rglob("*.tmp"))
    assert len(list((run / "shards/0-2/checkpoints").iterdir())) == 1


@pytest.mark.parametrize(
    ("point", "call"),
    [
        ("store made", 1),
        ("draws written", 3),
        ("state written", 4),
        ("state written", 24),
        ("record not synced", 40),
        ("record not renamed", 31),
        ("record renamed", 32),
        ("old state not removed", 5),
    ],
)
def test_a_kill_within_a_commit_loses_at_most_that_commit(point, call, reference, tmp_path):
    run = tmp_path / "wine"
    status, _, err = end(begin(*words_for(run), point=point, call=call))
    assert status == -signal.SIGKILL, err
    assert 0 < commit_of(run).step < 2020
    assert command("resume", run) == 0
    assert_is_the_reference(run, reference)


def test_a_kill_before_the_folder_is_whole_leaves_no_run(tmp_path):
    run = tmp_path / "wine"
    status, _, _ = end(begin(*words_for(run), point="state written", call=1))
    assert status == -signal.SIGKILL
    assert not run.exists()
    assert command(*words_for(run)) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_a_commit_and_says_how_to_go_on(number, reference, tmp_path):
    run = tmp_path / "wine"
    process = begin(*words_for(run))
    wait_for(process, "sampling")
    process.send_signal(number)
    status, out, err = end(process)
    assert (status, err) == (130, "")
    assert f"{number.name}: stopping after this chunk, with a commit" in out
    assert f"continue with: bayesnn resume {run}" in out
    assert RunFolder(run).status["state"] == "interrupted"
    assert 0 < commit_of(run).draws < 100
    assert command("resume", run) == 0
    assert_is_the_reference(run, reference)


def test_a_second_interrupt_ends_at_once(tmp_path):
    run = tmp_path / "wine"
    endless = ("--draws", "20", "--thin", "100000000")
    process = begin(*words_for(run), *endless)
    wait_for(process, "warm-up 20/20")
    while commit_of(run).step < 20:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    wait_for(process, "Ctrl-C ends at once")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    status, _, err = end(process)
    assert (status, err) == (130, "")
    assert time.monotonic() - began < 10  # a chunk takes hours
    assert RunFolder(run).status["state"] == "interrupted"
    assert commit_of(run).step == 20


def test_a_run_goes_on_with_another_number_of_devices(halfway_copy, finished):
    words = [sys.executable, "-m", "bayesnn.cli", "resume", str(halfway_copy)]
    subprocess.run(words, cwd=ROOT, env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"}, check=True)
    assert trees_are_equal(halfway_copy, finished)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_commit_leaves_nothing(number, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import time\n"
        "def experiment():\n"
        "    print('building', flush=True)\n"
        "    try:\n"
        "        time.sleep(300)\n"
        "    except KeyboardInterrupt:  # as JAX does when it comes in its garbage collection\n"
        "        time.sleep(300)\n"
    )
    process = begin("run", f"{tmp_path}/mine.py:experiment", "--runs", tmp_path / "runs")
    wait_for(process, "building")
    process.send_signal(number)
    status, out, err = end(process)
    assert (status, out, err) == (130, "", f"bayesnn: {number.name}: interrupted\n")
    assert not (tmp_path / "runs").exists()


def test_a_full_disk_ends_a_run_with_one_message_and_loses_nothing(reference, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a small disk needs the right to mount one")
    try:
        run = disk / "wine"
        status, _, err = end(begin(*words_for(run)))
        assert status == 2, err
        assert err.startswith("bayesnn: No space left on device; committed draws are intact: make room, then `bayesnn resume`")
        assert err.count("\n") == 1, err
        committed = commit_of(run)
        assert 0 < committed.step < 2020
        status, _, err = end(begin("resume", run))
        assert (status, err.count("\n")) == (2, 1), err
        assert commit_of(run).step >= committed.step
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        assert command("resume", run) == 0
        assert_is_the_reference(run, reference)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
