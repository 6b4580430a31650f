"""Hamiltonian Monte Carlo with trajectories of random length."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.mcmc.hmc import HMCState
from jaxtyping import Array, Float, Int, PyTree

from samplers.arguments import require_positive
from samplers.targets import log_density
from samplers.trajectory import count_steps, leapfrog_transition
from samplers.types import Batch, Info, Kernel, Proposal, Target, Tempering
from samplers.vectors import value_and_gradient


class DynamicHMCTuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        step_size: Of the leapfrog integrator, > 0.
        trajectory_length: Mean integration time, > 0.
        max_num_steps: Upper bound on the leapfrog steps of a trajectory.
        inverse_mass_matrix: Scalar, or [d] in the order of `ravel_pytree`.
        tempering: Temperatures of the target.
    """

    step_size: Float[Array, ""]
    trajectory_length: Float[Array, ""]
    max_num_steps: Int[Array, ""]
    inverse_mass_matrix: Float[Array, "..."]
    tempering: Tempering


def dynamic_hmc(
    target: Target,
    *,
    step_size: float,
    trajectory_length: float,
    max_num_steps: int = 1000,
    inverse_mass_matrix: float | Float[Array, " d"] = 1.0,
    tempering: Tempering | None = None,
    divergence_threshold: float = 1000.0,
) -> Kernel:
    r"""Sample with randomised HMC: exact, trajectory lengths exponentially distributed, every chain its own.

    No direction of whatever period resonates with lengths that are spread so widely, so this is the choice where the periods are
    unknown and far apart. Where they are known, `hmc` with its narrow spread wastes fewer gradients. Lengths differ between
    chains, so chains that share a vmap wait for the longest one: keep `chain_block` at 1 on a CPU.

    Args:
        target: The distribution.
        step_size: Of the leapfrog integrator, > 0.
        trajectory_length: Mean integration time, > 0.
        max_num_steps: Upper bound on the leapfrog steps of a trajectory, >= 1.
        inverse_mass_matrix: Scalar or [d] diagonal; about the posterior variance of each direction.
        tempering: Temperatures; default the posterior itself.
        divergence_threshold: Energy error, nats, above which a trajectory counts as divergent.

    Returns:
        A kernel whose state is BlackJAX's HMCState, its gradient a vector, and whose tuning is `DynamicHMCTuning`.

    Raises:
        ValueError: A step size or trajectory length outside its range.

    References:
        Bou-Rabee & Sanz-Serna 2017, arXiv 1511.09382.
    """
    require_positive(step_size=step_size, trajectory_length=trajectory_length, max_num_steps=max_num_steps)
    tuning = DynamicHMCTuning(
        jnp.asarray(step_size, jnp.float32),
        jnp.asarray(trajectory_length, jnp.float32),
        jnp.asarray(max_num_steps, jnp.int32),
        jnp.asarray(inverse_mass_matrix, jnp.float32),
        Tempering.at() if tempering is None else tempering,
    )
    init, step, propose = _functions(target, divergence_threshold)
    return Kernel(init, step, tuning, propose)


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(target: Target, divergence_threshold: float) -> tuple[Any, Any, Any]:
    move = leapfrog_transition(divergence_threshold)

    def init(key: Array, position: PyTree, batch: Batch, tuning: DynamicHMCTuning) -> HMCState:
        return HMCState(position, *value_and_gradient(log_density(target, batch, tuning.tempering), position))

    def propose(
        key: Array, state: HMCState, batch: Batch, tuning: DynamicHMCTuning, step: Int[Array, ""]
    ) -> tuple[HMCState, Info, Proposal]:
        length_key, move_key = jax.random.split(key)
        length = tuning.trajectory_length * jax.random.exponential(length_key, dtype=jnp.float32)
        num_steps = count_steps(length, tuning.step_size, tuning.max_num_steps)
        density = log_density(target, batch, tuning.tempering)
        return move(move_key, state, density, tuning.step_size, tuning.inverse_mass_matrix, num_steps)

    def step(key: Array, state: HMCState, batch: Batch, tuning: DynamicHMCTuning, step: Int[Array, ""]) -> tuple[HMCState, Info]:
        return propose(key, state, batch, tuning, step)[:2]

    return init, step, propose
