"""The Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from blackjax.mcmc.hmc import HMCState
from jaxtyping import Array, Float, Int, PyTree

from samplers.arguments import require_positive
from samplers.targets import log_density
from samplers.trajectory import leapfrog_transition
from samplers.types import Batch, Info, Kernel, Target, Tempering
from samplers.vectors import value_and_gradient


class MALATuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        step_size: epsilon in the proposal below, > 0.
        inverse_mass_matrix: Scalar, or [d] in the order of `ravel_pytree`.
        tempering: Temperatures of the target.
    """

    step_size: Float[Array, ""]
    inverse_mass_matrix: Float[Array, "..."]
    tempering: Tempering


def mala(
    target: Target,
    *,
    step_size: float,
    inverse_mass_matrix: float | Float[Array, " d"] = 1.0,
    tempering: Tempering | None = None,
    divergence_threshold: float = 1000.0,
) -> Kernel:
    r"""Sample with the Metropolis-adjusted Langevin algorithm: exact, one gradient a step.

    HMC with a single leapfrog step, in the step size of the leapfrog integrator (the Langevin step is half its square):

    .. math:: \theta' = \theta + \tfrac{\epsilon^2}{2} M^{-1} \nabla \log \pi(\theta) + \epsilon M^{-1/2} \xi,
        \quad \xi \sim N(0, I)

    It walks at random where HMC travels, so on networks it needs many more gradients for a draw. Use it as the exact counterpart
    of SGLD, to see what SGLD's bias costs, and inside schemes that want one gradient a step.

    Args:
        target: The distribution.
        step_size: epsilon, > 0.
        inverse_mass_matrix: Scalar or [d] diagonal; about the posterior variance of each direction.
        tempering: Temperatures; default the posterior itself.
        divergence_threshold: Energy error, nats, above which a step counts as divergent.

    Returns:
        A kernel whose state is BlackJAX's HMCState, its gradient a vector, and whose tuning is `MALATuning`.

    Raises:
        ValueError: A step size outside its range.

    References:
        Roberts & Tweedie 1996. Optimal acceptance 0.574: Roberts & Rosenthal 1998.
    """
    require_positive(step_size=step_size)
    tuning = MALATuning(
        jnp.asarray(step_size, jnp.float32),
        jnp.asarray(inverse_mass_matrix, jnp.float32),
        Tempering.at() if tempering is None else tempering,
    )
    return Kernel(*_functions(target, divergence_threshold), tuning)


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(target: Target, divergence_threshold: float) -> tuple[Any, Any]:
    move = leapfrog_transition(divergence_threshold)

    def init(key: Array, position: PyTree, batch: Batch, tuning: MALATuning) -> HMCState:
        return HMCState(position, *value_and_gradient(log_density(target, batch, tuning.tempering), position))

    def step(key: Array, state: HMCState, batch: Batch, tuning: MALATuning, step: Int[Array, ""]) -> tuple[HMCState, Info]:
        density = log_density(target, batch, tuning.tempering)
        return move(key, state, density, tuning.step_size, tuning.inverse_mass_matrix, 1)[:2]

    return init, step
