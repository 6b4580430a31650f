"""C1: full-batch HMC predicts better, in distribution, than SGD and than deep ensembles.

Run: in every world, on each of its splits, the posterior by HMC, and SGD solutions (MAP estimates under the same prior) from many
initialisations. The solutions one by one are *SGD*; their mixture is the *deep ensemble*.

Compared: log density of the test targets, nats a point; beside it accuracy, or squared error, and what the constant prediction
scores that knows the test targets' distribution and no inputs. With one split the interval resamples test points, shared by both
methods, the chains of HMC (of fewer than four, blocks of draws) and the seeds of SGD, which are the members of the ensemble; with
several it is that of the mean over splits, which share examples.

Decides: supported if HMC gains over SGD and over the ensemble, both intervals above zero; contradicted if either lies below, by
intervals that hold together, and the chains of HMC are shown to agree in function space. Fewer draws of a posterior predict worse
than more of them do: short chains may support the statement, and cannot contradict it. Inconclusive where chains disagree or have
fewer than 5 effective draws each, for then it is not the posterior that predicts; and where no method is shown to predict better
than the constant, for then there is nothing to compare. A rival that was trained badly is beaten easily: the note counts the
solutions of SGD that are less accurate, or have a larger squared error, than the constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from bayesnn.izmailov2021.disagreement import settled
from bayesnn.izmailov2021.mixtures import mixture_scores, test_to_train
from bayesnn.izmailov2021.scales import Scale
from bayesnn.suite.suite import Exhibit, Hypothesis, Judge, Judgement, Planned
from diagnostics.estimates import LEVEL, Estimate
from diagnostics.hypotheses import (
    all_of,
    constant_scores,
    gain,
    gain_sentence,
    hypothesis,
    over_splits,
    paired_gain,
    point_scores,
    superiority,
    weakest,
)

TITLE = "HMC beats SGD and deep ensembles in distribution"
SOURCE = "Izmailov et al. 2021, sections 1 and 6"
OTHER = {
    "accuracy": "Accuracy gained by HMC.",
    "squared_error": "Squared error saved by HMC, in squared units of the target.",
}
ABSOLUTE = {
    "log_score": ("Test log density; the line is HMC's.", "nats a point"),
    "accuracy": ("Test accuracy; the line is HMC's.", "share"),
    "squared_error": ("Root mean square error on test points; the line is HMC's.", "units of the target"),
}


def root_of(mean_score: float) -> float:
    """Return the root mean square error of a mean score, minus a mean squared error; ends of intervals may lie above 0."""
    return math.sqrt(max(-mean_score, 0.0))


type Scores = Mapping[str, Float[np.ndarray, "member point"]]


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    runs, claims = {}, {}
    for name, world in scale.worlds.items():
        labels = world.labels(name)
        for label, one in zip(labels, world.on_splits(), strict=True):
            runs[f"{label}-hmc"] = Planned(one.posterior)
            runs[f"{label}-sgd"] = Planned(one.optimised(scale.seeds))
        claims[f"C1 {name}"] = judge(name, labels)
    return Hypothesis("C1", TITLE, SOURCE, __doc__ or "", runs, claims)


def judge(world: str, labels: list[str]) -> Judge:
    """Return the claim about one world, on splits with these labels."""

    def claim(trees: Mapping[str, xr.DataTree]) -> Judgement:
        hmc = [mixture_scores(trees[f"{label}-hmc"]) for label in labels]
        seeds = [point_scores(trees[f"{label}-sgd"], by_chain=True) for label in labels]
        ensemble = [mixture_scores(trees[f"{label}-sgd"]) for label in labels]
        rivals = {"SGD": seeds, "the ensemble": ensemble}
        runs = [trees[f"{label}-hmc"] for label in labels]
        shared = test_to_train(runs)

        def over_rivals(score: str, level: float = LEVEL) -> dict[str, Estimate]:
            return {name: gain(of(hmc, score), of(scores, score), shared, level) for name, scores in rivals.items()}

        gains = over_rivals("log_score")
        other = next(name for name in hmc[0] if name != "log_score")
        others = over_rivals(other)
        methods = {"HMC": hmc, "SGD": seeds, "ensemble": ensemble, "constant": [constant_scores(run) for run in runs]}
        exhibits = (
            Exhibit("Test log density gained by HMC; right of zero it predicts better.", "nats a point", gains),
            Exhibit(OTHER[other], other.replace("_", " "), others),
            *(
                absolute(key, {name: level_of(scores, key, shared) for name, scores in methods.items()})
                for key in ("log_score", other)
            ),
        )
        verdict = all_of(lambda level: [superiority(one) for one in over_rivals("log_score", level).values()])
        verdict, doubt = settled(verdict, runs, favoured="contradicted")
        constant = of(methods["constant"], "log_score")
        learnt = [superiority(gain(of(methods[name], "log_score"), constant, shared)) for name in ("HMC", "SGD", "ensemble")]
        if "supported" not in learnt:
            verdict, doubt = "inconclusive", " But none of the methods is shown to predict better than a constant does."
        note = " ".join(gain_sentence(f"HMC over {rival}", one) for rival, one in gains.items())
        note += failed(of(seeds, other), of(methods["constant"], other), other) + doubt
        decisive = gains[weakest(gains, superiority)]
        return Judgement(hypothesis(f"C1 {world}", verdict, decisive, note, bound=0.0), exhibits)

    return claim


def of(scores: Sequence[Scores], name: str) -> list[Float[np.ndarray, "member point"]]:
    """Return one score of every split."""
    return [one[name] for one in scores]


def failed(seeds: list[Float[np.ndarray, "seed point"]], constant: list[Float[np.ndarray, "1 point"]], score: str) -> str:
    """Return a sentence on the solutions of SGD that a constant prediction beats, where there are any."""
    lost = sum(int((one.mean(1) < best.mean()).sum()) for one, best in zip(seeds, constant, strict=True))
    total = sum(len(one) for one in seeds)
    return f" By {score.replace('_', ' ')} {lost} of {total} solutions of SGD are worse than a constant." if lost else ""


def absolute(score: str, rows: Mapping[str, Estimate]) -> Exhibit:
    """Return the exhibit of a score itself, the line at HMC's."""
    caption, unit = ABSOLUTE[score]
    return Exhibit(caption, unit, rows, (rows["HMC"].value,))


def level_of(scores: Sequence[Scores], name: str, shared: float) -> Estimate:
    """Return a score of a method in the units of a report, with its interval over points and members, or over splits."""
    values, convert = of(scores, name), root_of if name == "squared_error" else float
    if len(values) > 1:
        return over_splits([convert(one.mean()) for one in values], shared)
    mean = paired_gain(values[0], np.zeros((1, values[0].shape[1])))
    return Estimate(*(convert(end) for end in ((mean.value, mean.upper, mean.lower) if convert is root_of else mean)))
