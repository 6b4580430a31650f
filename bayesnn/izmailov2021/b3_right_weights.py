"""B3: a posterior whose regions are weighed by their mass predicts no worse than SGD.

Run: HMC on a small network and the masses of its regions (`bayesnn measure FOLDER basins`); 200 solutions of SGD on minibatches.
Each has converged; the note says what all of them took in gradients, and what HMC's draws took. Descent on all examples that
takes as many as HMC is no substitute: its solutions predict several nats a point worse, which would make support too easy.

Compared: log density of the test targets, nats a point, of the mixture over regions weighted by mass, with SGD's solutions one by
one; beside it HMC's mixture as visited. The interval resamples test points, seeds and the systems that weighed the regions, and
of HMC's own mixture the chains; what a region predicts is taken as it is.

Decides: supported if the mixture by mass loses less than 0.01 nats a point to SGD (non-inferiority), contradicted if it loses
more; inconclusive otherwise, and where the two methods disagree about the masses.
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
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Planned
from diagnostics.hypotheses import MARGIN, gain_sentence, hypothesis, non_inferiority, paired_gain, point_scores
from diagnostics.regions.masses import dispute

TITLE = "Regions weighed by their mass predict no worse than SGD"
SOURCE = "the critique of Izmailov et al. 2021"
SOLUTIONS = 200  # of SGD: the share of a region that has a quarter of them (B4) is known to 12 %
BATCH = 32  # the largest of the batches that Masters & Luschi 2018, arXiv 1804.07612, find to generalise best


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    runs = {"network": scale.weighed(), "sgd": minibatch_sgd(scale)}
    return Hypothesis("B3", TITLE, SOURCE, __doc__ or "", runs, {"B3": judge})


def minibatch_sgd(scale: Scale) -> Planned:
    """Return SGD solutions of the small network, one a chain."""
    small = dataclasses.replace(scale.small, sgd=scale.small.sgd.model_copy(update={"batch_size": BATCH}))
    return Planned(small.optimised(SOLUTIONS))


def judge(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Hold the mixture by mass against SGD."""
    network, sgd = trees["network"], trees["sgd"]
    seeds = point_scores(sgd, by_chain=True)["log_score"]
    by_mass, as_visited = mixture_by_mass(network), mixture_scores(network)["log_score"]
    rows = {
        "by mass, over SGD": paired_gain(by_mass, seeds),
        "as visited, over SGD": paired_gain(as_visited, seeds),
        "by mass, over the ensemble of SGD": paired_gain(by_mass, mixture_scores(sgd)["log_score"]),
        "by mass, over as visited": paired_gain(by_mass, as_visited),
    }
    gain = rows["by mass, over SGD"]
    exhibit = Exhibit("Test log density gained; marked is the margin.", "nats a point", rows, (-MARGIN, 0.0))
    spent = [
        f"{tree.attrs['gradients']:,.0f}" if "gradients" in tree.attrs else "an unknown number of" for tree in (network, sgd)
    ]
    note = f"{gain_sentence('Regions by mass over SGD', gain)} HMC's draws took {spent[0]} gradients, SGD {spent[1]}."
    disputed = dispute(masses_of(network.children[BASINS]))
    verdict = "inconclusive" if disputed else non_inferiority(gain)
    return Judgement(hypothesis("B3", verdict, gain, f"{note} {disputed}".rstrip(), -MARGIN), (exhibit,))


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
