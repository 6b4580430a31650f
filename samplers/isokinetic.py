"""Isokinetic dynamics, in which momentum has a direction but no length: the integrator of the microcanonical kernels."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from samplers.targets import LogDensity
from samplers.types import Position, num_params
from samplers.vectors import normals, shifted, value_and_gradient

# Of the minimal-norm second-order splitting: two gradients a step, and steps more than twice as long as leapfrog's for the same
# error (Takaishi & de Forcrand 2006, hep-lat/0505020, eq. 20; Robnik et al. 2023, arXiv 2212.08549).
MINIMAL_NORM = 0.1931833275037836
GRADIENTS_A_STEP = 2


class IsokineticState(NamedTuple):
    """A point of isokinetic dynamics.

    Attributes:
        position: Where it is.
        direction: [d] where it goes, of length 1 in the coordinates position / sqrt(inverse mass).
        logdensity: At the position, nats.
        logdensity_grad: [d] its gradient there.
    """

    position: Position
    direction: Float[Array, " d"]
    logdensity: Float[Array, ""]
    logdensity_grad: Float[Array, " d"]


def start(density: LogDensity, position: Position, key: Key[Array, ""]) -> IsokineticState:
    """Return a point with a direction drawn evenly.

    Raises:
        ValueError: A position of one dimension, in which there is no direction to turn to.
    """
    if num_params(position) < 2:
        raise ValueError("microcanonical dynamics needs two or more dimensions; sample one dimension with hmc")
    logdensity, gradient = value_and_gradient(density, position)
    return IsokineticState(position, even_direction(key, gradient), logdensity, gradient)


def even_direction(key: Key[Array, ""], like: Float[Array, " d"]) -> Float[Array, " d"]:
    """Return a direction drawn evenly from the unit sphere."""
    return unit(normals(key, like))


def turn(
    key: Key[Array, ""], direction: Float[Array, " d"], step_size: Float[Array, ""], decoherence_length: Float[Array, ""]
) -> Float[Array, " d"]:
    """Return the direction after a step's worth of noise, which makes it forget itself over the decoherence length."""
    noise = jnp.sqrt(jnp.expm1(2 * step_size / decoherence_length) / direction.size).astype(direction.dtype)
    return unit(direction + noise * normals(key, direction))


def move(
    density: LogDensity, state: IsokineticState, step_size: Float[Array, ""], scale: Float[Array, "..."]
) -> tuple[IsokineticState, Float[Array, ""]]:
    """Take one minimal-norm step of the deterministic dynamics.

    Args:
        density: The log density of a position.
        state: Where it starts.
        step_size: Length of the step.
        scale: Square root of the inverse mass matrix, scalar or [d].

    Returns:
        The new point, whose direction has length 1 but for rounding, and the change of kinetic energy, nats; minus the change of
        log density it is the energy error.
    """
    x, direction, logdensity, gradient = state
    step_size, scale, kinetic = step_size.astype(gradient.dtype), scale.astype(gradient.dtype), jnp.zeros_like(logdensity)

    def kicked(direction: Array, gradient: Array, share: float) -> tuple[Array, Array]:
        if scale.size == 1:  # a longer gradient is a longer time: no product to write out
            return _kick(direction, gradient, share * step_size * scale.reshape(()))
        return _kick(direction, scale * gradient, share * step_size)

    for share, drift in ((MINIMAL_NORM, 0.5), (1 - 2 * MINIMAL_NORM, 0.5)):
        direction, change = kicked(direction, gradient, share)
        x, kinetic = shifted(x, drift * step_size * scale * direction), kinetic + change.astype(kinetic.dtype)
        logdensity, gradient = value_and_gradient(density, x)
    direction, change = kicked(direction, gradient, MINIMAL_NORM)
    return IsokineticState(x, direction, logdensity, gradient), kinetic + change.astype(kinetic.dtype)


def _kick(
    direction: Float[Array, " d"], gradient: Float[Array, " d"], time: Float[Array, ""]
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """Turn a direction towards the gradient, exactly, and return the change of kinetic energy.

    Written with exponentials of negative arguments and expm1 alone, so that neither large nor small gradients lose digits: the
    textbook form cancels a log 2, which in float32 costs 1e-7 (d - 1) nats a step.
    """
    size = jnp.linalg.norm(gradient)
    inverse_size = 1 / jnp.maximum(size, jnp.finfo(gradient.dtype).tiny)
    degrees = direction.size - 1
    angle = time * size / degrees
    cosine, zeta = inverse_size * (gradient @ direction), jnp.exp(-angle)
    shrunk = 0.5 * (1 - cosine) * jnp.expm1(-2 * angle)
    towards = inverse_size * (1 - zeta) * (1 + zeta + cosine * (1 - zeta))
    # Of length 1 but for rounding: an explicit norm would be one more pass over the parameters.
    turned = (towards * gradient + 2 * zeta * direction) / (2 * (1 + shrunk))
    return turned, degrees * (angle + jnp.log1p(shrunk))


def unit(vector: Float[Array, " d"]) -> Float[Array, " d"]:
    """Return a vector of length 1 in the same direction."""
    return vector / jnp.linalg.norm(vector)
