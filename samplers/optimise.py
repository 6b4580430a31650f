"""Optimisers as kernels: MAP estimates and, with several chains, deep ensembles."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from samplers.minibatch import minibatch
from samplers.targets import log_density
from samplers.types import Batch, Info, Kernel, Position, Target, Tempering


class OptimiseTuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        step_size: Multiplies the updates of the optax transformation.
        tempering: Temperatures of the target; a likelihood temperature shifts the optimum, a temperature does not.
    """

    step_size: Float[Array, ""]
    tempering: Tempering


class OptimiseState(NamedTuple):
    """Position, state of the optax transformation, and log density before the last step."""

    position: Position
    optimiser: Any
    logdensity: Float[Array, ""]


def optimise(
    target: Target,
    transformation: optax.GradientTransformation,
    *,
    batch_size: int | None = None,
    tempering: Tempering | None = None,
) -> Kernel:
    """Climb the log density with an optax transformation: one chain is a MAP estimate, several a deep ensemble.

    The loss is -log density / num_data, so that learning rates keep their usual scale.

    Args:
        target: The distribution whose density is climbed.
        transformation: Such as `optax.adam(1e-2)`, with its learning rate or schedule.
        batch_size: Examples in a minibatch, without replacement by epoch; None takes all data at every step.
        tempering: Temperatures; default the posterior itself.

    Returns:
        A kernel whose tuning is `OptimiseTuning`.

    Raises:
        ValueError: A batch size outside its range.

    Example:
        >>> import jax, jax.numpy as jnp, optax, samplers
        >>> target, batch = samplers.from_logdensity(lambda x: -0.5 * jnp.sum((x - 3.0) ** 2))
        >>> kernel = samplers.optimise(target, optax.adam(0.1))
        >>> result = samplers.sample(jax.random.key(0), kernel, jnp.zeros((1, 2)), batch, num_steps=500)
        >>> bool(jnp.allclose(result.run.state.position, 3.0, atol=1e-3))
        True
    """
    tuning = OptimiseTuning(jnp.float32(1), Tempering.at() if tempering is None else tempering)
    kernel = Kernel(*_functions(target, transformation), tuning)
    return minibatch(kernel, target.num_data, batch_size)


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(target: Target, transformation: optax.GradientTransformation) -> tuple[Any, Any]:
    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: OptimiseTuning) -> OptimiseState:
        value = log_density(target, batch, tuning.tempering)(position)
        return OptimiseState(position, transformation.init(position), value)

    def step(
        key: Key[Array, ""], state: OptimiseState, batch: Batch, tuning: OptimiseTuning, step: Int[Array, ""]
    ) -> tuple[OptimiseState, Info]:
        value, gradient = jax.value_and_grad(log_density(target, batch, tuning.tempering))(state.position)
        loss_gradient = jax.tree.map(lambda g: -g / max(target.num_data, 1), gradient)
        updates, optimiser = transformation.update(loss_gradient, state.optimiser, state.position)
        scaled = jax.tree.map(lambda u: tuning.step_size.astype(u.dtype) * u, updates)
        position = optax.apply_updates(state.position, scaled)
        nan = jnp.float32(jnp.nan)
        is_finite = jnp.isfinite(sum(map(jnp.sum, jax.tree.leaves(position)), value))
        info = Info(jnp.float32(1), nan, nan, nan, nan, ~is_finite, is_finite)
        return OptimiseState(position, optimiser, value), info

    return init, step
