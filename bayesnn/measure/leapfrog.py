"""Paths of the leapfrog in a given precision: their energy errors, and whether they come back when turned round."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc import integrators, metrics
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from samplers import Batch, Target, Tempering, log_density

PRECISIONS = ("float32", "float64")


def energy_errors(
    target: Target,
    batch: Batch,
    tempering: Tempering,
    positions: Any,
    inverse_mass: Float[np.ndarray, "start param"],
    *,
    step_size: Float[np.ndarray, " start"],
    num_steps: int,
    seed: int = 0,
) -> Float[np.ndarray, " start"]:
    """Return the energy at the end less that at the start of paths of the leapfrog, nats, computed in float64.

    Args:
        target: What is sampled.
        batch: Its data.
        tempering: Its temperatures.
        positions: Starts, every leaf with a leading axis.
        inverse_mass: Diagonal, in the order of `ravel_pytree`.
        step_size: Of each path.
        num_steps: Of every path.
        seed: Of the momenta: the same seed, the same momenta, whatever the step size.

    Raises:
        TypeError: The density is not computed in float64: a model that fixes its own type.
    """
    with jax.enable_x64(True):
        paths = _paths(target, batch, tempering, positions, inverse_mass, step_size, num_steps, seed, "float64")
        return np.asarray(paths[0])


def return_errors(
    target: Target,
    batch: Batch,
    tempering: Tempering,
    positions: Any,
    inverse_mass: Float[np.ndarray, "start param"],
    *,
    step_size: Float[np.ndarray, " start"],
    num_steps: int,
    seed: int = 0,
    precision: str = "float64",
) -> Float[np.ndarray, " start"]:
    """Run paths forwards, turn their momentum round, run them back, and return by how much they miss their start.

    Args:
        target: What is sampled.
        batch: Its data.
        tempering: Its temperatures.
        positions: Starts, every leaf with a leading axis.
        inverse_mass: Diagonal, in the order of `ravel_pytree`.
        step_size: Of each path.
        num_steps: Of every path.
        seed: Of the momenta.
        precision: "float32" or "float64".

    Returns:
        [start] distance to the start over the distance to the end of the path.
    """
    with jax.enable_x64(precision == "float64"):
        paths = _paths(target, batch, tempering, positions, inverse_mass, step_size, num_steps, seed, precision)
        return np.asarray(paths[1])


def _paths(
    target: Target,
    batch: Batch,
    tempering: Tempering,
    positions: Any,
    inverse_mass: Any,
    step_size: Any,
    num_steps: int,
    seed: int,
    precision: str,
) -> tuple[Array, Array]:
    dtype = jnp.dtype(precision)

    def cast(x: Any) -> Array:
        x = np.asarray(x)
        return jnp.asarray(x, dtype if np.issubdtype(x.dtype, np.floating) else None)

    positions, batch, tempering = (jax.tree.map(cast, tree) for tree in (positions, batch, tempering))
    inverse_mass, step_size = cast(np.asarray(inverse_mass, float)), cast(np.asarray(step_size, float))
    # Drawn by NumPy, so that both precisions set out with the same momenta.
    momenta = cast(np.random.default_rng(seed).normal(size=inverse_mass.shape) / np.sqrt(inverse_mass))
    found = jax.eval_shape(lambda x: log_density(target, batch, tempering)(jax.tree.map(lambda y: y[0], x)), positions).dtype
    if found != dtype:
        raise TypeError(f"the log density is computed in {found}, expected {dtype}: let the model take the type of its weights")
    return _program(target)(positions, momenta, inverse_mass, step_size, jnp.int32(num_steps), batch, tempering)


@functools.lru_cache(maxsize=16)  # one program a target and precision, so that another step size recompiles nothing
def _program(target: Target) -> Any:
    @jax.jit
    def program(
        positions: Any,
        momenta: Array,
        inverse_mass: Array,
        step_size: Array,
        num_steps: Array,
        batch: Batch,
        tempering: Tempering,
    ) -> tuple[Array, Array]:
        def one(start: tuple[Any, Array, Array, Array]) -> tuple[Array, Array]:
            position, momentum, mass, size = start
            flat, unravel = ravel_pytree(position)
            density = log_density(target, batch, tempering)
            kinetic_energy = metrics.gaussian_euclidean(mass).kinetic_energy
            move = integrators.velocity_verlet(lambda x: density(unravel(x)), kinetic_energy)

            def along(state: Any) -> Any:
                return jax.lax.fori_loop(0, num_steps, lambda _, s: move(s, size), state)

            begin = integrators.new_integrator_state(lambda x: density(unravel(x)), flat, momentum)
            end = along(begin)
            back = along(end._replace(momentum=-end.momentum))
            energy = [kinetic_energy(state.momentum) - state.logdensity for state in (begin, end)]
            missed = jnp.linalg.norm(back.position - begin.position) / jnp.linalg.norm(end.position - begin.position)
            return energy[1] - energy[0], missed

        return jax.lax.map(one, (positions, momenta, inverse_mass, step_size))

    return program
