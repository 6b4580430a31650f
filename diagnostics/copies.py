r"""A census of symmetric copies: does a run visit them as often as their equal probability demands?

Every copy of the posterior has the same mass, exactly and whatever the data, so that visits to copies test a sampler against
a truth that needs no reference. With n units there are n! copies (times 2^n for signs): only narrow layers, or samplers that
move far (parallel tempering), visit each often enough; for others the answer is `inconclusive`.

A draw's copy is the permutation and the signs that bring it to its standard form (`canonical`): K regions of weight space that
the symmetries map on one another. With :math:`\hat p` the shares of visits in N draws, :math:`N \sum_k (\hat p_k - 1/K)^2` is a
sum of chi-square variables weighted by the eigenvalues of V, the long-run covariance of the visits. V comes from means of
batches around the shares of all chains together, so that slow chains and chains that stay apart count as few visits; the sum is
held against an F distribution with the first two moments.

References:
    Rao & Scott 1981, "The analysis of categorical data from complex sample surveys", JASA 76(374), second-order correction; batch
    means: Flegal & Jones 2010, "Batch means and spectral variance estimators", Annals of Statistics 38(2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy.stats
import xarray as xr
from jaxtyping import Int
from numpy.typing import ArrayLike

from diagnostics.claims import Finding, percent
from diagnostics.evidence import Evidence
from diagnostics.symmetry import architecture_of, canonical_moves, draws_of
from diagnostics.units import Architecture, UnitGroup, group_sizes

CLAIM = "copies-visited-equally"
FALSE_ALARM = 0.001  # of a whole census; that of the other health claims
MIN_VISITS = 5  # effective ones, a copy: the usual rule of chi-square tests (Cochran 1954)
NUM_BATCHES = 60  # of all chains, or more: the trace of V is then good to a fifth, and 20 draws make a batch in short runs, too
MIN_BATCH = 5  # autocorrelation times in a batch, else batches are not independent


class Count(NamedTuple):
    """Visits to the copies of one group of units.

    Attributes:
        name: Of the group.
        num_copies: K.
        num_seen: Copies with at least one draw.
        effective: Independent visits that the draws are worth; NaN where that cannot be told.
        p_value: Of the hypothesis that all copies are equally likely; NaN where the copies are too many for the visits.
    """

    name: str
    num_copies: int
    num_seen: int
    effective: float
    p_value: float


def census(run: xr.DataTree | Mapping[str, ArrayLike], architecture: Architecture | None = None) -> Finding:
    """Test whether the copies of each group of units are visited equally often.

    Args:
        run: A run, or arrays (chain, draw, ...) by dotted path.
        architecture: Symmetries of its posterior, checked by `check_symmetries`; by default those declared with a run's network.

    Returns:
        A finding: "fail" where a group's copies have been visited unequally, with a false-alarm rate of 0.001; "pass" where all
        have been visited often enough and equally; else "inconclusive". The value is the smallest p-value times the number of
        groups.

    Raises:
        ValueError: No architecture is known, or it does not fit the weights.
    """
    if architecture is None:
        if not isinstance(run, xr.DataTree):
            raise ValueError("arrays say nothing of the symmetries of their network: give the architecture")
        architecture = architecture_of(run)
    draws = draws_of(run)
    sizes = group_sizes(architecture, {name: array.shape[2:] for name, array in draws.items()})
    num_draws = math.prod(next(iter(draws.values())).shape[:2])
    copies = [_num_copies(group, size) for group, size in zip(architecture, sizes, strict=True)]
    if all(MIN_VISITS * number > num_draws for number in copies):
        note = f"{_listed(architecture, copies)}: more than {num_draws:,} draws can fill. Narrower layers can be counted."
        return Finding(CLAIM, "health", "inconclusive", bound=FALSE_ALARM, note=note)
    _, moves = canonical_moves(draws, architecture)
    counts = [
        count_visits(group.name, _labels(*moves[group.name]), number) for group, number in zip(architecture, copies, strict=True)
    ]
    tested = [count.p_value for count in counts if not math.isnan(count.p_value)]
    least = min(1.0, len(tested) * min(tested)) if tested else math.nan
    verdict = "fail" if least < FALSE_ALARM else "pass" if len(tested) == len(counts) else "inconclusive"
    meaning = {
        "fail": "A sampler of this posterior visits all copies equally: this one does not, or the prior tells units apart.",
        "pass": "The visits are as equal as those of a right sampler.",
        "inconclusive": "Too few visits to tell: run longer, or use parallel tempering.",
    }
    note = " ".join([*(_sentence(count) for count in counts), meaning[verdict]])
    return Finding(CLAIM, "health", verdict, least, bound=FALSE_ALARM, note=note)


def copies_visited_equally(evidence: Evidence) -> Finding:
    """Take the census of a run that knows its network's symmetries."""
    if not evidence.tree.attrs.get("architecture"):
        return Finding(CLAIM, "health", "not applicable", note="The run knows of no symmetries of its posterior.")
    if evidence.nonfinite.any():
        note = "Draws that are not finite are in no copy; see the claim finite."
        return Finding(CLAIM, "health", "inconclusive", bound=FALSE_ALARM, note=note)
    return census(evidence.tree)


def count_visits(name: str, labels: Int[np.ndarray, "chain draw"], num_copies: int) -> Count:
    """Count and test the visits to copies.

    Args:
        name: Of the group of units.
        labels: Copy of each draw, from 0; copies that were never visited need no number.
        num_copies: K.
    """
    num_seen = int(labels.max()) + 1
    num_chains, num_draws = labels.shape
    per_chain = -(-NUM_BATCHES // num_chains)
    length = num_draws // per_chain
    unknown = Count(name, num_copies, num_seen, math.nan, math.nan)
    if num_seen < 2 or length < 2:
        return unknown
    batches = labels[:, : per_chain * length].reshape(-1, length)
    means = np.stack([(batches == copy).mean(1) for copy in range(num_seen)], 1)
    shares = means.mean(0)
    num_batches = len(means)
    covariance = length * (means - shares).T @ (means - shares) / (num_batches - 1)
    trace = float(np.trace(covariance))
    time = trace / (1 - float(np.square(shares).sum()))  # of autocorrelation: 1 for independent draws
    effective = batches.size / time
    if MIN_BATCH * time > length or effective < MIN_VISITS * num_copies:
        return unknown._replace(effective=effective)
    # The estimate's own noise adds trace^2 / batches to the sum of its squares.
    squares = (float(np.square(covariance).sum()) - trace**2 / num_batches) / (1 + 1 / num_batches)
    freedom = min(max(trace**2 / squares, 1.0), num_copies - 1.0) if squares > 0 else num_copies - 1.0
    unseen = (num_copies - num_seen) / num_copies**2
    distance = batches.size * (float(np.square(shares - 1 / num_copies).sum()) + unseen) / trace
    p_value = float(scipy.stats.f.sf(distance, freedom, freedom * (num_batches - 1)))
    return Count(name, num_copies, num_seen, effective, p_value)


def _num_copies(group: UnitGroup, size: int) -> int:
    return math.factorial(size) * 2 ** (size * len(group.flips))


def _labels(
    permutation: Int[np.ndarray, "chain draw unit"], signs: Int[np.ndarray, "chain draw flip unit"]
) -> Int[np.ndarray, "chain draw"]:
    """Number the copies in which draws were found."""
    moves = np.concatenate([permutation, signs.reshape(*signs.shape[:2], -1)], -1)
    _, labels = np.unique(moves.reshape(-1, moves.shape[-1]), axis=0, return_inverse=True)
    return labels.reshape(permutation.shape[:2])


def _listed(architecture: Architecture, copies: list[int]) -> str:
    return ", ".join(f"{group.name} has {number:.3g} copies" for group, number in zip(architecture, copies, strict=True))


def _sentence(count: Count) -> str:
    seen = f"{count.name}: {count.num_seen} of {count.num_copies:.4g} copies seen"
    if math.isnan(count.effective):
        return f"{seen}, hardly ever left."
    visits = f"{seen} in visits worth {count.effective:.0f} independent ones"
    return f"{visits}." if math.isnan(count.p_value) else f"{visits}; equal with a p-value of {percent(count.p_value)}."
