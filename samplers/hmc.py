"""Hamiltonian Monte Carlo with jittered trajectories."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from blackjax.mcmc.hmc import HMCState
from jaxtyping import Array, Float, Int, PyTree

from samplers.arguments import require_positive
from samplers.delayed_rejection import delayed_rejection_transition
from samplers.targets import log_density
from samplers.trajectory import count_steps, leapfrog_transition, spread
from samplers.types import Batch, Info, Kernel, Proposal, Target, Tempering
from samplers.vectors import value_and_gradient


class HMCTuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        step_size: Of the leapfrog integrator, > 0.
        trajectory_length: Mean integration time, > 0; pi * scale / 2 is a quarter period of a Gaussian prior of that scale.
        jitter: Relative half-width of the uniform spread of trajectory lengths, in [0, 1).
        max_num_steps: Upper bound on the leapfrog steps of a trajectory.
        inverse_mass_matrix: Scalar, or [d] in the order of `ravel_pytree`.
        tempering: Temperatures of the target.
    """

    step_size: Float[Array, ""]
    trajectory_length: Float[Array, ""]
    jitter: Float[Array, ""]
    max_num_steps: Int[Array, ""]
    inverse_mass_matrix: Float[Array, "..."]
    tempering: Tempering


def hmc(
    target: Target,
    *,
    step_size: float,
    trajectory_length: float,
    jitter: float = 0.2,
    max_num_steps: int = 1000,
    inverse_mass_matrix: float | Float[Array, " d"] = 1.0,
    tempering: Tempering | None = None,
    divergence_threshold: float = 1000.0,
    delayed_rejection: bool = False,
) -> Kernel:
    r"""Sample with Hamiltonian Monte Carlo: exact for any step size, by its accept step.

    The first choice for a full-batch posterior when a good trajectory length is known. Every trajectory has
    :math:`\lceil \tau_t / \epsilon \rceil` leapfrog steps, :math:`\tau_t` spread evenly over :math:`\tau (1 \pm \mathrm{jitter})`
    by a deterministic sequence that all chains share. Without jitter some directions resonate and do not mix, even on an exact
    Gaussian; jitter = 0 is there to show it.

    Args:
        target: The distribution.
        step_size: Of the leapfrog integrator, > 0.
        trajectory_length: Mean integration time, > 0.
        jitter: Relative half-width of the spread of trajectory lengths, in [0, 1).
        max_num_steps: Upper bound on the leapfrog steps of a trajectory, >= 1; shortens trajectories whose step size is small,
            which costs mixing and never exactness.
        inverse_mass_matrix: Scalar or [d] diagonal; about the posterior variance of each direction.
        tempering: Temperatures; default the posterior itself.
        divergence_threshold: Energy error, nats, above which a trajectory counts as divergent; of two, the second.
        delayed_rejection: Try a trajectory that failed by more than 10 nats once more, with a quarter of the step size: for
            densities with narrow places, where chains stand still otherwise. Takes up to two trajectories more, where one failed.
            Acceptance rates and energy errors are those of first trajectories.

    Returns:
        A kernel whose state is BlackJAX's HMCState, its gradient a vector, and whose tuning is `HMCTuning`.

    Raises:
        ValueError: A step size, trajectory length or jitter outside its range.

    References:
        Duane et al. 1987; Neal 2011, arXiv 1206.1901. Jitter: Mackenzie 1989; Hoffman et al. 2021 (ChEES) share it over chains.
        Delayed rejection: Modi, Barnett & Carpenter 2023, arXiv 2110.00610.
    """
    require_positive(step_size=step_size, trajectory_length=trajectory_length, max_num_steps=max_num_steps)
    if not 0 <= jitter < 1:
        raise ValueError(f"jitter must be in [0, 1), got {jitter}; 0.2 spreads trajectory lengths by +-20 %")
    tuning = HMCTuning(
        jnp.asarray(step_size, jnp.float32),
        jnp.asarray(trajectory_length, jnp.float32),
        jnp.asarray(jitter, jnp.float32),
        jnp.asarray(max_num_steps, jnp.int32),
        jnp.asarray(inverse_mass_matrix, jnp.float32),
        Tempering.at() if tempering is None else tempering,
    )
    init, step, propose = _functions(target, divergence_threshold, delayed_rejection)
    return Kernel(init, step, tuning, propose)


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(target: Target, divergence_threshold: float, delayed_rejection: bool) -> tuple[Any, Any, Any]:
    move = (delayed_rejection_transition if delayed_rejection else leapfrog_transition)(divergence_threshold)

    def init(key: Array, position: PyTree, batch: Batch, tuning: HMCTuning) -> HMCState:
        return HMCState(position, *value_and_gradient(log_density(target, batch, tuning.tempering), position))

    def propose(
        key: Array, state: HMCState, batch: Batch, tuning: HMCTuning, step: Int[Array, ""]
    ) -> tuple[HMCState, Info, Proposal]:
        density = log_density(target, batch, tuning.tempering)
        length = spread(tuning.trajectory_length, tuning.jitter, step)
        num_steps = count_steps(length, tuning.step_size, tuning.max_num_steps)
        return move(key, state, density, tuning.step_size, tuning.inverse_mass_matrix, num_steps)

    def step(key: Array, state: HMCState, batch: Batch, tuning: HMCTuning, step: Int[Array, ""]) -> tuple[HMCState, Info]:
        return propose(key, state, batch, tuning, step)[:2]

    return init, step, propose
