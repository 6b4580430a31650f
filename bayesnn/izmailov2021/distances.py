"""Total variation distances between mixtures, with the errors of test points and of all draws that they rest on.

As in `mixtures`, a distance moves with the weights of the parts of either mixture, to first order, as a mean over them does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from bayesnn.izmailov2021.mixtures import parts_of, tilts
from diagnostics.estimates import LEVEL, NUM_RESAMPLES, SEED, Estimate, interval, resampled_shares


class Parts(NamedTuple):
    """What the parts of a run predict.

    Attributes:
        probability: Mean over the draws of each part; 0 where it has none.
        sizes: Draws of each part.
        chains: To which chain each part belongs.
    """

    probability: Float[np.ndarray, "part point class"]
    sizes: Float[np.ndarray, " part"]
    chains: np.ndarray


class Mixture(NamedTuple):
    """Predictive probabilities, and how they move with the weights of the parts of the run `source`.

    Attributes:
        source: Of which run they are a mixture.
        probability: Of the mixture.
        tilts: Of each part, see `mixtures.tilts`.
    """

    source: str
    probability: Float[np.ndarray, "point class"]
    tilts: Float[np.ndarray, "part point class"]


class Distance(NamedTuple):
    """A distance, or a difference of distances, at every test point.

    Attributes:
        values: At each point.
        moves: By run, how they move with the weight of each of its parts; 0 on average over the parts.
    """

    values: Float[np.ndarray, " point"]
    moves: Mapping[str, Float[np.ndarray, "part point"]]

    def estimate(self, level: float = LEVEL) -> Estimate:
        """Return the mean over points; the interval, of this level, resamples the points, and the parts of every run."""
        rng, num_points = np.random.default_rng(SEED), len(self.values)
        points = rng.multinomial(num_points, np.full(num_points, 1 / num_points), NUM_RESAMPLES) / num_points
        resamples = points @ self.values
        for moves in self.moves.values():
            resamples = resamples + np.einsum("rs,rs->r", resampled_shares(rng, len(moves), level), points @ moves.T)
        return interval(float(self.values.mean()), resamples, level)


def parts_of_run(tree: xr.DataTree, draws: Bool[np.ndarray, " draw"] | None = None) -> Parts:
    """Return what the parts of a run predict, from these draws of each chain or from all.

    Raises:
        ValueError: It predicts no class probabilities.
    """
    functions = tree["functions"].to_dataset() if "functions" in tree.children else xr.Dataset()
    if "probability" not in functions:
        raise ValueError(f"total variation needs class probabilities, and {tree.attrs.get('name', 'the run')} predicts none")
    probability = functions["probability"].values
    parts = parts_of(*probability.shape[:2])
    kept = np.ones(probability.shape[1], bool) if draws is None else draws
    chosen = [probability[part.chain, part.draws][kept[part.draws]] for part in parts]
    return Parts(
        np.stack([rows.sum(0, dtype=np.float64) / max(len(rows), 1) for rows in chosen]),
        np.array([len(rows) for rows in chosen], float),
        np.array([part.chain for part in parts]),
    )


def mixture(source: str, parts: Parts, chains: Iterable[int] | None = None) -> Mixture:
    """Return the mixture of all draws of some chains, by default of all."""
    sizes = parts.sizes if chains is None else parts.sizes * np.isin(parts.chains, list(chains))
    shares = sizes / sizes.sum()
    return Mixture(source, np.tensordot(shares, parts.probability, 1), tilts(parts.probability, shares))


def total_variation(one: Mixture, other: Mixture) -> Distance:
    """Return the total variation distance between two mixtures; of one run where their parts are the same."""
    difference = one.probability - other.probability
    slopes, values = np.sign(difference) / 2, np.abs(difference).sum(-1) / 2
    ours, theirs = (
        Distance(part_values, {part.source: np.einsum("pc,spc->sp", slopes, part.tilts)})
        for part, part_values in ((one, values), (other, np.zeros_like(values)))
    )
    return less(ours, theirs)


def combined(terms: Iterable[tuple[float, Distance]]) -> Distance:
    """Return the sum of distances times factors: what they share of a run moves them together."""
    values, moves = np.zeros(()), dict[str, Float[np.ndarray, "part point"]]()
    for factor, distance in terms:
        values = values + factor * distance.values
        for run, by_part in distance.moves.items():
            moves[run] = moves.get(run, 0.0) + factor * by_part
    return Distance(values, moves)


def less(one: Distance, other: Distance) -> Distance:
    """Return by how much one distance exceeds another."""
    return combined([(1.0, one), (-1.0, other)])
