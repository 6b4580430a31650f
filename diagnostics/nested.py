"""Nested R-hat: convergence of many short chains, a few of which share each starting point.

R-hat of chains of a few draws never comes near 1, because the mean of a short chain is uncertain whether or not it has converged.
Superchains, groups of chains that begin at one point, have means that are more certain the more chains they hold: what is left
between superchains is what the starting points still explain.

References:
    Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari & Gelman 2024, arXiv 2110.13017, equations 4 to 8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from diagnostics.convergence import MIN_DRAWS, Block, Draws, over_blocks, rank_scores, split


def rhat_nested(draws: Draws, superchain: Sequence[int] | Int[np.ndarray, " chain"]) -> Float[np.ndarray, "*scalars"]:
    """Compute the rank-normalised nested R-hat, the larger of bulk and folded: ArviZ's `rhat_nested(method="rank")`.

    For many short chains; for a few long ones use `rhat`. Chains are split here as there, so that a superchain of m chains has
    2 m halves; of fewer than 4 draws, which cannot be split, the chains themselves are compared, and single draws as well.

    Args:
        draws: (chain, draw, ...).
        superchain: Number of the group to which each chain belongs: chains of a group began at one point.

    Returns:
        [...]; about 1 when the starting points are forgotten. The noise of a superchain's mean is in it: m independent draws in
        each of the superchains give sqrt(1 + 1 / m).

    Raises:
        ValueError: Not one number a chain, fewer than two superchains, or superchains of different sizes.
    """
    num_chains, num_draws = np.shape(draws)[:2]
    names, index, counts = np.unique(np.asarray(superchain), return_inverse=True, return_counts=True)
    if index.shape != (num_chains,):
        raise ValueError(f"superchain must hold one number for each of the {num_chains} chains, got shape {index.shape}")
    if len(names) < 2 or counts.min() != counts.max():
        raise ValueError(f"there must be two or more superchains, all of the same size; got {len(names)} of {counts.tolist()}")
    order = np.argsort(index, kind="stable")
    if num_draws < MIN_DRAWS:
        flat = np.asarray(draws, float)
        if counts[0] == 1 and num_draws == 1:
            raise ValueError("superchains of a single draw have no spread of their own: give them more chains, or more draws")
        block = np.moveaxis(flat.reshape(num_chains, num_draws, -1), -1, 0)[:, order]
        return _larger(block, len(names)).reshape(flat.shape[2:])

    def kernel(block: Block) -> tuple[np.ndarray]:
        halves = split(block[:, order])
        return (_larger(_by_superchain(halves, len(names)), len(names)),)

    return over_blocks(kernel, draws)[0]


def _by_superchain(halves: Block, num_superchains: int) -> Block:
    """Bring first and second halves of each superchain together: they come first halves first."""
    num_scalars, num_halves, length = halves.shape
    parts = halves.reshape(num_scalars, 2, num_superchains, -1, length)
    return np.moveaxis(parts, 1, 2).reshape(num_scalars, num_halves, length)


def _larger(chains: Block, num_superchains: int) -> Float[np.ndarray, " scalar"]:
    folded = np.abs(chains - np.median(chains, (1, 2), keepdims=True))
    bulk, tail = (_nested(rank_scores(values), num_superchains) for values in (chains, folded))
    return np.where(tail > bulk, tail, bulk)  # as ArviZ, and Python's max


def _nested(scores: Block, num_superchains: int) -> Float[np.ndarray, " scalar"]:
    """Compute sqrt(1 + B / W): B the variance of superchain means, W that inside superchains, within chains and between them."""
    num_scalars, num_chains, num_draws = scores.shape
    grouped = scores.reshape(num_scalars, num_superchains, num_chains // num_superchains, num_draws)
    means = grouped.mean(-1)
    inside = grouped.var(-1, ddof=1).mean(-1) if num_draws > 1 else np.zeros(grouped.shape[:2])
    among = means.var(-1, ddof=1) if means.shape[2] > 1 else np.zeros(grouped.shape[:2])
    return np.sqrt(1 + means.mean(-1).var(-1, ddof=1) / (inside + among).mean(-1))
