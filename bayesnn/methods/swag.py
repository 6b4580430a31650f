"""SWAG: a Gaussian with the moments of the path of stochastic gradient descent."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from bayesnn.methods.approximation import Approximation, FitState, Gather, approximation
from samplers import Batch, Kernel, num_params
from samplers.types import Position, Tuning
from samplers.vectors import ravel


class SWAGTuning(NamedTuple):
    """The fitted Gaussian: mean + sqrt(variance) * z + deviations' z'.

    Attributes:
        mean: [d].
        variance: [d] of the diagonal part.
        deviations: [rank, d] rows of the low-rank part, scaled; () at rank 0.
    """

    mean: Float[Array, " d"]
    variance: Float[Array, " d"]
    deviations: Float[Array, "rank d"] | tuple[()]


class Path(NamedTuple):
    """Moments of the positions gathered so far.

    Attributes:
        num_positions: Positions.
        mean: [d] running mean.
        squares: [d] running sum of squared deviations (Welford).
        deviations: [rank, d] the last positions minus the mean at their time, a ring; () at rank 0.
    """

    num_positions: Int[Array, ""]
    mean: Float[Array, " d"]
    squares: Float[Array, " d"]
    deviations: Float[Array, "rank d"] | tuple[()]


def swag(trainer: Kernel, like: Position, *, num_steps: int, first: int, period: int, rank: int = 20) -> Approximation:
    r"""Fit a Gaussian to the path of a trainer, diagonal and low-rank; with several chains it is multi-SWAG.

    A baseline, whose spread is that of the gradient noise: of the learning rate and the batch size, not of the posterior.

    .. math:: \theta = \bar\theta + \tfrac{1}{\sqrt{2}} \Sigma_{diag}^{1/2} z + \tfrac{1}{\sqrt{2 (K - 1)}} D z'

    with rank K the columns of D; at rank 0 it is the diagonal alone, :math:`\bar\theta + \Sigma_{diag}^{1/2} z`.

    Args:
        trainer: Such as `samplers.optimise` by SGD, whose learning rate stays high or returns to it in cycles.
        like: Shapes and types of a position.
        num_steps: Steps of the fit.
        first: Steps before the first period, >= 0.
        period: Steps between gathered positions, >= 1; the end of every period is gathered.
        rank: K, the last positions that make the low-rank part; 0 or at least 2.

    Raises:
        ValueError: A setting outside its range, or fewer positions than the rank needs.

    References:
        Maddox et al. 2019, arXiv 1902.02476, equation 1 and algorithm 1 (moments by Welford's recursion); Wilson & Izmailov 2020,
        arXiv 2002.08791 (multi-SWAG).
    """
    if first < 0 or period < 1:
        raise ValueError(f"first must be at least 0 and period at least 1, got {first} and {period}")
    if rank < 0 or rank == 1:
        raise ValueError(f"rank must be 0 (the diagonal alone) or at least 2, got {rank}")
    if (gathered := max(num_steps - first, 0) // period) < (needed := max(rank, 2)):
        raise ValueError(
            f"the fit gathers {gathered} positions, one in {period} steps after the first {first} of {num_steps}, and "
            f"rank {rank} needs {needed}: take more steps, a shorter period or a lower rank"
        )
    d, dtype = num_params(like), jnp.result_type(*jax.tree.leaves(like))
    zeros = jnp.zeros(d, dtype)
    gather, tuning_of = _functions(first, period, rank)
    return approximation(trainer, tuning_of, _draw, SWAGTuning(zeros, zeros, _ring(rank, zeros)), gather=gather)


def _ring(rank: int, like: Float[Array, " d"]) -> Float[Array, "rank d"] | tuple[()]:
    return jnp.zeros((rank, like.size), like.dtype) if rank else ()


@functools.lru_cache(maxsize=64)  # the same functions for the same settings, so that nothing recompiles
def _functions(first: int, period: int, rank: int) -> tuple[Gather, Any]:
    def begin(position: Position, batch: Batch, tuning: Tuning) -> Path:
        zeros = jnp.zeros_like(ravel(position)[0])
        return Path(jnp.int32(0), zeros, zeros, _ring(rank, zeros))

    def update(
        path: Path, position: Position, batch: Batch, tuning: Tuning, step: Int[Array, ""]
    ) -> tuple[Path, Float[Array, ""]]:
        is_due = (step >= first) & ((step + 1 - first) % period == 0)
        return jax.lax.cond(is_due, lambda: add(path, ravel(position)[0]), lambda: path), jnp.float32(0)

    def add(path: Path, flat: Float[Array, " d"]) -> Path:
        count = path.num_positions + 1
        share = 1 / count  # XLA makes this product of a division on one device and not on several, which has other bits
        mean = path.mean + (flat - path.mean) * share.astype(flat.dtype)
        squares = path.squares + (flat - path.mean) * (flat - mean)
        deviations = path.deviations
        if not isinstance(deviations, tuple):
            deviations = deviations.at[path.num_positions % rank].set(flat - mean)
        return Path(count, mean, squares, deviations)

    def tuning_of(state: FitState, tuning: Tuning) -> SWAGTuning:
        path: Path = state.gathered
        variance = path.squares / path.num_positions.astype(path.squares.dtype)
        if isinstance(path.deviations, tuple):
            return SWAGTuning(path.mean, variance, ())
        return SWAGTuning(path.mean, variance / 2, path.deviations / (2 * (rank - 1)) ** 0.5)

    return Gather(begin, update), tuning_of


def _draw(key: Key[Array, ""], position: Position, tuning: SWAGTuning) -> Position:
    own, shared = jax.random.split(key)
    z = jax.random.normal(own, tuning.mean.shape, tuning.mean.dtype)
    flat = tuning.mean + jnp.sqrt(tuning.variance) * z
    if not isinstance(tuning.deviations, tuple):
        flat += jax.random.normal(shared, tuning.deviations.shape[:1], flat.dtype) @ tuning.deviations
    return ravel(position)[1](flat)
