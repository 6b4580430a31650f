"""The No-U-Turn sampler."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from blackjax.mcmc import hmc as blackjax_hmc
from blackjax.mcmc import nuts as blackjax_nuts
from jaxtyping import Array, Float, Int, PyTree

from samplers.arguments import require_positive
from samplers.targets import log_density
from samplers.types import Batch, Info, Kernel, Target, Tempering
from samplers.vectors import flattened, value_and_gradient


class NUTSTuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        step_size: Of the leapfrog integrator, > 0.
        inverse_mass_matrix: Scalar, or [d] in the order of `ravel_pytree`.
        tempering: Temperatures of the target.
    """

    step_size: Float[Array, ""]
    inverse_mass_matrix: Float[Array, "..."]
    tempering: Tempering


def nuts(
    target: Target,
    *,
    step_size: float,
    max_num_doublings: int = 10,
    inverse_mass_matrix: float | Float[Array, " d"] = 1.0,
    tempering: Tempering | None = None,
    divergence_threshold: float = 1000.0,
) -> Kernel:
    """Sample with the multinomial No-U-Turn sampler: exact, and it finds its own trajectory length.

    The first choice when no good trajectory length is known. Trajectories differ in length between chains, so chains that share
    a vmap wait for the longest one: keep `chain_block` at 1 on a CPU.

    Args:
        target: The distribution.
        step_size: Of the leapfrog integrator, > 0.
        max_num_doublings: A trajectory has at most 2^max_num_doublings leapfrog steps.
        inverse_mass_matrix: Scalar or [d] diagonal; about the posterior variance of each direction.
        tempering: Temperatures; default the posterior itself.
        divergence_threshold: Energy error, nats, above which a trajectory counts as divergent.

    Returns:
        A kernel whose state is BlackJAX's HMCState, its gradient a vector, and whose tuning is `NUTSTuning`.

    Raises:
        ValueError: A step size or number of doublings outside its range.

    References:
        Hoffman & Gelman 2014, arXiv 1111.4246; Betancourt 2017, arXiv 1701.02434; iterative form: Phan et al. 2019,
        arXiv 1912.11554. Energy error and kinetic temperature refer to a trajectory's two ends and are not reported (NaN).
    """
    require_positive(step_size=step_size)
    if not 1 <= max_num_doublings <= 20:
        raise ValueError(f"max_num_doublings must be from 1 to 20, got {max_num_doublings}")
    tuning = NUTSTuning(
        jnp.asarray(step_size, jnp.float32),
        jnp.asarray(inverse_mass_matrix, jnp.float32),
        Tempering.at() if tempering is None else tempering,
    )
    return Kernel(*_functions(target, max_num_doublings, divergence_threshold), tuning)


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(target: Target, max_num_doublings: int, divergence_threshold: float) -> tuple[Any, Any]:
    transition = blackjax_nuts.build_kernel(divergence_threshold=divergence_threshold)

    def init(key: Array, position: PyTree, batch: Batch, tuning: NUTSTuning) -> blackjax_hmc.HMCState:
        return blackjax_hmc.HMCState(position, *value_and_gradient(log_density(target, batch, tuning.tempering), position))

    def step(
        key: Array, state: blackjax_hmc.HMCState, batch: Batch, tuning: NUTSTuning, step: Int[Array, ""]
    ) -> tuple[blackjax_hmc.HMCState, Info]:
        density = log_density(target, batch, tuning.tempering)
        inverse_mass = jnp.atleast_1d(tuning.inverse_mass_matrix)
        flat, flat_density, unflatten = flattened(state, density)
        new, details = transition(key, flat, flat_density, tuning.step_size, inverse_mass, max_num_doublings)
        nan = jnp.full_like(details.energy, jnp.nan)
        info = Info(
            num_gradients=details.num_integration_steps.astype(jnp.float32),
            acceptance_rate=details.acceptance_rate,
            energy=details.energy,
            energy_error=nan,
            kinetic_temperature=nan,
            is_divergent=details.is_divergent,
            is_finite=jnp.isfinite(new.logdensity),
        )
        return unflatten(new), info

    return init, step
