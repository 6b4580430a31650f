"""One transition of Hamiltonian Monte Carlo that tries a failed trajectory once more, with shorter steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.mcmc.hmc import HMCState
from blackjax.mcmc.integrators import IntegratorState
from jaxtyping import Array, Bool, Float, Int, Key

from samplers.targets import LogDensity
from samplers.trajectory import gaussian_metric, leapfrogs
from samplers.types import Info, Proposal, num_params
from samplers.vectors import ravel

# Energy error, nats, from which a rejected trajectory has failed: it would be accepted less than five times in 100,000. At the
# acceptances that warm-ups aim at, errors are of the order of 1, and a chain whose errors stay below this pays nothing.
FAILED = 10.0
# Of the step size, at the second attempt. From 2 to 8 it made no difference to the one seed tried (UCI Boston, MLP, 50 units).
REDUCTION = 4.0


class Attempts(NamedTuple):
    """Trajectories tried in a transition: 1, or 2, or with the reverse one 3.

    Attributes:
        number: Of trajectories so far.
        end: Of the last one that may be accepted, its momentum turned round.
        errors: Energy errors of the three, nats.
    """

    number: Int[Array, ""]
    end: IntegratorState
    errors: Float[Array, " 3"]


def delayed_rejection_transition(divergence_threshold: float) -> Callable[..., tuple[HMCState, Info, Proposal]]:
    r"""Return a transition like `leapfrog_transition`'s that tries failed trajectories again, with a quarter of the step size.

    A trajectory F from z whose energy error :math:`\Delta` is above 10 nats is rejected almost surely, and where the density is
    narrower than the step is, so is every other: the chain stands still. There a second one, G, with as many steps of a quarter
    of the size, sets out from the same position and momentum, and is accepted with the probability

    .. math:: \min\left(1, e^{-\Delta_G(z)} \frac{1 - e^{-\Delta_F(Gz)}}{1 - e^{-\Delta_F(z)}}\right)
              \mathbf{1}[\Delta_F(Gz) > 10]

    which leaves the target as it is: the way back comes about only if F fails from Gz, too, with momentum turned round. This
    takes a third trajectory, which is left out where the second is rejected whatever its outcome.

    Args:
        divergence_threshold: Energy error, nats, above which a trajectory counts as divergent; of two, the second.

    Returns:
        As `leapfrog_transition`. Acceptance rate and energy error are the first trajectory's, to which a warm-up adapts the step
        size; the proposal is the last one.

    References:
        Tierney & Mira 1999; Modi, Barnett & Carpenter 2023, arXiv 2110.00610, which tries again after every rejection, with
        trajectories of the same length, and more than once.
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
        integrate = leapfrogs(num_steps)(density, metric.kinetic_energy)
        momentum_key, accept_key = jax.random.split(key)
        start = IntegratorState(state.position, metric.sample_momentum(momentum_key, state.position), *state[1:])
        uniforms = jax.random.uniform(accept_key, (2,), state.logdensity.dtype)
        # Uniforms lie on a grid that begins at 0, whose logarithm would accept any finite error: half a step of it instead.
        levels = jnp.log(jnp.maximum(uniforms, jnp.finfo(uniforms.dtype).eps / 2))

        def energy(at: IntegratorState) -> Float[Array, ""]:
            total = metric.kinetic_energy(at.momentum) - at.logdensity
            return jnp.where(jnp.isfinite(total), total, jnp.inf)

        def attempt(tried: Attempts) -> Attempts:
            is_second, is_reverse = tried.number == 1, tried.number == 2
            origin = _choose(is_reverse, tried.end, start)
            end = integrate(origin, jnp.where(is_second, step_size / REDUCTION, step_size))
            end = end._replace(momentum=-end.momentum)
            errors = tried.errors.at[tried.number].set(energy(end) - energy(origin))
            return Attempts(tried.number + 1, _choose(is_reverse, tried.end, end), errors)

        def goes_on(tried: Attempts) -> Bool[Array, ""]:
            has_failed = (tried.errors[0] > FAILED) & (levels[0] >= -tried.errors[0])
            may_be_accepted = levels[1] < log_acceptance(tried.errors.at[2].set(jnp.inf))
            return (tried.number == 0) | ((tried.number == 1) & has_failed) | ((tried.number == 2) & may_be_accepted)

        none = Attempts(jnp.int32(0), start, jnp.zeros(3, state.logdensity.dtype))
        tried = jax.lax.while_loop(goes_on, attempt, none)
        errors, is_retried = tried.errors, tried.number > 1
        is_accepted = jnp.where(is_retried, levels[1] < log_acceptance(errors), levels[0] < -errors[0])
        new = _choose(is_accepted, tried.end, start)
        info = Info(
            num_gradients=jnp.asarray(tried.number * num_steps, jnp.float32),
            acceptance_rate=jnp.exp(-jnp.maximum(errors[0], 0)),
            energy=energy(new),
            energy_error=errors[0],
            kinetic_temperature=2 * metric.kinetic_energy(new.momentum) / num_params(state.position),
            is_divergent=jnp.where(is_retried, errors[1], errors[0]) > divergence_threshold,
            is_finite=jnp.isfinite(new.logdensity),
        )
        time = num_steps * jnp.where(is_retried, step_size / REDUCTION, step_size)
        proposal = Proposal(ravel(tried.end.position)[0], -tried.end.momentum, time)
        return HMCState(new.position, new.logdensity, new.logdensity_grad), info, proposal

    return move


def log_acceptance(errors: Float[Array, " 3"]) -> Float[Array, ""]:
    """Return the log acceptance probability of a second trajectory, given the energy errors of all three."""
    first, second, reverse = errors
    return jnp.where(reverse > FAILED, jnp.log1p(-jnp.exp(-reverse)) - jnp.log1p(-jnp.exp(-first)) - second, -jnp.inf)


def _choose(condition: Bool[Array, ""], yes: IntegratorState, no: IntegratorState) -> IntegratorState:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), yes, no)
