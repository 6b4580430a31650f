"""What stochastic-gradient kernels share: the step size and noise of a step, and what a step without an accept test reports."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key

from samplers.schedules import Schedule
from samplers.types import Info, Position, num_params
from samplers.vectors import normals


def scheduled(schedule: Schedule, step_size: Float[Array, ""], step: Int[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the step size of a step, and 1 or 0 for noise or none."""
    return step_size * schedule.multiplier(step), schedule.is_sampling(step).astype(jnp.float32)


def normal_like(key: Key[Array, ""], position: Position) -> Position:
    """Return independent standard normal deviates, shaped and typed as a position.

    Drawn as vectors, and behind a barrier: where rows are short, XLA's CPU compiler computes one deviate at a time (17 us for an
    array of 50 x 10, 2 us for as long a vector; measured, JAX 0.12).
    """
    leaves, treedef = jax.tree.flatten(position)
    keys = jax.random.split(key, len(leaves))
    flat = [normals(k, x.ravel()) for k, x in zip(keys, leaves, strict=True)]
    leaves = [z.reshape(x.shape) for z, x in zip(jax.lax.optimization_barrier(flat), leaves, strict=True)]
    return jax.tree.unflatten(treedef, leaves)


def shaped(values: Float[Array, "..."], position: Position) -> Position:
    """Return a scalar, or [d] in the order of `ravel_pytree`, as a tree shaped and typed as a position."""
    flat, unravel = ravel_pytree(position)
    return unravel(jnp.broadcast_to(values, flat.shape).astype(flat.dtype))


def stochastic_info(position: Position, num_gradients: float = 1.0, kinetic_temperature: Array | float = jnp.nan) -> Info:
    """Return the Info of a step without energies and without an accept test."""
    nan = jnp.float32(jnp.nan)
    is_finite = all_finite(position)
    temperature = jnp.asarray(kinetic_temperature, jnp.float32)
    return Info(jnp.float32(num_gradients), nan, nan, nan, temperature, ~is_finite, is_finite)


def all_finite(position: Position) -> Bool[Array, ""]:
    """Return whether a position is finite: a sum is, only if every term is (an overflow of the sum itself is as bad)."""
    return jnp.isfinite(sum(jnp.sum(x) for x in jax.tree.leaves(position)))


def kinetic_temperature(momentum: Position, inverse_mass: Position) -> Float[Array, ""]:
    """Return p . M^-1 p / d."""
    squares = jax.tree.map(lambda p, m: jnp.sum(m * p**2), momentum, inverse_mass)
    return jnp.asarray(sum(jax.tree.leaves(squares))) / num_params(momentum)
