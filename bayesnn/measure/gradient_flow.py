r"""Gradient flow from draws to the minima below them.

.. math:: \dot\theta = -\nabla U(\theta), \qquad U = -\log p

Optimisers with momentum, and line searches, leave the basin in which they begin; the flow defines it. It is stiff, so that
explicit steps would be as small as the narrowest direction asks; exponential ones follow the flow of the local parabola exactly,
over hills and along valleys, and turn into Newton's method at its end. Each costs a Hessian, so this is for networks of some
hundred weights.

References:
    Hochbruck, Ostermann & Schweitzer 2009, "Exponential Rosenbrock-type methods", SIAM J. Numer. Anal. 47 (the step, of order 2).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

import samplers
from samplers import Batch, Target, Tempering
from samplers.types import Position

MODEL_ERROR = 0.1  # share of a step's fall by which the parabola may be wrong
LEFT = 1e-4  # nats; what Newton's parabola says is left to fall at the end
GROWTH, SHRINKAGE = 3.0, 0.25  # of the time step after a step that was right, and after one that was not
STEEPEST = 2.0  # a deviation along the direction of most negative curvature grows by at most exp(2) in a step
ROUNDING = 64.0  # units of the last place of U by which differences of it may be off: it is a sum over data
MAX_WEIGHTS = 1000  # their Hessian has 4 MB, takes a thousand gradients, and its eigenvectors a second
MAX_STEPS = 1000  # flows of 145 weights take about a hundred; those that do not end are told


class Minima(NamedTuple):
    """Ends of flows.

    Attributes:
        position: [end, ...].
        log_density: [end] nats.
        hessian: [end, d, d] of U, in the order of `ravel_pytree`.
        is_minimum: [end] whether the flow has come to its end there.
    """

    position: Position
    log_density: Float[np.ndarray, " end"]
    hessian: Float[np.ndarray, "end d d"]
    is_minimum: Bool[np.ndarray, " end"]


class _Flow(NamedTuple):
    """Where a flow is: value of U there, curvatures in increasing order, their axes in columns, and the slopes along these."""

    place: Float[Array, " d"]
    value: Float[Array, ""]
    curvatures: Float[Array, " d"]
    axes: Float[Array, "d d"]
    slope: Float[Array, " d"]
    time_step: Float[Array, ""]
    num_steps: Int[Array, ""]

    @property
    def has_ended(self) -> Bool[Array, ""]:
        """Whether it is in a minimum, up to `LEFT`."""
        left = 0.5 * jnp.sum(self.slope**2 / jnp.maximum(self.curvatures, jnp.finfo(self.curvatures.dtype).tiny))
        return (self.curvatures[0] > 0) & (left < LEFT)


def flow_to_minima(target: Target, batch: Batch, tempering: Tempering, positions: Position) -> Minima:
    """Follow the gradient flow of the log density from positions to minima of U.

    Args:
        target: The target, smooth: at the kinks of ReLU there is no Hessian, and flows end beside minima, or not at all.
        batch: Its data.
        tempering: Its temperatures.
        positions: [draw, ...].

    Raises:
        ValueError: More than 1,000 weights.
    """
    like = jax.tree.map(lambda x: x[0], positions)
    if (num_weights := samplers.num_params(like)) > MAX_WEIGHTS:
        raise ValueError(f"the flow takes a Hessian a step and is for at most {MAX_WEIGHTS} weights, got {num_weights}")
    position, ends, has_ended = _program(target)(jax.tree.map(jnp.asarray, positions), batch, tempering)
    axes, curvatures = np.asarray(ends.axes, float), np.asarray(ends.curvatures, float)
    hessian = (axes * curvatures[:, None, :]) @ axes.swapaxes(1, 2)
    return Minima(jax.tree.map(np.asarray, position), -np.asarray(ends.value, float), hessian, np.asarray(has_ended))


@functools.lru_cache(maxsize=64)  # the same function for the same target, so that nothing recompiles
def _program(target: Target) -> Callable[[Position, Batch, Tempering], tuple[Position, _Flow, Bool[Array, " draw"]]]:
    @jax.jit
    def program(positions: Position, batch: Batch, tempering: Tempering) -> tuple[Position, _Flow, Bool[Array, " draw"]]:
        def one(position: Position) -> tuple[Position, _Flow, Bool[Array, ""]]:
            place, unravel = ravel_pytree(position)
            density = samplers.log_density(target, batch, tempering)
            end = follow(lambda x: -density(unravel(x)), place)
            return unravel(end.place), end, end.has_ended

        return jax.lax.map(one, positions)  # one by one: some flows are many times longer than others

    return program


def follow(potential: Callable[[Float[Array, " d"]], Float[Array, ""]], place: Float[Array, " d"]) -> _Flow:
    """Follow the gradient flow of a potential from a place to its end, or for `MAX_STEPS` steps."""

    def at(place: Float[Array, " d"], time_step: Float[Array, ""] | None, num_steps: Int[Array, ""]) -> _Flow:
        value, gradient = jax.value_and_grad(potential)(place)
        curvatures, axes = jnp.linalg.eigh(jax.jacrev(jax.grad(potential))(place))
        first = 1 / jnp.max(jnp.abs(curvatures))
        return _Flow(place, value, curvatures, axes, axes.T @ gradient, first if time_step is None else time_step, num_steps)

    def step(flow: _Flow) -> _Flow:
        growing = jnp.maximum(-flow.curvatures[0], jnp.finfo(place.dtype).tiny)
        time_step = jnp.minimum(flow.time_step, STEEPEST / growing)
        shift = -time_step * _phi(time_step * flow.curvatures) * flow.slope
        fall = -jnp.sum(flow.slope * shift + 0.5 * flow.curvatures * shift**2)
        new = flow.place + flow.axes @ shift
        error = jnp.abs(potential(new) - (flow.value - fall))
        is_right = error <= MODEL_ERROR * fall + ROUNDING * jnp.finfo(place.dtype).eps * jnp.abs(flow.value)
        count = flow.num_steps + 1
        return jax.lax.cond(
            is_right,
            lambda: at(new, GROWTH * time_step, count),
            lambda: flow._replace(time_step=SHRINKAGE * time_step, num_steps=count),
        )

    start = at(place, None, jnp.int32(0))
    return jax.lax.while_loop(lambda flow: ~flow.has_ended & (flow.num_steps < MAX_STEPS), step, start)


def _phi(z: Float[Array, " d"]) -> Float[Array, " d"]:
    """Return (1 - exp(-z)) / z, which is 1 at 0."""
    is_small = jnp.abs(z) < 1e-3  # there the parabola is exact in single precision
    return jnp.where(is_small, 1 - z / 2, -jnp.expm1(-z) / jnp.where(is_small, 1.0, z))
