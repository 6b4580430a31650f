"""Gradients, divergences and time of a phase of a run, counted while it runs."""

from __future__ import annotations

import time

import numpy as np
from jaxtyping import Int

from bayesnn.progress import Progress, Reporter
from samplers import Health, Result, Run, processes


class Meter:
    """Gradients and time of a phase, and what the progress display says of them."""

    def __init__(self, reporter: Reporter, run: Run, phase: str, num_steps: int, step: int, per_step: int):
        self.reporter, self.phase, self.num_steps, self.step, self.per_step = reporter, phase, num_steps, step, per_step
        self.gradients = self.taken_gradients = 0.0
        self.began = self.taken_at = time.monotonic()
        health = Health(*processes.whole_columns(run.health))
        self.divergent_before = health.num_divergent.sum()
        self.is_lost = health.num_nonfinite > 0
        self.first: tuple[float, int] | None = None  # when the first chunk, which compiles, was over

    def show(self, result: Result) -> None:
        """Count a chunk of all processes, and report."""
        info, now = result.info, time.monotonic()
        assert info is not None
        chain, *counts = processes.whole_columns((result.run.chain, *result.run.health))
        health = Health(*counts)
        self._tell_of_lost_chains(chain, health)
        self.step += info.num_gradients.shape[1] * self.per_step
        self.gradients += float(processes.gather(np.sum(info.num_gradients, dtype=np.float64)).sum())
        if self.first is None:
            self.first, seconds_left = (now, self.step), float("inf")
        else:
            rate = (self.step - self.first[1]) / max(now - self.first[0], 1e-9)
            seconds_left = (self.num_steps - self.step) / max(rate, 1e-9)
        acceptance = np.asarray(info.acceptance_rate)
        finite = acceptance[np.isfinite(acceptance)]
        self.reporter.update(
            Progress(
                phase=self.phase,
                step=self.step,
                num_steps=self.num_steps,
                draws=self.step // self.per_step if self.phase == "sampling" else 0,
                gradients=self.gradients,
                seconds=now - self.began,
                acceptance=float(finite.mean()) if finite.size else float("nan"),
                divergences=int(health.num_divergent.sum() - self.divergent_before),
                seconds_left=seconds_left,
            )
        )

    def _tell_of_lost_chains(self, chain: Int[np.ndarray, " chain"], health: Health) -> None:
        lost = (health.num_nonfinite > 0) & ~self.is_lost
        if lost.any():
            where = ", ".join(f"chain {chain[i]} at step {health.first_nonfinite[i]}" for i in np.flatnonzero(lost))
            self.reporter.note(
                f"left the finite numbers: {where}. The run goes on and will fail its audit: lower the step size or the "
                "learning rate, or start from a MAP estimate (--start map), in a new run"
            )
        self.is_lost |= lost

    def take(self) -> tuple[float, float]:
        """Return gradients and seconds since the last call."""
        now = time.monotonic()
        taken = self.gradients - self.taken_gradients, now - self.taken_at
        self.taken_gradients, self.taken_at = self.gradients, now
        return taken
