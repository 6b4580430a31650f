"""Runs whose chains disagree in function space: what predicts there is no posterior, and nothing about one follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import xarray as xr

from diagnostics.claims import Finding
from diagnostics.estimates import Estimate
from diagnostics.evidence import Evidence
from diagnostics.mixing import functions_converge


def agreement(tree: xr.DataTree) -> Finding:
    """Return what the audit of a run found of its chains in function space; it is made now where there is none."""
    audited = (Finding.from_dict(one) for one in tree.attrs.get("audit", ()))
    return next((one for one in audited if one.claim == "functions-converge"), None) or functions_converge(Evidence(tree))


def chains_disagree(tree: xr.DataTree) -> bool:
    """Tell whether the chains of a run are shown to predict different things."""
    return agreement(tree).verdict == "fail"


def without_knowledge[K](gains: Mapping[K, Estimate], apart: Mapping[K, bool]) -> dict[K, Estimate]:
    """Return gains, those of runs whose chains disagree as if they might be anything."""
    return {key: Estimate(gain.value, -math.inf, math.inf) if apart[key] else gain for key, gain in gains.items()}


def settled(verdict: str, runs: Sequence[xr.DataTree], favoured: str = "") -> tuple[str, str]:
    """Return a verdict as far as the chains of HMC allow it.

    Where they are shown to disagree it is not the posterior that predicts, and nothing is decided. Where they are too short to
    tell, the verdict that short chains favour is not to be had: fewer draws of a posterior predict worse than more of them do,
    and lie farther from it.

    Args:
        verdict: What it would be if all chains agreed.
        runs: Those of HMC on which it rests.
        favoured: The verdict that short chains favour; none by default.

    Returns:
        The verdict; and a sentence on why it is inconclusive, with a space before it, or nothing if the chains allow it.
    """
    found = [agreement(tree) for tree in runs]
    apart = [one for one in found if one.verdict == "fail"]
    unknown = [one for one in found if one.verdict != "pass"] if verdict == favoured else []
    if not (doubtful := apart or unknown):
        return verdict, ""
    words = "do not agree" if apart else "are not known to agree"
    return "inconclusive", f" But the chains of HMC {words} ({len(doubtful)} of {len(found)} runs): {doubtful[0].note}"
