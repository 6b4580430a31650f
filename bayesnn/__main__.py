"""The installed command, and `python -m bayesnn`: quiet from its first moments when Ctrl-C ends it."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run one command of `bayesnn.cli`; return its exit status."""
    # Python's own handler would print a traceback from the middle of an import. The command line sets handlers of its own.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from bayesnn.cli import main as run_command

    return run_command()


if __name__ == "__main__":
    sys.exit(main())
