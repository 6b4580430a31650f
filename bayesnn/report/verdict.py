"""Can these draws be trusted, and for what? The findings of an audit in one sentence, and one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bayesnn.notation import MISSING, Interval, interval, number, share
from diagnostics.claims import VERDICTS, Finding
from diagnostics.estimates import Estimate
from diagnostics.standard import HEALTH, overall, required

SHARES = ("chains-move", "functions-converge", "weights-converge", "resonance")  # claims whose value is a share
STYLES = {"supported": "pass", "contradicted": "fail"}  # verdicts on hypotheses look like those on health

# Why draws cannot be trusted, gravest first; what is not named here is named by its claim.
FAILED = {
    "finite": "some are not finite",
    "chains-move": "a chain stands still or creeps",
    "energy": "the energies of the sampler are not sound",
    "temperature": "they are not spread as at the nominal temperature",
    "functions-converge": "the chains predict different things",
    "weights-converge": "the chains disagree",  # where there are no predictions
}
UNDECIDED = {
    "enough-draws": "there are too few effective draws to tell whether the chains agree",
    "functions-converge": "whether the chains agree cannot be told",
    "chains-move": "whether the chains move cannot be told",
    "energy": "whether energies are crossed cannot be told",
    "temperature": "the temperature cannot be told from its noise",
    "weights-converge": "whether the chains agree cannot be told",
}
WEIGHTS = {
    "pass": "Trust the predictions; single weights agree between chains, too.",
    "fail": "Trust the predictions; do not trust single weights.",
    "inconclusive": "Trust the predictions; whether single weights agree cannot be told yet.",
    "not applicable": "Trust the predictions.",
}
WEIGHTS_ALONE = {  # of a density without predictions
    "pass": "Trust averages over these draws: the chains agree.",
    "not applicable": "No check that applies fails; whether the chains agree was not checked.",
}
CAVEATS = {
    "mcmc": "Agreement of chains is evidence, not proof: a mode that no chain has found leaves no trace here.",
    "sgmcmc": "Stochastic gradients bias the draws by the step size; the temperature shows one part of that bias. "
    "A mode that no chain has found leaves no trace here.",
    "unadjusted": "Without an accept step the draws are biased by the step size; the temperature shows one part of that bias. "
    "A mode that no chain has found leaves no trace here.",
    "ensemble": "Convergence, energies and temperatures say nothing about members of an ensemble; their spread is no posterior.",
    "approximation": "Convergence says nothing about independent draws, and how well the approximation fits is not tested here.",
}


class Headline(NamedTuple):
    """The answer in five seconds.

    Attributes:
        verdict: Of the whole: pass, fail or inconclusive; not applicable to what are no chains.
        sentence: What the draws can be trusted for.
        tally: How many of the required checks say so.
        caveat: What no check of this page can see.
    """

    verdict: str
    sentence: str
    tally: str
    caveat: str


def headline(findings: Sequence[Finding], kind: str) -> Headline:
    """Return what findings add up to, in words.

    Args:
        findings: Of an audit.
        kind: Of the run, a key of `diagnostics.KINDS`.
    """
    verdict, sentence = _judgement(findings, {finding.claim: finding.verdict for finding in findings}, kind)
    return Headline(verdict, sentence, _tally(required(findings)), CAVEATS[kind])


def _judgement(findings: Sequence[Finding], verdicts: dict[str, str], kind: str) -> tuple[str, str]:
    weights, functions = (verdicts.get(claim, "not applicable") for claim in ("weights-converge", "functions-converge"))
    verdict, decisive = overall(findings), required(findings)
    if verdict == "fail":
        return verdict, f"Do not trust these draws: {_gravest(decisive, 'fail', FAILED, 'the check {} fails')}."
    if verdict == "inconclusive":
        reason = _gravest(decisive, "inconclusive", UNDECIDED, "the check {} is inconclusive")
        disagree = "; single weights already disagree" if weights == "fail" else ""
        return verdict, f"Do not rely on these draws yet: {reason}{disagree}."
    if kind == "ensemble":
        return "not applicable", "Members of an ensemble, no draws of a posterior: judge their predictions, not their spread."
    if kind == "approximation":
        return "not applicable", "Draws of an approximation to the posterior: judge the predictions, not the spread."
    if functions == "not applicable":
        return verdict, WEIGHTS_ALONE[weights]
    return verdict, WEIGHTS[weights]


def _gravest(findings: Sequence[Finding], verdict: str, words: dict[str, str], otherwise: str) -> str:
    claims = [finding.claim for finding in findings if finding.verdict == verdict]
    return next((words[claim] for claim in words if claim in claims), otherwise.format(claims[0]))


def _tally(decisive: Sequence[Finding]) -> str:
    counts = {verdict: sum(finding.verdict == verdict for finding in decisive) for verdict in VERDICTS["health"]}
    named = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return f"Required checks: {named or 'none'}."


@dataclasses.dataclass(frozen=True)
class Row:
    """A finding as the page shows it.

    Attributes:
        claim: Name of the claim.
        description: The claim in plain words.
        kind: "required", "reported" or "hypothesis".
        verdict: In words.
        style: Badge: pass, fail, inconclusive or not applicable.
        value: With its interval.
        bound: What it was held against; empty where there is no value, or nothing to hold it against.
        note: The finding in sentences.
    """

    claim: str
    description: str
    kind: str
    verdict: str
    style: str
    value: Interval
    bound: str
    note: str


def rows(findings: Iterable[Finding]) -> list[Row]:
    """Return findings as the page shows them: required claims first, then reported ones, then hypotheses."""
    given = list(findings)
    decisive = required(given)
    shown = [dataclasses.replace(row_of(one), kind="required") if one in decisive else row_of(one) for one in given]
    return sorted(shown, key=lambda row: ("required", "reported", "hypothesis").index(row.kind))


def row_of(finding: Finding) -> Row:
    """Return a finding as the page shows it."""
    is_share = finding.claim in SHARES
    write = share if is_share else number
    value = Interval(write(finding.value), "")
    if finding.value is not None and finding.interval is not None:
        value = interval(Estimate(finding.value, *finding.interval), unit=0.01 if is_share else 1)
        value = Interval(f"{value.value} %", f"{value.ends} %") if is_share else value
    return Row(
        claim=finding.claim,
        description=HEALTH[finding.claim].description if finding.claim in HEALTH else finding.claim,
        kind="hypothesis" if finding.kind == "hypothesis" else "reported",
        verdict=finding.verdict,
        style=STYLES.get(finding.verdict, finding.verdict),
        value=value,
        bound="" if MISSING in (write(finding.value), write(finding.bound)) else write(finding.bound),
        note=finding.note,
    )
