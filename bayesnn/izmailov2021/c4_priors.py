"""C4: performance is robust to the scale and to the family of the prior.

Run: HMC with the reference's prior at several scales, and with priors of other families at the same standard deviation. All
have trajectories of pi * alpha / 2, alpha the standard deviation: the quarter period of a Gaussian prior, and a heuristic for the
other families, whose potentials have no one period. The reference run may have more draws than the others.

Compared: log density of the test targets with that under the reference's prior, nats a point, on the same points; the
intervals resample points and chains, and those of a sweep hold together (Bonferroni).

Decides, for scales and for families apart: supported if every setting lies within the margin of 0.01 nats of the reference,
contradicted if one lies beyond. A prior under which the chains disagree in function space may lie anywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Literal

import xarray as xr

from bayesnn.config import FamilyPrior, GaussianPrior, RunConfig
from bayesnn.izmailov2021.disagreement import chains_disagree, without_knowledge
from bayesnn.izmailov2021.mixtures import mixture_scores
from bayesnn.izmailov2021.scales import Scale
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Planned
from diagnostics.hypotheses import (
    MARGIN,
    conjunction,
    equivalence,
    gain_sentence,
    hypothesis,
    paired_gain,
    simultaneous_level,
)

TITLE = "Predictions are robust to the prior's scale and family"
SOURCE = "Izmailov et al. 2021, section 7"
REFERENCE = "reference"
FAMILIES: tuple[Literal["logistic", "laplace", "student-t", "mixture"], ...] = ("logistic", "laplace", "student-t", "mixture")
FACTORS = (0.5, 0.707, 1.414, 2.0)  # of the reference's standard deviation


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    world = scale.main
    scale_of = world.prior_scale
    scales = {f"scale x {factor:g}": world.swept(prior=GaussianPrior(scale=factor * scale_of)) for factor in FACTORS}
    families: dict[str, RunConfig] = {name: world.swept(prior=FamilyPrior(name=name, scale=scale_of)) for name in FAMILIES}
    configs: dict[str, RunConfig] = {REFERENCE: world.posterior, **scales, **families}
    runs = {name: Planned(config) for name, config in configs.items()}
    claims = {
        "C4 scale": functools.partial(judge, claim="C4 scale", names=tuple(scales)),
        "C4 family": functools.partial(judge, claim="C4 family", names=tuple(families)),
    }
    return Hypothesis("C4", TITLE, SOURCE, __doc__ or "", runs, claims)


def judge(trees: Mapping[str, xr.DataTree], claim: str, names: tuple[str, ...]) -> Judgement:
    """Hold some priors against the reference's."""
    reference, level = mixture_scores(trees[REFERENCE])["log_score"], simultaneous_level(len(names))
    gains = {name: paired_gain(mixture_scores(trees[name])["log_score"], reference, level) for name in names}
    exhibit = Exhibit(
        "Test log density gained over the reference's prior (intervals that hold together); marked is the margin.",
        "nats a point",
        gains,
        (-MARGIN, MARGIN),
    )
    apart = {name: chains_disagree(trees[name]) for name in (REFERENCE, *names)}
    known = without_knowledge(gains, {name: apart[name] or apart[REFERENCE] for name in gains})
    verdicts = {name: equivalence(gain) for name, gain in known.items()}
    verdict = conjunction(verdicts.values())
    deciding = [name for name, one in verdicts.items() if one == verdict]
    farthest = max(deciding, key=lambda name: abs(gains[name].value))
    note = gain_sentence(f"Of those that decide the farthest from the reference is {farthest}", gains[farthest], level=level)
    if any(apart.values()):
        note += f" The chains disagree under {', '.join(name for name, is_so in apart.items() if is_so)}."
    return Judgement(hypothesis(claim, verdict, gains[farthest], note, MARGIN), (exhibit,))
