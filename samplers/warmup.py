"""Warm-up: step size and metric found while the chain moves, with no history kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.mass_matrix import mass_matrix_adaptation
from blackjax.adaptation.staged_adaptation import build_schedule
from blackjax.adaptation.step_size import dual_averaging_adaptation
from jaxtyping import Array, Float, Int, Key, PyTree

from samplers.arguments import require_accept_step, require_one_step_size
from samplers.types import Batch, Info, Kernel, PerChain, Position, Run, Sampler, State, Tuning
from samplers.vectors import ravel

type Metric = Literal["identity", "layer", "diagonal"]
MIN_STAGED_STEPS = 20  # of a warm-up with stages; a shorter one is a single average of step sizes


class WarmUp(NamedTuple):
    """A kernel that tunes another one, or a sampler that tunes it for all chains together.

    Attributes:
        kernel: Runs like any kernel or sampler, and therefore stops, resumes and checkpoints like any.
        tuning_of: (state of the warm-up, tuning it ran with) -> tuning that it found; of one chain if `kernel` is of one, else of
            all chains, which share it.
    """

    kernel: Kernel | Sampler
    tuning_of: Callable[[State, Tuning], Tuning]


class AdaptationState(NamedTuple):
    """State of a warm-up of one chain.

    Attributes:
        inner: State of the tuned kernel.
        step: Warm-up steps taken.
        step_size: State of dual averaging.
        metric: Running mean and variance of the current window (Welford), or () when the metric is not adapted.
    """

    inner: State
    step: Int[Array, ""]
    step_size: Any
    metric: Any

    @property
    def position(self) -> Position:
        """Position of the tuned kernel."""
        return self.inner.position


def window_adaptation(
    kernel: Kernel, *, num_steps: int, target_acceptance_rate: float = 0.8, metric: Metric = "diagonal"
) -> WarmUp:
    """Adapt step size (dual averaging) and metric (Stan's doubling windows) of a kernel, each chain on its own.

    The kernel's tuning must have `step_size` and `inverse_mass_matrix`; if it has `trajectory_length` too, trajectories grow to
    it over the first half, from one leapfrog step: long ones from a poor start fly off to worse places.

    Args:
        kernel: The kernel to tune.
        num_steps: Length of the warm-up, >= 1; below 20 steps only the step size is adapted, below 150 the metric has one window.
            From 20 steps on the average of step sizes begins anew with every window, or at half of the steps if there are none.
        target_acceptance_rate: In (0, 1).
        metric: "diagonal" estimates the variance of every scalar; "layer" one variance for every array of the position, which
            suits networks: it needs few draws, and treats the hidden units alike, as their symmetry asks; "identity" leaves
            the metric as it is and adapts the step size alone.

    Returns:
        The warm-up; when `sample` has run its kernel for `num_steps`, `finish` hands over to the tuned kernel.

    Raises:
        ValueError: An argument outside its range, or a kernel without step size, metric or accept step, or a ladder of them.

    References:
        Hoffman & Gelman 2014, section 3.2 (dual averaging); Stan reference manual, "Automatic parameter tuning" (windows), but
        that the last step size has 30 % of the steps, not 50 of them.
    """
    if num_steps < 1:
        raise ValueError(f"a warm-up needs at least one step, got num_steps={num_steps}")
    if not 0 < target_acceptance_rate < 1:
        raise ValueError(f"target_acceptance_rate must be between 0 and 1, got {target_acceptance_rate}")
    if metric not in get_args(Metric.__value__):
        raise ValueError(f"metric must be one of {get_args(Metric.__value__)}, got {metric!r}")
    missing = [name for name in ("step_size", "inverse_mass_matrix") if not hasattr(kernel.initial_tuning, name)]
    if missing:
        raise ValueError(f"this kernel has no {' and no '.join(missing)} to adapt; sample it without warm-up")
    require_accept_step(kernel.initial_tuning)
    require_one_step_size(kernel.initial_tuning)
    adapted: Metric = metric if num_steps >= MIN_STAGED_STEPS else "identity"
    init, step, tuning_of = _functions(kernel.init, kernel.step, num_steps, target_acceptance_rate, adapted)
    return WarmUp(Kernel(init, step, kernel.initial_tuning), tuning_of)


def finish(warmup: WarmUp, run: Run) -> Run:
    """Hand a finished warm-up over to the kernel that it tuned: same positions, the tuning that it found, next phase.

    The tuning of each chain is its own, unless the warm-up found one for all of them. A fold of the warm-up is dropped: its draws
    are not draws of the target.

    Raises:
        TypeError: Anything but the run of a warm-up.
    """
    if not isinstance(run, Run) or not hasattr(run.state, "inner"):
        found = type(run.state if isinstance(run, Run) else run).__name__
        raise TypeError(f"finish needs the run that `sample` returns of warmup.kernel, result.run; got {found}")
    done = run._replace(state=run.state.inner, phase=run.phase + 1, fold=())
    if isinstance(warmup.kernel, Sampler):
        return done._replace(tuning=warmup.tuning_of(run.state, run.tuning))
    shared = not isinstance(run.tuning, PerChain)
    tuning = jax.vmap(warmup.tuning_of, (0, None if shared else 0))(run.state, run.tuning if shared else run.tuning.tuning)
    return done._replace(tuning=PerChain(tuning))


def averaging_from(step_size: Float[Array, ""]) -> Any:
    """Return the state of dual averaging that sets out from a step size, typed as it stays."""
    state = dual_averaging_adaptation(0.5)[0](step_size)  # which the acceptance rate aimed at has no part in
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.int32 if isinstance(x, int) else jnp.float32), state)


def by_layer(variances: Float[Array, " d"], position: Position) -> Float[Array, " d"]:
    """Return for each scalar the mean of the variances in its array of the position."""
    flat, unravel = ravel(position)
    layers = unravel(variances.astype(flat.dtype))
    return ravel(jax.tree.map(lambda v: jnp.full_like(v, jnp.mean(v)), layers))[0]


def cast(tree: PyTree, like: PyTree) -> PyTree:
    """Give every leaf the type of its like: BlackJAX's adaptation returns float64 for float32 where x64 is enabled."""
    return jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), tree, like)


def _stages(num_steps: int, metric: Metric) -> np.ndarray:
    """Return for every step whether it lies in a window of the metric, and whether it ends one.

    Stan's stages, but that the last step size has 30 % of the steps, where Stan gives it 50, and of less than 150 steps 10 %.
    After ten steps of a hundred its logarithm had a standard deviation of 0.51 over chains, after thirty 0.35 (UCI Boston, MLP
    with 50 units); and after 50 of a thousand Barker accepted 0.28 where 0.4 was aimed at, MALA 0.72 for 0.574, HMC 0.87 for
    0.8, after 300 0.37, 0.63 and 0.84 (a Gaussian in ten dimensions).

    A metric that is not adapted has no windows. Then the first half ends, so that the step size has nothing of a time when
    trajectories were still growing, maybe far from the typical set (mean acceptance over UCI Yacht's splits: 0.89, without 0.37).
    """
    if metric == "identity":
        stages = np.zeros((num_steps, 2), int)
        if num_steps >= MIN_STAGED_STEPS:
            stages[num_steps // 2 - 1, 1] = 1
        return stages
    initial, last = min(75, num_steps * 15 // 100), num_steps * 30 // 100
    first = 25 if num_steps >= 150 else num_steps * 55 // 100
    schedule = build_schedule(num_steps, initial, last, first)
    return np.asarray(schedule)  # of NumPy: the functions outlive the precision they were made under


def _growing(
    trajectory_length: Float[Array, ""], step_size: Float[Array, ""], step: Int[Array, ""], num_steps: int
) -> Float[Array, ""]:
    """Return the length of a trajectory in a warm-up: in its first half from one leapfrog step to all, in a geometric series.

    A start may lie a million nats above the typical set. A long trajectory makes speed of all of them and flies away, to weights
    ten times too large, from where the way back is longer than a warm-up. Short ones lose the speed at every step.
    """
    share = jnp.minimum(1.0, 2 * (step + 1) / num_steps)
    return jnp.where(share < 1, step_size * (trajectory_length / step_size) ** share, trajectory_length)


@functools.lru_cache(maxsize=64)  # the same functions for the same kernel, so that nothing recompiles
def _functions(
    kernel_init: Any, kernel_step: Any, num_steps: int, target_acceptance_rate: float, metric: Metric
) -> tuple[Any, Any, Any]:
    _, update_averaging, averaged = dual_averaging_adaptation(target_acceptance_rate)
    start_metric, update_metric, end_window = mass_matrix_adaptation(is_diagonal_matrix=True)
    stages = _stages(num_steps, metric)
    in_windows, window_ends = stages[:, 0] == 1, stages[:, 1] == 1

    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: Tuning) -> AdaptationState:
        inner = kernel_init(key, position, batch, tuning)
        moments = ()
        if metric != "identity":
            flat, _ = ravel(position)
            inverse_mass = jnp.broadcast_to(tuning.inverse_mass_matrix, flat.shape)
            moments = start_metric(flat.size, inverse_mass)
            moments = jax.tree.map(lambda x: jnp.asarray(x, jnp.int32 if isinstance(x, int) else flat.dtype), moments)
        return AdaptationState(inner, jnp.int32(0), averaging_from(tuning.step_size), moments)

    def close(moments: Any, position: Position) -> Any:
        if metric == "identity":
            return moments
        closed = end_window(moments)
        if metric == "diagonal":
            return closed
        return closed._replace(inverse_mass_matrix=by_layer(closed.inverse_mass_matrix, position))

    def current(state: AdaptationState, tuning: Tuning, step_size: Float[Array, ""]) -> Tuning:
        inverse_mass = state.metric.inverse_mass_matrix if metric != "identity" else tuning.inverse_mass_matrix
        return tuning._replace(step_size=step_size, inverse_mass_matrix=inverse_mass)

    def step(
        key: Key[Array, ""], state: AdaptationState, batch: Batch, tuning: Tuning, step: Int[Array, ""]
    ) -> tuple[AdaptationState, Info]:
        trial = current(state, tuning, jnp.exp(state.step_size.log_step_size))
        if hasattr(tuning, "trajectory_length"):
            length = _growing(tuning.trajectory_length, trial.step_size, state.step, num_steps)
            trial = trial._replace(trajectory_length=length)
        inner, info = kernel_step(key, state.inner, batch, trial, step)
        averaging = cast(update_averaging(state.step_size, jnp.nan_to_num(info.acceptance_rate)), state.step_size)
        now = jnp.minimum(state.step, num_steps - 1)
        moments = state.metric
        if metric != "identity":
            updated = update_metric(moments, ravel(inner.position)[0])
            moments = jax.tree.map(lambda new, old: jnp.where(jnp.asarray(in_windows)[now], new, old), updated, moments)
        moments, averaging = jax.lax.cond(
            jnp.asarray(window_ends)[now],
            lambda m, a: (cast(close(m, inner.position), m), averaging_from(averaged(a))),
            lambda m, a: (m, a),
            moments,
            averaging,
        )
        return AdaptationState(inner, state.step + 1, averaging, moments), info

    def tuning_of(state: AdaptationState, tuning: Tuning) -> Tuning:
        return cast(current(state, tuning, averaged(state.step_size)), tuning)

    return init, step, tuning_of
