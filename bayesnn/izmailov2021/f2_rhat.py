"""F2: HMC chains mix well in function space, and less well in weight space.

Run: the reference with trajectories of jittered length, and the same with the paper's fixed length, which leaves directions
unmixed even on a Gaussian.

Compared: the share of test predictions and of weights with an R-hat above 1.1, rank-normalised and split, and by the classic
statistic of Gelman and Rubin that the paper's figure shows; weights as they were drawn, and with hidden units aligned. The
rank-normalised share is held against the most that stationary chains as slow as these show.

Decides, for jittered and for fixed lengths apart: supported if at most 5 % of the predictions exceed 1.1 and the share of the
weights is beyond what stationary chains show; contradicted if the weights are within it, or more of the predictions exceed 1.1
than 5 % and than stationary chains show. Inconclusive below 100 effective draws a chain in function space.

References:
    Izmailov et al. 2021, section 5.1 and figure 2; Vehtari et al. 2021, arXiv 1903.08008.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from bayesnn.config import HMC
from bayesnn.izmailov2021.scales import Scale
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Planned
from diagnostics.aligned import aligned_summary
from diagnostics.claims import percent
from diagnostics.convergence import rhat_classic
from diagnostics.estimates import Estimate
from diagnostics.hypotheses import hypothesis
from diagnostics.mixing import MIN_ESS, effective_draws, share_interval
from diagnostics.summary import TOTAL, summarise
from diagnostics.trees import predicted, weights

TITLE = "HMC mixes well in function space and less well in weight space"
SOURCE = "Izmailov et al. 2021, figure 2"
THRESHOLD = 1.1  # of R-hat, in the paper's figure
FEW = 0.05  # share of the predictions above it that is still called good mixing
JITTERED, FIXED = "jittered", "fixed"


class Share(NamedTuple):
    """Share of scalars with an R-hat above the threshold, and the most that stationary chains as slow as these show."""

    estimate: Estimate
    largest: float


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    jittered = scale.main.posterior
    assert isinstance(jittered.sampler, HMC)
    fixed = scale.main.vary(sampler=jittered.sampler.model_copy(update={"jitter": 0.0}))
    runs = {JITTERED: Planned(jittered), FIXED: Planned(fixed)}
    claims = {f"F2 {name}": functools.partial(judge, name=name) for name in runs}
    return Hypothesis("F2", TITLE, SOURCE, __doc__ or "", runs, claims)


def judge(trees: Mapping[str, xr.DataTree], name: str) -> Judgement:
    """Ask whether the chains of one run mix in function space and not in weight space."""
    tree = trees[name]
    summary = summarise(tree)
    functions, raw = (summary[f"{group}_layers"].to_dataset().sel(layer=TOTAL) for group in ("functions", "posterior"))
    tables = {"predictions": functions, "weights": raw}
    if tree.attrs.get("architecture"):
        tables["weights, aligned"] = aligned_summary(tree).sel(alignment="aligned", layer=TOTAL)
    shares = {what: rank_share(table) for what, table in tables.items()}
    classic = {"predictions, classic": predicted(tree), "weights, classic": weights(tree)}
    rows = {what: share.estimate for what, share in shares.items()} | {what: classic_share(x) for what, x in classic.items()}
    verdict = decide(shares["predictions"], shares["weights"], effective_draws(functions))
    note = (
        f"With {name} trajectories {percent(rows['predictions'].value)} of the predictions and {percent(rows['weights'].value)} "
        f"of the weights have a rank-normalised R-hat above {THRESHOLD}; stationary chains as slow as these show at most "
        f"{percent(shares['predictions'].largest)} and {percent(shares['weights'].largest)}. By the classic R-hat it is "
        f"{percent(rows['predictions, classic'].value)} and {percent(rows['weights, classic'].value)}."
    )
    exhibit = Exhibit(f"Share with an R-hat above {THRESHOLD}, {name} trajectories.", "share", rows)
    return Judgement(hypothesis(f"F2 {name}", verdict, rows["weights"], note, shares["weights"].largest), (exhibit,))


def decide(functions: Share, of_weights: Share, effective: float) -> str:
    """Return the verdict from both shares and the effective draws a chain of the predictions."""
    if not effective >= MIN_ESS:
        return "inconclusive"
    functions_bad = functions.estimate.lower > max(FEW, functions.largest)
    if functions_bad or of_weights.estimate.value <= of_weights.largest:
        return "contradicted"
    is_clear = functions.estimate.value <= FEW and of_weights.estimate.lower > of_weights.largest
    return "supported" if is_clear else "inconclusive"


def rank_share(table: xr.Dataset) -> Share:
    """Return the share above the threshold from a row of the convergence table, with Jeffreys' interval."""
    chosen = table.sel(threshold=THRESHOLD)
    share = float(chosen["share"])
    return Share(Estimate(share, *share_interval(share, table)), float(chosen["share_largest"]))


def classic_share(variables: xr.Dataset) -> Estimate:
    """Return the share of scalars with a classic R-hat above the threshold; constant ones are left out. It has no interval."""
    rhat = np.concatenate([np.ravel(rhat_classic(variable.values)) for variable in variables.data_vars.values()])
    share = float(np.mean(rhat[np.isfinite(rhat)] > THRESHOLD))
    return Estimate(share, share, share)
