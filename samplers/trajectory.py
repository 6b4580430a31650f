"""What kernels with Hamiltonian trajectories share: how long a trajectory is, and one transition of leapfrog steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from blackjax.mcmc import hmc as blackjax_hmc
from blackjax.mcmc import metrics
from blackjax.mcmc.hmc import HMCState
from blackjax.mcmc.integrators import Integrator, IntegratorState
from jaxtyping import Array, Float, Int, Key

from samplers.targets import LogDensity
from samplers.types import Info, Position, Proposal, num_params
from samplers.vectors import normals, ravel, shifted, value_and_gradient

# A counter times 2^32 / golden ratio, overflow dropped, is an equidistributed sequence (Knuth, TAOCP 3, 6.4).
GOLDEN = 2654435769


def spread(length: Float[Array, ""], jitter: Float[Array, ""], step: Int[Array, ""]) -> Float[Array, ""]:
    """Return the length of the trajectory at a step: spread evenly over length (1 +- jitter), the same in all chains."""
    uniform = (step.astype(jnp.uint32) * jnp.uint32(GOLDEN)).astype(jnp.float32) / 2.0**32
    return length * (1 + jitter * (2 * uniform - 1))


def count_steps(length: Float[Array, ""], step_size: Float[Array, ""], most: Int[Array, ""]) -> Int[Array, ""]:
    """Return the number of integrator steps of a trajectory, from 1 to `most`."""
    return jnp.clip(jnp.ceil(length / step_size), 1, most).astype(jnp.int32)


def leapfrog_transition(divergence_threshold: float) -> Callable[..., tuple[HMCState, Info, Proposal]]:
    """Return a transition with fresh momentum, a given number of leapfrog steps and a Metropolis test of their end.

    Args:
        divergence_threshold: Energy error, nats, above which a trajectory counts as divergent.

    Returns:
        (key, HMCState, log density, step size, inverse mass matrix, number of steps) -> (HMCState, Info, Proposal).
    """

    def move(
        key: Key[Array, ""],
        state: HMCState,
        density: LogDensity,
        step_size: Float[Array, ""],
        inverse_mass_matrix: Float[Array, "..."],
        num_steps: Any,
    ) -> tuple[HMCState, Info, Proposal]:
        metric = gaussian_metric(inverse_mass_matrix)
        transition = blackjax_hmc.build_kernel(leapfrogs(num_steps), divergence_threshold)
        new, details = transition(key, state, density, step_size, metric, 1)
        start_kinetic = metric.kinetic_energy(details.momentum)
        start_energy = start_kinetic - state.logdensity
        # If rejected, the state keeps the momentum it set out with (reversed).
        end_kinetic = jnp.where(details.is_accepted, metric.kinetic_energy(details.proposal.momentum), start_kinetic)
        info = Info(
            num_gradients=jnp.asarray(num_steps, jnp.float32),
            acceptance_rate=details.acceptance_rate,
            energy=jnp.where(details.is_accepted, details.energy, start_energy),
            energy_error=details.energy - start_energy,
            kinetic_temperature=2 * end_kinetic / num_params(state.position),
            is_divergent=details.is_divergent | ~jnp.isfinite(details.energy),
            is_finite=jnp.isfinite(new.logdensity),
        )
        # BlackJAX turns the momentum round at the end of a trajectory.
        proposal = Proposal(ravel(details.proposal.position)[0], -details.proposal.momentum, num_steps * step_size)
        return new, info, proposal

    return move


def leapfrogs(num_steps: Any) -> Callable[[LogDensity, metrics.KineticEnergy], Integrator]:
    """Return an integrator for BlackJAX one step of which is a trajectory of so many leapfrog steps.

    Momentum and gradient are vectors; the position has its own shapes, which saves joining and cutting it. Where two steps meet,
    their half kicks are one: three passes fewer over momentum and gradient. The density itself, a twenty-fifth of a gradient's
    time (digits, measured), is computed at the last step alone, for which the compiled program holds the gradient a second time.
    """

    def integrator(density: LogDensity, kinetic_energy: metrics.KineticEnergy) -> Integrator:
        def trajectory(start: IntegratorState, step_size: Float[Array, ""]) -> IntegratorState:
            evaluate = jax.jit(functools.partial(value_and_gradient, density))  # traced once for both of its places

            def drifted(position: Position, momentum: Float[Array, " d"]) -> Position:
                return shifted(position, step_size * jax.grad(kinetic_energy)(momentum))

            def leapfrog(_: Int[Array, ""], moving: tuple[Position, Float[Array, " d"]]) -> tuple[Position, Float[Array, " d"]]:
                position = drifted(*moving)
                return position, moving[1] + step_size * evaluate(position)[1]

            kicked = start.momentum + 0.5 * step_size * start.logdensity_grad
            position, momentum = jax.lax.fori_loop(0, num_steps - 1, leapfrog, (start.position, kicked))
            position = drifted(position, momentum)
            logdensity, gradient = evaluate(position)
            return IntegratorState(position, momentum + 0.5 * step_size * gradient, logdensity, gradient)

        return trajectory

    return integrator


def gaussian_metric(inverse_mass_matrix: Float[Array, "..."]) -> metrics.Metric:
    """Return BlackJAX's Gaussian metric of vectors in fewer passes over them, of which small steps of large networks feel each.

    Barriers keep XLA from computing normal deviates anew wherever a momentum is used, and from a dot product that first writes
    out each scalar and each operand of its arguments.
    """
    metric = metrics.gaussian_euclidean(jnp.atleast_1d(inverse_mass_matrix))

    @jax.custom_vjp
    def energy(momentum: Float[Array, " d"]) -> Float[Array, ""]:
        momentum = jax.lax.optimization_barrier(momentum)
        if jnp.size(inverse_mass_matrix) == 1:
            return 0.5 * jnp.reshape(inverse_mass_matrix, ()) * (momentum @ momentum)
        return 0.5 * ((inverse_mass_matrix * momentum) @ momentum)

    energy.defvjp(lambda momentum: (energy(momentum), momentum), lambda p, change: (change * inverse_mass_matrix * p,))

    def sample_momentum(key: Key[Array, ""], position: Position) -> Float[Array, " d"]:
        like = jax.eval_shape(lambda x: ravel(x)[0], position)
        return jax.lax.optimization_barrier(1 / jnp.sqrt(inverse_mass_matrix) * normals(key, like))

    return metric._replace(sample_momentum=sample_momentum, kinetic_energy=lambda momentum, position=None: energy(momentum))
