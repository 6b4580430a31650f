"""Tempered sequential Monte Carlo: a system of particles that moves from the prior to the posterior, and its evidence."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.smc.resampling import systematic
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, Int, Key

from samplers.arguments import require_accept_step, require_one_step_size, require_positive, require_share
from samplers.blocks import map_blocks
from samplers.targets import log_density_terms
from samplers.types import Batch, Info, Kernel, Position, State, Target, Tuning

# Halvings of the interval of the next beta: more than the mantissa of a float32 holds, so that they end at adjacent numbers.
NUM_HALVINGS = 40
# The logarithm of the step size moves by this times (acceptance rate - its target) after each move: the mean over hundreds of
# particles is hardly noisy, so that no smaller and shrinking gain is needed.
GAIN = 1.0


class ParticleState(NamedTuple):
    """State of one system of P particles.

    Attributes:
        position: [P, ...] particles.
        log_likelihood: [P] their log likelihoods, nats.
        log_weights: [P] normalised; those of the posterior once `done`.
        beta: Inverse likelihood temperature that has been reached, from 0 to 1.
        log_evidence: Log of the estimated evidence of the likelihood to the power beta, nats.
        step_size: Of the kernel, in units of the particles' standard deviations.
        done: beta = 1 has been reached; a step changes nothing more.
    """

    position: Position
    log_likelihood: Float[Array, " P"]
    log_weights: Float[Array, " P"]
    beta: Float[Array, ""]
    log_evidence: Float[Array, ""]
    step_size: Float[Array, ""]
    done: Bool[Array, ""]


def tempered_smc(
    kernel: Kernel,
    target: Target,
    *,
    num_moves: int = 5,
    conditional_ess: float = 0.9,
    resample_below: float = 0.5,
    target_acceptance_rate: float = 0.8,
    particle_block: int = 1,
) -> Kernel:
    r"""Carry particles from the prior to the posterior in stages, and estimate the evidence on the way.

    Use it for the evidence, and for posteriors of several modes that the prior reaches; its draws are weighted, and a mode that
    no particle finds on the way is missed for good. Each chain of `sample` is a system of its own: positions [chain, P, ...] are
    independent draws from the prior (its temperature: below), a step is a stage, and several chains give an honest error
    (`mean_evidence`). End with ``until=lambda run: bool(run.state.done.all())``.

    A stage raises :math:`\beta` to where the conditional effective sample size falls to a share of P, weights the particles,
    resamples them (systematically) if their own effective sample size is low, and moves each by steps of the kernel at the new
    :math:`\beta`. The step size follows the acceptance rate; the metric is diagonal, the weighted variances of the other half of
    the particles:

    .. math:: \frac{(\sum_i W_i w_i)^2}{\sum_i W_i w_i^2} = \rho, \qquad
        w_i = p(y \mid \theta_i)^{\beta' - \beta}, \qquad \hat Z' = \hat Z \sum_i W_i w_i

    On a fixed ladder with fixed kernels :math:`\hat Z` is unbiased (its logarithm is low by half its variance); adapting both to
    the particles adds a bias of order 1/P. In a metric that a particle has a part in itself, P = 200 of them and 3 moves put a
    regression of 5 coefficients off by 0.19 nats (measured), as much as the error of a system; with halves by 0.01 to 0.02.

    The kernel's own temperatures :math:`T, T_\ell` stay in force. At :math:`\beta` the particles sample

    .. math:: p(\theta)^{1/T} \, p(y \mid \theta)^{\beta / (T T_\ell)}

    and the evidence is that of :math:`p(y \mid \theta)^{1 / (T T_\ell)}` under the law that they start from. That must be the
    prior to the power 1/T (of a normal one: with T times its variance). The weights hold likelihoods alone, so that from draws of
    the prior itself, at T other than 1, evidence and weights of modes are wrong, and no number says so.

    Args:
        kernel: An exact kernel of the target, whose tuning has `tempering`, `step_size` and `inverse_mass_matrix`.
        target: The kernel's target.
        num_moves: Steps of the kernel in a stage, >= 1; enough for a particle to forget its start.
        conditional_ess: rho, in (0, 1); nearer to 1 makes more stages.
        resample_below: Share of P, in (0, 1], below which the effective sample size makes the particles be resampled.
        target_acceptance_rate: Of the kernel, in (0, 1].
        particle_block: Particles that move together in one vmap, a divisor of P; 1 for networks on a CPU, P on an accelerator.

    Returns:
        A kernel whose state is `ParticleState` and whose tuning is the given kernel's. Info sums the gradients of all particles,
        averages their acceptance rates, and tells of divergent and non-finite ones if there is any.

    Raises:
        ValueError: An argument outside its range, a kernel without accept step, a ladder, or (when it starts) a number of
            particles that does not divide.
        TypeError: A kernel without temperatures, step size and metric.

    References:
        Del Moral, Doucet & Jasra 2006; Zhou, Johansen & Aston 2016, arXiv 1303.3123 (conditional ESS); Beskos et al. 2016, arXiv
        1306.6462 (the bias of adapting). Halves that adapt to each other: Hoffman & Sountsov 2022 (MEADS).
    """
    require_positive(num_moves=num_moves, particle_block=particle_block)
    require_share(conditional_ess=conditional_ess, resample_below=resample_below, target_acceptance_rate=target_acceptance_rate)
    if conditional_ess == 1:
        raise ValueError("conditional_ess must be below 1, which no step of beta would keep; 0.9 is usual")
    missing = [name for name in ("tempering", "step_size", "inverse_mass_matrix") if not hasattr(kernel.initial_tuning, name)]
    if missing:
        raise TypeError(f"this kernel's tuning has no {' and no '.join(missing)}; use hmc, nuts, mala or barker")
    require_accept_step(kernel.initial_tuning)
    require_one_step_size(kernel.initial_tuning)
    functions = _functions(
        kernel.init,
        kernel.step,
        target,
        int(num_moves),
        float(conditional_ess),
        float(resample_below),
        float(target_acceptance_rate),
        int(particle_block),
    )
    return Kernel(*functions, kernel.initial_tuning)


def next_beta(
    log_likelihood: Float[Array, " P"], log_weights: Float[Array, " P"], beta: Float[Array, ""], conditional_ess: float
) -> Float[Array, ""]:
    """Return the largest beta, at most 1, at which the conditional effective sample size is that share of P or more."""

    def is_enough(increment: Float[Array, ""]) -> Bool[Array, ""]:
        log_increments = increment * log_likelihood
        log_share = 2 * logsumexp(log_weights + log_increments) - logsumexp(log_weights + 2 * log_increments)
        return log_share >= jnp.log(conditional_ess)

    def halve(_: Any, interval: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = interval
        middle = (low + high) / 2
        enough = is_enough(middle)
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low, _ = jax.lax.fori_loop(0, NUM_HALVINGS, halve, (jnp.zeros_like(beta), 1 - beta))
    return jnp.where(is_enough(1 - beta), jnp.ones_like(beta), beta + low)


@functools.lru_cache(maxsize=64)  # the same functions for the same kernel, so that nothing recompiles
def _functions(
    kernel_init: Any,
    kernel_step: Any,
    target: Target,
    num_moves: int,
    conditional_ess: float,
    resample_below: float,
    target_acceptance_rate: float,
    particle_block: int,
) -> tuple[Any, Any]:
    def likelihoods(position: Position, batch: Batch) -> Float[Array, " P"]:
        return map_blocks(lambda particle: log_density_terms(target, particle, batch)[1], particle_block, position)

    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: Tuning) -> ParticleState:
        num_particles = jax.tree.leaves(position)[0].shape[0]
        if num_particles % 2 or num_particles % particle_block:
            raise ValueError(f"the number of particles must be even and a multiple of {particle_block}, got {num_particles}")
        log_likelihood = likelihoods(position, batch)
        zero = jnp.zeros_like(log_likelihood[0])
        return ParticleState(
            position=position,
            log_likelihood=log_likelihood,
            log_weights=jnp.full_like(log_likelihood, -jnp.log(num_particles)),
            beta=zero,
            log_evidence=zero,
            step_size=tuning.step_size,
            done=jnp.bool(False),
        )

    def reweight(state: ParticleState, tuning: Tuning) -> ParticleState:
        temperatures = (tuning.tempering.temperature * tuning.tempering.likelihood_temperature).astype(state.beta.dtype)
        tempered = state.log_likelihood / temperatures
        beta = next_beta(tempered, state.log_weights, state.beta, conditional_ess)
        log_weights = state.log_weights + (beta - state.beta) * tempered
        increment = logsumexp(log_weights)
        return state._replace(
            beta=beta, log_weights=log_weights - increment, log_evidence=state.log_evidence + increment, done=beta >= 1
        )

    def resample(key: Key[Array, ""], state: ParticleState) -> ParticleState:
        index = systematic(key, jnp.exp(state.log_weights), state.log_weights.size)
        even = jnp.full_like(state.log_weights, -jnp.log(state.log_weights.size))
        return state._replace(position=jax.tree.map(lambda x: x[index], state.position), log_weights=even)

    def move(key: Key[Array, ""], state: ParticleState, batch: Batch, tuning: Tuning, step: Array) -> tuple[ParticleState, Info]:
        likelihood_temperature = tuning.tempering.likelihood_temperature / state.beta.astype(jnp.float32)
        tuning = tuning._replace(tempering=tuning.tempering._replace(likelihood_temperature=likelihood_temperature))
        metrics = _variances_of_other_half(state).astype(tuning.inverse_mass_matrix.dtype)
        index = jnp.arange(state.log_weights.size)

        def start(particle: Int[Array, ""], position: Position, metric: Array) -> State:
            own_key = jax.random.fold_in(jax.random.fold_in(key, num_moves), particle)
            return kernel_init(own_key, position, batch, tuning._replace(inverse_mass_matrix=metric))

        def one_move(carry: tuple[State, Array], which: Int[Array, ""]) -> tuple[tuple[State, Array], Info]:
            particles, step_size = carry

            def one(particle: Int[Array, ""], inner: State, metric: Array) -> tuple[State, Info]:
                own_key = jax.random.fold_in(jax.random.fold_in(key, which), particle)
                own = tuning._replace(step_size=step_size, inverse_mass_matrix=metric)
                return kernel_step(own_key, inner, batch, own, step * num_moves + which)

            particles, info = map_blocks(one, particle_block, index, particles, metrics)
            excess = jnp.mean(jnp.nan_to_num(info.acceptance_rate)) - target_acceptance_rate
            return (particles, (step_size * jnp.exp(GAIN * excess)).astype(step_size.dtype)), info

        started = map_blocks(start, particle_block, index, state.position, metrics)
        (particles, step_size), infos = jax.lax.scan(one_move, (started, state.step_size), jnp.arange(num_moves))
        nan = jnp.full_like(infos.acceptance_rate[0, 0], jnp.nan)
        info = Info(
            num_gradients=jnp.sum(infos.num_gradients) + index.size,
            acceptance_rate=jnp.mean(infos.acceptance_rate),
            energy=nan,
            energy_error=nan,
            kinetic_temperature=nan,
            is_divergent=jnp.any(infos.is_divergent),
            is_finite=jnp.all(infos.is_finite),
        )
        log_likelihood = likelihoods(particles.position, batch)
        return state._replace(position=particles.position, log_likelihood=log_likelihood, step_size=step_size), info

    def step(
        key: Key[Array, ""], state: ParticleState, batch: Batch, tuning: Tuning, step: Int[Array, ""]
    ) -> tuple[ParticleState, Info]:
        resample_key, move_key = jax.random.split(key)

        def stage(state: ParticleState) -> tuple[ParticleState, Info]:
            state = reweight(state, tuning)
            log_ess = -logsumexp(2 * state.log_weights)
            is_low = log_ess < jnp.log(resample_below * state.log_weights.size)
            state = jax.lax.cond(is_low, functools.partial(resample, resample_key), lambda s: s, state)
            return move(move_key, state, batch, tuning, step)

        def idle(state: ParticleState) -> tuple[ParticleState, Info]:
            nan = jnp.nan
            values = Info(0.0, nan, nan, nan, nan, is_divergent=False, is_finite=True)  # type: ignore[arg-type]  # cast below
            return state, jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), values, jax.eval_shape(stage, state)[1])

        return jax.lax.cond(state.done, idle, stage, state)

    return init, step


def _variances_of_other_half(state: ParticleState) -> Float[Array, "P d"]:
    """Return for each particle the weighted variance of each scalar over the half of the particles that it does not belong to.

    A metric that a particle has a part in favours where it is: with few moves that put the evidence off by more than its error.
    """
    flat = jax.vmap(lambda particle: ravel_pytree(particle)[0])(state.position)
    halves, log_weights = flat.reshape(2, -1, flat.shape[1]), state.log_weights.reshape(2, -1, 1)
    weights = jax.nn.softmax(log_weights, axis=1)
    mean = jnp.sum(weights * halves, axis=1, keepdims=True)
    variance = jnp.sum(weights * (halves - mean) ** 2, axis=1)
    return jnp.repeat(variance[::-1], halves.shape[1], axis=0)
