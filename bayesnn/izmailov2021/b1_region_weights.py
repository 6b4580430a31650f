"""B1: chains can mix well in function space and weigh the regions of weight space wrongly.

Run: *possible*: HMC on a posterior with two regions of known masses that predict the same (`oracle.py`), half of the chains
started in each. *here*: HMC on a small network, and the masses of the regions of its posterior by tempered SMC and by parallel
tempering, which know nothing of the chains (`bayesnn measure FOLDER basins`). Regions are clusters of predictions, and, *here, by
weights*, clusters of the weights themselves, of which symmetric copies are one: two networks may predict alike and lie in two of
these.

Compared: R-hat of the predictions; and the total variation distance between the chains' visits to the regions and their masses.

Decides: supported if the predictions converge and the visits are not those of the masses (distance above 0.1); contradicted if
the predictions converge and the visits are (below 0.1). Anything else is inconclusive: too few draws or chains, mass methods that
disagree, or chains that do not mix in function space either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import xarray as xr

from bayesnn.config import HMC, Imported, RunConfig, WarmUp
from bayesnn.izmailov2021 import oracle
from bayesnn.izmailov2021.disagreement import agreement
from bayesnn.izmailov2021.measured import BASINS, finding_of, judgement_of
from bayesnn.izmailov2021.scales import Scale
from bayesnn.suite.suite import Hypothesis, Judgement, Planned
from diagnostics.claims import Finding
from diagnostics.convergence import ess_bulk, rhat
from diagnostics.mixing import MIN_ESS
from diagnostics.regions import masses_from_logs, regions_visited_by_mass
from diagnostics.regions.claims import BOUND

TITLE = "Chains that mix in function space can weigh regions wrongly, and do so here"
SOURCE = "the critique of Izmailov et al. 2021"
THRESHOLD = 1.01  # of R-hat: Vehtari et al. 2021


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    two_regions = RunConfig(
        density=Imported(source=oracle.SOURCE),
        sampler=HMC(step_size=0.3, trajectory_length=1.57),
        warmup=WarmUp(steps=0),
        chains=40,
        draws=200,
    )
    runs = {"oracle": Planned(two_regions), "network": scale.weighed()}
    return Hypothesis("B1", TITLE, SOURCE, __doc__ or "", runs, CLAIMS)


def judge_possible(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Ask whether there is a posterior on which HMC does so."""
    posterior = trees["oracle"]["posterior"].to_dataset()
    functions = posterior["function"].values
    num_chains = functions.shape[0]
    mixes = bool((rhat(functions) < THRESHOLD).mean() > 0.95 and ess_bulk(functions).min() > MIN_ESS * num_chains)
    masses = masses_from_logs("exact", np.log(oracle.MASSES))
    visited = regions_visited_by_mass(oracle.regions_of(posterior["region"].values[..., 0]), [masses])
    note = f"R-hat of the predictions: {rhat(functions).max():.3f} at most. {visited.note}"
    return told("B1 possible", verdict_of(mixes, visited.verdict), visited, note)


def judge_here(trees: Mapping[str, xr.DataTree], claim: str = "B1 here", visits: str = "regions-visited-by-mass") -> Judgement:
    """Ask whether it happens on a small network."""
    network = trees["network"]
    converged = agreement(network)
    visited = finding_of(network, BASINS, visits)
    return told(claim, verdict_of(converged.verdict == "pass", visited.verdict), visited, f"{converged.note} {visited.note}")


def judge_weights(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Ask whether it happens there between networks that differ in their weights, whatever they predict."""
    return judge_here(trees, "B1 here, by weights", "weights-visited-by-mass")


CLAIMS = {"B1 possible": judge_possible, "B1 here": judge_here, "B1 here, by weights": judge_weights}


def verdict_of(mixes: bool, visited: str) -> str:
    """Return the verdict from whether predictions converge and how the visits compare with the masses."""
    if not mixes or visited not in ("pass", "fail"):
        return "inconclusive"
    return "supported" if visited == "fail" else "contradicted"


def told(claim: str, verdict: str, visited: Finding, note: str) -> Judgement:
    """Return a verdict with the distance between visits and masses."""
    finding = dataclasses.replace(visited, claim=claim, kind="hypothesis", verdict=verdict, note=note)
    caption = "Total variation distance between visits and masses; the line is the bound between pass and fail."
    return judgement_of(finding, "visits and masses", caption, "total variation distance", (BOUND,))
