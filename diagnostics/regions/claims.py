"""Do the chains mix between regions, do they visit each in proportion to its mass, and do they favour light ones?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from diagnostics.claims import Finding, interval_text, percent
from diagnostics.estimates import NUM_RESAMPLES, SEED, Estimate, interval, resampled_shares
from diagnostics.regions.masses import Masses, combined, dispute
from diagnostics.regions.visits import fewest_round_trips, visit_shares

FEWEST_TRIPS = 10  # shares of visits have a relative error of about 1 / sqrt(trips)
FEWEST_CHAINS = 8  # whole chains are resampled; fewer give intervals of unknown coverage
BOUND = 0.1  # total variation between visits and masses: a tenth of the probability in the wrong regions
LIGHT = BOUND / 2  # regions that together hold less cannot decide about a distance of `BOUND`
SLOPE = 0.1  # of visits a unit mass against mass: a region ten times lighter is visited 26 % too often
STEEPEST = 10.0  # end of the search for a slope, reached when all visits go to the lightest or to the heaviest region


def regions_mix(labels: ArrayLike, num_regions: int, masses: Sequence[Masses] = ()) -> Finding:
    """Check that the chains come and go between regions: fail at 0 round trips, inconclusive below 10, else pass.

    Counted are the trips between those two parts of the posterior that are least connected, of all parts that hold `LIGHT` or
    more by visits or by mass.

    Args:
        labels: [chain, draw] regions of the draws.
        num_regions: Number of regions, visited or not, at most 12.
        masses: Masses of the regions, if known; without them, regions that no chain visited do not count.
    """
    claim = "regions-mix"
    visited = visit_shares(labels, num_regions).mean(0)
    cuts = [fewest_round_trips(labels, share, LIGHT) for share in (visited, *(one.share for one in masses))]
    found = [cut for cut in cuts if cut is not None]
    if not found:
        note = f"All draws but {percent(1 - visited.max())} lie in region {visited.argmax()}: there is nothing to mix between."
        return Finding(claim, "health", "inconclusive", bound=FEWEST_TRIPS, note=note)
    trips, part = min(found)
    num_chains, num_draws = np.shape(labels)
    note = (
        f"In {num_chains} chains of {num_draws} draws there are {trips} round trips between {_named(part)} and the rest, the two "
        "parts of the posterior that are least connected."
    )
    if trips >= FEWEST_TRIPS:
        return Finding(claim, "health", "pass", trips, bound=FEWEST_TRIPS, note=note)
    if trips:
        note += f" Shares of visits mean little below {FEWEST_TRIPS} trips: run {FEWEST_TRIPS / trips:.2g} times as long."
        return Finding(claim, "health", "inconclusive", trips, bound=FEWEST_TRIPS, note=note)
    note += " The shares of visits are those of the starts: use parallel tempering or tempered SMC."
    return Finding(claim, "health", "fail", 0, bound=FEWEST_TRIPS, note=note)


def visit_distance(labels: ArrayLike, masses: Masses, *, seed: int = SEED) -> Estimate:
    r"""Estimate the total variation distance between the shares of visits and the masses, with a 95 % interval.

    .. math:: D = \tfrac12 \sum_k |v_k - m_k|

    Whole chains are resampled, and the masses moved by their errors. Noise adds to a distance, and to a resampled one once more:
    the lower end is therefore the lower one of the percentile and of the reflected interval, the upper end the percentile, which
    makes both cautious.

    Args:
        labels: [chain, draw] regions of the draws, of 2 or more chains.
        masses: Of all regions, visited or not.
        seed: Of the resampling.

    Raises:
        ValueError: A single chain, or labels that do not fit the masses.
    """
    visits = resampled_visits(labels, masses.share.size, seed=seed)
    share = visit_shares(labels, masses.share.size).mean(0)
    moved = _moved(masses, seed)
    value = 0.5 * np.abs(share - masses.share).sum()
    resampled = 0.5 * np.abs(visits - moved).sum(1)
    percentile, reflected = interval(value, resampled), interval(value, 2 * value - resampled)
    lower = max(0.0, min(percentile.lower, reflected.lower))
    return Estimate(float(value), lower, min(1.0, percentile.upper))


def regions_visited_by_mass(labels: ArrayLike, masses: Sequence[Masses]) -> Finding:
    """Check that the regions are visited in proportion to their mass.

    Pass if the upper end of the distance between both is below `BOUND`, fail if its lower end is above, be the chains stuck or
    not; inconclusive otherwise, for fewer than 8 chains, where one region holds all but `BOUND` of the mass, and unless two
    methods that agree, or exact masses, say what the masses are.

    Args:
        labels: [chain, draw] regions of the draws, by a classifier fixed on other draws.
        masses: Of all regions, by two or more independent methods, or known.

    Raises:
        ValueError: No masses, or masses of other regions.
    """
    claim = "regions-visited-by-mass"
    truth = combined(masses)
    num_chains = len(np.asarray(labels))
    if num_chains < FEWEST_CHAINS:
        note = f"The interval comes from resampling whole chains and needs {FEWEST_CHAINS} of them; there are {num_chains}."
        return Finding(claim, "health", "inconclusive", bound=BOUND, note=note)
    distance = visit_distance(labels, truth)
    share = visit_shares(labels, truth.share.size).mean(0)
    furthest = int(np.argmax(np.abs(share - truth.share)))
    note = (
        f"Visits and masses ({truth.method}) differ by a total variation of {interval_text(*distance)}, most in "
        f"region {furthest}, with {percent(share[furthest])} of the visits and {percent(truth.share[furthest])} of the mass."
    )
    if unsettled := _unsettled(masses):
        return Finding(claim, "health", "inconclusive", distance.value, distance[1:], BOUND, f"{note} {unsettled}")
    if distance.upper < BOUND and 1 - truth.share.max() < BOUND:
        note += " One region holds so much of the mass that chains which never left it would come as close: that tells nothing."
        return Finding(claim, "health", "inconclusive", distance.value, distance[1:], BOUND, note)
    if distance.upper < BOUND:
        return Finding(claim, "health", "pass", distance.value, distance[1:], BOUND, note)
    if distance.lower > BOUND:
        note += " The draws do not weigh the regions as the posterior does: re-weight them, or use a sampler that mixes."
        return Finding(claim, "health", "fail", distance.value, distance[1:], BOUND, note)
    note += f" That leaves open whether it is below {BOUND}: more chains, longer ones, or more exact masses would tell."
    return Finding(claim, "health", "inconclusive", distance.value, distance[1:], BOUND, note)


def light_regions_over_visited(labels: ArrayLike, regressor: Masses, denominator: Masses) -> Finding:
    r"""Test the statement that chains visit light regions more often than their mass deserves.

    The slope b of visits a unit mass against mass is the maximum likelihood estimate of

    .. math:: v_k \propto m'_k \, m_k^b

    with one estimate of the masses as regressor, m, and another one, independent, as denominator, m'. With one estimate in both
    roles its own errors give a negative slope in pure noise. Errors of the regressor draw the slope towards 0. Regions without
    visits count; regions that either method finds empty are left out.

    Args:
        labels: [chain, draw] regions of the draws.
        regressor: Masses by one method.
        denominator: Masses by an independent method.

    Returns:
        Supported if the interval of the slope is below 0, contradicted if it is above -0.1, inconclusive otherwise, and where the
        two estimates disagree: the slope is then of what one of them has missed.

    Raises:
        ValueError: One estimate in both roles, unless it is exact; masses of other regions.
    """
    claim = "light-regions-over-visited"
    if regressor is denominator and not regressor.is_exact:
        raise ValueError("one estimate of the masses cannot be regressor and denominator: its errors alone would give a slope")
    disputed = dispute((regressor, denominator))
    num_regions = regressor.share.size
    shares = visit_shares(labels, num_regions)
    known = (regressor.share > 0) & (denominator.share > 0)
    spread = np.ptp(np.log(regressor.share[known])) if known.any() else 0.0
    visits, log_mass, weight = (
        x[..., known] for x in (shares.mean(0), np.log(np.where(known, regressor.share, 1)), denominator.share)
    )
    if len(shares) < FEWEST_CHAINS or spread < np.log(2) or not visits.any():
        note = (
            f"The slope needs {FEWEST_CHAINS} chains and regions of which one is twice as heavy as another; there are "
            f"{len(shares)} chains and {known.sum()} regions whose masses span a factor of {np.exp(spread):.2g}."
        )
        return Finding(claim, "hypothesis", "inconclusive", note=note)
    resampled = resampled_visits(labels, num_regions)[:, known].clip(0)
    masses = [_moved(one, SEED + place)[:, known] for place, one in enumerate((regressor, denominator))]
    floors = [one.share[known] / 10 for one in (regressor, denominator)]  # errors may pass 0, where there is no logarithm
    rows = zip(resampled, *(np.maximum(m, floor) for m, floor in zip(masses, floors, strict=True)), strict=True)
    slopes = np.array([_slope(v, np.log(m), w) for v, m, w in rows if v.any()])
    found = interval(_slope(visits, log_mass, weight), slopes)
    verdict = "supported" if found.upper < 0 else "contradicted" if found.lower > -SLOPE else "inconclusive"
    note = (
        f"Visits a unit mass ({denominator.method}) go as mass ({regressor.method}) to the power {interval_text(*found)}; 0 is "
        f"fair, below 0 light regions are visited too often."
    )
    if disputed:
        verdict, note = "inconclusive", f"{note} {disputed}"
    return Finding(claim, "hypothesis", verdict, found.value, found[1:], 0.0, note)


def resampled_visits(labels: ArrayLike, num_regions: int, *, seed: int = SEED) -> Float[np.ndarray, "resample region"]:
    """Return shares of visits of whole chains drawn with replacement, spread as Student's t asks for few chains.

    Raises:
        ValueError: A single chain.
    """
    shares = visit_shares(labels, num_regions)
    num_chains = len(shares)
    if num_chains < 2:
        raise ValueError("one chain has no error of its own; at least 2 chains are needed, 8 for a verdict")
    # A stream other than that of the masses.
    return resampled_shares(np.random.default_rng([seed, num_chains]), num_chains) @ shares


def _slope(
    visits: Float[np.ndarray, " region"], log_mass: Float[np.ndarray, " region"], weight: Float[np.ndarray, " region"]
) -> float:
    """Solve for the slope at which the expected logarithm of the mass is that of the visits."""
    wanted = float(visits @ log_mass / visits.sum())

    def excess(slope: float) -> float:
        tilted = weight * np.exp(slope * (log_mass - log_mass.max()))
        return float(tilted @ log_mass / tilted.sum()) - wanted

    if excess(-STEEPEST) >= 0:
        return -STEEPEST
    if excess(STEEPEST) <= 0:
        return STEEPEST
    return float(brentq(excess, -STEEPEST, STEEPEST))


def _moved(masses: Masses, seed: int) -> Float[np.ndarray, "resample region"]:
    """Return resamples of the masses in an order of their own: methods that share a seed were resampled in step."""
    rows = np.random.default_rng([seed, len(masses.resamples)]).integers(len(masses.resamples), size=NUM_RESAMPLES)
    return masses.resamples[rows]


def _unsettled(masses: Sequence[Masses]) -> str:
    """Say why the masses are not known well enough for a verdict; nothing if they are."""
    if len(masses) < 2 and not masses[0].is_exact:
        return "One method cannot show that its masses are right: a second, independent one is needed."
    return dispute(masses)


def _named(part: tuple[int, ...]) -> str:
    return f"region {part[0]}" if len(part) == 1 else f"regions {', '.join(map(str, part))}"
