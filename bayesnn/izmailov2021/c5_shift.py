"""C5: Bayesian networks predict poorly under domain shift, because corrupted inputs meet weights that the data left at the prior.

Run: the posterior by HMC and SGD solutions, both on images; and HMC under a prior that is narrow along directions in which the
training inputs do not vary (EmpCov: the inputs' empirical covariance in the first layer).

Compared: log density of the labels of corrupted test images at intensity 5, nats a point, averaged over the corruptions; the
interval resamples corruptions, points, chains of HMC and seeds of SGD. By corruption and intensity beside it, and on clean
inputs, where a loss has other causes than shift: what is lost at intensity 5 beyond that is compared point by point.

Decides: *null* is supported if HMC's weights along input directions without training data have the prior's spread; *shift* is
supported if HMC loses to SGD at intensity 5, and more than it does on clean inputs; contradicted if it gains at intensity 5, or
loses less than on clean inputs, by intervals that hold together; *mechanism* is supported if the EmpCov prior gains
over the independent one at intensity 5, and contradicted if it loses; it may have fewer draws. Both are inconclusive where
chains of HMC are shown to disagree in function space, and chains that are too short to tell may contradict *shift*, but not
support it: fewer draws of a posterior predict worse than more of them do. *null* is about directions in which no draw depends on
the data.

References:
    Izmailov et al. 2021, section 8; Izmailov et al. 2021b, arXiv 2106.11905.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float

from bayesnn.config import EmpiricalCovariancePrior
from bayesnn.izmailov2021.disagreement import settled
from bayesnn.izmailov2021.measured import DIRECTIONS, finding_of, judgement_of
from bayesnn.izmailov2021.mixtures import members
from bayesnn.izmailov2021.scales import Scale
from bayesnn.report.entropies import draw_entropies, entropies
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Picture, Planned
from diagnostics.estimates import LEVEL, Estimate
from diagnostics.hypotheses import all_of, gain_sentence, hypothesis, paired_gain, paired_group_gain, superiority, weakest

TITLE = "Bayesian networks predict poorly under domain shift"
SOURCE = "Izmailov et al. 2021, section 8; 2021b"
CLEAN = "clean"
SHIFT: Mapping[str, Mapping[str, object]] = {"shift": {}}
ENTROPIES = "Entropy of the predictions: 0 is certainty. One hopes for little on a run's own test inputs, and for much on others."
# Of each network, measured on two cores at scale laptop.
MEASURE_SECONDS = 4e-3


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    world = scale.main
    configs = {
        "hmc": world.posterior,
        "sgd": world.optimised(scale.seeds),
        "empcov": world.swept(prior=EmpiricalCovariancePrior(scale=world.prior_scale)),
    }
    measures = {"hmc": {**SHIFT, DIRECTIONS: {}}}
    runs = {
        name: Planned(config, measures.get(name, SHIFT), MEASURE_SECONDS * config.chains * config.draws)
        for name, config in configs.items()
    }
    claims = {"C5 shift": judge_shift, "C5 null": judge_null, "C5 mechanism": judge_mechanism}
    shown = Picture(
        "How unsure are the predictions?",
        ENTROPIES,
        ("hmc", "sgd"),
        lambda loaded: entropies({"HMC": loaded["hmc"], "ensemble": loaded["sgd"]}),
        draw_entropies,
    )
    return Hypothesis("C5", TITLE, SOURCE, __doc__ or "", runs, claims, {"entropies": shown})


def judge_shift(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Ask whether HMC loses to SGD on corrupted inputs."""
    hmc, sgd = trees["hmc"]["shift"].to_dataset(), trees["sgd"]["shift"].to_dataset()

    def losses(level: float = LEVEL) -> dict[str, Estimate]:
        return {
            "SGD over HMC at the highest intensity": negated(gain_at_worst(hmc, sgd, by_chain=True, level=level)),
            "Beyond that on clean inputs": negated(gain_at_worst(hmc, sgd, by_chain=True, beyond_clean=True, level=level)),
        }

    rows = by_intensity(hmc, sgd, by_chain=True) | by_corruption(hmc, sgd, by_chain=True)
    told = losses()
    note = " ".join(gain_sentence(what, one) for what, one in (told | {"On clean inputs": negated(rows[CLEAN])}).items())
    exhibit = Exhibit("Log density gained by HMC over SGD; left of zero SGD predicts better.", "nats a point", rows)
    verdict = all_of(lambda level: [superiority(one) for one in losses(level).values()])
    verdict, doubt = settled(verdict, [trees["hmc"]], favoured="supported")
    decisive = told[weakest(told, superiority)]
    return Judgement(hypothesis("C5 shift", verdict, decisive, note + doubt, 0.0), (exhibit,))


def judge_null(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Ask whether weights along input directions without training data have the spread of their prior."""
    found = finding_of(trees["hmc"], DIRECTIONS, "null-directions")
    verdict = {"pass": "supported", "fail": "contradicted"}.get(found.verdict, found.verdict)
    finding = dataclasses.replace(found, claim="C5 null", kind="hypothesis", verdict=verdict)
    caption = "Weights along directions without data; at 1 they are prior draws."
    return judgement_of(finding, "mean square over the prior's variance", caption, "ratio", (1.0,))


def judge_mechanism(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Ask whether a prior that closes the null directions helps under shift."""
    empcov, hmc = trees["empcov"]["shift"].to_dataset(), trees["hmc"]["shift"].to_dataset()
    gain = gain_at_worst(empcov, hmc, by_chain=False)
    note = gain_sentence("The EmpCov prior over the independent one at the highest intensity", gain)
    rows = by_intensity(empcov, hmc, by_chain=False) | by_corruption(empcov, hmc, by_chain=False)
    exhibit = Exhibit("Log density gained by the EmpCov prior.", "nats a point", rows)
    verdict, doubt = settled(superiority(gain), [trees["hmc"], trees["empcov"]])
    return Judgement(hypothesis("C5 mechanism", verdict, gain, note + doubt, 0.0), (exhibit,))


def gain_at_worst(
    one: xr.Dataset, other: xr.Dataset, *, by_chain: bool, beyond_clean: bool = False, level: float = LEVEL
) -> Estimate:
    """Return the gain at the highest intensity over all corruptions, with an interval over corruptions, points and members.

    Args:
        one: Shift of a run, as measured.
        other: The same of what it is held against.
        by_chain: Each chain of the other by itself.
        beyond_clean: Less the gain on clean inputs, point by point and member by member.
        level: Probability of the interval.
    """
    names = [str(name) for name in one["corruption"].values if name != CLEAN]
    worst = one["intensity"].values.max()

    def at_worst(shift: xr.Dataset, split: bool) -> list[Float[np.ndarray, "member point"]]:
        before = scores_of(shift, CLEAN, 1, by_chain=split) if beyond_clean else 0.0
        return [scores_of(shift, name, worst, by_chain=split) - before for name in names]

    return paired_group_gain(at_worst(one, False), at_worst(other, by_chain), level)


def by_intensity(one: xr.Dataset, other: xr.Dataset, *, by_chain: bool) -> dict[str, Estimate]:
    """Return the gain at each intensity, averaged over corruptions, and on clean inputs."""
    rows = {CLEAN: paired_gain(scores_of(one, CLEAN, 1), scores_of(other, CLEAN, 1, by_chain=by_chain))}
    names = [name for name in one["corruption"].values if name != CLEAN]
    for intensity in one["intensity"].values:
        ours, theirs = (
            np.mean([scores_of(shift, name, intensity, by_chain=split) for name in names], 0)
            for shift, split in ((one, False), (other, by_chain))
        )
        rows[f"intensity {intensity}"] = paired_gain(ours, theirs)
    return rows


def by_corruption(one: xr.Dataset, other: xr.Dataset, *, by_chain: bool) -> dict[str, Estimate]:
    """Return the gain by each corruption at the highest intensity."""
    worst = one["intensity"].values.max()
    names = [str(name) for name in one["corruption"].values if name != CLEAN]
    return {
        f"{name.replace('_', ' ')}, {worst}": paired_gain(
            scores_of(one, name, worst), scores_of(other, name, worst, by_chain=by_chain)
        )
        for name in names
    }


def scores_of(shift: xr.Dataset, name: str, intensity: int, *, by_chain: bool = False) -> Float[np.ndarray, "member point"]:
    """Return the log scores of a corruption: of each chain, or with the mean of the mixture's and the spread of its errors."""
    chains = shift["chain_log_score"].sel(corruption=name, intensity=intensity).values
    return chains if by_chain else members(chains)


def negated(gain: Estimate) -> Estimate:
    """Return the gain of the other side."""
    return Estimate(-gain.value, -gain.upper, -gain.lower)
