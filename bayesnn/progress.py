"""How far a run is: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
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
        divergences: Divergent steps of this phase and execution, all chains.
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
            parts.append(f"{self.draws:,} draw{'s' * (self.draws > 1)}")
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


def duration(seconds: float) -> str:
    """Return a duration for people."""
    seconds = round(seconds)
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
