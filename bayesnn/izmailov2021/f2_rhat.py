"""F2: HMC chains mix well in function space, and less well in weight space.

Run: the reference with trajectories of jittered length, and the same with the paper's fixed length, which leaves directions
unmixed even on a Gaussian.

Compared: the share of test predictions and of weights with an R-hat above 1.1, rank-normalised and split, and by the classic
statistic of Gelman and Rubin that the paper's figure shows; weights as they were drawn, and with hidden units aligned. The
rank-normalised share is held against the most that stationary chains as slow as these show.

Decides, in every world for jittered lengths and in the main one for a fixed one, by one standard for both spaces. A space mixes
well if at most 5 % of it exceed 1.1, by the whole interval or as stationary chains do; badly if the whole interval lies above 5 %
and above what stationary chains show. Supported if the predictions mix well and the weights badly; contradicted if the weights
mix well, or the predictions badly. Inconclusive below 100 effective draws a chain in function space, and where more than 5 %
exceed 1.1 as often as in stationary chains that are as slow: nothing tells then slow chains from chains that are apart.

The standard of the weights was made that of the predictions when four of 802 weights had decided a run: before, any share beyond
that of stationary chains was bad mixing.

References:
    Izmailov et al. 2021, section 5.1 and figure 2; Vehtari et al. 2021, arXiv 1903.08008.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from bayesnn.config import HMC
from bayesnn.izmailov2021.mixtures import test_to_train
from bayesnn.izmailov2021.scales import Scale
from bayesnn.report.surface import show_surfaces, surfaces_of
from bayesnn.suite.suite import Exhibit, Hypothesis, Judge, Judgement, Picture, Planned
from diagnostics.aligned import aligned_summary
from diagnostics.claims import percent
from diagnostics.convergence import rhat_classic
from diagnostics.estimates import Estimate
from diagnostics.hypotheses import hypothesis, over_splits
from diagnostics.mixing import MIN_ESS, effective_draws, share_interval
from diagnostics.summary import TOTAL, summarise
from diagnostics.trees import predicted, weights

TITLE = "HMC mixes well in function space and less well in weight space"
SOURCE = "Izmailov et al. 2021, figure 2"
THRESHOLD = 1.1  # of R-hat, in the paper's figure
NEGLIGIBLE = 4  # digits of a share that are told; what stationary chains hardly ever show is 0
FEW = 0.05  # share above it that is still called good mixing, of either space
SURFACES = (
    "The posterior on planes through three draws, 1, 2 and 3, of one chain and of three chains, as drawn and with hidden units "
    "aligned; dark is low. Valleys of the likelihood between draws that alignment closes are those of symmetry. Most of a plane "
    "is lower than its draws even where nothing separates them: it shows two of many dimensions."
)
FIXED, PREDICTIONS, WEIGHTS = "fixed", "predictions", "weights"


class Share(NamedTuple):
    """Share of scalars with an R-hat above the threshold, and the most that stationary chains as slow as these show."""

    estimate: Estimate
    largest: float


class Measured(NamedTuple):
    """Shares of one run by what they are of, and effective draws a chain that 95 % of its predictions reach."""

    shares: dict[str, Share]
    effective: float


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    runs: dict[str, Planned] = {}
    claims: dict[str, Judge] = {}
    for name, world in scale.worlds.items():
        labels = [f"{label}-hmc" for label in world.labels(name)]
        runs |= {label: Planned(one.posterior) for label, one in zip(labels, world.on_splits(), strict=True)}
        claims[f"F2 {name}"] = functools.partial(judge, claim=f"F2 {name}", labels=labels, kind="jittered")
    main, sampler = scale.main.on_splits()[0], scale.main.posterior.sampler
    assert isinstance(sampler, HMC)
    runs[FIXED] = Planned(main.vary(sampler=sampler.model_copy(update={"jitter": 0.0})))
    claims["F2 fixed"] = functools.partial(judge, claim="F2 fixed", labels=[FIXED], kind="fixed")
    shown = f"{scale.main.labels(next(iter(scale.worlds)))[0]}-hmc"
    surfaces = Picture("What lies between draws?", SURFACES, (shown,), lambda loaded: surfaces_of(loaded[shown]), show_surfaces)
    return Hypothesis("F2", TITLE, SOURCE, __doc__ or "", runs, claims, {"surfaces": surfaces})


def judge(trees: Mapping[str, xr.DataTree], claim: str, labels: Sequence[str], kind: str) -> Judgement:
    """Ask whether the chains of a run, or of the runs on several splits, mix in function space and not in weight space."""
    measured = [measure(trees[label]) for label in labels]
    shared = test_to_train([trees[label] for label in labels])
    shares = {what: mean_share([one.shares[what] for one in measured], shared) for what in measured[0].shares}
    effective = float(np.mean([one.effective for one in measured]))
    predictions, of_weights = shares[PREDICTIONS], shares[WEIGHTS]
    rank = [percent(share.estimate.value) for share in (predictions, of_weights)]
    largest = [percent(round(share.largest, NEGLIGIBLE)) for share in (predictions, of_weights)]
    classic = [percent(shares[f"{what}, classic"].estimate.value) for what in (PREDICTIONS, WEIGHTS)]
    note = (
        f"With trajectories of {kind} length {rank[0]} of the predictions and {rank[1]} of the weights have a rank-normalised "
        f"R-hat above {THRESHOLD}; stationary chains as slow as these show at most {largest[0]} and {largest[1]}. By the classic "
        f"R-hat it is {classic[0]} and {classic[1]}. Effective draws a chain in function space: {effective:.0f}."
    )
    most = round(of_weights.largest, NEGLIGIBLE)
    caption = (
        f"R-hat above {THRESHOLD}, trajectories of {kind} length; the line is the most that weights of stationary chains show."
    )
    rows = {what: Estimate(*(100 * end for end in share.estimate)) for what, share in shares.items()}
    exhibit = Exhibit(caption, "share, %", rows, (100 * most,))
    verdict = decide(predictions, of_weights, effective)
    return Judgement(hypothesis(claim, verdict, of_weights.estimate, note, most), (exhibit,))


def measure(tree: xr.DataTree) -> Measured:
    """Return the shares above the threshold in both spaces, by both statistics, and of aligned weights where units are known."""
    summary = summarise(tree)
    functions, raw = (summary[f"{group}_layers"].to_dataset().sel(layer=TOTAL) for group in ("functions", "posterior"))
    shares = {PREDICTIONS: rank_share(functions), WEIGHTS: rank_share(raw)}
    if tree.attrs.get("architecture"):
        shares[f"{WEIGHTS}, aligned"] = rank_share(aligned_summary(tree).sel(alignment="aligned", layer=TOTAL))
    for what, variables in ((PREDICTIONS, predicted(tree)), (WEIGHTS, weights(tree))):
        shares[f"{what}, classic"] = classic_share(variables)
    return Measured(shares, effective_draws(functions))


def mean_share(shares: Sequence[Share], shared: float) -> Share:
    """Return the mean over splits, with its interval over them."""
    if len(shares) == 1:
        return shares[0]
    return Share(over_splits([one.estimate.value for one in shares], shared), float(np.mean([one.largest for one in shares])))


def decide(functions: Share, of_weights: Share, effective: float) -> str:
    """Return the verdict from both shares and the effective draws a chain of the predictions."""
    if not effective >= MIN_ESS:
        return "inconclusive"
    if is_bad(functions) or is_good(of_weights):
        return "contradicted"
    return "supported" if is_good(functions) and is_bad(of_weights) else "inconclusive"


def is_good(share: Share) -> bool:
    """Return whether so few exceed the threshold that mixing is called good."""
    return share.estimate.upper <= FEW or share.estimate.value <= min(FEW, share.largest)


def is_bad(share: Share) -> bool:
    """Return whether more exceed the threshold than good mixing and than chains that are only slow would show."""
    return share.estimate.lower > max(FEW, share.largest)


def rank_share(table: xr.Dataset) -> Share:
    """Return the share above the threshold from a row of the convergence table, with Jeffreys' interval."""
    chosen = table.sel(threshold=THRESHOLD)
    share = float(chosen["share"])
    return Share(Estimate(share, *share_interval(share, table)), float(chosen["share_largest"]))


def classic_share(variables: xr.Dataset) -> Share:
    """Return the share of scalars with a classic R-hat above the threshold; constant ones are left out. It has no interval."""
    rhat = np.concatenate([np.ravel(rhat_classic(variable.values)) for variable in variables.data_vars.values()])
    share = float(np.mean(rhat[np.isfinite(rhat)] > THRESHOLD))
    return Share(Estimate(share, share, share), math.nan)
