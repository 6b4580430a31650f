"""The health claims that every audit makes, and what they add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from diagnostics import copies, health, mixing
from diagnostics.claims import Claim, Finding
from diagnostics.evidence import Evidence
from diagnostics.trees import KINDS

MARKOV = ("mcmc", "sgmcmc", "unadjusted")  # kinds of runs that have a history


@dataclass(frozen=True)
class HealthClaim:
    """A claim about a single run; called with one run by name, like any claim.

    Attributes:
        name: Its name, as in findings.
        description: One line.
        check: From the evidence on a run to the finding.
        required: Whether the run must pass for an audit to succeed.
        kinds: Kinds of runs that it applies to, keys of `trees.KINDS`; for others it is not applicable.
    """

    name: str
    description: str
    check: Callable[[Evidence], Finding]
    required: bool = True
    kinds: tuple[str, ...] = MARKOV

    def judge(self, evidence: Evidence) -> Finding:
        """Return the finding on a run."""
        if evidence.kind not in self.kinds:
            note = f"This claim is not about {KINDS[evidence.kind]}."
            return Finding(self.name, "health", "not applicable", note=note)
        with np.errstate(all="ignore"):  # draws that are not finite or overflow end in a verdict, not in a warning
            return self.check(evidence)

    def __call__(self, runs: Mapping[str, xr.DataTree]) -> Finding:
        """Return the finding on the only run of `runs`.

        Raises:
            ValueError: Not exactly one run.
        """
        if len(runs) != 1:
            raise ValueError(f"the health claim {self.name} is about a single run, got {len(runs)}: {', '.join(runs)}")
        return self.judge(Evidence(next(iter(runs.values()))))


HEALTH: dict[str, HealthClaim] = {
    claim.name: claim
    for claim in (
        HealthClaim("finite", "No draw holds a NaN or an infinite value", health.finite, kinds=tuple(KINDS)),
        HealthClaim("chains-move", "No chain stands still or creeps", health.chains_move),
        HealthClaim("energy", "Divergences, acceptance and energy exchange are sound", health.energy, kinds=("mcmc",)),
        HealthClaim("temperature", "The draws are spread as at the nominal temperature", health.temperature),
        HealthClaim("enough-draws", "Each chain has 100 effective draws in function space", mixing.enough_draws),
        HealthClaim("functions-converge", "Chains agree in function space up to their noise", mixing.functions_converge),
        HealthClaim(
            "weights-converge", "Chains agree in weight space up to their noise", mixing.weights_converge, required=False
        ),
        HealthClaim(copies.CLAIM, "Symmetric copies are visited equally often", copies.copies_visited_equally, required=False),
    )
}


def audit(
    tree: xr.DataTree, claims: Iterable[Claim] = tuple(HEALTH.values()), *, summary: xr.DataTree | None = None
) -> list[Finding]:
    """Judge a run by claims.

    Args:
        tree: The run, see `diagnostics.trees`.
        claims: Health claims share what they measure; others get the run by its name.
        summary: `summarise(tree)`, if at hand; saves computing it again.

    Returns:
        One finding a claim, in their order. A bad posterior (NaN draws, one chain, one draw, missing groups) is a verdict.

    Raises:
        ValueError: The tree is not one of a run.
    """
    evidence = Evidence(tree, summary)
    runs = {str(tree.attrs.get("name", "run")): tree}
    return [claim.judge(evidence) if isinstance(claim, HealthClaim) else claim(runs) for claim in claims]


def required(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that decide about a run.

    Health claims that are not required and hypotheses do not; health claims that are not in `HEALTH` do. In a run without
    functions, averages of the weights themselves are what the draws are for, and the claim about those counts in the place of
    the one about functions.
    """
    given = list(findings)
    names = {name for name, claim in HEALTH.items() if claim.required}
    if any((finding.claim, finding.verdict) == ("functions-converge", "not applicable") for finding in given):
        names.add("weights-converge")
    return [one for one in given if one.kind == "health" and (one.claim not in HEALTH or one.claim in names)]


def overall(findings: Iterable[Finding]) -> str:
    """Return what findings add up to: "fail" before "inconclusive" before "pass".

    Only those that are `required` count. What is not applicable does not count; an audit of nothing else is a pass.
    """
    verdicts = {finding.verdict for finding in required(findings)}
    return next((verdict for verdict in ("fail", "inconclusive") if verdict in verdicts), "pass")
