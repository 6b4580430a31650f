"""The section on what was measured on a run beyond its draws: resonance before any talk of basins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from bayesnn.measure.store import Measure, list_measures, read_measure
from bayesnn.report import exhibits
from bayesnn.report.exhibits import Exhibit
from bayesnn.report.provenance import flattened
from bayesnn.report.verdict import Row, row_of
from bayesnn.run_folder import RunFolder


class About(NamedTuple):
    """How a measure is shown.

    Attributes:
        title: What it answers, as a question.
        caption: What was done.
        claims: Its claims in plain words.
        show: Draws its result.
    """

    title: str
    caption: str
    claims: Mapping[str, str]
    show: Callable[[Measure], Exhibit]


EVIDENCE = {"evidence-methods-agree": "two independent methods find the same evidence"}
ABOUT = {  # in the order of the page
    "resonance": About(
        "Does bad R-hat come from trajectories of one length?",
        "Chains from the same draws with fixed and with jittered trajectory lengths: what jitter removes is no sign of basins.",
        {"resonance": "trajectories of one length resonate"},
        exhibits.resonance,
    ),
    "directions": About(
        "Do the chains agree along the directions in which they move most?",
        "Directions are found on some chains and tested on others. Where the data say nothing, the posterior is the prior.",
        {"null-directions": "draws are prior draws where the data say nothing"},
        exhibits.directions,
    ),
    "energy-slope": About(
        "Is the leapfrog what its theory says?",
        "Paths of one length from draws of the run, at smaller and smaller steps, in float64; and trajectories run backwards.",
        {
            "smooth-potential": "the potential is smooth at the scale of a step",
            "reversible": "trajectories can be run backwards",
        },
        exhibits.energy_slope,
    ),
    "acceptance": About(
        "What would an accept step say of the sampler's steps?",
        "One step with all data from each of many draws, by the sampler's exact counterpart.",
        {"accept-step": "an accept step would take nearly every step"},
        exhibits.acceptance,
    ),
    "gradient-noise": About(
        "How heavy are the tails of minibatch noise?",
        "Minibatch gradients less the full one at draws of the run, one coordinate at a time.",
        {"noise-has-variance": "minibatch gradients have a variance"},
        exhibits.gradient_noise,
    ),
    "basins": About(
        "Are the regions of the posterior visited in proportion to their mass?",
        "Regions were fixed on other draws; their masses come from methods that know nothing of the run.",
        {
            "regions-mix": "chains come and go between regions",
            "regions-visited-by-mass": "regions are visited in proportion to their mass",
            "weights-visited-by-mass": "clusters of weights are visited in proportion to their mass",
            "light-regions-over-visited": "light regions are visited more than their mass deserves",
            "predictions-robust-to-region-weights": "predictions do not depend on whether regions weigh as visited or by mass",
            **EVIDENCE,
        },
        exhibits.basins,
    ),
    "evidence": About(
        "How probable are the data under this model?",
        "Tempered SMC, parallel tempering and perhaps nested sampling, from prior draws; intervals from independent repetitions.",
        EVIDENCE,
        exhibits.evidence,
    ),
    "llc": About(
        "How degenerate is the minimum below the best draw?",
        "Chains around a minimum of the loss. Forms that disagree, or a failed claim, say that none was found.",
        {
            "learning coefficient": "the learning coefficient can be relied on",
            "chains": "no chain around the minimum was lost",
            "minimum": "the centre is a minimum of the loss",
            "convergence": "the chains around it have converged",
            "step": "their step is small enough",
            "localiser": "the localiser does not decide the estimate",
        },
        exhibits.learning_coefficients,
    ),
    "ood": About(
        "Does the run know images of other sets from its own?",
        "By the doubt of its predictions.",
        {},
        exhibits.out_of_distribution,
    ),
    "shift": About(
        "How does the run predict when inputs are corrupted?",
        "Predictions of the mixture of all draws; intervals over test points.",
        {},
        exhibits.shift,
    ),
}


class Measured(NamedTuple):
    """A measure on the page.

    Attributes:
        name: As in `bayesnn measure FOLDER name`.
        title: What it answers.
        caption: What was done.
        claims: Its findings.
        exhibit: Its numbers.
        settings: With which it was measured.
    """

    name: str
    title: str
    caption: str
    claims: list[Row]
    exhibit: Exhibit
    settings: list[tuple[str, str]]


def read_measures(folder: RunFolder) -> dict[str, Measure]:
    """Read all that was measured on a run, by name.

    Raises:
        UsageError: A result is damaged.
    """
    found = {name: read_measure(folder, name) for name in list_measures(folder)}
    return {name: measure for name, measure in found.items() if measure is not None}


def measured(measures: Mapping[str, Measure]) -> list[Measured]:
    """Return the section's parts in the order of the page, measures that it does not know last, with their findings alone."""
    known = [name for name in ABOUT if name in measures]
    return [_measured(name, measures[name]) for name in (*known, *sorted(measures.keys() - ABOUT.keys()))]


def _measured(name: str, measure: Measure) -> Measured:
    about = ABOUT.get(name) or About(name, "", {}, lambda _: Exhibit([], []))
    claims = []
    for finding in measure.findings:
        prefix, _, claim = finding.claim.rpartition(": ")  # of learning coefficients, which of several centres
        words = about.claims.get(claim, claim)
        described = dataclasses.replace(row_of(finding), kind=finding.kind, description=f"{prefix}: {words}" if prefix else words)
        claims.append(described)
    return Measured(name, about.title, about.caption, claims, about.show(measure), list(flattened(measure.settings).items()))
