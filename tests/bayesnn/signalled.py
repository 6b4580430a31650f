"""The command line in a process that sends itself a signal: `python -m tests.bayesnn.signalled SIGNAL METHOD CALL WORD ...`.

Unlike `killed`, it imports nothing that sets JAX to work before the processes of a run have found each other.
"""

from __future__ import annotations

import os
import signal
import sys

from bayesnn.cli import main
from bayesnn.draw_store import DrawStore
from bayesnn.shard import Shard

METHODS = {"write": (DrawStore, "write"), "load": (Shard, "load_run")}


def signal_after(number, method, call):
    """Send this process a signal after a call, counted from 1; 0 is never."""
    owner, name = METHODS[method]
    function = getattr(owner, name)
    count = 0

    def counted(*arguments, **options):
        nonlocal count
        sys.modules["bayesnn.execute"].COMMIT_SECONDS = 0.0  # a commit after every piece of a run
        count += 1
        result = function(*arguments, **options)
        if count == call:
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, counted)


if __name__ == "__main__":
    signal_after(signal.Signals[sys.argv[1]], sys.argv[2], int(sys.argv[3]))
    sys.exit(main(sys.argv[4:]))
