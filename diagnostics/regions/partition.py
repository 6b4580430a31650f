"""From minima, predictions or weights to a few regions; and a classifier that is fixed before the draws under test are seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import squareform

LOWEST_BARRIER = 5.0  # nats; minima below it are one basin: a chain passes such a barrier once in about exp(5) tries
MOST_REGIONS = 6  # more cannot be told apart with affordable errors of their masses
SAME = 0.01  # nats; where flows stop is known better, and minima that differ by less weigh the same to 1 %


def same_minimum(
    step: Float[np.ndarray, "minimum minimum d"],
    log_density: Float[np.ndarray, " minimum"],
    hessian: Float[np.ndarray, "minimum d d"],
) -> Int[np.ndarray, " minimum"]:
    r"""Number distinct minima: two ends of flows are one minimum if they are equally deep and nothing lies between them.

    .. math:: |\log p_i - \log p_j| < 0.01, \qquad \tfrac12 (x_i - x_j)^T H_j (x_i - x_j) < 0.01

    in nats, so that the answer does not depend on the units of the weights.

    Args:
        step: [i, j] from end j to that copy of end i which is nearest to it (`diagnostics.align` with j as the reference).
        log_density: Of each end, nats.
        hessian: Of minus the log density at each end.

    Returns:
        [minimum] numbers from 0, in the order of first appearance.
    """
    energy = 0.5 * np.einsum("ijd,jde,ije->ij", step, hessian, step)
    is_same = (energy < SAME) & (np.abs(log_density[:, None] - log_density) < SAME)
    number = np.full(len(energy), -1)
    first: list[int] = []
    for row in range(len(energy)):
        like = np.flatnonzero(is_same[row, first])
        number[row] = like[0] if like.size else len(first)
        if not like.size:
            first.append(row)
    return number


def merge_minima(
    barrier: Float[np.ndarray, "minimum minimum"], *, lowest: float = LOWEST_BARRIER, most: int = MOST_REGIONS
) -> Int[np.ndarray, " minimum"]:
    """Merge minima into regions: those joined by a path below `lowest`, and then, lowest barriers first, until few are left.

    Args:
        barrier: Height of the lowest barrier found between each two minima above the higher one of them, nats; symmetric, zero
            on the diagonal.
        lowest: Nats; lower barriers do not part regions.
        most: Number of regions that may be left.

    Returns:
        [minimum] region of each, from 0.

    Raises:
        ValueError: A matrix that is not symmetric, or negative.
    """
    heights = np.asarray(barrier, float)
    if heights.ndim != 2 or not np.array_equal(heights, heights.T) or (heights < 0).any():
        raise ValueError(f"barrier must be a symmetric matrix of heights >= 0, got the shape {heights.shape}")
    if len(heights) == 1:
        return np.zeros(1, int)
    np.fill_diagonal(heights := heights.copy(), 0)
    tree = linkage(squareform(heights), "single")
    regions = fcluster(tree, np.nextafter(lowest, 0), "distance")
    if regions.max() > most:
        regions = fcluster(tree, most, "maxclust")
    return np.unique(regions, return_inverse=True)[1]


class Clusters(NamedTuple):
    """Clusters of draws, by what they predict or by their weights: a classifier by the nearest centre.

    Attributes:
        mean: [feature] of the draws that the clusters were made of.
        scale: Their root mean square distance from it, one number for all features.
        centre: [region, feature] in these units.
    """

    mean: Float[np.ndarray, " feature"]
    scale: float
    centre: Float[np.ndarray, "region feature"]

    def label(self, features: Float[np.ndarray, "*draws feature"]) -> Int[np.ndarray, "*draws"]:
        """Return the region of each draw.

        Raises:
            ValueError: Features that are not finite: such draws are in no region.
        """
        units = (np.asarray(features, float) - self.mean) / self.scale
        if not np.isfinite(units).all():
            raise ValueError("features must be finite, and are not: draws that predict nothing are in no region; leave them out")
        return (np.square(self.centre).sum(-1) - 2 * units @ self.centre.T).argmin(-1)


def find_clusters(features: Float[np.ndarray, "draw feature"], num_regions: int, *, seed: int = 0) -> Clusters:
    """Cluster draws by k-means; give `label` other draws than these.

    Clusters cut a continuum where there are no separate ones. For the claims that is as good: a classifier need only be fixed
    beforehand, not natural.

    Args:
        features: Of each draw: what it predicts, such as class probabilities or means at the test inputs; or the weights of that
            copy of it which is nearest to one network.
        num_regions: Number of clusters, 2 or more.
        seed: Of the starts (k-means++).

    Raises:
        ValueError: Fewer than 10 draws a region, draws that are not finite or all alike.
    """
    values = np.asarray(features, float)
    if num_regions < 2 or values.ndim != 2 or len(values) < 10 * num_regions:
        raise ValueError(
            f"features must be [draw, feature] with 10 draws or more a region, 2 regions or more; got {values.shape}"
        )
    mean = values.mean(0)
    scale = float(np.sqrt(np.square(values - mean).sum(1).mean()))
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError("the features must be finite and differ from draw to draw")
    units = (values - mean) / scale
    centre, found = kmeans2(units, num_regions, minit="++", rng=seed)
    occupied: Bool[np.ndarray, " region"] = np.isin(np.arange(num_regions), found)
    return Clusters(mean, scale, centre[occupied])
