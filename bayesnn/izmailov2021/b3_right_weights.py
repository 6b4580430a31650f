"""B3: a posterior whose regions are weighed by their mass predicts no worse than SGD.

Run: HMC on a small network and the masses of its regions (`bayesnn measure FOLDER basins`); 200 solutions of SGD on minibatches,
and 200 more, each trained for nine times as many steps, so that all of them together take as many gradients as HMC's draws. The
note has the gradients of each, and those that it took to weigh the regions, several times as many, which no SGD is given. Descent
on all examples is no substitute: its solutions predict several nats a point worse, which would make support too easy. A solution
that leaves the finite numbers is none: it is left out, and counted in the note.

Compared: log density of the test targets, nats a point, of the mixture over regions weighted by mass, with SGD's solutions of
either budget one by one; beside it HMC's mixture as visited. The interval resamples test points, seeds and the systems that
weighed the regions, and of HMC's own mixture the chains; what a region predicts is taken as it is.

Decides: supported if the mixture by mass loses less than 0.01 nats a point to SGD of either budget (non-inferiority),
contradicted if it loses more to one, by intervals that hold together; inconclusive otherwise, and where the two methods disagree
about the masses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.special import logsumexp

from bayesnn.izmailov2021.masses import found_by_system, masses_of
from bayesnn.izmailov2021.measured import BASINS
from bayesnn.izmailov2021.mixtures import members, mixture_scores
from bayesnn.izmailov2021.scales import Scale
from bayesnn.notation import number
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Planned
from diagnostics.estimates import LEVEL, Estimate
from diagnostics.hypotheses import (
    MARGIN,
    all_of,
    gain_sentence,
    hypothesis,
    non_inferiority,
    paired_gain,
    point_scores,
    weakest,
)
from diagnostics.regions.masses import dispute

TITLE = "Regions weighed by their mass predict no worse than SGD"
SOURCE = "the critique of Izmailov et al. 2021"
LONG = "sgd-long"
SGD = {"SGD": "sgd", "SGD of equal budget": LONG}  # what is held against the mixture, by its name: the runs
EQUAL_BUDGET = 9  # times the steps: 653,000 gradients where HMC's draws took 663,000, at scale laptop
SOLUTIONS = 200  # of SGD: the share of a region that has a quarter of them (B4) is known to 12 %
BATCH = 32  # the largest of the batches that Masters & Luschi 2018, arXiv 1804.07612, find to generalise best


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    runs = {"network": scale.weighed(), "sgd": minibatch_sgd(scale), LONG: minibatch_sgd(scale, EQUAL_BUDGET)}
    return Hypothesis("B3", TITLE, SOURCE, __doc__ or "", runs, {"B3": judge})


def minibatch_sgd(scale: Scale, times: int = 1) -> Planned:
    """Return SGD solutions of the small network, one a chain, trained for so many times its steps."""
    sgd = scale.small.sgd.model_copy(update={"batch_size": BATCH})
    small = dataclasses.replace(scale.small, sgd=sgd, sgd_steps=times * scale.small.sgd_steps)
    return Planned(small.optimised(SOLUTIONS))


def judge(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Hold the mixture by mass against SGD."""
    network, sgd = trees["network"], trees["sgd"]
    by_mass, as_visited = mixture_by_mass(network), mixture_scores(network)["log_score"]
    trained = {name: point_scores(trees[run], by_chain=True)["log_score"] for name, run in SGD.items()}
    seeds = {name: scores[np.isfinite(scores).all(1)] for name, scores in trained.items()}

    def over_seeds(level: float = LEVEL) -> dict[str, Estimate]:
        return {name: paired_gain(by_mass, scores, level) for name, scores in seeds.items()}

    gains = over_seeds()
    rows = {f"by mass, over {name}": gain for name, gain in gains.items()} | {
        "as visited, over SGD": paired_gain(as_visited, seeds["SGD"]),
        "by mass, over the ensemble of SGD": paired_gain(by_mass, mixture_scores(sgd)["log_score"]),
        "by mass, over as visited": paired_gain(by_mass, as_visited),
    }
    exhibit = Exhibit("Test log density gained; marked is the margin.", "nats a point", rows, (-MARGIN, 0.0))
    spent = [number(trees[run].attrs.get("gradients")) for run in ("network", *SGD.values())]
    weighing = number(float(network.children[BASINS]["evidence"].to_dataset()["gradients"].sum()))
    note = " ".join(gain_sentence(f"Regions by mass over {name}", gain) for name, gain in gains.items())
    note += (
        f" HMC's draws took {spent[0]} gradients, the solutions of SGD {spent[1]} and {spent[2]}, weighing regions {weighing}."
    )
    for name, scores in seeds.items():
        if lost := len(trained[name]) - len(scores):
            note += f" {lost} of {len(trained[name])} solutions of {name} left the finite numbers and are left out."
    disputed = dispute(masses_of(network.children[BASINS]))
    verdict = "inconclusive" if disputed else all_of(lambda level: [non_inferiority(one) for one in over_seeds(level).values()])
    decisive = gains[weakest(gains, non_inferiority)]
    return Judgement(hypothesis("B3", verdict, decisive, f"{note} {disputed}".rstrip(), -MARGIN), (exhibit,))


def mixture_by_mass(network: xr.DataTree) -> Float[np.ndarray, "system point"]:
    """Return log scores of the regions' predictions, weighted by mass, at every test point, with the errors of the masses.

    Masses are the mean of those by both methods; regions without any draw are left out. Each system of particles and each ladder
    weighs the regions by what it found, and is a part of the mixture (`mixtures.members`).
    """
    basins = network.children[BASINS]
    log_predictive = basins["predictions"].to_dataset()["log_predictive"].values
    known = np.isfinite(log_predictive).all(1)
    mass = np.concatenate([found[:, known] / found[:, known].sum() for found in found_by_system(basins).values()])
    by_system = mass.sum(1, keepdims=True)
    by_system[by_system == 0] = 1  # a system that has been in none of these regions has no share in the mixture
    log_scores = logsumexp(log_predictive[known], axis=1, b=(mass / by_system)[..., None])
    return members(log_scores, mass.sum(1) / mass.sum())
