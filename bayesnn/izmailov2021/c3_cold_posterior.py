"""C3: the posterior needs no tempering; the cold posterior effect comes from data augmentation.

Run: HMC on (likelihood x prior)^(1/T) for temperatures below and above 1, with trajectories of pi * alpha * sqrt(T) / 2; the same
with augmented data, which enters as a likelihood of its own: the mean of the log likelihood over the copies of an example. A
gradient costs as many times more as there are copies, so these runs have so many times fewer draws, and 50 steps of warm-up, as
many as the paper's. T = 1, against which all are held, has no fewer draws than any other: without augmentation it is the
reference run, with augmentation it has as many draws as the sweep without.

Compared: log density of the test targets at each temperature with that at T = 1, nats a point, on the same points; the intervals
resample points and chains, and all hold together (Bonferroni). The temperature that is best is told as the interval in which 95 %
of the resamples have it.

Decides: without augmentation, supported if no temperature gains 0.01 nats or more, contradicted if one below 1 gains more than
that. With augmentation, supported if a temperature below 1 gains more than 0.01 nats, contradicted if none gains that much. A
temperature at which the chains disagree in function space may gain anything, as it is not its posterior that predicts; if they do
at T = 1, all may. Few draws predict worse than many, so short chains at T = 1 make any other temperature look good: where they
are not known to agree, no temperature is found to be better.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from bayesnn.config import HMC, Augmented, RunConfig
from bayesnn.izmailov2021.disagreement import chains_disagree, settled, without_knowledge
from bayesnn.izmailov2021.mixtures import mixture_scores
from bayesnn.izmailov2021.scales import Scale
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Planned
from diagnostics.claims import percent
from diagnostics.estimates import LEVEL, Estimate
from diagnostics.hypotheses import (
    MARGIN,
    best_share,
    gain_sentence,
    hypothesis,
    non_inferiority,
    paired_gain,
    simultaneous_level,
)

# Copies of an example, by augmentation.
COPIES = {"shifts": 5, "flips": 2}
TITLE = "A cold posterior is not needed without data augmentation, and is with it"
SOURCE = "Izmailov et al. 2021, section 7; Wenzel et al. 2020"


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    reference, swept = scale.main.posterior, scale.main.swept()
    shorter = reference.warmup.model_copy(update={"steps": 50})
    augmented = scale.main.swept(likelihood=Augmented(augmentation=scale.augmentation), warmup=shorter)
    fewer = augmented.model_copy(update={"draws": swept.draws // COPIES[scale.augmentation]})
    plain = {f"T={t:g}": Planned(reference if t == 1 else tempered(swept, t)) for t in scale.temperatures}
    runs = plain | {f"augmented T={t:g}": Planned(augmented if t == 1 else tempered(fewer, t)) for t in scale.temperatures}
    claims = {
        "C3 plain": functools.partial(judge, temperatures=scale.temperatures),
        "C3 augmented": functools.partial(judge_augmented, temperatures=scale.temperatures),
    }
    return Hypothesis("C3", TITLE, SOURCE, __doc__ or "", runs, claims)


def tempered(config: RunConfig, temperature: float) -> RunConfig:
    """Return a run at another temperature, its first step size in proportion to the scale of the draws."""
    assert isinstance(config.sampler, HMC)
    sampler = config.sampler.model_copy(update={"step_size": config.sampler.step_size * math.sqrt(temperature)})
    return config.model_copy(update={"temperature": temperature, "sampler": sampler})


def judge(trees: Mapping[str, xr.DataTree], temperatures: tuple[float, ...]) -> Judgement:
    """Ask whether any temperature predicts better than 1, without augmentation."""
    return judge_at(trees, temperatures, "C3 plain", "T={:g}", no_need, "contradicted")


def judge_augmented(trees: Mapping[str, xr.DataTree], temperatures: tuple[float, ...]) -> Judgement:
    """Ask whether a temperature below 1 predicts better than 1, with augmentation."""
    return judge_at(trees, temperatures, "C3 augmented", "augmented T={:g}", need_of_cold, "supported")


def judge_at(
    trees: Mapping[str, xr.DataTree],
    temperatures: tuple[float, ...],
    claim: str,
    name: str,
    decide: Callable[[Mapping[float, Estimate]], str],
    favoured: str,
) -> Judgement:
    """Judge the gains of temperatures over 1, of runs with these names; short chains at 1 favour one verdict."""
    gains, shares = temperature_gains(trees, temperatures, name)
    apart = {t: chains_disagree(trees[name.format(t)]) for t in temperatures}
    known = without_knowledge(gains, {t: apart[t] or apart[1.0] for t in gains})
    verdict, doubt = settled(decide(known), [trees[name.format(1.0)]], favoured=favoured)
    elsewhere = [f"{t:g}" for t in gains if apart[t]]
    return told(claim, verdict, gains, shares, f" The chains disagree at T = {', '.join(elsewhere)}." * bool(elsewhere) + doubt)


def temperature_gains(
    trees: Mapping[str, xr.DataTree], temperatures: tuple[float, ...], name: str
) -> tuple[dict[float, Estimate], dict[float, float]]:
    """Return what each temperature gains over 1, with intervals that hold together, and how often each is the best."""
    scores = {t: mixture_scores(trees[name.format(t)])["log_score"] for t in temperatures}
    level = simultaneous_level(len(temperatures) - 1)
    gains = {t: paired_gain(scores[t], scores[1.0], level) for t in temperatures if t != 1}
    return gains, dict(zip(temperatures, best_share(list(scores.values())).tolist(), strict=True))


def best_interval(shares: Mapping[float, float]) -> str:
    """Say between which temperatures the best one lies, from how often each is the best."""
    tail = (1 - LEVEL) / 2
    upwards = sorted(shares)
    below = np.cumsum([shares[t] for t in upwards])
    lowest, highest = (upwards[int(np.searchsorted(below, end))] for end in (tail, 1 - tail))
    if lowest == highest:
        return f"T = {lowest:g} ({percent(shares[lowest])} of resamples)"
    return f"T = {lowest:g} to {highest:g} ({percent(LEVEL)} of resamples)"


def no_need(gains: Mapping[float, Estimate]) -> str:
    """Return the verdict on: no temperature gains the margin over 1."""
    losses = {t: Estimate(-gain.value, -gain.upper, -gain.lower) for t, gain in gains.items()}
    if any(non_inferiority(loss) == "contradicted" for t, loss in losses.items() if t < 1):
        return "contradicted"
    return "supported" if all(non_inferiority(loss) == "supported" for loss in losses.values()) else "inconclusive"


def need_of_cold(gains: Mapping[float, Estimate]) -> str:
    """Return the verdict on: a temperature below 1 gains the margin over 1."""
    cold = [gain for t, gain in gains.items() if t < 1]
    if any(gain.lower > MARGIN for gain in cold):
        return "supported"
    return "contradicted" if all(gain.upper < MARGIN for gain in cold) else "inconclusive"


def told(claim: str, verdict: str, gains: Mapping[float, Estimate], shares: Mapping[float, float], doubt: str = "") -> Judgement:
    """Return a verdict about temperatures with what it rests on, and what is in doubt."""
    best = max(gains, key=lambda t: gains[t].value)
    found = gain_sentence(f"The best other temperature, {best:g}, over 1", gains[best], level=simultaneous_level(len(gains)))
    note = f"{found} Of those tried the best is {best_interval(shares)}.{doubt}"
    rows = {f"T = {t:g}": gain for t, gain in gains.items()}
    exhibit = Exhibit(
        "Test log density gained over T = 1 (intervals that hold together); marked are zero and the margin.",
        "nats a point",
        rows,
        (0.0, MARGIN),
    )
    return Judgement(hypothesis(claim, verdict, gains[best], note, MARGIN), (exhibit,))
