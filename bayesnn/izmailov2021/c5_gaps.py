"""C5 on tables: Bayesian networks predict poorly in gaps between the training inputs.

Run: in every world of features, for each feature, the posterior by HMC and SGD solutions, trained without the middle third of the
examples in the order of that feature, and tested on it. A feature of few values leaves a narrow gap, or none. Beside them, the
runs of C1 on random splits of the same set.

Compared: log density of the targets in the gap, nats a point, SGD's solutions one by one; as a mean over features, whose gaps
share examples. What is lost there beyond random splits, where a loss has other causes than shift, is a difference of two such
means, whose errors are taken for independent. Beside it the same over the ensemble.

Decides: supported if HMC loses to SGD in the gaps, and more than it does on random splits; contradicted if it gains in the gaps,
or loses less than on random splits, by intervals that hold together. Inconclusive where chains of HMC are shown to disagree in
function space or have fewer than 5 effective draws each; chains that are too short to tell may contradict the statement, but not
support it: fewer draws of a posterior predict worse than more of them do.

References:
    Foong et al. 2019, arXiv 1906.11537, section 4 (gap splits).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from bayesnn.izmailov2021.c5_shift import TITLE, negated
from bayesnn.izmailov2021.disagreement import settled
from bayesnn.izmailov2021.mixtures import mixture_scores, test_to_train
from bayesnn.izmailov2021.scales import Scale
from bayesnn.suite.suite import Exhibit, Hypothesis, Judge, Judgement, Planned
from diagnostics.estimates import LEVEL, Estimate
from diagnostics.hypotheses import all_of, gain, gain_sentence, hypothesis, point_scores, superiority, weakest

SOURCE = "Izmailov et al. 2021, section 8; gaps: Foong et al. 2019"

type Scores = Float[np.ndarray, "member point"]


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale: of the worlds that have gaps."""
    runs, claims = {}, {}
    for name, world in scale.worlds.items():
        splits, gaps = world.labels(name), [f"{name}-gap-{feature}" for feature in range(world.gaps)]
        for label, one in zip((*splits, *gaps), (*world.on_splits(), *world.on_gaps()), strict=True):
            if gaps:
                runs[f"{label}-hmc"] = Planned(one.posterior)
                runs[f"{label}-sgd"] = Planned(one.optimised(scale.seeds))
        if gaps:
            claims[f"C5 gaps, {name}"] = judge(name, splits, gaps)
    return Hypothesis("C5", TITLE, SOURCE, __doc__ or "", runs, claims)


def judge(world: str, splits: Sequence[str], gaps: Sequence[str]) -> Judge:
    """Return the claim about one world, with the labels of its runs on random splits and on gaps."""

    def claim(trees: Mapping[str, xr.DataTree]) -> Judgement:
        hmc = {label: trees[f"{label}-hmc"] for label in (*splits, *gaps)}
        solutions = {label: trees[f"{label}-sgd"] for label in hmc}
        ours = {label: mixture_scores(tree)["log_score"] for label, tree in hmc.items()}
        sgd = {label: point_scores(tree, by_chain=True)["log_score"] for label, tree in solutions.items()}
        ensemble = {label: mixture_scores(tree)["log_score"] for label, tree in solutions.items()}

        def over(theirs: Mapping[str, Scores], labels: Sequence[str], level: float = LEVEL) -> Estimate:
            shared = test_to_train([hmc[label] for label in labels])
            return gain([ours[label] for label in labels], [theirs[label] for label in labels], shared, level)

        def losses(level: float = LEVEL) -> dict[str, Estimate]:
            there, elsewhere = over(sgd, gaps, level), over(sgd, splits, level)
            return {"SGD over HMC in the gaps": negated(there), "Beyond that on random splits": minus(elsewhere, there)}

        told = losses()
        rows = {
            "over SGD, random splits": over(sgd, splits),
            "over SGD, gaps": over(sgd, gaps),
            "over the ensemble, random splits": over(ensemble, splits),
            "over the ensemble, gaps": over(ensemble, gaps),
        }
        exhibits = (
            Exhibit("Test log density gained by HMC; left of zero the others predict better.", "nats a point", rows),
            Exhibit(
                "The same over SGD by gap, with intervals over its test points, chains and seeds.",
                "nats a point",
                {f"gap in feature {feature}": over(sgd, [label]) for feature, label in enumerate(gaps)},
            ),
        )
        note = " ".join(gain_sentence(what, one) for what, one in told.items())
        note += " " + gain_sentence("HMC over the ensemble in the gaps", rows["over the ensemble, gaps"])
        verdict = all_of(lambda level: [superiority(one) for one in losses(level).values()])
        verdict, doubt = settled(verdict, list(hmc.values()), favoured="supported")
        decisive = told[weakest(told, superiority)]
        return Judgement(hypothesis(f"C5 gaps, {world}", verdict, decisive, note + doubt, 0.0), exhibits)

    return claim


def minus(one: Estimate, other: Estimate) -> Estimate:
    """Return the difference of two estimates with independent errors, from their intervals."""
    value = one.value - other.value
    below, above = (
        math.hypot(one.value - one.lower, other.upper - other.value),
        math.hypot(one.upper - one.value, other.value - other.lower),
    )
    return Estimate(value, value - below, value + above)
