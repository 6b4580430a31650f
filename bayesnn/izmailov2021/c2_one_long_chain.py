"""C2: one long chain represents the posterior about as well as several shorter ones.

Run: the reference chains, and one chain with as many steps as all of them together, their warm-ups included: what the others
spend on warming up once more, it spends on draws. Each finds its own step size; the note tells the gradients of both.

Compared: log density of the test targets, nats a point, on the same points. The interval resamples the points, the shorter
chains, and blocks of draws of the long one. The shorter chains one by one stand beside it.

Decides: supported if the interval of the difference lies within the margin of 0.01 nats; contradicted if it lies beyond. It does
not wait for chains that agree: one that stays where the others do not is what the statement denies.
"""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from bayesnn.izmailov2021.mixtures import mixture_scores
from bayesnn.izmailov2021.scales import Scale
from bayesnn.notation import number
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Planned
from diagnostics.hypotheses import MARGIN, equivalence, gain_sentence, hypothesis, paired_gain, point_scores

TITLE = "One long HMC chain predicts as well as several shorter ones"
SOURCE = "Izmailov et al. 2021, section 5"


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    several = scale.main.posterior
    draws = several.chains * several.draws + (several.chains - 1) * several.warmup.steps
    long = scale.main.vary(chains=1, draws=draws, seed=several.seed + 1)
    return Hypothesis("C2", TITLE, SOURCE, __doc__ or "", {"several": Planned(several), "long": Planned(long)}, {"C2": judge})


def judge(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Hold the long chain against the several."""
    long, several = (mixture_scores(trees[name])["log_score"] for name in ("long", "several"))
    gain = paired_gain(long, several)
    chains = point_scores(trees["several"], by_chain=True)["log_score"]
    spent = [number(trees[name].attrs.get("gradients")) for name in ("long", "several")]
    note = (
        f"{gain_sentence('The long chain over the several', gain)} Its draws took {spent[0]} gradients, theirs {spent[1]} and "
        "their warm-ups more."
    )
    rows = {"one long chain": gain} | {
        f"chain {index} alone": paired_gain(one[None], several) for index, one in enumerate(chains)
    }
    exhibit = Exhibit(
        "Test log density gained over the mixture of all shorter chains; marked is the margin.",
        "nats a point",
        rows,
        (-MARGIN, MARGIN),
    )
    return Judgement(hypothesis("C2", equivalence(gain), gain, note, MARGIN), (exhibit,))
