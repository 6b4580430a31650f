"""How far a run is: a live line in a terminal, plain lines elsewhere, and a polite end on Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

# Lines in a log file come this often, seconds.
PLAIN_INTERVAL = 10.0


class Progress(NamedTuple):
    """What there is to tell about a phase.

    Attributes:
        phase: Its name.
        step: Steps done.
        num_steps: Steps in all.
        draws: Draws kept.
        gradients: Full-data gradients spent, all chains.
        seconds: Wall time spent, of this execution.
        acceptance: Mean acceptance rate of the last chunk, NaN where there is none.
        divergences: Divergent steps, all chains.
        seconds_left: Estimated.
    """

    phase: str
    step: int
    num_steps: int
    draws: int
    gradients: float
    seconds: float
    acceptance: float
    divergences: int
    seconds_left: float

    def line(self) -> str:
        """Return it in words."""
        parts = [f"{self.phase} {self.step:,}/{self.num_steps:,} steps"]
        if self.draws:
            parts.append(f"{self.draws:,} draws")
        parts.append(f"{self.gradients / max(self.seconds, 1e-9):,.0f} gradients/s")
        if self.acceptance == self.acceptance:
            parts.append(f"acceptance {self.acceptance:.2f}")
        parts.append(f"{self.divergences} divergent")
        if self.seconds_left < float("inf"):
            parts.append(f"{duration(self.seconds_left)} left")
        return " | ".join(parts)


class Reporter:
    """Shows progress on a console; a context manager."""

    def __init__(self, title: str, console: Console):
        self.title, self.console = title, console
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._last = 0.0
        self._phase = ""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, text: str) -> None:
        """Say something once."""
        self.console.print(f"{self.title}: {text}", highlight=False, markup=False, soft_wrap=True)

    def update(self, progress: Progress) -> None:
        """Show where the run is; in a log, at most every few seconds and at the start and end of a phase."""
        now, is_done = time.monotonic(), progress.step >= progress.num_steps
        if self._live is not None:
            self._live.update(Text(f"{self.title}: {progress.line()}"))
        elif progress.phase != self._phase or is_done or now - self._last >= PLAIN_INTERVAL:
            self.note(progress.line())
            self._last, self._phase = now, progress.phase


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


def duration(seconds: float) -> str:
    """Return a duration for people."""
    seconds = round(seconds)
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
