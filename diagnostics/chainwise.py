r"""Inside chains and between them: which of the two keeps R-hat from 1?

R-hat compares chains, and chains disagree for two reasons: each is still on its way, or each has arrived somewhere else. Blocks
of *one* chain tell the first apart from the second. The events that a chain visits now and then, such as a basin, have an
effective sample size of their own.

References:
    Sommer, Wimmer, Papamarkou, Bothmann, Bischl & Ruegamer 2024, arXiv 2402.01484 (chain-wise R-hat).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from diagnostics.convergence import (
    Block,
    Draws,
    block_ess,
    block_rhat,
    halves_by_chain,
    over_blocks,
    rank_scores,
    split,
)

NUM_BLOCKS = 4  # Sommer et al. 2024, who ask for 50 draws in each


def rhat_chainwise(draws: Draws, num_blocks: int = NUM_BLOCKS) -> Float[np.ndarray, "chain *scalars"]:
    """Compute the R-hat of consecutive blocks of each chain on its own, after rank normalisation within that chain.

    Above 1 for a chain that drifts, and for one that is slow: at 4 blocks of 20 effective draws about 1.02.

    Args:
        draws: (chain, draw, ...).
        num_blocks: Blocks of a chain, at least 2. First draws that do not fill the blocks are left out, and the middle one of
            an odd number.

    Returns:
        (chain, ...); NaN by the rules of `diagnostics.convergence`.

    Raises:
        ValueError: Fewer than 2 blocks, or blocks of fewer than 2 draws.
    """
    num_draws = np.shape(draws)[1]
    if not 2 <= num_blocks <= num_draws // 2:
        raise ValueError(f"num_blocks must be from 2 to half the {num_draws} draws of a chain, got {num_blocks}")

    def kernel(block: Block) -> tuple[np.ndarray]:
        return (block_rhat_chainwise(rank_scores(halves_by_chain(block)), block, num_blocks),)

    return over_blocks(kernel, draws)[0]


def block_rhat_chainwise(
    scores: Float[np.ndarray, "scalar_and_chain 2 draw"], block: Block, num_blocks: int = NUM_BLOCKS
) -> Float[np.ndarray, "chain scalar"]:
    """Compute the chain-wise R-hat of a block from the rank scores of its `halves_by_chain`."""
    flat = scores.reshape(len(scores), -1)
    length = flat.shape[1] // num_blocks
    if length < 2:
        return np.full((block.shape[1], block.shape[0]), np.nan)
    used = flat[:, flat.shape[1] - num_blocks * length :].reshape(-1, num_blocks, length)
    return block_rhat(used, num_blocks).reshape(block.shape[:2]).T


def rhat_between(
    classic: Float[np.ndarray, "*scalars"], chainwise: Float[np.ndarray, "chain *scalars"]
) -> Float[np.ndarray, "*scalars"]:
    """Compute how far R-hat passes 1 for what chains have *not* in common with their own blocks.

    Args:
        classic: R-hat of whole chains (`rhat_classic`).
        chainwise: R-hat inside each chain (`rhat_chainwise`).

    Returns:
        (mean chain-wise + classic - 1) / mean chain-wise: 1 when chains agree, however they drift.

    References:
        Sommer et al. 2024, the normalised variant.
    """
    inside = chainwise.mean(0)
    return (inside + classic - 1) / inside


class Variances(NamedTuple):
    """Variance inside chains and between them, in squared units of the draws.

    Attributes:
        within: Mean over chains of the variance of a chain.
        between: Variance of the chain means; NaN for one chain. Of independent draws it is about within / draws.
    """

    within: Float[np.ndarray, "..."]
    between: Float[np.ndarray, "..."]


def chain_variances(draws: Draws) -> Variances:
    """Compute the variance inside chains and between them."""
    return Variances(*over_blocks(block_variances, draws))


def block_variances(block: Block) -> Variances:
    """Compute the variances of a block."""
    if block.shape[1] < 2:
        return Variances(block.var(-1, ddof=1).mean(-1), np.full(len(block), np.nan))
    return Variances(block.var(-1, ddof=1).mean(-1), block.mean(-1).var(-1, ddof=1))


def ess_indicator(happens: Bool[np.ndarray, "chain draw *scalars"]) -> Float[np.ndarray, "*scalars"]:
    r"""Compute the effective sample size of an event, all chains together: ArviZ's `ess(method="mean")` of zeros and ones.

    The standard error of the share p of draws in which the event happens is :math:`\sqrt{p (1 - p) / \mathrm{ESS}}`. Chains that
    each stay on their side of an event have about one effective draw a chain, however many they draw.

    Args:
        happens: (chain, draw, ...), truth values.

    Returns:
        [...]; NaN for an event that always happens, or never: how often it would change cannot be seen.

    Raises:
        TypeError: Not truth values; compare first (draws > 0).

    Example:
        >>> import numpy as np
        >>> draws = np.random.default_rng(0).normal(size=(4, 500))
        >>> 1500 < float(ess_indicator(draws > 1)) < 2500
        True
    """
    happens = np.asarray(happens)
    if happens.dtype != bool:
        raise TypeError(f"happens must be truth values (draws > 0, say), got dtype {happens.dtype}")
    ess = over_blocks(lambda block: (block_ess(split(block)),), happens)[0]
    return np.where(happens.all((0, 1)) | ~happens.any((0, 1)), np.nan, ess)
