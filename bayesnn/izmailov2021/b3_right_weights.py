"""B3: a posterior whose regions are weighed by their mass predicts no worse than SGD.

Run: HMC on a small network and the masses of its regions (`bayesnn measure FOLDER basins`); 200 solutions of SGD on minibatches.
Each has converged; the note says what all of them took in gradients, and what HMC's draws took. Descent on all examples that
takes as many as HMC is no substitute: its solutions predict several nats a point worse, which would make support too easy.

Compared: log density of the test targets, nats a point, of the mixture over regions weighted by mass, with SGD's solutions one by
one; beside it HMC's mixture as visited. The interval resamples test points and seeds, and of HMC's own mixture the chains;
masses are taken as they are.

Decides: supported if the mixture by mass loses less than 0.01 nats a point to SGD (non-inferiority), contradicted if it loses
more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.special import logsumexp

from bayesnn.izmailov2021.b1_region_weights import BASINS
from bayesnn.izmailov2021.mixtures import mixture_scores
from bayesnn.izmailov2021.scales import Scale
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Planned
from diagnostics.hypotheses import MARGIN, gain_sentence, hypothesis, non_inferiority, paired_gain, point_scores

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
    by_mass, as_visited = mixture_by_mass(network)[None], mixture_scores(network)["log_score"]
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
    return Judgement(hypothesis("B3", non_inferiority(gain), gain, note, -MARGIN), (exhibit,))


def mixture_by_mass(network: xr.DataTree) -> Float[np.ndarray, " point"]:
    """Return the log density of the test targets under the regions' predictions, weighted by mass.

    Masses are the mean of those by both methods; regions without any draw are left out.
    """
    basins = network[BASINS]
    mass = np.asarray(basins["regions"].to_dataset()["mass"].mean("estimator"))
    log_predictive = np.asarray(basins["predictions"].to_dataset()["log_predictive"])
    known = np.isfinite(log_predictive).all(1) & (mass > 0)
    return logsumexp(log_predictive[known] + np.log(mass[known] / mass[known].sum())[:, None], axis=0)
