"""C6: deep ensembles and SG-MCMC predict well, but not as HMC does; ensembles are about as close to it as SGLD.

Run: HMC, and every baseline on the same network, prior and data.

Compared, on the same test points: total variation distance of the predictive probabilities to those of one half of HMC's chains,
beside the floor: that of the other half to it, thinned to as many draws as the baseline has. Both are averaged over all ways to
halve the chains. Log density of the test targets beside it.

Decides:
*well*: the ensemble, SGLD and SGHMC do not lose 0.01 nats a point or more to HMC (non-inferiority);
*differ*: each of them lies farther from HMC than the floor, the interval of the excess above zero;
*order*: the ensemble's distance equals SGLD's within 0.01, and mean-field VI's is larger.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float

from bayesnn.izmailov2021.baselines import ENSEMBLE, LANGEVIN, VARIATIONAL, baselines
from bayesnn.izmailov2021.scales import Scale
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Planned
from diagnostics.fidelity import chain_halves, chain_predictions, closeness, pooled
from diagnostics.hypotheses import (
    MARGIN,
    conjunction,
    equivalence,
    gain_sentence,
    hypothesis,
    non_inferiority,
    paired_gain,
    point_scores,
    superiority,
)

TITLE = "Ensembles and SG-MCMC predict well, but differently from HMC"
SOURCE = "Izmailov et al. 2021, section 9"
HMC = "HMC"
NAMED = (ENSEMBLE, LANGEVIN, "SGHMC")  # those that the statement is about
UNIT = "total variation distance"

type Points = Float[np.ndarray, " point"]


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    configs = {HMC: scale.main.posterior, **baselines(scale.main, scale.seeds)}
    claims = {"C6 well": judge_well, "C6 differ": judge_differ, "C6 order": judge_order}
    return Hypothesis("C6", TITLE, SOURCE, __doc__ or "", {name: Planned(one) for name, one in configs.items()}, claims)


def judge_well(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Ask whether ensembles and SG-MCMC predict about as well as HMC."""
    reference = point_scores(trees[HMC])["log_score"]
    gains = {name: paired_gain(point_scores(trees[name])["log_score"], reference) for name in trees if name != HMC}
    worst = min(NAMED, key=lambda name: gains[name].value)
    note = gain_sentence(f"Farthest behind HMC of {', '.join(NAMED)} is {worst}", gains[worst])
    exhibit = Exhibit("Test log density gained over HMC; marked is the margin.", "nats a point", gains, (-MARGIN, 0.0))
    verdict = conjunction(non_inferiority(gains[name]) for name in NAMED)
    return Judgement(hypothesis("C6 well", verdict, gains[worst], note, -MARGIN), (exhibit,))


def judge_differ(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Ask whether ensembles and SG-MCMC lie farther from HMC than HMC from itself."""
    distances = {name: distance_and_floor(trees[HMC], trees[name]) for name in trees if name != HMC}
    excess = {name: paired_gain(far[None], floor[None]) for name, (far, floor) in distances.items()}
    ranked = dict(sorted(excess.items(), key=lambda item: item[1].value))
    nearest = min(NAMED, key=lambda name: excess[name].value)
    note = gain_sentence(f"Nearest to HMC of {', '.join(NAMED)} is {nearest}, beyond the floor by", excess[nearest], UNIT)
    far = {name: paired_gain(distances[name][0][None], np.zeros((1, len(distances[name][0])))) for name in ranked}
    floor = paired_gain(distances[ENSEMBLE][1][None], np.zeros((1, len(distances[ENSEMBLE][1]))))
    exhibits = (
        Exhibit("Distance to HMC beyond the floor, nearest first.", UNIT, ranked),
        Exhibit("Distance to HMC; the line is HMC's own floor at the ensemble's number of draws.", UNIT, far, (floor.value,)),
    )
    verdict = conjunction(superiority(excess[name]) for name in NAMED)
    return Judgement(hypothesis("C6 differ", verdict, excess[nearest], note, 0.0), exhibits)


def judge_order(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Ask whether the ensemble is as close as SGLD, and closer than mean-field VI."""
    far = {name: distance_and_floor(trees[HMC], trees[name])[0][None] for name in (ENSEMBLE, LANGEVIN, VARIATIONAL)}
    rows = {
        "ensemble minus SGLD": paired_gain(far[ENSEMBLE], far[LANGEVIN]),
        "mean-field VI minus ensemble": paired_gain(far[VARIATIONAL], far[ENSEMBLE]),
    }
    like, order = rows.values()
    note = f"{gain_sentence('Ensemble minus SGLD', like, UNIT)} {gain_sentence('Mean-field VI minus ensemble', order, UNIT)}"
    exhibit = Exhibit("Differences of distances to HMC; marked is the margin.", UNIT, rows, (0.0, -MARGIN, MARGIN))
    verdict = conjunction([equivalence(like), superiority(order)])
    return Judgement(hypothesis("C6 order", verdict, order, note, 0.0), (exhibit,))


def distance_and_floor(hmc: xr.DataTree, other: xr.DataTree) -> tuple[Points, Points]:
    """Return the total variation of a method, and of HMC itself, to halves of HMC's chains, at equal numbers of draws.

    Raises:
        ValueError: HMC has one chain, or the predictions are no probabilities.
    """
    halves = chain_halves(hmc["posterior"].sizes["chain"])
    if not halves:
        raise ValueError("one chain of HMC has no floor; run two or more")
    whole = pooled(chain_predictions(other))
    far, floor = [], []
    for pair in halves:
        for first, second in (pair, pair[::-1]):
            half = pooled(chain_predictions(hmc), first)
            thinned = pooled(chain_predictions(_thinned(hmc.isel(chain=second), other)))
            far.append(closeness(whole, half, half)["total_variation"])
            floor.append(closeness(thinned, half, half)["total_variation"])
    return np.mean(far, 0), np.mean(floor, 0)


def _thinned(hmc: xr.DataTree, other: xr.DataTree) -> xr.DataTree:
    """Return as many draws of some chains, evenly spaced, as another run has in all; all of them if it has more."""
    sizes, asked = hmc["posterior"].sizes, other["posterior"].sizes
    num_draws = min(sizes["draw"], -(-asked["chain"] * asked["draw"] // sizes["chain"]))
    return hmc.isel(draw=np.linspace(0, sizes["draw"] - 1, num_draws).round().astype(int))
