"""C1: full-batch HMC predicts better, in distribution, than SGD and than deep ensembles.

Run: in every world, the posterior by HMC, and SGD solutions (MAP estimates under the same prior) from many initialisations. The
solutions one by one are *SGD*; their mixture is the *deep ensemble*.

Compared: log density of the test targets, nats a point; beside it accuracy, or squared error. The interval resamples test points,
shared by both methods, and seeds of SGD.

Decides: supported if HMC gains over SGD and over the ensemble, both intervals above zero; contradicted if either lies below.
"""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from bayesnn.izmailov2021.scales import Scale
from bayesnn.suite.suite import Exhibit, Hypothesis, Judge, Judgement, Planned
from diagnostics.hypotheses import conjunction, gain_sentence, hypothesis, paired_gain, point_scores, superiority

TITLE = "HMC beats SGD and deep ensembles in distribution"
SOURCE = "Izmailov et al. 2021, sections 1 and 6"


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    runs = {}
    for name, world in scale.worlds.items():
        runs[f"{name}-hmc"] = Planned(world.posterior)
        runs[f"{name}-sgd"] = Planned(world.optimised(scale.seeds))
    return Hypothesis("C1", TITLE, SOURCE, __doc__ or "", runs, {f"C1 {name}": judge(name) for name in scale.worlds})


def judge(world: str) -> Judge:
    """Return the claim about one world."""

    def claim(trees: Mapping[str, xr.DataTree]) -> Judgement:
        hmc, sgd = trees[f"{world}-hmc"], trees[f"{world}-sgd"]
        ours = point_scores(hmc)
        rivals = {"SGD": point_scores(sgd, by_chain=True), "the ensemble": point_scores(sgd)}
        gains = {rival: paired_gain(ours["log_score"], scores["log_score"]) for rival, scores in rivals.items()}
        verdict = conjunction(superiority(gain) for gain in gains.values())
        note = " ".join(gain_sentence(f"HMC over {rival}", gain) for rival, gain in gains.items())
        exhibits = [Exhibit("Test log density gained by HMC; right of zero it predicts better.", "nats a point", gains)]
        other = next(name for name in ours if name != "log_score")
        others = {rival: paired_gain(ours[other], scores[other]) for rival, scores in rivals.items()}
        words = {"accuracy": "Accuracy gained by HMC.", "squared_error": "Squared error saved by HMC, in units of the target."}
        exhibits.append(Exhibit(words[other], other.replace("_", " "), others))
        weakest = min(gains.values(), key=lambda gain: gain.value)
        return Judgement(hypothesis(f"C1 {world}", verdict, weakest, note, bound=0.0), tuple(exhibits))

    return claim
