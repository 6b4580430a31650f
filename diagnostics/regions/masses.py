r"""Masses of regions with their errors, from systems of particles, ladders, weighted points, or expansions.

A mass is a share of posterior probability. An unbiased classifier of draws turns any method that weights draws rightly into an
estimate of masses; independent repetitions of the method give its error.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy.special import ndtri

from diagnostics.claims import percent
from diagnostics.estimates import LEVEL, NUM_RESAMPLES, SEED, few_systems_factor
from diagnostics.regions.visits import checked_labels

LIGHTEST = -30.0  # nats below the heaviest minimum; lighter ones would need more like them than an integer can count
LEAST_EFFORT, MOST_VISITS = 1e-4, 30.0  # of the heaviest and of the lightest minimum, where next to none and all are found
NUM_EFFORTS = 300  # in equal steps of the logarithm, of a tenth or less where masses differ by a factor of a million


class Masses(NamedTuple):
    """Masses of regions by one method.

    Attributes:
        method: Its name.
        share: [region] masses, adding up to 1; regions without any draw stay in, at zero.
        resamples: [resample, region] what the masses might as well have been: the differences from `share` have the law of the
            error. Entries may lie outside [0, 1]. A single one, the masses themselves, says that they are known.
    """

    method: str
    share: Float[np.ndarray, " region"]
    resamples: Float[np.ndarray, "resample region"]

    @property
    def standard_error(self) -> Float[np.ndarray, " region"]:
        """Of each mass, with Student's allowance for few repetitions; 0 for masses that are known."""
        return np.sqrt(np.square(self.resamples - self.share).mean(0))

    @property
    def is_exact(self) -> bool:
        """Whether the masses are known without error; systems that all missed a region have no spread, and do not know it."""
        return len(self.resamples) == 1


def masses_from_systems(method: str, mass: Float[np.ndarray, "system region"], *, seed: int = SEED) -> Masses:
    """Return masses and errors from independent systems.

    Args:
        method: Its name.
        mass: [system, region]; what each system found in each region, in one unit for all systems: visit shares of a ladder, or
            evidence times weight of a system of particles (`masses_from_weights`).
        seed: Of the resampling of whole systems.

    Raises:
        ValueError: Fewer than four systems, or masses that are negative or all zero.
    """
    values = np.asarray(mass, float)
    if values.ndim != 2 or len(values) < 4:
        raise ValueError(f"mass must be [system, region] with at least 4 independent systems, got the shape {values.shape}")
    if not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
        raise ValueError("masses must be finite, none negative and some positive")
    share = values.sum(0) / values.sum()
    counts = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), NUM_RESAMPLES)
    resampled = _shares(counts @ values, share)
    return Masses(method, share, share + few_systems_factor(len(values)) * (resampled - share))


def masses_from_weights(
    method: str,
    labels: Int[np.ndarray, "system particle"],
    log_weights: Float[np.ndarray, "system particle"],
    log_evidence: Float[np.ndarray, " system"],
    num_regions: int,
) -> Masses:
    r"""Return the masses of regions from independent systems of weighted draws: tempered SMC, or runs of nested sampling.

    .. math:: \hat P_k = \frac{\sum_r \hat Z_r \sum_{i \in k} W_{ri}}{\sum_r \hat Z_r}

    Each numerator is unbiased where the evidence is; systems that missed a region have an evidence too low by what is in it.

    Args:
        method: Its name.
        labels: Regions of the draws.
        log_weights: Of the draws, normalised within each system.
        log_evidence: Of each system, nats.
        num_regions: Number of regions.

    Raises:
        ValueError: Shapes that do not fit, or fewer than four systems.
    """
    places, weights = checked_labels(labels, num_regions), np.exp(np.asarray(log_weights, float))
    evidence = np.exp(np.asarray(log_evidence, float) - np.max(log_evidence))
    if weights.shape != places.shape or evidence.shape != places.shape[:1]:
        raise ValueError(
            f"labels, log_weights and log_evidence must be [system, particle] twice and [system]; got {places.shape}, "
            f"{weights.shape} and {evidence.shape}"
        )
    shares = np.stack([np.bincount(row, w, num_regions) for row, w in zip(places, weights, strict=True)])
    return masses_from_systems(method, evidence[:, None] * shares)


def masses_from_logs(method: str, log_mass: ArrayLike, standard_error: ArrayLike = 0.0, *, seed: int = SEED) -> Masses:
    """Return masses from logarithms with independent normal errors: quadrature, thermodynamic integration by region.

    Args:
        method: Its name.
        log_mass: [region] nats, up to a common constant; -inf for a region without mass.
        standard_error: Of each, nats; 0 says that it is known.
        seed: Of the draws of the errors.
    """
    logs, error = np.asarray(log_mass, float), np.broadcast_to(np.asarray(standard_error, float), np.shape(log_mass))
    rows = logs + error * np.random.default_rng(seed).standard_normal((NUM_RESAMPLES if error.any() else 1, logs.size))
    rows = np.exp(np.vstack([logs, rows]) - logs.max())
    rows /= rows.sum(1, keepdims=True)
    return Masses(method, rows[0], rows[1:])


def masses_from_minima(
    method: str,
    log_mass: Float[np.ndarray, " minimum"],
    standard_error: Float[np.ndarray, " minimum"],
    region: Int[np.ndarray, " minimum"],
    found: Bool[np.ndarray, "system minimum"],
    *,
    seed: int = SEED,
) -> Masses:
    r"""Return masses of regions that are made of minima, each weighed on its own, from a search by independent systems.

    Two things are uncertain. What each minimum weighs: minima of one region lie near each other, and what a method misses at one
    it misses at all, so that their errors go together; those of different regions do not. And what minima there are: draws of the
    posterior find one of mass m with the probability

    .. math:: \pi(m) = 1 - e^{-\lambda m},

    so that one which was found stands for :math:`1 / \pi(m)` like it on average, a geometric number, itself included. How
    thoroughly the search went, :math:`\lambda`, is told by how many systems found each.

    Args:
        method: Its name.
        log_mass: Of each different minimum with all its copies, nats, up to a common constant.
        standard_error: Of each, nats.
        region: Region of each, from 0; every region has one. A region in which nothing was found has no mass and no error.
        found: Whether each system (of particles, of chains) has a draw over each minimum.
        seed: Of the resampling.

    Returns:
        Masses with what the search has missed, as far as minima like it were found; their shares are means of the resamples.

    Raises:
        ValueError: Shapes that do not fit, fewer than two systems, or a minimum that none has found.

    References:
        Huggins 1989, Biometrika 76 (the chance to be counted as a function of what is known of each, from those that were).
    """
    logs, places = np.asarray(log_mass, float), np.asarray(region)
    if found.ndim != 2 or not logs.shape == np.shape(standard_error) == places.shape == found.shape[1:]:
        raise ValueError(
            f"log_mass, standard_error, region and found must be [minimum] three times and [system, minimum]; got {logs.shape}, "
            f"{np.shape(standard_error)}, {places.shape} and {found.shape}"
        )
    if len(found) < 2 or not found.any(0).all():
        raise ValueError(f"every minimum must be found by one of two or more systems, got the counts {found.sum(0).tolist()}")
    into, rng = np.eye(places.max() + 1)[places], np.random.default_rng(seed)
    mass = np.exp(np.maximum(logs - logs.max(), LIGHTEST))
    effort = _search_efforts(mass, found.sum(0), len(found), rng)
    like = rng.geometric(-np.expm1(-effort[:, None] * mass))
    weighed = mass * np.exp(standard_error * rng.standard_normal((NUM_RESAMPLES, into.shape[1]))[:, places])
    rows = (like * weighed) @ into
    rows /= rows.sum(1, keepdims=True)
    return Masses(method, rows.mean(0), rows)


def _search_efforts(
    mass: Float[np.ndarray, " minimum"], finders: Int[np.ndarray, " minimum"], num_systems: int, rng: np.random.Generator
) -> Float[np.ndarray, " resample"]:
    """Draw how often the search came by a unit of mass, given how many systems found each minimum.

    The number of systems is binomial, given that it is not 0. Drawn is from the posterior under Jeffreys' prior, which is proper
    even where every minimum was found by all systems, or each by one.
    """
    effort = np.geomspace(LEAST_EFFORT / mass.max(), MOST_VISITS * num_systems / mass.min(), NUM_EFFORTS)
    visits = effort[:, None] * mass
    by_any, by_each = -np.expm1(-visits), -np.expm1(-visits / num_systems)
    log_likelihood = finders * np.log(by_each) - (num_systems - finders) * visits / num_systems - np.log(by_any)
    mean = num_systems * by_each / by_any
    variance = np.maximum(mean * (1 - by_each + num_systems * by_each - mean), 0)  # of the finders; below 0 by rounding
    information = np.square(visits / (num_systems * by_each)) * variance  # about the logarithm of the effort
    log_posterior = log_likelihood.sum(1) + 0.5 * np.log(np.maximum(information.sum(1), np.finfo(float).tiny))
    posterior = np.exp(log_posterior - log_posterior.max())
    return rng.choice(effort, NUM_RESAMPLES, p=posterior / posterior.sum())


def _shares(mass: Float[np.ndarray, "*rows region"], share: Float[np.ndarray, " region"]) -> Float[np.ndarray, "*rows region"]:
    """Return masses over their total, and a given share where there are none."""
    total = mass.sum(-1, keepdims=True)
    return np.where(total > 0, mass / np.where(total > 0, total, 1), share)


def laplace_log_mass(
    log_density: float,
    hessian: Float[np.ndarray, "d d"],
    *,
    num_flat: int = 0,
    orbit_volume: float = 1.0,
    num_copies: float = 1.0,
) -> float:
    r"""Return the log mass of the copies of a minimum, or of an orbit of minima, by Laplace's method.

    .. math:: \log M = \log p(\theta^*) + \tfrac{d - f}{2} \log 2\pi - \tfrac12 \sum_{i > f} \log h_i + \log V + \log C

    Right to O(1/n) where the Hessian is regular across the orbit; it says nothing about singular minima.

    Args:
        log_density: Unnormalised, at the minimum, nats.
        hessian: Of minus the log density there.
        num_flat: f, the number of directions along the orbit of a continuous symmetry, whose curvatures, the smallest ones, are
            left out.
        orbit_volume: V, the volume of the orbit, in units of length to the power f.
        num_copies: C, the number of such orbits by discrete symmetries.

    Raises:
        ValueError: A curvature across the orbit that is not positive: this is no regular minimum.
    """
    curvatures = np.linalg.eigvalsh(np.asarray(hessian, float))[num_flat:]
    if not (curvatures > 0).all():
        raise ValueError(f"Laplace's method needs positive curvatures across the orbit, the smallest is {curvatures.min():.3g}")
    gaussian = 0.5 * float(np.sum(np.log(2 * np.pi) - np.log(curvatures)))
    return float(log_density) + gaussian + math.log(orbit_volume) + math.log(num_copies)


def agreement(one: Masses, other: Masses, num_pairs: int = 1) -> tuple[float, float]:
    """Return the largest difference of two methods in units of its standard error, and what it may reach by chance.

    The second number is the quantile of normal differences at 95 % for all regions, and all of so many pairs of methods, at once
    (Bonferroni); infinity is returned first where known masses differ.
    """
    _check_same_regions((one, other))
    error = np.hypot(one.standard_error, other.standard_error)
    gap = np.abs(one.share - other.share)
    with np.errstate(divide="ignore", invalid="ignore"):
        units = np.where(gap > 1e-9, gap / error, 0.0)  # below that, rounding of shares
    num_compared = max(1, int((error > 0).sum()))
    return float(units.max()), float(ndtri(1 - (1 - LEVEL) / 2 / (num_compared * num_pairs)))


def dispute(masses: Sequence[Masses]) -> str:
    """Say which two methods disagree about the masses beyond their errors; nothing if none do, or if known masses settle it.

    Raises:
        ValueError: No method, or methods that speak of other regions.
    """
    _check_same_regions(masses)
    if any(one.is_exact for one in masses):
        return ""
    pairs = list(itertools.combinations(masses, 2))
    for one, other in pairs:
        units, most = agreement(one, other, len(pairs))
        if units > most:
            return (
                f"But {one.method} and {other.method} disagree about the masses by {units:.1f} standard errors, where "
                f"{most:.1f} are likely in {percent(1 - LEVEL)} of cases: find out which one has missed a region."
            )
    return ""


def combined(masses: Sequence[Masses]) -> Masses:
    """Return the mean of independent methods, weighted by their precision where all have one; known masses stand alone.

    Raises:
        ValueError: No method, or methods that speak of other regions.
    """
    _check_same_regions(masses)
    if known := [one for one in masses if one.is_exact]:
        return known[0]
    variance = np.array([np.square(one.standard_error).sum() for one in masses])
    # Systems that all found the same say nothing of their error, by which they could be weighted.
    precision = 1 / variance if variance.all() else np.ones(len(masses))
    precision /= precision.sum()
    rng = np.random.default_rng(SEED)
    # Shuffled: methods that were resampled with one seed would look as if their errors went together.
    resamples = sum(p * one.resamples[rng.permutation(len(one.resamples))] for p, one in zip(precision, masses, strict=True))
    share = sum(p * one.share for p, one in zip(precision, masses, strict=True))
    return Masses(" and ".join(one.method for one in masses), np.asarray(share), np.asarray(resamples))


def _check_same_regions(masses: Sequence[Masses]) -> None:
    sizes = {one.share.size for one in masses}
    if len(sizes) != 1:
        raise ValueError(f"the masses must be of the same regions, got {sorted(sizes) or 'none'}")
