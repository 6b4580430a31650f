"""Scores of a run's mixture with what its finite draws leave open: another run would have drawn others.

A mixture's score moves with the weights of its parts (chains, blocks of draws, members of an ensemble), to first order, as a mean
over the parts does. So each part gets a score of its own, such that their mean is the mixture's and their spread is that of its
Monte-Carlo error: `diagnostics.hypotheses.paired_gain` resamples them as it resamples seeds. That fewer draws score lower on
average is of second order, and in no interval.

References:
    Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, chapter 6 (the infinitesimal jackknife).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.special import logsumexp

from diagnostics.hypotheses import point_scores
from diagnostics.predictive import mixture_log_likelihood

# So many chains are resampled whole, since they may not have mixed: Student's t widens their errors by 1.9 (three degrees of
# freedom), of three chains by 2.7. Of fewer chains so many blocks of draws, all chains together: seven degrees, and still long.
ENOUGH_CHAINS, NUM_BLOCKS = 4, 8


class Part(NamedTuple):
    """Consecutive draws of a chain."""

    chain: int
    draws: slice


def parts_of(num_chains: int, num_draws: int) -> list[Part]:
    """Return what is resampled together: whole chains where there are four or more, else eight blocks of draws or more."""
    blocks = 1 if num_chains >= ENOUGH_CHAINS else min(-(-NUM_BLOCKS // num_chains), num_draws)
    ends = np.linspace(0, num_draws, blocks + 1).round().astype(int).tolist()
    return [Part(chain, slice(*pair)) for chain in range(num_chains) for pair in itertools.pairwise(ends)]


def tilts(parts: Float[np.ndarray, "part ..."], shares: Float[np.ndarray, " part"]) -> Float[np.ndarray, "part ..."]:
    """Return how the mean over parts moves with the weight of each: as the mean over parts of these, which is 0 for equal ones.

    Args:
        parts: A number by part.
        shares: Of the parts in the mean, adding up to 1.
    """
    away = parts - np.tensordot(shares, parts, 1)
    return len(parts) * shares.reshape(-1, *[1] * (parts.ndim - 1)) * away


def members(
    log_scores: Float[np.ndarray, "part point"], shares: Float[np.ndarray, " part"] | None = None
) -> Float[np.ndarray, "part point"]:
    """Return log scores of the parts of a mixture whose mean is the log score of the mixture.

    Args:
        log_scores: Log densities of the targets under each part alone, nats.
        shares: Of the parts in the mixture, adding up to 1; by default equal.
    """
    shares = np.full(len(log_scores), 1 / len(log_scores)) if shares is None else shares
    mixture = logsumexp(log_scores, axis=0, b=shares[:, None])
    known = np.isfinite(mixture)  # where the mixture has density 0, so has every part
    ratios = np.exp(np.where(known, log_scores, 0.0) - np.where(known, mixture, 0.0))
    return mixture + tilts(ratios, shares)


def test_to_train(trees: Sequence[xr.DataTree]) -> float:
    """Return the test examples for each training example of runs on some splits, on average over them."""
    return float(np.mean([tree["observed_data"].to_dataset()["y_test"].size / tree.attrs["num_data"] for tree in trees]))


def mixture_scores(tree: xr.DataTree) -> dict[str, Float[np.ndarray, "part point"]]:
    """Return scores of a run's mixture at every test point, by part: those of `point_scores`, with their Monte-Carlo error.

    Accuracy is no smooth function of the draws, and stays the single row that it is there.

    Raises:
        ValueError: The run has no predictions.
    """
    scores = point_scores(tree)
    functions = tree["functions"].to_dataset()
    parts = parts_of(functions.sizes["chain"], functions.sizes["draw"])
    chosen = [functions.isel(chain=[part.chain], draw=part.draws) for part in parts]
    sizes = np.array([part.sizes["draw"] for part in chosen], float)
    shares = sizes / sizes.sum()
    log_scores = np.stack([mixture_log_likelihood(part["log_likelihood"].values) for part in chosen])
    scores["log_score"] = members(log_scores, shares)
    if "squared_error" in scores:
        means = np.stack([part["mean"].values.mean((0, 1), dtype=np.float64) for part in chosen])
        error = np.tensordot(shares, means, 1) - tree["observed_data"].to_dataset()["y_test"].values
        scores["squared_error"] = -np.square(error) - 2 * error * tilts(means, shares)
    return scores
