"""Runs whose chains disagree in function space, or have hardly moved: what predicts there is no posterior.

Nothing about a posterior follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import xarray as xr

from diagnostics.claims import Finding
from diagnostics.estimates import Estimate
from diagnostics.evidence import Evidence
from diagnostics.mixing import enough_draws, functions_converge

# Effective draws a chain, below which it still remembers where it began: after a warm-up of half as many steps as there are draws
# exp(-5 / 2), 8 %, of that is left in the first draw.
FEWEST = 5.0


def audited(tree: xr.DataTree, check: Callable[[Evidence], Finding], claim: str) -> Finding:
    """Return what the audit of a run found by a check, whose claim this is; it is made now where there is none."""
    known = (Finding.from_dict(one) for one in tree.attrs.get("audit", ()))
    return next((one for one in known if one.claim == claim), None) or check(Evidence(tree))


def agreement(tree: xr.DataTree) -> Finding:
    """Return what is known of a run's chains in function space."""
    return audited(tree, functions_converge, "functions-converge")


def few_draws(tree: xr.DataTree) -> str:
    """Return what is known of a run's effective draws, where they are so few that its chains remember where they began."""
    found = audited(tree, enough_draws, "enough-draws")
    return "" if found.value is not None and found.value >= FEWEST else found.note


def chains_disagree(tree: xr.DataTree) -> bool:
    """Tell whether the chains of a run are shown to predict different things."""
    return agreement(tree).verdict == "fail"


def without_knowledge[K](gains: Mapping[K, Estimate], apart: Mapping[K, bool]) -> dict[K, Estimate]:
    """Return gains, those of runs whose chains disagree as if they might be anything."""
    return {key: Estimate(gain.value, -math.inf, math.inf) if apart[key] else gain for key, gain in gains.items()}


def settled(verdict: str, runs: Sequence[xr.DataTree], favoured: str = "") -> tuple[str, str]:
    """Return a verdict as far as the chains of HMC allow it.

    Where they are shown to disagree, or have hardly left where they began, it is not the posterior that predicts, and nothing is
    decided: chains that still are where they began may predict better than it, as MAP estimates do on digits. Where they are too
    short to tell, the verdict that short chains favour is not to be had: fewer draws of a posterior predict worse than more of
    them do, and lie farther from it.

    Args:
        verdict: What it would be if all chains agreed.
        runs: Those of HMC on which it rests.
        favoured: The verdict that short chains favour; none by default.

    Returns:
        The verdict; and a sentence on why it is inconclusive, with a space before it, or nothing if the chains allow it.
    """
    found = [agreement(tree) for tree in runs]
    doubts = {
        "do not agree": [one.note for one in found if one.verdict == "fail"],
        "have hardly left where they began": list(filter(None, map(few_draws, runs))),
        "are not known to agree": [one.note for one in found if one.verdict != "pass" and verdict == favoured],
    }
    for words, notes in doubts.items():
        if notes:
            return "inconclusive", f" But the chains of HMC {words} ({len(notes)} of {len(found)} runs): {notes[0]}"
    return verdict, ""
