"""Parallel tempering: a ladder of replicas from the prior to the posterior that exchange their positions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from samplers.arguments import require_accept_step
from samplers.blocks import map_blocks
from samplers.targets import log_density
from samplers.types import Batch, Info, Kernel, Position, State, Target, Tempering, Tuning
from samplers.vectors import value_and_gradient


class Exchanges(NamedTuple):
    """What has been exchanged on a ladder of K rungs. A replica is a position on its way through the rungs.

    Attributes:
        num_steps: Steps counted.
        rejections: [K - 1] sum of the probabilities that neighbours would not have swapped.
        replica: [K] which replica is on each rung.
        last_end: [K] of each replica, the end of the ladder where it was last: 0 the hottest rung, 1 the coldest, -1 neither.
        passages: [K] of each replica, how often it went from one end to the other.
    """

    num_steps: Int[Array, ""]
    rejections: Float[Array, " K-1"]
    replica: Int[Array, " K"]
    last_end: Int[Array, " K"]
    passages: Int[Array, " K"]

    @classmethod
    def none(cls, num_rungs: int, dtype: Any) -> Exchanges:
        """Return the counts of a ladder that has not moved; each replica has the number of its rung."""
        rung, zeros = jnp.arange(num_rungs, dtype=jnp.int32), jnp.zeros(num_rungs, jnp.int32)
        last_end = jnp.full_like(rung, -1).at[0].set(0).at[-1].set(1)
        return cls(jnp.int32(0), jnp.zeros(num_rungs - 1, dtype), rung, last_end, zeros)

    def after(self, rejection: Float[Array, " K-1"], source: Int[Array, " K"]) -> Exchanges:
        """Return the counts after one more step, by which rung k holds what was on rung source[k]."""
        replica = self.replica[source]
        ends, which = jnp.stack([replica[0], replica[-1]]), jnp.arange(2, dtype=jnp.int32)
        has_passed = self.last_end[ends] == 1 - which
        return Exchanges(
            self.num_steps + 1,
            self.rejections + rejection,
            replica,
            self.last_end.at[ends].set(which),
            self.passages.at[ends].add(has_passed.astype(jnp.int32)),
        )


class LadderState(NamedTuple):
    """State of one ladder of K rungs, hottest first.

    Attributes:
        position: Of the coldest rung, which is the chain's; also the last of `rungs`.
        rungs: [K] states of the kernel.
        log_likelihood: [K] log likelihood of each rung, nats, for estimates of the evidence. Read off the cached density, but on
            the hottest rung: it carries that density's rounding error divided by beta.
        acceptance_rate: [K] of the kernel's last step on each rung.
        exchanges: Counts since the start, or since the warm-up last changed the rungs.
    """

    position: Position
    rungs: State
    log_likelihood: Float[Array, " K"]
    acceptance_rate: Float[Array, " K"]
    exchanges: Exchanges


class Parts(NamedTuple):
    """Log prior and log likelihood of every rung's position, untempered and apart, with their gradients; every leaf [K, ...]."""

    position: Position
    log_prior: Float[Array, " K"]
    prior_grad: Float[Array, "K d"]
    log_likelihood: Float[Array, " K"]
    likelihood_grad: Float[Array, "K d"]


def parallel_tempering(
    kernel: Kernel, target: Target, betas: Sequence[float] | Float[Array, " K"], *, rung_block: int = 1
) -> Kernel:
    r"""Sample several modes, by replicas at higher temperatures that hand their positions down: exact if the kernel is.

    Use it when chains that start in different places do not meet, and for the evidence (`thermodynamic_integration`,
    `stepping_stone`); a step costs K steps of the kernel. Each chain is a ladder of its own, whose draws are those of its coldest
    rung, so that R-hat over chains compares independent ladders. Rung k samples

    .. math:: \pi_k(\theta) \propto \left(p(\theta) \, p(y \mid \theta)^{\beta_k / T_\ell}\right)^{1/T},
        \quad 0 \le \beta_1 < \dots < \beta_K = 1

    with the kernel's own temperatures :math:`T, T_\ell`. After every step of the kernel, neighbours on even and odd rungs in turn
    swap positions with probability :math:`\min(1, \pi_k(\theta_{k+1}) \pi_{k+1}(\theta_k) / \pi_k(\theta_k)
    \pi_{k+1}(\theta_{k+1}))`. In turn, not at random: then the number of round trips tends to a limit, rather than to 0, as rungs
    are added.

    A swap costs no gradient. What a state caches is affine in :math:`\beta`; taking off the prior, which needs no data, leaves
    the likelihood, and from both the cache at the neighbour's :math:`\beta`. Only on the hottest rung, where little or nothing
    of the likelihood is left in the cache, one gradient a step computes it anew. What else a state holds (momenta) stays on its
    rung.

    Args:
        kernel: An exact kernel of the target, whose tuning has `tempering` and whose state has `logdensity` and, as a vector,
            `logdensity_grad`: `hmc`, `nuts`, `mala`, `barker`, `ghmc`, `dynamic_hmc`, `adjusted_mclmc`.
        target: The kernel's target, whose log likelihood is finite wherever its prior is.
        betas: K >= 2 inverse likelihood temperatures, increasing, the last one 1; a first one of 0 is the prior, which the
            evidence needs. numpy.linspace(0, 1, K) ** 5 is a usual start for `ladder_adaptation`.
        rung_block: Rungs that move together in one vmap, a divisor of K. 1 is fastest on a CPU and keeps a chain's bits the
            same on every mesh; on an accelerator use K.

    Returns:
        A kernel whose state is `LadderState` and whose tuning is the given kernel's with a leading axis of K rungs on every leaf,
        so that each rung can have its own step size. `num_gradients` counts all rungs; the rest of Info is the coldest rung's,
        but `is_finite`, which speaks for all of them.

    Raises:
        ValueError: Betas that are no such ladder, blocks that do not divide it, or a kernel without accept step.
        TypeError: A kernel without tempering, or (when it starts) one whose state caches no density.

    References:
        Geyer 1991; Syed, Bouchard-Cote, Deligiannidis & Doucet 2022, arXiv 1905.02939 (even-odd swaps, round trips). Powers of 5:
        Friel & Pettitt 2008.
    """
    ladder = np.asarray(betas, np.float64)
    if ladder.ndim != 1 or ladder.size < 2 or not (np.diff(ladder) > 0).all() or ladder[0] < 0 or ladder[-1] != 1:
        raise ValueError(f"betas must be at least two numbers that increase from 0 or more to 1, got {betas}")
    if rung_block < 1 or ladder.size % rung_block:
        raise ValueError(f"rung_block must divide the {ladder.size} rungs, got {rung_block}")
    if not hasattr(kernel.initial_tuning, "tempering"):
        raise TypeError(f"a kernel whose tuning has `tempering` is needed, got the tuning {type(kernel.initial_tuning).__name__}")
    require_accept_step(kernel.initial_tuning)
    rungs = jax.tree.map(lambda x: jnp.broadcast_to(x, (ladder.size, *jnp.shape(x))), kernel.initial_tuning)
    with np.errstate(divide="ignore"):
        hotter = jnp.asarray(1 / ladder, jnp.float32)
    tempering = rungs.tempering._replace(likelihood_temperature=rungs.tempering.likelihood_temperature * hotter)
    return Kernel(*_functions(kernel.init, kernel.step, target, rung_block), rungs._replace(tempering=tempering))


def round_trips(state: LadderState) -> Int[Array, "..."]:
    """Return how often replicas went from one end of the ladder to the other and back, all replicas of a ladder together.

    A mode that the cold rung cannot leave is left by round trips only: ask for several, on every ladder, before you believe the
    weights of modes. Any leading axes (chain, draw) are kept.
    """
    return jnp.sum(state.exchanges.passages // 2, axis=-1)


def rejection_rates(state: LadderState) -> Float[Array, "... K-1"]:
    """Return the mean probability that neighbours do not swap, [..., K - 1].

    Their sum estimates the communication barrier of the ladder: about twice as many rungs are best (Syed et al. 2022).
    """
    return state.exchanges.rejections / jnp.maximum(state.exchanges.num_steps, 1)[..., None]


def take_apart(target: Target, rungs: State, batch: Batch, tuning: Tuning) -> Parts:
    """Return the parts of the density that the rungs' states cache, for one gradient of the likelihood (see above)."""

    def one(rung: State, tempering: Tempering) -> Parts:
        def likelihood(cached: Array, prior: Array) -> Array:
            temperature, likelihood_temperature = (x.astype(cached.dtype) for x in tempering)
            return (cached * temperature - prior) * likelihood_temperature

        log_prior, prior_grad = value_and_gradient(lambda x: target.log_prior(x, batch.constants), rung.position)
        log_likelihood = likelihood(rung.logdensity, log_prior)
        return Parts(rung.position, log_prior, prior_grad, log_likelihood, likelihood(rung.logdensity_grad, prior_grad))

    def anew(rung: State) -> State:
        logdensity, gradient = value_and_gradient(log_density(target, batch, Tempering.at()), rung.position)
        return rung._replace(logdensity=logdensity, logdensity_grad=gradient)

    hottest = jax.tree.map(lambda x: x[:1], rungs)
    hottest = map_blocks(lambda rung: one(anew(rung), Tempering.at()), 1, hottest)
    return jax.tree.map(lambda all_, x: all_.at[:1].set(x), map_blocks(one, 1, rungs, tuning.tempering), hottest)


def put_together(rungs: State, parts: Parts, tuning: Tuning) -> State:
    """Return the states with positions, densities and gradients from parts, at the temperatures of the tuning."""

    def one(rung: State, parts: Parts, tempering: Tempering) -> State:
        return rung._replace(
            position=parts.position,
            logdensity=tempering.combine(parts.log_prior, parts.log_likelihood),
            logdensity_grad=tempering.combine(parts.prior_grad, parts.likelihood_grad),
        )

    # One by one, as the kernel steps: that keeps their bits the same on every mesh.
    return map_blocks(one, 1, rungs, parts, tuning.tempering)


def swap_log_ratios(parts: Parts, tuning: Tuning) -> Float[Array, " K-1"]:
    """Return by how much a swap of each pair of neighbours changes the log density of the whole ladder."""
    temperature, likelihood_temperature = (x.astype(parts.log_prior.dtype) for x in tuning.tempering)
    of_prior, of_likelihood = jnp.diff(1 / temperature), jnp.diff(1 / (temperature * likelihood_temperature))
    return -of_prior * jnp.diff(parts.log_prior) - of_likelihood * jnp.diff(parts.log_likelihood)


@functools.lru_cache(maxsize=64)  # the same functions for the same kernel, so that nothing recompiles
def _functions(kernel_init: Any, kernel_step: Any, target: Target, rung_block: int) -> tuple[Any, Any]:
    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: Tuning) -> LadderState:
        num_rungs = tuning.tempering.temperature.shape[0]

        def start(rung: Int[Array, ""], own: Tuning) -> State:
            return kernel_init(jax.random.fold_in(key, rung), position, batch, own)

        rungs = map_blocks(start, rung_block, jnp.arange(num_rungs), tuning)
        gradient = getattr(rungs, "logdensity_grad", None)
        if not (hasattr(rungs, "logdensity") and isinstance(gradient, jax.Array) and gradient.ndim == 2):
            raise TypeError(
                f"a state with `logdensity` and, as a vector, `logdensity_grad` is needed, got {type(rungs).__name__}"
            )
        log_likelihood = take_apart(target, rungs, batch, tuning).log_likelihood
        exchanges = Exchanges.none(num_rungs, log_likelihood.dtype)
        return LadderState(position, rungs, log_likelihood, jnp.ones_like(log_likelihood), exchanges)

    def step(
        key: Key[Array, ""], state: LadderState, batch: Batch, tuning: Tuning, step: Int[Array, ""]
    ) -> tuple[LadderState, Info]:
        num_rungs = state.log_likelihood.shape[0]
        move_key, swap_key = jax.random.split(key)

        def move(rung: Int[Array, ""], its_state: State, own: Tuning) -> tuple[State, Info]:
            return kernel_step(jax.random.fold_in(move_key, rung), its_state, batch, own, step)

        moved, infos = map_blocks(move, rung_block, jnp.arange(num_rungs), state.rungs, tuning)
        parts = take_apart(target, moved, batch, tuning)

        probability = jnp.exp(jnp.minimum(0, swap_log_ratios(parts, tuning)))
        is_tried = (jnp.arange(num_rungs - 1) + step) % 2 == 0
        is_swapped = is_tried & (jax.random.uniform(swap_key, probability.shape, probability.dtype) < probability)
        source = jnp.arange(num_rungs) + jnp.pad(is_swapped, (0, 1)).astype(jnp.int32) - jnp.pad(is_swapped, (1, 0))
        parts = jax.tree.map(lambda x: x[source], parts)
        # Only where a replica came from another rung: elsewhere the cache is what it was, to the last bit.
        rungs = _where(source != jnp.arange(num_rungs), put_together(moved, parts, tuning), moved)

        new = LadderState(
            position=jax.tree.map(lambda x: x[-1], rungs.position),
            rungs=rungs,
            log_likelihood=parts.log_likelihood,
            acceptance_rate=infos.acceptance_rate.astype(state.acceptance_rate.dtype),
            exchanges=state.exchanges.after(1 - jnp.nan_to_num(probability), source),
        )
        info: Info = jax.tree.map(lambda x: x[-1], infos)
        num_gradients = jnp.sum(infos.num_gradients) + 1
        return new, info._replace(num_gradients=num_gradients, is_finite=jnp.all(infos.is_finite))

    return init, step


def _where(condition: Array, one: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: jnp.where(condition.reshape(-1, *[1] * (y.ndim - 1)), x, y), one, other)
