"""Warm-up of parallel tempering: rungs where neighbours swap equally often, and the step size of each."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.step_size import dual_averaging_adaptation
from jaxtyping import Array, Float, Int, Key

from samplers.parallel_tempering import Exchanges, LadderState, put_together, rejection_rates, take_apart
from samplers.types import Batch, Info, Kernel, Position, Target, Tuning
from samplers.warmup import WarmUp, averaging_from, cast

# Steps of the first round; each round is twice as long as the one before (Syed et al. 2022, section 5.4).
FIRST_ROUND = 8


class LadderAdaptationState(NamedTuple):
    """State of the warm-up of one ladder of K rungs.

    Attributes:
        inner: State of the ladder; its counts begin with the present round.
        step: Warm-up steps taken.
        step_size: [K] states of dual averaging.
        betas: [K] inverse likelihood temperatures of the rungs at present, in units of the coldest one's.
    """

    inner: LadderState
    step: Int[Array, ""]
    step_size: Any
    betas: Float[Array, " K"]

    @property
    def position(self) -> Position:
        """Position of the coldest rung."""
        return self.inner.position


def ladder_adaptation(ladder: Kernel, target: Target, *, num_steps: int, target_acceptance_rate: float = 0.8) -> WarmUp:
    r"""Adapt the temperatures of `parallel_tempering`, and each rung's step size, each ladder on its own, with no history kept.

    Replicas travel fastest when all neighbours swap equally often. The rejection rates of a round add up to an estimate of the
    communication barrier :math:`\Lambda(\beta)`; the next rungs divide it into equal parts, interpolated linearly,

    .. math:: \Lambda(\beta_k) = \sum_{j<k} r_j, \qquad \Lambda(\beta_k^{\mathrm{new}}) = \frac{k - 1}{K - 1} \Lambda(\beta_K)

    and the two ends stay. Rounds double, the last one ends with the first half; in the second half the rungs stay where they are
    and only step sizes, by dual averaging, move on. Counts of swaps and round trips begin anew at each change of the rungs.

    Args:
        ladder: Made by `parallel_tempering`, of a kernel whose tuning has `step_size`.
        target: Its target.
        num_steps: Length of the warm-up, >= 16.
        target_acceptance_rate: Of the kernel on each rung, in (0, 1).

    Returns:
        The warm-up; when `sample` has run its kernel for `num_steps`, `finish` hands over to the ladder.

    Raises:
        ValueError: An argument outside its range, or a kernel that is no ladder or has no step size.

    References:
        Syed, Bouchard-Cote, Deligiannidis & Doucet 2022, arXiv 1905.02939, algorithm 4 (there with monotone cubics).
        Hoffman & Gelman 2014, section 3.2 (dual averaging).
    """
    if num_steps < 2 * FIRST_ROUND:
        raise ValueError(f"the warm-up of a ladder needs at least {2 * FIRST_ROUND} steps, got num_steps={num_steps}")
    if not 0 < target_acceptance_rate < 1:
        raise ValueError(f"target_acceptance_rate must be between 0 and 1, got {target_acceptance_rate}")
    if not hasattr(ladder.initial_tuning, "step_size"):
        raise ValueError("this kernel has no step_size to adapt; choose the temperatures yourself and sample without warm-up")
    shape = np.shape(ladder.initial_tuning.step_size)
    if len(shape) != 1:
        raise ValueError(
            f"a ladder with a step size for each rung is needed, got a kernel whose step_size has shape {shape}: make it a "
            "ladder with parallel_tempering, or warm it up with window_adaptation"
        )
    init, step, tuning_of = _functions(ladder.init, ladder.step, target, num_steps, target_acceptance_rate)
    return WarmUp(Kernel(init, step, ladder.initial_tuning), tuning_of)


def equal_parts(rejection: Float[Array, " K-1"], *by_rung: Float[Array, " K"]) -> list[Float[Array, " K"]]:
    """Return what is known on each rung, interpolated to where the rungs divide the barrier into equal parts; the ends stay."""
    barrier = jnp.concatenate([jnp.zeros_like(rejection[:1]), jnp.cumsum(rejection)])
    parts = jnp.linspace(0, barrier[-1], barrier.size)
    return [jnp.interp(parts, barrier, x).at[jnp.array([0, -1])].set(x[jnp.array([0, -1])]).astype(x.dtype) for x in by_rung]


@functools.lru_cache(maxsize=64)  # the same functions for the same ladder, so that nothing recompiles
def _functions(
    ladder_init: Any, ladder_step: Any, target: Target, num_steps: int, target_acceptance_rate: float
) -> tuple[Any, Any, Any]:
    _, update_averaging, averaged = dual_averaging_adaptation(target_acceptance_rate)
    ends = np.array([num_steps >> n for n in range(1, num_steps.bit_length()) if num_steps >> n >= FIRST_ROUND], np.int32)

    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: Tuning) -> LadderAdaptationState:
        inner = ladder_init(key, position, batch, tuning)
        likelihood_temperature = tuning.tempering.likelihood_temperature
        betas = likelihood_temperature[-1] / likelihood_temperature
        return LadderAdaptationState(inner, jnp.int32(0), jax.vmap(averaging_from)(tuning.step_size), betas)

    def current(state: LadderAdaptationState, tuning: Tuning, step_size: Float[Array, " K"]) -> Tuning:
        coldest = tuning.tempering.likelihood_temperature[-1]
        tempering = tuning.tempering._replace(likelihood_temperature=coldest / state.betas)
        return tuning._replace(step_size=step_size.astype(tuning.step_size.dtype), tempering=tempering)

    def close_round(state: LadderAdaptationState, batch: Batch, tuning: Tuning) -> LadderAdaptationState:
        inner, tuning = state.inner, current(state, tuning, tuning.step_size)
        num_counted = inner.exchanges.num_steps
        # Half a rejection in a round, so that no gap vanishes where none was seen.
        rejection = (rejection_rates(inner) * num_counted + 0.5) / (num_counted + 1)
        betas, log_step_size = equal_parts(rejection, state.betas, jnp.log(averaged(state.step_size)))
        moved = state._replace(betas=betas, step_size=jax.vmap(averaging_from)(jnp.exp(log_step_size)))

        parts = take_apart(target, inner.rungs, batch, tuning)
        rungs = put_together(inner.rungs, parts, current(moved, tuning, tuning.step_size))
        exchanges = Exchanges.none(state.betas.size, inner.log_likelihood.dtype)
        return moved._replace(inner=inner._replace(rungs=rungs, exchanges=exchanges))

    def step(
        key: Key[Array, ""], state: LadderAdaptationState, batch: Batch, tuning: Tuning, step: Int[Array, ""]
    ) -> tuple[LadderAdaptationState, Info]:
        trial = current(state, tuning, jnp.exp(state.step_size.log_step_size))
        inner, info = ladder_step(key, state.inner, batch, trial, step)
        averaging = jax.vmap(update_averaging)(state.step_size, jnp.nan_to_num(inner.acceptance_rate))
        new = LadderAdaptationState(inner, state.step + 1, cast(averaging, state.step_size), state.betas)
        is_end = jnp.any(new.step == ends)
        return jax.lax.cond(is_end, lambda s: cast(close_round(s, batch, tuning), s), lambda s: s, new), info

    def tuning_of(state: LadderAdaptationState, tuning: Tuning) -> Tuning:
        return current(state, tuning, jax.vmap(averaged)(state.step_size))

    return init, step, tuning_of
