"""Generalised Hamiltonian Monte Carlo: momentum that persists."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.mcmc import ghmc as blackjax_ghmc
from blackjax.mcmc import metrics
from jaxtyping import Array, Float, Int, PyTree

from samplers.arguments import require_positive, require_share
from samplers.targets import log_density
from samplers.types import Batch, Info, Kernel, Target, Tempering, num_params
from samplers.vectors import flattened, value_and_gradient


class GHMCTuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        step_size: Of the leapfrog integrator, > 0.
        refreshment: Share of the momentum's variance that is renewed at every step, in (0, 1].
        inverse_mass_matrix: Scalar, or [d] in the order of `ravel_pytree`.
        tempering: Temperatures of the target.
    """

    step_size: Float[Array, ""]
    refreshment: Float[Array, ""]
    inverse_mass_matrix: Float[Array, "..."]
    tempering: Tempering


def ghmc(
    target: Target,
    *,
    step_size: float,
    refreshment: float = 0.1,
    inverse_mass_matrix: float | Float[Array, " d"] = 1.0,
    tempering: Tempering | None = None,
    divergence_threshold: float = 1000.0,
) -> Kernel:
    """Sample with generalised HMC: exact, one gradient a step, momentum kept between steps.

    One leapfrog step, then a Metropolis test whose uniform number moves slowly instead of being drawn afresh, so that rejections,
    which turn the momentum round, come in clusters with long straight stretches between them. Chains do the same work at every
    step, which suits accelerators with many chains.

    Args:
        target: The distribution.
        step_size: Of the leapfrog integrator, > 0.
        refreshment: alpha, in (0, 1]; 1 is MALA with correlated tests. The uniform number moves by alpha / 2 a step.
        inverse_mass_matrix: Scalar or [d] diagonal; about the posterior variance of each direction.
        tempering: Temperatures; default the posterior itself.
        divergence_threshold: Energy error, nats, above which a step counts as divergent.

    Returns:
        A kernel whose state is BlackJAX's GHMCState, momentum and gradient vectors, and whose tuning is `GHMCTuning`.

    Raises:
        ValueError: A step size or refreshment outside its range.

    References:
        Horowitz 1991; Neal 2020, arXiv 2001.11950 (the slowly moving uniform number); Hoffman & Sountsov 2022 (alpha / 2).
    """
    require_positive(step_size=step_size)
    require_share(refreshment=refreshment)
    tuning = GHMCTuning(
        jnp.asarray(step_size, jnp.float32),
        jnp.asarray(refreshment, jnp.float32),
        jnp.asarray(inverse_mass_matrix, jnp.float32),
        Tempering.at() if tempering is None else tempering,
    )
    return Kernel(*_functions(target, divergence_threshold), tuning)


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(target: Target, divergence_threshold: float) -> tuple[Any, Any]:
    transition = blackjax_ghmc.build_kernel(divergence_threshold=divergence_threshold)

    def init(key: Array, position: PyTree, batch: Batch, tuning: GHMCTuning) -> blackjax_ghmc.GHMCState:
        slice_key, momentum_key = jax.random.split(key)
        logdensity, gradient = value_and_gradient(log_density(target, batch, tuning.tempering), position)
        momentum = metrics.gaussian_euclidean(jnp.atleast_1d(tuning.inverse_mass_matrix)).sample_momentum(momentum_key, gradient)
        level = jax.random.uniform(slice_key, minval=-1.0, maxval=1.0)
        return blackjax_ghmc.GHMCState(position, momentum, logdensity, gradient, level)

    def step(
        key: Array, state: blackjax_ghmc.GHMCState, batch: Batch, tuning: GHMCTuning, step: Int[Array, ""]
    ) -> tuple[blackjax_ghmc.GHMCState, Info]:
        flat, density, unflatten = flattened(state, log_density(target, batch, tuning.tempering))
        inverse_mass = jnp.atleast_1d(tuning.inverse_mass_matrix)
        scale = jnp.sqrt(inverse_mass)
        new, details = transition(key, flat, density, tuning.step_size, scale, tuning.refreshment, tuning.refreshment / 2)
        kinetic_energy = metrics.gaussian_euclidean(inverse_mass).kinetic_energy
        kinetic = kinetic_energy(new.momentum)
        info = Info(
            num_gradients=jnp.float32(1),
            acceptance_rate=details.acceptance_rate,
            energy=kinetic - new.logdensity,
            energy_error=details.energy - kinetic_energy(details.momentum) + state.logdensity,
            kinetic_temperature=2 * kinetic / num_params(state.position),
            is_divergent=details.is_divergent | ~jnp.isfinite(details.energy),
            is_finite=jnp.isfinite(new.logdensity),
        )
        return unflatten(new), info

    return init, step
