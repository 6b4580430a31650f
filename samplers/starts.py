"""Where chains begin: on their way to a mode, or at draws from an approximation along that way."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from blackjax.vi import pathfinder as blackjax_pathfinder
from jaxtyping import Array, Float, Key

from samplers.arguments import require_positive
from samplers.blocks import map_blocks
from samplers.targets import log_density
from samplers.types import Batch, Position, Target, Tempering


def pathfinder_starts(
    keys: Key[Array, " chain"],
    target: Target,
    positions: Position,
    batch: Batch,
    *,
    tempering: Tempering | None = None,
    num_iterations: int = 30,
    num_samples: int = 10,
) -> Position:
    """Draw a start for every chain by Pathfinder: L-BFGS from its position, then one draw near the best point of the path.

    The best is the point whose Gaussian, with L-BFGS's inverse Hessian as covariance, has the highest evidence lower bound.
    Chains stay independent, so that R-hat still sees where they come from. For up to some 10,000 parameters: all Gaussians of a
    path are in memory together, 20 numbers a parameter each, and their draws are evaluated together.

    Args:
        keys: One for each chain.
        target: The distribution.
        positions: Where paths begin, every leaf with a leading chain axis.
        batch: The data.
        tempering: Temperatures; default the posterior itself.
        num_iterations: Of L-BFGS, > 0; 30 as in BlackJAX.
        num_samples: Draws that estimate each evidence lower bound, > 0.

    Returns:
        Positions, every leaf with a leading chain axis; not finite where L-BFGS failed.

    Raises:
        ValueError: Fewer than one iteration or sample.

    References:
        Zhang et al. 2022, arXiv 2108.03782, algorithm 1, by BlackJAX; without the importance resampling of algorithm 2, which
        would tie chains together.
    """
    require_positive(num_iterations=num_iterations, num_samples=num_samples)
    program = _program(target, num_iterations, num_samples)
    return program(keys, positions, batch, Tempering.at() if tempering is None else tempering)


@functools.lru_cache(maxsize=32)  # compiled once for a target
def _program(target: Target, num_iterations: int, num_samples: int) -> Any:
    @jax.jit
    def program(keys: Any, positions: Position, batch: Batch, tempering: Tempering) -> Position:
        def one(key: Key[Array, ""], start: Position) -> Position:
            path_key, draw_key = jax.random.split(key)

            def density(position: Position) -> Float[Array, ""]:
                return log_density(target, batch, tempering)(position)

            best, _ = blackjax_pathfinder.approximate(path_key, density, start, num_samples, maxiter=num_iterations)
            draws, _ = blackjax_pathfinder.sample(draw_key, best, 1)
            return jax.tree.map(lambda x, like: jnp.asarray(x[0], like.dtype), draws, start)

        return map_blocks(one, 1, keys, positions)

    return program
