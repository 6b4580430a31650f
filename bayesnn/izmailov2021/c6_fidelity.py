"""C6: deep ensembles and SG-MCMC predict well, but not as HMC does; ensembles are about as close to it as SGLD.

Run: HMC, and every baseline on the same network, prior and data.

Compared, on the same test points: total variation distance of the predictive probabilities to those of one half of HMC's chains,
beside the floor: that of the other half to it. Both are averaged over all ways to halve the chains. Beside it the same with that
other half thinned to as many effective draws as the baseline has: a few draws of the posterior itself are far from its mean, and
a method may be closer than they are. Log density of the test targets beside it. Intervals resample the test points, the chains of
HMC and those of the baseline (blocks of draws, of fewer than four chains).

Beside all of it, by agreement and by total variation: where one more chain of HMC would lie (the band, from holding each of its
chains against the others), and two controls: another chain of HMC, which should lie inside, and one at T = 0.5, which should not.
And the temperature at which each Markov chain sampled, by its audit: one that is not at the posterior's may be near it or far for
no other reason.

Decides:
*well*: the ensemble, SGLD and SGHMC do not lose 0.01 nats a point or more to HMC (non-inferiority);
*differ*: each of them lies farther from HMC than the floor, the interval of the excess above zero. An ensemble is what its
members are; of a sampler, few draws of the very posterior would be far from it, too. How many its draws are worth is no more than
an estimate, so that its interval reaches from the excess over as many effective draws to the one over all of HMC's;
*order*: the ensemble's distance equals SGLD's within 0.01, and mean-field VI's is larger.

Of the several things that each says, one is enough to contradict it, by intervals that hold together.

All are inconclusive where HMC's chains are shown to disagree in function space, or have fewer than 5 effective draws each, for
then there is nothing to be close to. Chains
that are too short to tell predict worse than their posterior, and differ from it as well as from each other: they neither support
*well* and *order* nor contradict *differ*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool

from bayesnn.izmailov2021.baselines import ENSEMBLE, LANGEVIN, VARIATIONAL, baselines
from bayesnn.izmailov2021.disagreement import settled
from bayesnn.izmailov2021.distances import Distance, combined, less, mixture, parts_of_run, total_variation
from bayesnn.izmailov2021.mixtures import mixture_scores
from bayesnn.izmailov2021.scales import Scale
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Planned
from diagnostics.estimates import LEVEL, Estimate
from diagnostics.evidence import Evidence
from diagnostics.fidelity import chain_halves
from diagnostics.floor import INDEPENDENT, LARGER_IS_CLOSER, MIN_CHAINS, fidelity_to, floor, prefixes
from diagnostics.health import temperature
from diagnostics.hypotheses import (
    MARGIN,
    all_of,
    equivalence,
    gain_sentence,
    hypothesis,
    non_inferiority,
    paired_gain,
    superiority,
    weakest,
)

TITLE = "Ensembles and SG-MCMC predict well, but differently from HMC"
SOURCE = "Izmailov et al. 2021, section 9"
HMC = "HMC"
NAMED = (ENSEMBLE, LANGEVIN, "SGHMC")  # those that the statement is about
AGAIN, COLD = "another HMC chain", "HMC chain at T = 0.5"
CONTROLS: dict[str, dict[str, object]] = {AGAIN: {"seed": 1}, COLD: {"seed": 1, "temperature": 0.5}}  # one chain each
UNIT = "total variation"
CLOSENESS = {
    "total_variation": ("Total variation distance to HMC, the nearest first", UNIT),
    "agreement": ("Agreement with HMC on the most probable class, the closest first", "share of test points"),
}


class Distances(NamedTuple):
    """Distances to halves of HMC's chains.

    Attributes:
        method: Of a method.
        floor: Of the other half of the chains.
        thinned_floor: Of the other half, thinned to as many effective draws as the method has.
    """

    method: Distance
    floor: Distance
    thinned_floor: Distance


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    configs = {HMC: scale.main.posterior, **baselines(scale.main, scale.seeds)}
    configs |= {name: scale.main.vary(chains=1, **changes) for name, changes in CONTROLS.items()}
    claims = {"C6 well": judge_well, "C6 differ": judge_differ, "C6 order": judge_order}
    return Hypothesis("C6", TITLE, SOURCE, __doc__ or "", {name: Planned(one) for name, one in configs.items()}, claims)


def judge_well(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Ask whether ensembles and SG-MCMC predict about as well as HMC."""
    reference = mixture_scores(trees[HMC])["log_score"]
    gains = {name: paired_gain(mixture_scores(trees[name])["log_score"], reference) for name in methods(trees)}
    named = {name: gains[name] for name in NAMED}

    def verdicts(level: float) -> list[str]:
        scores = (mixture_scores(trees[name])["log_score"] for name in NAMED)
        return [non_inferiority(paired_gain(one, reference, level)) for one in scores]

    worst = weakest(named, non_inferiority)
    note = gain_sentence(f"Of {', '.join(named)} the least certain to keep up with HMC is {worst}", gains[worst])
    exhibit = Exhibit("Test log density gained over HMC; marked is the margin.", "nats a point", gains, (-MARGIN, 0.0))
    verdict, doubt = settled(all_of(verdicts), [trees[HMC]], favoured="supported")
    return Judgement(hypothesis("C6 well", verdict, gains[worst], note + doubt, -MARGIN), (exhibit,))


def judge_differ(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Ask whether ensembles and SG-MCMC lie farther from HMC than HMC from itself."""
    distances = {name: distances_to(trees[HMC], trees[name], name) for name in methods(trees)}
    beyond = {name: less(one.method, one.floor) for name, one in distances.items()}
    beyond_equal = {name: less(one.method, one.thinned_floor) for name, one in distances.items()}
    excess = {name: one.estimate() for name, one in beyond.items()}
    ranked = dict(sorted(excess.items(), key=lambda item: item[1].value))
    at_equal = {name: beyond_equal[name].estimate() for name in ranked}

    def differing(name: str, level: float = LEVEL) -> Estimate:
        whole = beyond[name].estimate(level)
        return whole if trees[name].attrs["kind"] == "ensemble" else spanned(beyond_equal[name].estimate(level), whole)

    named = {name: differing(name) for name in NAMED}
    nearest = weakest(named, superiority)
    what = f"Of {', '.join(named)} the least certain to differ is {nearest}, beyond the floor by"
    note = gain_sentence(what, named[nearest], UNIT)
    sampled_at, off = temperatures(trees)
    if off:
        note += f" Not at the posterior's temperature, by their audits: {', '.join(off)}."
    exhibits = (
        *closeness_exhibits(trees),
        Exhibit("Distance to HMC beyond its own floor, nearest first.", UNIT, ranked),
        Exhibit(
            "The same beyond the floor of as many effective draws; below zero a method is closer than so many draws of HMC.",
            UNIT,
            at_equal,
        ),
    )
    if sampled_at:
        caption = "Temperature at which Markov chains sampled; 1 is the posterior's."
        exhibits += (Exhibit(caption, "temperature", sampled_at, (1.0,)),)
    verdict = all_of(lambda level: [superiority(differing(name, level)) for name in NAMED])
    verdict, doubt = settled(verdict, [trees[HMC]], favoured="contradicted")
    return Judgement(hypothesis("C6 differ", verdict, named[nearest], note + doubt, 0.0), exhibits)


def judge_order(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Ask whether the ensemble is as close as SGLD, and closer than mean-field VI."""
    far = {name: distances_to(trees[HMC], trees[name], name).method for name in (ENSEMBLE, LANGEVIN, VARIATIONAL)}
    alike, farther = less(far[ENSEMBLE], far[LANGEVIN]), less(far[VARIATIONAL], far[ENSEMBLE])

    def verdicts(level: float) -> list[str]:
        return [equivalence(alike.estimate(level)), superiority(farther.estimate(level))]

    rows = {"ensemble minus SGLD": alike.estimate(), "mean-field VI minus ensemble": farther.estimate()}
    note = " ".join(gain_sentence(what[0].upper() + what[1:], one, UNIT) for what, one in rows.items())
    exhibit = Exhibit("Differences of distances to HMC; marked is the margin.", UNIT, rows, (0.0, -MARGIN, MARGIN))
    verdict, doubt = settled(all_of(verdicts), [trees[HMC]], favoured="supported")
    like, order = verdicts(LEVEL)
    first, second = rows.values()
    decisive, bound = (first, MARGIN) if like == "contradicted" or order == "supported" else (second, 0.0)
    return Judgement(hypothesis("C6 order", verdict, decisive, note + doubt, bound), (exhibit,))


def spanned(one: Estimate, other: Estimate) -> Estimate:
    """Return the first with an interval that holds those of both."""
    return Estimate(one.value, min(one.lower, other.lower), max(one.upper, other.upper))


def methods(trees: Mapping[str, xr.DataTree]) -> list[str]:
    """Return the names of the baselines: those that the statement is about, failed or not, and all others that there are."""
    return [*NAMED, *(name for name in trees if name not in (HMC, *NAMED, *CONTROLS))]


def closeness_exhibits(trees: Mapping[str, xr.DataTree]) -> list[Exhibit]:
    """Return all runs by their closeness to HMC, with the band in which one more of its chains would lie."""
    reference = prefixes(trees[HMC])
    measured = {name: fidelity_to(prefixes(trees[name]), reference).measured for name in trees if name != HMC}
    bands = floor(reference, reference.counts[-1]).bands if reference.num_chains >= MIN_CHAINS else {}
    exhibits = []
    for key, (caption, unit) in CLOSENESS.items():
        larger = key in LARGER_IS_CLOSER
        rows = dict(sorted(((name, one[key]) for name, one in measured.items()), key=lambda row: row[1].value, reverse=larger))
        band = bands.get(key)
        if band is None:
            exhibits.append(Exhibit(f"{caption}. {MIN_CHAINS} chains of HMC would have a floor.", unit, rows, ()))
            continue
        inside = {
            name: rows[name].value >= band.lower if larger else rows[name].value <= band.upper
            for name in CONTROLS
            if name in rows
        }
        told = "".join(f" {name[0].upper()}{name[1:]}: {'inside' if is_in else 'outside'}." for name, is_in in inside.items())
        caption = f"{caption}; shaded is where one more chain of HMC would lie.{told}"
        exhibits.append(Exhibit(caption, unit, rows, (band.value,), (band.lower, band.upper)))
    return exhibits


def temperatures(trees: Mapping[str, xr.DataTree]) -> tuple[dict[str, Estimate], list[str]]:
    """Return the temperatures at which Markov chains sampled, where they are known, and the names of those whose audit fails."""
    runs = {name: Evidence(trees[name]) for name in methods(trees) if trees[name].attrs["kind"] not in INDEPENDENT}
    totals = {name: one.temperatures[0] for name, one in runs.items() if one.temperatures}
    known = {name: total for name, total in totals.items() if np.isfinite(total).all()}
    return known, [name for name in known if temperature(runs[name]).verdict == "fail"]


def distances_to(hmc: xr.DataTree, other: xr.DataTree, name: str = "method") -> Distances:
    """Return the total variation of a method, and of HMC itself, to halves of HMC's chains.

    Args:
        hmc: The reference.
        other: The method.
        name: Of the method: the errors of distances of one name are shared.

    Raises:
        ValueError: HMC has one chain, or the predictions are no probabilities.
    """
    halves = chain_halves(hmc["posterior"].sizes["chain"])
    if not halves:
        raise ValueError("one chain of HMC has no floor; run two or more")
    method, parts = mixture(name, parts_of_run(other)), parts_of_run(hmc)
    sizes = {len(half) for pair in halves for half in pair}
    count = effective_draws(other)
    thinned = {size: parts_of_run(hmc, _thinned(hmc, -(-count // size))) for size in sizes}
    found = []
    for pair in halves:
        for first, second in (pair, pair[::-1]):
            half = mixture(HMC, parts, first)
            others = method, mixture(HMC, parts, second), mixture(HMC, thinned[len(second)], second)
            found.append([total_variation(one, half) for one in others])
    return Distances(*(combined((1 / len(found), one) for one in column) for column in zip(*found, strict=True)))


def effective_draws(tree: xr.DataTree) -> int:
    """Return how many independent draws those of a run are worth, by their median function value; all where that is not known."""
    num_draws = int(np.prod([tree["posterior"].sizes[dim] for dim in ("chain", "draw")]))
    if tree.attrs["kind"] in INDEPENDENT or not np.isfinite(ess := prefixes(tree).ess):
        return num_draws
    return min(max(round(ess), 1), num_draws)


def _thinned(hmc: xr.DataTree, num_draws: int) -> Bool[np.ndarray, " draw"]:
    """Choose so many draws of each chain, evenly spaced; all of them if it has no more."""
    draws = hmc["posterior"].sizes["draw"]
    return np.isin(np.arange(draws), np.linspace(0, draws - 1, min(draws, num_draws)).round())
