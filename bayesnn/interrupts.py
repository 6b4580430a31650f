"""What Ctrl-C and SIGTERM do: end at once, or let a run commit before it stops."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

# Of a shell for a command that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130


class Interrupts:
    """Turns the first Ctrl-C or SIGTERM into a flag, so that the run can commit; a second Ctrl-C ends it at once.

    Python runs signal handlers between its own instructions, and a compiled chunk may take minutes. A thread therefore reads
    signals from a pipe that is written the moment they come.

    Attributes:
        requested: Name of the first signal; None as long as there was none.
    """

    def __init__(self, on_first: Callable[[str], None], on_second: Callable[[], None]):
        self.requested: str | None = None
        self._on_first, self._on_second = on_first, on_second

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._previous = {n: signal.signal(n, lambda *_: None) for n in (signal.SIGINT, signal.SIGTERM)}
        self._previous_fd = signal.set_wakeup_fd(self._writer)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        signal.set_wakeup_fd(self._previous_fd)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._writer)  # ends the thread
        self._thread.join()
        os.close(self._reader)

    def _watch(self) -> None:
        while number := os.read(self._reader, 1):
            if number[0] not in self._previous:
                continue
            if self.requested is None:
                self.requested = signal.Signals(number[0]).name
                self._on_first(self.requested)
            elif number[0] == signal.SIGINT:
                self._on_second()


def ending_at_once() -> Interrupts:
    """Let a signal end the process, where there is nothing to commit.

    A KeyboardInterrupt would not do: JAX's garbage-collection callback swallows it, and a compilation delays it.
    """

    def end(signal_name: str = "SIGINT") -> None:
        print(f"bayesnn: {signal_name}: interrupted", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)

    return Interrupts(end, end)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put a signal off until what is inside is done."""
    with Interrupts(lambda signal_name: None, lambda: None) as interrupts:
        yield
    if interrupts.requested is not None:
        signal.raise_signal(signal.Signals[interrupts.requested])
