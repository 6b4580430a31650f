"""C5 on tables: Bayesian networks predict poorly in gaps between the training inputs.

Run: in every world of features, for each feature that makes a gap, the posterior by HMC and SGD solutions, trained without the
middle third of the examples in the order of that feature, and tested on it. A feature makes a gap if less than half of the values
in its middle third are among the others; features that order the examples alike make one.

Compared: log density of the targets in each gap, nats a point, paired: HMC's mixture with SGD's solutions one by one. Intervals
are over test points, draws and seeds, and those of all gaps of a table hold together. Gains differ by orders of magnitude, as
solutions that predict a narrow scale go wrong in a gap; so gaps are counted, and no mean is taken over them. Beside it the same
over the ensemble.

Decides: supported if HMC loses to SGD in more than half of the gaps; contradicted if it loses in fewer. The share of gaps in
which it loses lies between those where it is shown to, and those where it is not shown to gain. Inconclusive where chains of HMC
are shown to disagree in function space or have fewer than 5 effective draws each; chains that are too short to tell may
contradict the statement, but not support it: fewer draws of a posterior predict worse than more of them do. With the 100 draws a
chain of `laptop-full` no chains are known to agree, so that there it cannot be supported. What is lost beyond random splits is
not asked: these train on more examples.

References:
    Foong et al. 2019, arXiv 1906.11537, section 4 (gap splits).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from bayesnn.izmailov2021.c1_beats_sgd import failed
from bayesnn.izmailov2021.disagreement import agreement, settled
from bayesnn.izmailov2021.mixtures import mixture_scores
from bayesnn.izmailov2021.scales import Scale
from bayesnn.suite.suite import Exhibit, Hypothesis, Judge, Judgement, Planned
from diagnostics.estimates import Estimate
from diagnostics.hypotheses import constant_scores, hypothesis, paired_gain, point_scores, simultaneous_level, superiority

TITLE = "Bayesian networks predict poorly in gaps between the training inputs"
SOURCE = "Izmailov et al. 2021, section 8; gaps: Foong et al. 2019"
MOST = 0.5


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale: of the worlds that have gaps."""
    runs, claims = {}, {}
    for name, world in scale.worlds.items():
        if not world.gaps:
            continue
        labels = [f"{name}-gap-{feature}" for feature in world.gaps]
        for label, one in zip(labels, world.on_gaps(), strict=True):
            runs[f"{label}-hmc"] = Planned(one.posterior)
            runs[f"{label}-sgd"] = Planned(one.optimised(scale.seeds))
        claims[f"C5 gaps, {name}"] = judge(name, labels)
    return Hypothesis("C5", TITLE, SOURCE, __doc__ or "", runs, claims)


def judge(world: str, labels: Sequence[str]) -> Judge:
    """Return the claim about one world, with the labels of its gaps."""

    def claim(trees: Mapping[str, xr.DataTree]) -> Judgement:
        hmc, sgd = ([trees[f"{label}-{method}"] for label in labels] for method in ("hmc", "sgd"))
        ours = [mixture_scores(tree)["log_score"] for tree in hmc]
        solutions = [point_scores(tree, by_chain=True) for tree in sgd]
        rivals = {
            "SGD": [one["log_score"] for one in solutions],
            "the ensemble": [mixture_scores(tree)["log_score"] for tree in sgd],
        }
        level = simultaneous_level(len(labels))
        gains = {
            rival: {label: paired_gain(a, b, level) for label, a, b in zip(labels, ours, scores, strict=True)}
            for rival, scores in rivals.items()
        }
        exhibits = tuple(
            Exhibit(f"Test log density gained by HMC over {rival}; left of zero {rival} predicts better.", "nats a point", rows)
            for rival, rows in gains.items()
        )
        lost = share_lost(list(gains["SGD"].values()))
        note = " ".join(_counted(rival, list(rows.values())) for rival, rows in gains.items())
        other = next(name for name in solutions[0] if name != "log_score")
        note += failed([one[other] for one in solutions], [constant_scores(tree)[other] for tree in hmc], other)
        if any(agreement(tree).verdict != "pass" for tree in hmc):
            note += " By chains that are not known to agree the statement could not have been supported."
        verdict, doubt = settled(superiority(Estimate(*(end - MOST for end in lost))), hmc, favoured="supported")
        return Judgement(hypothesis(f"C5 gaps, {world}", verdict, lost, note + doubt, MOST), exhibits)

    return claim


def share_lost(gains: Sequence[Estimate]) -> Estimate:
    """Return the share of gaps in which HMC loses: at least where it is shown to, at most where it is not shown to gain."""
    value, lower, upper = np.array(gains).T
    return Estimate(float(np.mean(value < 0)), float(np.mean(upper < 0)), float(np.mean(lower <= 0)))


def _counted(rival: str, gains: Sequence[Estimate]) -> str:
    gained, lost = sum(gain.lower > 0 for gain in gains), sum(gain.upper < 0 for gain in gains)
    middle = float(np.median([gain.value for gain in gains]))
    told = f"HMC gains over {rival} in {gained} of {len(gains)} gaps and loses in {lost}"
    return f"{told}; the median gain is {middle:.2g} nats a point."
