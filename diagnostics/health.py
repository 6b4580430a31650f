"""Checks of the draws and of the sampler: finite, moving, with sound energies, at the right temperature.

Each turns the evidence on one run into a finding and never raises for a bad posterior. Notes are written for a tired reader: what
was measured, against what, what it means, what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from diagnostics.claims import Finding, interval_text, percent
from diagnostics.energy import EnergySummary
from diagnostics.estimates import LEVEL
from diagnostics.evidence import Evidence
from diagnostics.stationary import ALARM

NAMED = 4  # chains named in a note; more are counted
STANDSTILL = 0.25  # share of a chain's steps; at 40 draws and an acceptance of 0.5 a run as long has a chance of 1 in 66
MIN_STEPS = 20  # in fewer steps a few rejections in a row look like a standstill
MIN_SPREAD = 0.1  # modes of one posterior differ in width by small factors, a collapsed step size by orders of magnitude
MAX_DIVERGENT = 0.01  # share of a chain's transitions: each is a rejection where the target is hard to sample
MIN_ACCEPTANCE = 0.2  # HMC then does half of its best work per gradient (efficiency curve of Beskos et al. 2013, arXiv 1001.4460)
MIN_BFMI = 0.3  # Betancourt 2016, arXiv 1604.00695
TEMPERATURE_MARGIN = 0.02  # relative; well below the factors of 1.5 and more by which studies of cold posteriors change it
TEMPERATURE_WIDTH = 0.1  # relative half-width of an interval that is too wide to tell such factors from the noise of a layer


def finite(evidence: Evidence) -> Finding:
    """Check that no draw holds a NaN or an infinite value."""
    bad = evidence.nonfinite
    draws, steps = int(bad.sum()), int(np.sum(evidence.tree.attrs.get("num_nonfinite", 0)))
    if not draws and not steps:
        return Finding("finite", "health", "pass", 0, bound=0, note=f"Of {bad.size:,} draws all are finite.")
    places = [
        f"{row.sum()} of {row.size} of chain {chain} (first at draw {row.argmax()})" for chain, row in enumerate(bad) if row.any()
    ]
    more = f" and of {len(places) - NAMED} more chains" if len(places) > NAMED else ""
    found = f"Draws with NaN or infinite values: {', '.join(places[:NAMED])}{more}. " if draws else ""
    counted = f"The sampler counted {steps:,} steps that ended in a state that is not finite. " if steps else ""
    advice = "No average over such draws means anything: lower the step size, or look for a density that overflows."
    return Finding("finite", "health", "fail", draws or steps, bound=0, note=found + counted + advice)


def chains_move(evidence: Evidence) -> Finding:
    """Check that no chain stands still, and that none creeps while the others move."""
    standstill, spread = evidence.standstill, evidence.relative_spread
    if evidence.num_draws < 2:
        return Finding(
            "chains-move", "health", "inconclusive", note="A single draw does not show whether a chain moves; draw more."
        )
    steps, longest = evidence.num_draws - 1, int(standstill.argmax())
    share = float(standstill[longest])
    stood = f"Chain {longest} did not change a single weight in {share * steps:.0f} consecutive steps of {steps}."
    if share > STANDSTILL and steps < MIN_STEPS:
        note = f"{stood} In so few draws that may be rejections in a row; draw more."
        return Finding("chains-move", "health", "inconclusive", share, bound=STANDSTILL, note=note)
    if share > STANDSTILL:
        note = f"{stood} All these draws are one: lower the step size, or start the chain elsewhere."
        return Finding("chains-move", "health", "fail", share, bound=STANDSTILL, note=note)
    narrowest = int(np.argmin(np.nan_to_num(spread, nan=np.inf)))
    if spread[narrowest] < MIN_SPREAD:
        range_share = percent(spread[narrowest])
        note = (
            f"The weights of chain {narrowest} spread over {range_share} of the range of the other chains (median weight). It "
            "creeps: its step size has collapsed or it is caught in a narrow place. Run it again from elsewhere."
        )
        return Finding("chains-move", "health", "fail", spread[narrowest], bound=MIN_SPREAD, note=note)
    note = f"The longest standstill is {share * steps:.0f} of {steps} steps, in chain {longest}."
    return Finding("chains-move", "health", "pass", share, bound=STANDSTILL, note=note)


class Look(NamedTuple):
    """One of several things that a claim rests on."""

    verdict: str
    value: float
    interval: tuple[float, float] | None
    bound: float
    seen: str
    advice: str


def energy(evidence: Evidence) -> Finding:
    """Check the divergences, the acceptance rate, and whether chains cross the energies of their target."""
    summary = evidence.energy
    looks = [] if summary is None else [look for look in (_bfmi(summary), _divergences(summary), _acceptance(summary)) if look]
    if not looks:
        return Finding(
            "energy", "health", "not applicable", note="The sampler reports no energies, divergences or acceptance rates."
        )
    worst = min(looks, key=lambda look: ("fail", "inconclusive", "pass").index(look.verdict))
    seen = "; ".join(look.seen for look in looks)
    advice = "; ".join(look.advice for look in looks if look.verdict != "pass")
    note = f"{_capitalised(seen)}. {_capitalised(advice)}." if advice else f"{_capitalised(seen)}."
    return Finding("energy", "health", worst.verdict, worst.value, worst.interval, worst.bound, note)


def _divergences(summary: EnergySummary) -> Look | None:
    if (worst := _worst(summary.divergent, np.argmax)) is None:
        return None
    chain, share = worst
    if np.isnan(share):
        return _unknown("share of divergent transitions", chain)
    seen = (
        f"{percent(share)} of the transitions of chain {chain} diverged, the most of any chain"
        if share
        else "no transition diverged"
    )
    verdict = "fail" if share > MAX_DIVERGENT else "pass"
    return Look(verdict, share, None, MAX_DIVERGENT, seen, "lower the step size, for parts of the target are out of its reach")


def _acceptance(summary: EnergySummary) -> Look | None:
    if (worst := _worst(summary.acceptance, np.argmin)) is None:
        return None
    chain, rate = worst
    if np.isnan(rate):
        return _unknown("mean acceptance", chain)
    error = summary.error_largest[chain]
    seen = f"the lowest mean acceptance is {rate:.3g}, in chain {chain}"
    seen += f", with energy errors of up to {error:.3g} nats" if np.isfinite(error) else ""
    verdict = "fail" if rate < MIN_ACCEPTANCE else "pass"
    return Look(verdict, rate, None, MIN_ACCEPTANCE, seen, "lower the step size, for the energy errors are too large")


def _bfmi(summary: EnergySummary) -> Look | None:
    if (worst := _worst(summary.bfmi, np.argmin)) is None:
        return None
    chain, value = worst
    if np.isnan(value):
        return _unknown("energy BFMI", chain)
    # The lowest of several: intervals of all chains hold together with 95 % (Bonferroni).
    half = float(ndtri(1 - (1 - LEVEL) / 2 / len(summary.bfmi)) * summary.bfmi_error[chain])
    verdict = "pass" if value >= MIN_BFMI else "fail" if value + half < MIN_BFMI else "inconclusive"
    seen = f"the lowest energy BFMI is {value:.3g}, in chain {chain}"
    advice = "use longer trajectories or another parametrisation, for energies change too little from draw to draw"
    return Look(verdict, value, (value - half, value + half), MIN_BFMI, seen, advice)


def temperature(evidence: Evidence) -> Finding:
    """Check that the draws are spread as they should be at the nominal temperature.

    Intervals of 95 % are shown, and those fail that leave out the nominal temperature with a false-alarm rate of 0.001.
    """
    nominal = evidence.nominal_temperature
    if evidence.temperatures is None:
        return Finding(
            "temperature", "health", "not applicable", note="The run has no virial, from which the temperature is measured."
        )
    total, layers = evidence.temperatures
    if np.isnan(total).any():
        note = "The temperature cannot be measured: too few draws, or draws that are not finite."
        return Finding("temperature", "health", "inconclusive", bound=nominal, note=note)
    low, high = nominal * (1 - TEMPERATURE_MARGIN), nominal * (1 + TEMPERATURE_MARGIN)
    surely = evidence.temperatures_at(1 - ALARM)
    assert surely is not None
    off = {name: layers[name] for name, layer in surely[1].items() if layer.upper < low or layer.lower > high}
    note = f"The configurational temperature is {interval_text(*total)}; nominally it is {nominal:g}."
    if evidence.kinetic is not None:
        note += f" That of the momenta is {interval_text(*evidence.kinetic)}."
    if surely[0].upper < low or surely[0].lower > high or off:
        verdict = "fail"
        if off:
            name = max(off, key=lambda name: abs(off[name].value - nominal))
            note += f" Layers outside their noise: {len(off)} of {len(layers)}, {name} furthest with {off[name].value:.3g}."
        margin = percent(TEMPERATURE_MARGIN)
        note += f" That is off by more than {margin}: lower the step size, enlarge the minibatch, or drop more of the start."
    elif total.upper - total.lower > 2 * TEMPERATURE_WIDTH * nominal:
        verdict, note = "inconclusive", note + " The interval is too wide to tell; draw more."
    else:
        verdict, note = "pass", note + f" No layer of {len(layers)} is off by more than its noise."
    return Finding("temperature", "health", verdict, total.value, (total.lower, total.upper), nominal, note)


def _worst(values: Float[np.ndarray, " chain"], choose: Callable[..., np.intp]) -> tuple[int, float] | None:
    """Return the worst chain and its value, first of all one whose value is not known; None if no chain has any."""
    unknown = np.isnan(values)
    if unknown.all():
        return None
    chain = int(np.argmax(unknown) if unknown.any() else choose(values))
    return chain, float(values[chain])


def _unknown(what: str, chain: int) -> Look:
    seen = f"the {what} of chain {chain} cannot be computed, that of others can"
    return Look("inconclusive", np.nan, None, np.nan, seen, "see the claims finite and chains-move")


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
