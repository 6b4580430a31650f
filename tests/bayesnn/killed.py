"""The command line in a process that kills itself at a chosen call: `python -m tests.bayesnn.killed POINT CALL WORD ...`."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import samplers
from bayesnn import execute
from bayesnn.cli import main
from bayesnn.draw_store import DrawStore

# Where a commit can be cut in two: whose function, its name, and whether the kill comes before or after the call.
POINTS = {
    "store made": (DrawStore, "create", "after"),
    "draws written": (DrawStore, "write", "after"),
    "state written": (samplers, "save_run", "after"),
    "record not synced": (os, "fsync", "before"),
    "record not renamed": (Path, "rename", "before"),
    "record renamed": (Path, "rename", "after"),
    "old state not removed": (shutil, "rmtree", "before"),
    "nowhere": (os, "abort", "before"),
}


def kill_at(point, call):
    """Send this process SIGKILL at a call, counted from 1."""
    owner, name, when = POINTS[point]
    function = getattr(owner, name)
    count = 0

    def counted(*arguments, **options):
        nonlocal count
        count += 1
        if count == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if count == call and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)


if __name__ == "__main__":
    execute.COMMIT_SECONDS = 0.0  # a commit after every piece of a run, so that most kills hit one
    kill_at(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
