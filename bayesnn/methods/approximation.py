"""What the methods share: a trainer that is a fit, and a kernel of independent draws."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

import samplers
from bayesnn.density import Linearised
from samplers import Batch, Info, Kernel
from samplers.types import Position, State, Tuning


class Approximation(NamedTuple):
    """A distribution that is fitted, and then drawn from.

    Attributes:
        kernel: Its tuning is the fitted distribution; every step draws a position from it, independent of all others.
        fit: Its kernel fits; when it has run, `samplers.finish` hands the distribution over to `kernel`.
    """

    kernel: Kernel
    fit: samplers.WarmUp


class Draw(NamedTuple):
    """State of a kernel of independent draws."""

    position: Position


class FitState(NamedTuple):
    """State of a fit of one chain.

    Attributes:
        trainer: State of the kernel that trains.
        gathered: What is gathered of its path.
        centre: The present position, if draws are to predict by the network linearised there; else ().
    """

    trainer: State
    gathered: PyTree
    centre: Position | tuple[()]

    @property
    def position(self) -> Position:
        """Position of the trainer."""
        return self.trainer.position

    @property
    def inner(self) -> Draw | Linearised:
        """State from which the kernel of draws sets out."""
        return Draw(self.position) if isinstance(self.centre, tuple) else Linearised(self.position, self.centre)


class Gather(NamedTuple):
    """What a fit gathers of the path of its trainer.

    Attributes:
        begin: (position, batch, tuning of the trainer) -> what is gathered, before the first step.
        update: (gathered, position, batch, tuning of the trainer, step) -> gathered, and its cost in full-data gradients; once a
            step. `step` is the same for all chains, so that `lax.cond` on it stays a branch.
    """

    begin: Callable[[Position, Batch, Tuning], PyTree]
    update: Callable[[PyTree, Position, Batch, Tuning, Int[Array, ""]], tuple[PyTree, Float[Array, ""]]]


NOTHING = Gather(lambda position, batch, tuning: (), lambda gathered, position, batch, tuning, step: (gathered, jnp.float32(0)))


def approximation(
    trainer: Kernel,
    tuning_of: Callable[[FitState, Tuning], Tuning],
    draw: Callable[[Key[Array, ""], Position, Tuning], Position],
    initial_tuning: Tuning,
    *,
    gather: Gather = NOTHING,
    is_linearised: bool = False,
) -> Approximation:
    """Make an approximation from its parts.

    Args:
        trainer: Kernel whose path or end is what is fitted.
        tuning_of: (state of the fit, tuning of the trainer) -> the fitted distribution.
        draw: (key, a position for its structure, the fitted distribution) -> a draw.
        initial_tuning: A distribution of the right shapes.
        gather: What is gathered of the path.
        is_linearised: Draws predict by the network linearised where the trainer ended.
    """
    fit = Kernel(*_fit_functions(trainer.init, trainer.step, gather, is_linearised), trainer.initial_tuning)
    return Approximation(Kernel(*_draw_functions(draw), initial_tuning), samplers.WarmUp(fit, tuning_of))


@functools.lru_cache(maxsize=64)  # the same functions for the same trainer, so that nothing recompiles
def _fit_functions(trainer_init: Any, trainer_step: Any, gather: Gather, is_linearised: bool) -> tuple[Any, Any]:
    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: Tuning) -> FitState:
        trainer = trainer_init(key, position, batch, tuning)
        return FitState(trainer, gather.begin(position, batch, tuning), position if is_linearised else ())

    def step(key: Key[Array, ""], state: FitState, batch: Batch, tuning: Tuning, step: Int[Array, ""]) -> tuple[FitState, Info]:
        trainer, info = trainer_step(key, state.trainer, batch, tuning, step)
        gathered, cost = gather.update(state.gathered, trainer.position, batch, tuning, step)
        moved = FitState(trainer, gathered, trainer.position if is_linearised else ())
        return moved, info._replace(num_gradients=info.num_gradients + cost)

    return init, step


@functools.lru_cache(maxsize=64)  # likewise
def _draw_functions(draw: Any) -> tuple[Any, Any]:
    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: Tuning) -> Draw:
        return Draw(position)

    def step(
        key: Key[Array, ""], state: Draw | Linearised, batch: Batch, tuning: Tuning, step: Int[Array, ""]
    ) -> tuple[Draw | Linearised, Info]:
        position = draw(key, state.position, tuning)
        return state._replace(position=position), training_info(position, 0.0)

    return init, step


def training_info(position: Position, num_gradients: float) -> Info:
    """Return the Info of a step that is no move of a Markov chain."""
    nan = jnp.float32(jnp.nan)
    is_finite = jnp.isfinite(sum(map(jnp.sum, jax.tree.leaves(position)), jnp.float32(0)))
    return Info(jnp.float32(num_gradients), nan, nan, nan, nan, ~is_finite, is_finite)
