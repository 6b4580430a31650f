"""The Barker proposal."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.mcmc.hmc import HMCState
from blackjax.mcmc.hmc import init as blackjax_init
from jaxtyping import Array, Float, Int, PyTree

from samplers.arguments import require_positive
from samplers.targets import log_density
from samplers.types import Batch, Info, Kernel, Target, Tempering
from samplers.vectors import flattened, normals, value_and_gradient


class BarkerTuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        step_size: Standard deviation of the proposed moves, > 0.
        inverse_mass_matrix: Scalar, or [d] in the order of `ravel_pytree`; multiplies the variance of the moves.
        tempering: Temperatures of the target.
    """

    step_size: Float[Array, ""]
    inverse_mass_matrix: Float[Array, "..."]
    tempering: Tempering


def barker(
    target: Target,
    *,
    step_size: float,
    inverse_mass_matrix: float | Float[Array, " d"] = 1.0,
    tempering: Tempering | None = None,
) -> Kernel:
    r"""Sample with the Barker proposal: exact, one gradient a step, forgiving of a wrong step size.

    Every scalar takes a Gaussian step whose **sign** follows the gradient: it is kept with probability
    :math:`1 / (1 + e^{-z_i \partial_i \log \pi})` and turned round otherwise. The gradient can turn a step but not lengthen it,
    so a steep density throws nothing out, as it does with MALA. Slower than MALA where MALA is well tuned; the choice for a first
    look at a rough density, and for warming up from far away.

    Args:
        target: The distribution.
        step_size: Standard deviation of the moves, > 0.
        inverse_mass_matrix: Scalar or [d] diagonal; about the posterior variance of each direction.
        tempering: Temperatures; default the posterior itself.

    Returns:
        A kernel whose state is BlackJAX's HMCState, its gradient a vector, and whose tuning is `BarkerTuning`.

    Raises:
        ValueError: A step size outside its range.

    References:
        Livingstone & Zanella 2022, arXiv 1908.11812, algorithm 1. Optimal acceptance 0.4: Vogrinc et al. 2023, arXiv 2201.01123.
    """
    require_positive(step_size=step_size)
    tuning = BarkerTuning(
        jnp.asarray(step_size, jnp.float32),
        jnp.asarray(inverse_mass_matrix, jnp.float32),
        Tempering.at() if tempering is None else tempering,
    )
    return Kernel(*_functions(target), tuning)


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(target: Target) -> tuple[Any, Any]:
    def init(key: Array, position: PyTree, batch: Batch, tuning: BarkerTuning) -> HMCState:
        return HMCState(position, *value_and_gradient(log_density(target, batch, tuning.tempering), position))

    def step(key: Array, state: HMCState, batch: Batch, tuning: BarkerTuning, step: Int[Array, ""]) -> tuple[HMCState, Info]:
        size_key, sign_key, accept_key = jax.random.split(key, 3)
        flat, density, unflatten = flattened(state, log_density(target, batch, tuning.tempering))
        x, _, gradient = flat
        scale = (tuning.step_size * jnp.sqrt(tuning.inverse_mass_matrix)).astype(x.dtype)
        size = scale * normals(size_key, x)
        is_kept = jax.random.uniform(sign_key, x.shape, x.dtype) < jax.nn.sigmoid(size * gradient)
        move = jnp.where(is_kept, size, -size)
        proposal = blackjax_init(x + move, density)
        # Forward, a move z has density proportional to sigmoid(z g); backward, to sigmoid(-z g').
        backward = jax.nn.log_sigmoid(-move * proposal.logdensity_grad)
        log_ratio = proposal.logdensity - state.logdensity + jnp.sum(backward - jax.nn.log_sigmoid(move * gradient))
        acceptance_rate = jnp.where(jnp.isfinite(log_ratio), jnp.exp(jnp.minimum(log_ratio, 0)), 0.0)
        is_accepted = jax.random.uniform(accept_key, dtype=x.dtype) < acceptance_rate
        new = jax.tree.map(lambda a, b: jnp.where(is_accepted, a, b), proposal, flat)
        nan = jnp.full_like(log_ratio, jnp.nan)
        info = Info(
            num_gradients=jnp.float32(1),
            acceptance_rate=acceptance_rate,
            energy=nan,
            energy_error=nan,
            kinetic_temperature=nan,
            is_divergent=~jnp.isfinite(proposal.logdensity),
            is_finite=jnp.isfinite(new.logdensity),
        )
        return unflatten(new), info

    return init, step
