"""How many steps to take between two looks of the host."""

from __future__ import annotations

from jaxtyping import Array

# A first chunk's time may include compilation, later ones may vary.
GROWTH = 8


class Pace:
    """What the draws of the last chunk took, for whoever continues from its end: `sample`, or the next call of it."""

    def __init__(self) -> None:
        self._step: Array | None = None
        self._length, self._seconds = 0, 0.0

    def length(self, step: Array, chunk_seconds: float, most: int) -> int:
        """Return how many draws take about `chunk_seconds`, at most `most`: one, in a run that is not known.

        Args:
            step: The very array that the run stands at: an equal one may be of another run.
            chunk_seconds: Aim for the time of a chunk.
            most: Upper bound, >= 1.
        """
        if self._step is not step:
            return 1
        wanted = self._length * chunk_seconds / max(self._seconds, 1e-9)
        return int(max(min(wanted, GROWTH * self._length, most), 1))

    def note(self, step: Array, length: int, seconds: float) -> None:
        """Note what a chunk of so many draws took, and where it ended."""
        self._step, self._length, self._seconds = step, length, seconds
