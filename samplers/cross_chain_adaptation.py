"""Warm-up of all chains together: one step size, trajectory length and metric, from what the chains tell each other."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from blackjax.adaptation.staged_adaptation import build_schedule
from blackjax.adaptation.step_size import dual_averaging_adaptation
from jaxtyping import Array, Float, Int, Key

from samplers.chains import Chains
from samplers.types import Batch, Info, Kernel, PerChain, Position, Sampler, State, Tuning
from samplers.vectors import ravel
from samplers.warmup import Metric, WarmUp, averaging_from, by_layer, cast

# Acceptance at which HMC is most efficient in high dimension (Beskos et al. 2013).
TARGET_ACCEPTANCE_RATE = 0.651
# Rate and memory of Adam are those of Hoffman et al. 2021. Relative gradients are of the order 1 / d: the usual epsilon of 1e-8
# would hold large networks back.
ASCENT = optax.adam(0.025, b1=0.0, b2=0.95, eps=1e-30)
# Most by which the logarithm of a length below one leapfrog step grows in a step: what Adam, with this memory, may do at most,
# 0.025 / sqrt(1 - 0.95).
CATCHING_UP = 0.11
# The average of log trajectory lengths gives the t-th one the weight t^-0.5 (Hoffman et al. 2021; BlackJAX's decay rate).
AVERAGING_POWER = 0.5
# Stan shrinks variances towards 1e-3 as if it were five more draws (Stan reference manual, "Automatic parameter tuning").
SHRUNK_VARIANCE, SHRINKING_DRAWS = 1e-3, 5


class Moments(NamedTuple):
    """What is known of the spread of the target, over all chains.

    Attributes:
        inverse_mass_matrix: [d] the metric at present.
        num_positions: Positions in the present window.
        mean: [d] of them.
        squares: [d] sum of their squared deviations from the mean.
    """

    inverse_mass_matrix: Float[Array, " d"]
    num_positions: Float[Array, ""]
    mean: Float[Array, " d"]
    squares: Float[Array, " d"]


class Learned(NamedTuple):
    """What the chains have learned, all of them alike.

    Attributes:
        step: Warm-up steps taken.
        step_size: State of dual averaging.
        log_length: Logarithm of the trajectory length at present.
        averaged_log_length: Its average, in which late steps weigh more.
        ascent: State of Adam, which moves it.
        moments: Of the metric, or () when the metric is not adapted.
    """

    step: Int[Array, ""]
    step_size: Any
    log_length: Float[Array, ""]
    averaged_log_length: Float[Array, ""]
    ascent: Any
    moments: Any


class Reports(NamedTuple):
    """What all chains together report of a step.

    Attributes:
        acceptance_rate: Harmonic mean.
        gradient: Of the criterion with respect to the logarithm of the trajectory length, relative to squared distances.
        mean: [d] of the positions before the step.
        squares: [d] sum of their squared deviations from it.
    """

    acceptance_rate: Float[Array, ""]
    gradient: Float[Array, ""]
    mean: Float[Array, " d"]
    squares: Float[Array, " d"]


class CrossChainState(NamedTuple):
    """State of the warm-up of all chains.

    Attributes:
        inner: State of the tuned kernel.
        learned: A copy for every chain.
    """

    inner: State
    learned: Learned

    @property
    def position(self) -> Position:
        """Position of the tuned kernel."""
        return self.inner.position


def cross_chain_adaptation(
    kernel: Kernel, *, num_steps: int, target_acceptance_rate: float = TARGET_ACCEPTANCE_RATE, metric: Metric = "identity"
) -> WarmUp:
    r"""Adapt step size, trajectory length and metric of `hmc` or `dynamic_hmc`, one for all chains, with no history kept.

    Use it with many chains in lock step, as on an accelerator, and where no prior scale tells how long trajectories should be.
    The criterion is noisy with few chains: ten or more. Chains that cannot see each other (other jobs) find other values.

    The trajectory length climbs the change in the estimator of the expected square (ChEES), a proxy for how far squared
    distances from the mean decorrelate in a trajectory, by Adam on the logarithm of the length, with the gradient

    .. math:: \hat g = \frac{\sum_c \alpha_c \, t_c \left(\|x'_c - \bar x'\|^2 - \|x_c - \bar x\|^2\right)
        \langle x'_c - \bar x', v'_c \rangle}{\sum_c \alpha_c}

    where chain c went from :math:`x_c` to :math:`x'_c` in the time :math:`t_c`, arrived with the velocity :math:`v'_c`, and is
    accepted with the probability :math:`\alpha_c`; products are in the metric. It is divided by the square of the mean squared
    distance, lest a far start stay in the memory of Adam. The jitter of lengths is the kernel's own. The step size follows dual
    averaging of the harmonic mean of the :math:`\alpha_c`, which a single chain that is stuck holds down. Metrics are variances
    over chains and steps in Stan's doubling windows; in the first of them the length begins anew at a quarter period,
    :math:`\pi / 2`, and from there on changes in proportion, so that trajectories go as far as before.

    Args:
        kernel: `hmc` or `dynamic_hmc`; its step size and trajectory length are the first ones. Begin with a length that is too
            short, such as one step: the criterion has a maximum at every odd number of quarter periods, and the first is wanted.
        num_steps: Length of the warm-up, >= 1. A length moves by a factor of e in 40 steps.
        target_acceptance_rate: Of the harmonic mean over chains, in (0, 1); the plain mean is higher.
        metric: "diagonal", "layer" or "identity", as of `window_adaptation`; the first two need 20 steps or more.

    Returns:
        The warm-up; when `sample` has run its sampler for `num_steps`, `finish` hands over to the tuned kernel.

    Raises:
        ValueError: An argument outside its range, or a kernel without trajectories; when it starts, fewer than two chains, or
            chains with tunings of their own.

    References:
        Hoffman, Radul & Sountsov 2021 (AISTATS, PMLR 130:3907), algorithm 1; there trajectories are jittered from 0 to the length
        by a Halton sequence. In the metric: as BlackJAX's chees_adaptation, less its floor, which needs O(d^2).
    """
    if num_steps < 1:
        raise ValueError(f"a warm-up needs at least one step, got num_steps={num_steps}")
    if not 0 < target_acceptance_rate < 1:
        raise ValueError(f"target_acceptance_rate must be between 0 and 1, got {target_acceptance_rate}")
    if metric not in get_args(Metric.__value__):
        raise ValueError(f"metric must be one of {get_args(Metric.__value__)}, got {metric!r}")
    if kernel.propose is None:
        raise ValueError(
            "this kernel has no trajectories to adapt, as hmc and dynamic_hmc have; use window_adaptation for it, or "
            "ladder_adaptation for a ladder"
        )
    init, step, tuning_of = _functions(kernel.init, kernel.propose, num_steps, target_acceptance_rate, metric)
    return WarmUp(Sampler(init, step, kernel.initial_tuning), tuning_of)


@functools.lru_cache(maxsize=64)  # the same functions for the same kernel, so that nothing recompiles
def _functions(
    kernel_init: Any, kernel_propose: Any, num_steps: int, target_acceptance_rate: float, metric: Metric
) -> tuple[Any, Any, Any]:
    learn, averaged = _learning(num_steps, target_acceptance_rate, metric)

    def init(chains: Chains, keys: Key[Array, " chain"], positions: Position, batch: Batch, tuning: Tuning) -> CrossChainState:
        if chains.number < 2:
            raise ValueError("cross-chain adaptation learns from differences of chains: it needs 2 or more, got 1")
        if isinstance(tuning, PerChain):
            raise ValueError("cross-chain adaptation finds one tuning for all chains, so they must start with one, got PerChain")

        def one(key: Key[Array, ""], position: Position) -> CrossChainState:
            flat, _ = ravel(position)
            inverse_mass = jnp.broadcast_to(tuning.inverse_mass_matrix, flat.shape).astype(flat.dtype)
            zeros = jnp.zeros_like(flat)
            moments = Moments(inverse_mass, jnp.zeros((), flat.dtype), zeros, zeros) if metric != "identity" else ()
            length = jnp.log(tuning.trajectory_length)
            learned = Learned(jnp.int32(0), averaging_from(tuning.step_size), length, length, ASCENT.init(length), moments)
            return CrossChainState(kernel_init(key, position, batch, tuning), learned)

        return chains.map(one, keys, positions)

    def current(learned: Learned, tuning: Tuning, step_size: Array, log_length: Array) -> Tuning:
        inverse_mass = learned.moments.inverse_mass_matrix if metric != "identity" else tuning.inverse_mass_matrix
        tuned = {"step_size": step_size, "trajectory_length": jnp.exp(log_length), "inverse_mass_matrix": inverse_mass}
        return tuning._replace(**{name: value.astype(jnp.float32) for name, value in tuned.items()})

    def step(
        chains: Chains, keys: Key[Array, " chain"], state: CrossChainState, batch: Batch, tuning: Tuning, step: Int[Array, ""]
    ) -> tuple[CrossChainState, Info]:
        learned: Learned = jax.tree.map(lambda x: x[0], state.learned)
        trial = current(learned, tuning, jnp.exp(learned.step_size.log_step_size), learned.log_length)

        def move(key: Key[Array, ""], inner: State) -> tuple[State, Info, Any]:
            start, _ = ravel(inner.position)
            new, info, proposal = kernel_propose(key, inner, batch, trial, step)
            weight = jnp.nan_to_num(info.acceptance_rate).astype(start.dtype)
            # A trajectory that diverged is never accepted, and may have ended anywhere.
            end, momentum = (jnp.where(weight > 0, x, y) for x, y in ((proposal.position, start), (proposal.momentum, 0)))
            return new, info, (start, end, proposal.time.astype(start.dtype) * momentum, weight)

        inner, info, (start, end, drift, weight) = chains.map(move, keys, state.inner)
        reports = compare(chains, start, end, drift, weight, trial.inverse_mass_matrix)
        position = jax.tree.map(lambda x: x[0], inner.position)
        # A barrier on both sides: what all chains share is computed on every device, with the same bits.
        learned, reports = jax.lax.optimization_barrier((learned, reports))
        learned = jax.lax.optimization_barrier(learn(learned, reports, chains.number, tuning.max_num_steps, position))
        return CrossChainState(inner, jax.tree.map(lambda x: jnp.broadcast_to(x, (len(weight), *x.shape)), learned)), info

    def tuning_of(state: CrossChainState, tuning: Tuning) -> Tuning:
        learned: Learned = jax.tree.map(lambda x: x[0], state.learned)
        return current(learned, tuning, averaged(learned.step_size), learned.averaged_log_length)

    return init, step, tuning_of


def compare(
    chains: Chains,
    start: Float[Array, "chain d"],
    end: Float[Array, "chain d"],
    drift: Float[Array, "chain d"],
    weight: Float[Array, " chain"],
    inverse_mass_matrix: Float[Array, "..."],
) -> Reports:
    """Return what trajectories of all chains say of their length.

    Args:
        chains: Which map and add up.
        start: Positions before the step.
        end: Proposals.
        drift: Time times momentum at the end: how the end moves with the logarithm of the time, less the metric.
        weight: Acceptance rate.
        inverse_mass_matrix: Metric of the trajectories.
    """
    sums = chains.sum(chains.map(lambda x, y, w: (x, w * y, w, 1 / w), start, end, weight))
    total_weight = jnp.maximum(sums[2], jnp.finfo(weight.dtype).tiny)
    start_mean, end_mean = sums[0] / chains.number, sums[1] / total_weight

    def one(start: Array, end: Array, drift: Array, weight: Array) -> tuple[Array, Array, Array]:
        squares, after = (start - start_mean) ** 2, end - end_mean
        before_norm, after_norm = (jnp.sum(x / inverse_mass_matrix) for x in (squares, after**2))
        return weight * (after_norm - before_norm) * (after @ drift), weight * (after_norm + before_norm), squares

    gradient, norms, squares = chains.sum(chains.map(one, start, end, drift, weight))
    scale = norms / total_weight
    relative = gradient / total_weight / scale / scale
    relative = jnp.where(jnp.isfinite(relative), relative, 0.0)  # chains all at one point, or all rejected, say nothing
    return Reports(chains.number / sums[3], relative, start_mean, squares)


def _learning(num_steps: int, target_acceptance_rate: float, metric: Metric) -> tuple[Any, Any]:
    _, update_averaging, averaged = dual_averaging_adaptation(target_acceptance_rate)
    schedule = np.array([(stage == 1, is_end) for stage, is_end in build_schedule(num_steps)])
    first_end = int(np.argmax(schedule[:, 1])) + 1

    def watch(moments: Moments, reports: Reports, number: int) -> Moments:
        count, delta = moments.num_positions + number, reports.mean - moments.mean
        squares = moments.squares + reports.squares + delta**2 * (moments.num_positions * number / count)
        return moments._replace(num_positions=count, mean=moments.mean + delta * (number / count), squares=squares)

    def close_window(learned: Learned, position: Position) -> Learned:
        old, count, _, squares = learned.moments
        variance = squares * (count / (count - 1))  # times their count, as Stan's shrinkage wants it
        new = (variance + SHRINKING_DRAWS * SHRUNK_VARIANCE) / (count + SHRINKING_DRAWS)
        new = new if metric == "diagonal" else by_layer(new, position)
        # Speeds are of the order of the root of the inverse mass.
        slower = jnp.sqrt(jnp.sum(old) / jnp.sum(new))
        # In a metric that is wrong, the widest direction sets the length; in one that is about right, all have one period.
        log_length = jnp.where(learned.step == first_end, jnp.log(jnp.pi / 2), learned.log_length + jnp.log(slower))
        return learned._replace(
            step_size=averaging_from(averaged(learned.step_size) * slower),
            log_length=log_length,
            averaged_log_length=log_length,
            moments=Moments(new, jnp.zeros_like(count), jnp.zeros_like(new), jnp.zeros_like(new)),
        )

    def learn(learned: Learned, reports: Reports, number: int, max_num_steps: Array, position: Position) -> Learned:
        averaging = update_averaging(learned.step_size, reports.acceptance_rate)
        ascended, ascent = ASCENT.update(-reports.gradient.astype(jnp.float32), learned.ascent)
        # Trajectories have one leapfrog step at least, to which a shorter length catches up; by and by, since dual averaging sets
        # out with steps ten times too large. Above the most steps that are allowed a length goes no further up.
        old, at_present = learned.log_length, learned.step_size.log_step_size
        shortest = jnp.minimum(old + CATCHING_UP, jnp.minimum(at_present, learned.step_size.log_step_size_avg))
        longest = jnp.maximum(old, at_present + jnp.log(max_num_steps))
        log_length = jnp.clip(old + ascended, shortest, longest)
        share = (learned.step + 1) ** -AVERAGING_POWER
        average = (1 - share) * learned.averaged_log_length + share * log_length
        new = learned._replace(
            step=learned.step + 1, step_size=averaging, log_length=log_length, averaged_log_length=average, ascent=ascent
        )
        if metric != "identity":
            in_window, is_end = jnp.asarray(schedule)[jnp.minimum(learned.step, num_steps - 1)]
            watched = watch(learned.moments, reports, number)
            new = new._replace(moments=jax.tree.map(lambda x, y: jnp.where(in_window, x, y), watched, learned.moments))
            new = cast(new, learned)
            new = jax.lax.cond(is_end, lambda x: cast(close_window(x, position), x), lambda x: x, new)
        return cast(new, learned)

    return learn, averaged
