"""Command lines in processes that are forked from a warm one, which has imported what does not set JAX to work."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from bayesnn import distributed
from bayesnn.launch import prepare

# Everything large but BlackJAX, which computes a default argument with JAX when it is imported: a process that is forked after
# that would have a backend without its threads.
IMPORTED = (
    *("benchmarks.disturbed", "bayesnn.commands", "bayesnn.data", "diagnostics.standard"),
    *("flax.nnx", "optax", "sklearn.datasets", "tensorstore"),
)  # fmt: skip
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(list(IMPORTED))
# Longer than any of the commands here takes on a loaded machine.
PATIENCE = 120


def commit_often() -> None:
    """Commit after every piece of a run, so that most faults hit a commit."""
    from bayesnn import execute

    execute.COMMIT_SECONDS = 0.0


def begin(words: Sequence[object], log: Path, *, devices: int = 1, change: Callable[[], None] = commit_often) -> BaseProcess:
    """Start a `bayesnn` command in a process of its own.

    Args:
        words: The command.
        log: File that gets what it prints.
        devices: CPU devices that it has.
        change: What is to be different in that process, done when JAX may be set to work.
    """
    prepare()  # the first call starts the warm process, with this environment
    process = PROCESSES.Process(target=_run, args=([str(word) for word in words], log, devices, change))
    process.start()
    return process


def end(process: BaseProcess) -> int:
    """Wait for a command, and return its exit status, -number of a signal.

    Raises:
        TimeoutError: It hangs.
    """
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"a command did not end within {PATIENCE} s")
    return process.exitcode


def _run(words: list[str], log: Path, devices: int, change: Callable[[], None]) -> None:
    """Be the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as `bayesnn.__main__` does
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    if "--distributed" in words:
        join = distributed.join

        def join_first(*address: object) -> None:
            join(*address)  # type: ignore[arg-type]
            change()

        distributed.join = join_first  # type: ignore[assignment]
    else:
        change()
    from bayesnn.cli import main

    try:
        status = main(words)
    except SystemExit as error:  # as the parser ends unknown flags
        status = int(error.code or 0)
    atexit._run_exitfuncs()  # which a forked process leaves out; JAX takes its leave of other processes there
    sys.exit(status)
