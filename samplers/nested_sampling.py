"""Nested sampling: live points that climb the likelihood while the volume of prior above it shrinks at a known rate."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, Int, Key

from samplers.arguments import require_positive
from samplers.blocks import map_blocks
from samplers.targets import log_density_terms
from samplers.types import Batch, Info, Kernel, Position, Target, Tempering

# Stepping out and shrinking end here; the first costs no exactness (Neal 2003, section 4.1), the second is never reached unless
# the likelihood is flat, and then leaves the point where it is.
MAX_STEPS_OUT, MAX_SHRINKS = 10, 100
# A direction has this length in units of the live points' standard deviation: about the width of a slice.
WIDTH = 2.0
# A gradient in reverse mode costs about as much as this many values (Griewank & Walther 2008, section 4.6: at most 4).
VALUES_A_GRADIENT = 3.0


class NestedTuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        log_remainder: Stop when the live points can add at most exp of this share to the evidence.
        tempering: Temperatures of the target.
    """

    log_remainder: Float[Array, ""]
    tempering: Tempering


class Points(NamedTuple):
    """Points and their densities, tempered; a leading axis of points on every leaf, or none for one point."""

    position: Position
    log_prior: Float[Array, "..."]
    log_likelihood: Float[Array, "..."]


class NestedState(NamedTuple):
    """State of one set of n live points.

    Attributes:
        position: [n, ...] live points.
        log_prior: [n] theirs.
        log_likelihood: [n] theirs.
        dead: [k, ...] points that died in the last step, in the order of their likelihood.
        num_live: [k] how many points lived when each of them died; 0 where none died.
        log_volume: Expected logarithm of the share of prior above the likelihood of the last dead point.
        log_evidence: Of the dead points so far, at the expected volumes, nats.
        done: What is left of the evidence no longer matters; a step changes nothing more, and nobody dies.
    """

    position: Position
    log_prior: Float[Array, " n"]
    log_likelihood: Float[Array, " n"]
    dead: Points
    num_live: Int[Array, " k"]
    log_volume: Float[Array, ""]
    log_evidence: Float[Array, ""]
    done: Bool[Array, ""]


def nested_sampling(
    target: Target,
    *,
    num_moves: int,
    num_deaths: int = 1,
    log_remainder: float = -3.0,
    tempering: Tempering | None = None,
    point_block: int = 1,
) -> Kernel:
    r"""Estimate the evidence, and draw weighted points, by nested sampling over the prior.

    Use it where the likelihood has plateaus of volume that tempering passes over at once (phase transitions), and as a second
    opinion on the evidence; it needs values only, in at most some tens of dimensions. Each chain of `sample` is a run of its own:
    positions [chain, n, ...] are independent draws from the prior. In each step the k points of lowest likelihood die, and are
    replaced by points of the prior above that likelihood: survivors, moved by slices along random directions in the metric of
    the live points' covariance. The volume above the i-th dead point is known in law,

    .. math:: X_i = t_i X_{i-1}, \quad t_i \sim \mathrm{Beta}(n_i, 1), \qquad Z = \sum_i (X_{i-1} - X_i) L_i

    Save the dead, ``Save(lambda state, arrays: (state.dead, state.num_live))``, end with
    ``until=lambda run: bool(run.state.done.all())``, and give both with the last live points to `nested_evidence`.

    Exact if the new points are independent; too few moves leave them near survivors, and the evidence is then usually too high.
    The likelihood must not take one value on a set of positive volume.

    Args:
        target: The target. Only ratios of its prior are used.
        num_moves: Slices for each new point, >= 1; 2 to 5 for each dimension.
        num_deaths: k >= 1, below n; more of them make a step parallel, and n larger for the same error.
        log_remainder: Ends the run when the evidence of the live points is below exp(log_remainder) of that of the dead.
        tempering: Temperatures; the points start from prior^(1/temperature).
        point_block: New points that move together in one vmap, a divisor of k; 1 on a CPU, k on an accelerator.

    Returns:
        A kernel whose state is `NestedState` and whose tuning is `NestedTuning`. Info counts three values of the likelihood as
        one gradient; its acceptance rate is the share of values that were not wasted.

    Raises:
        ValueError: An argument outside its range, or (when it starts) too few points.

    References:
        Skilling 2006; Neal 2003 (slices); Handley, Hobson & Lasenby 2015, arXiv 1506.00171 (slices of the live points' metric);
        Yallup, Kroupa & Handley 2026, arXiv 2601.23252 (k deaths at a time). There a direction is whitened as here.
    """
    require_positive(num_moves=num_moves, num_deaths=num_deaths, point_block=point_block)
    if num_deaths % point_block:
        raise ValueError(f"point_block must divide num_deaths={num_deaths}, got {point_block}")
    if not log_remainder < 0:
        raise ValueError(f"log_remainder must be negative, got {log_remainder}; -3 ends at 5 % of the evidence")
    tuning = NestedTuning(jnp.asarray(log_remainder, jnp.float32), Tempering.at() if tempering is None else tempering)
    return Kernel(*_functions(target, int(num_moves), int(num_deaths), int(point_block)), tuning)


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(target: Target, num_moves: int, num_deaths: int, point_block: int) -> tuple[Any, Any]:
    def evaluate(position: Position, batch: Batch, tempering: Tempering) -> Points:
        log_prior, log_likelihood = log_density_terms(target, position, batch)
        temperature, likelihood_temperature = (x.astype(log_prior.dtype) for x in tempering)
        return Points(position, log_prior / temperature, log_likelihood / (temperature * likelihood_temperature))

    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: NestedTuning) -> NestedState:
        num_points = jax.tree.leaves(position)[0].shape[0]
        num_scalars = ravel_pytree(position)[0].size // num_points
        if num_points - num_deaths <= num_scalars:
            raise ValueError(
                f"{num_points} live points of which {num_deaths} die at a time are too few for the covariance of {num_scalars} "
                "scalars; start from more points of the prior"
            )
        points = map_blocks(lambda particle: evaluate(particle, batch, tuning.tempering), 1, position)
        none, zero = jnp.zeros(num_deaths, jnp.int32), jnp.zeros_like(points.log_likelihood[0])
        dead = jax.tree.map(lambda x: x[:num_deaths], points)
        # As good as minus infinity, but finite, as every number of a state.
        lowest = jnp.full_like(zero, jnp.finfo(zero.dtype).min / 2)
        return NestedState(
            **points._asdict(), dead=dead, num_live=none, log_volume=zero, log_evidence=lowest, done=jnp.bool(False)
        )

    def replace(
        key: Key[Array, ""], survivors: Points, threshold: Float[Array, ""], batch: Batch, tuning: NestedTuning
    ) -> tuple[Points, Float[Array, " k"]]:
        flat = jax.vmap(lambda position: ravel_pytree(position)[0])(survivors.position)
        factor = jnp.linalg.cholesky(jnp.atleast_2d(jnp.cov(flat, rowvar=False)))
        unravel = ravel_pytree(jax.tree.map(lambda x: x[0], survivors.position))[1]

        def one(index: Int[Array, ""]) -> tuple[Points, Float[Array, ""]]:
            own_key = jax.random.fold_in(key, index)
            which = jax.random.randint(jax.random.fold_in(own_key, num_moves), (), 0, flat.shape[0])
            point = jax.tree.map(lambda x: x[which], survivors)

            def move(carry: tuple[Points, Array], count: Int[Array, ""]) -> tuple[tuple[Points, Array], None]:
                point, num_values = carry
                direction_key, slice_key = jax.random.split(jax.random.fold_in(own_key, count))
                normal = jax.random.normal(direction_key, flat.shape[1:], flat.dtype)
                direction = unravel(WIDTH * factor @ (normal / jnp.linalg.norm(normal)))

                def at(place: Float[Array, ""]) -> Points:
                    position = jax.tree.map(lambda x, d: x + place * d, point.position, direction)
                    return evaluate(position, batch, tuning.tempering)

                moved, num_more = _slice(slice_key, point, threshold, at)
                return (moved, num_values + num_more), None

            (point, num_values), _ = jax.lax.scan(move, (point, jnp.int32(0)), jnp.arange(num_moves))
            return point, num_values.astype(jnp.float32)

        return map_blocks(one, point_block, jnp.arange(num_deaths))

    def step(
        key: Key[Array, ""], state: NestedState, batch: Batch, tuning: NestedTuning, step: Int[Array, ""]
    ) -> tuple[NestedState, Info]:
        def generation(state: NestedState) -> tuple[NestedState, Float[Array, ""]]:
            points = Points(state.position, state.log_prior, state.log_likelihood)
            order = jnp.argsort(state.log_likelihood)
            dead = jax.tree.map(lambda x: x[order[:num_deaths]], points)
            survivors = jax.tree.map(lambda x: x[order[num_deaths:]], points)
            new, num_values = replace(key, survivors, dead.log_likelihood[-1], batch, tuning)
            points = jax.tree.map(lambda x, y: x.at[order[:num_deaths]].set(y), points, new)

            num_live = order.size - jnp.arange(num_deaths, dtype=jnp.int32)
            log_volume = state.log_volume - jnp.cumsum(1 / num_live)
            log_widths = log_volume + jnp.log(jnp.expm1(1 / num_live))  # from the volume before to the one after
            log_evidence = jnp.logaddexp(state.log_evidence, logsumexp(log_widths + dead.log_likelihood))
            log_rest = log_volume[-1] + logsumexp(points.log_likelihood) - jnp.log(order.size)
            done = log_rest - log_evidence < tuning.log_remainder
            new_state = NestedState(
                **points._asdict(),
                dead=dead,
                num_live=num_live,
                log_volume=log_volume[-1].astype(state.log_volume.dtype),
                log_evidence=log_evidence.astype(state.log_evidence.dtype),
                done=done,
            )
            return new_state, jnp.sum(num_values)

        def idle(state: NestedState) -> tuple[NestedState, Float[Array, ""]]:
            return state._replace(num_live=jnp.zeros_like(state.num_live)), jnp.float32(0)

        state, num_values = jax.lax.cond(state.done, idle, generation, state)
        nan = jnp.float32(jnp.nan)
        info = Info(
            num_gradients=num_values / VALUES_A_GRADIENT,
            acceptance_rate=jnp.where(num_values > 0, num_deaths * num_moves / num_values, nan),
            energy=nan,
            energy_error=nan,
            kinetic_temperature=nan,
            is_divergent=jnp.bool(False),
            is_finite=jnp.all(jnp.isfinite(state.log_likelihood)),
        )
        return state, info

    return init, step


def _slice(key: Key[Array, ""], point: Points, threshold: Float[Array, ""], at: Any) -> tuple[Points, Int[Array, ""]]:
    """Move a point along a line to a place of its slice of the prior above the threshold: step out, then shrink.

    Args:
        key: Of the move.
        point: Where it starts.
        threshold: Log likelihood to exceed.
        at: place on the line, 0 at the start -> point there.

    Returns:
        The point, and how many values of the likelihood were computed.
    """
    level_key, place_key, split_key, shrink_key = jax.random.split(key, 4)
    dtype = point.log_prior.dtype
    level = point.log_prior + jnp.log1p(-jax.random.uniform(level_key, (), dtype))

    def is_inside(candidate: Points) -> Bool[Array, ""]:
        return (candidate.log_prior >= level) & (candidate.log_likelihood > threshold)

    def step_out(end: Array, sign: int, most: Array) -> tuple[Array, Array]:
        def goes_on(carry: tuple[Array, Array, Array]) -> Array:
            _, count, inside = carry
            return inside & (count < most)

        def further(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            end, count, _ = carry
            inside = is_inside(at(end))
            return jnp.where(inside, end + sign, end), count + 1, inside

        end, count, _ = jax.lax.while_loop(goes_on, further, (end, jnp.int32(0), jnp.bool(True)))
        return end, count

    before = jax.random.uniform(place_key, (), dtype)
    steps_left = jax.random.randint(split_key, (), 0, MAX_STEPS_OUT)
    left, num_left = step_out(-before, -1, steps_left)
    right, num_right = step_out(1 - before, 1, MAX_STEPS_OUT - 1 - steps_left)

    def shrinks(carry: tuple[Array, Array, Points, Array, Array]) -> Array:
        *_, count, inside = carry
        return ~inside & (count < MAX_SHRINKS)

    def shrink(carry: tuple[Array, Array, Points, Array, Array]) -> tuple[Array, Array, Points, Array, Array]:
        left, right, _, count, _ = carry
        share = jax.random.uniform(jax.random.fold_in(shrink_key, count), (), dtype)
        place = left + share * (right - left)
        candidate = at(place)
        left, right = jnp.where(place < 0, place, left), jnp.where(place < 0, right, place)
        return left, right, candidate, count + 1, is_inside(candidate)

    _, _, candidate, num_shrinks, inside = jax.lax.while_loop(
        shrinks, shrink, (left, right, point, jnp.int32(0), jnp.bool(False))
    )
    moved = jax.tree.map(lambda new, old: jnp.where(inside, new, old), candidate, point)
    return moved, num_left + num_right + num_shrinks
