"""Checks of convergence: do the chains agree as far as their own noise allows, and are there enough draws to tell?

Notes are written for a tired reader: what was measured, against what, what it means, what to do.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.special import betaincinv

from diagnostics.claims import Finding, percent
from diagnostics.convergence import MIN_DRAWS
from diagnostics.estimates import LEVEL
from diagnostics.evidence import Evidence
from diagnostics.stationary import THRESHOLDS

MIN_ESS = 100.0  # effective draws a chain: Vehtari et al. 2021, arXiv 1903.08008
MARGIN = 0.01  # share of scalars, over what a stationary process shows at most, that is too small to act on


def functions_converge(evidence: Evidence) -> Finding:
    """Check that the chains agree in function space."""
    return _converge("functions-converge", "function values", evidence, evidence.functions)


def weights_converge(evidence: Evidence) -> Finding:
    """Check that the chains agree in weight space, where symmetries and basins keep apart chains that predict the same."""
    return _converge("weights-converge", "weights", evidence, evidence.weights)


def enough_draws(evidence: Evidence) -> Finding:
    """Check that there are enough effective draws a chain in function space for verdicts on convergence to mean something."""
    table = evidence.functions
    if table is None:
        return Finding("enough-draws", "health", "not applicable", note="The run has no functions.")
    ess, num_draws = effective_draws(table), evidence.num_draws
    if np.isnan(ess):
        note = f"No function value is finite, changes, and has {MIN_DRAWS} draws a chain; effective draws cannot be counted."
        return Finding("enough-draws", "health", "inconclusive", bound=MIN_ESS, note=note)
    slowest = int(table["ess_within_median"].values.argmin())
    low, median = float(table["ess_within_low"]), float(table["ess_within_median"][slowest])
    note = (
        f"Of {num_draws} draws a chain, {low:.0f} or more are effective for 95 % of the function values (mean over chains), and "
        f"{median:.0f} for the median one in the slowest chain, {slowest}."
    )
    if ess >= MIN_ESS:
        return Finding("enough-draws", "health", "pass", ess, bound=MIN_ESS, note=note)
    note += f" Verdicts on convergence need {MIN_ESS:.0f}: {_remedy(ess)}."
    return Finding("enough-draws", "health", "inconclusive", ess, bound=MIN_ESS, note=note)


def effective_draws(table: xr.Dataset) -> float:
    """Return the effective draws a chain that 95 % of the scalars reach and that the slowest chain has for the median scalar."""
    return float(np.minimum(table["ess_within_low"], table["ess_within_median"].min()))


def _remedy(ess: float) -> str:
    if ess > 1:
        return f"draw about {MIN_ESS / ess:.2g} times as many"
    return "a chain hardly moves, so look at the sampler first"


def _converge(claim: str, what: str, evidence: Evidence, table: xr.Dataset | None) -> Finding:
    if table is None:
        return Finding(claim, "health", "not applicable", note=f"The run has no {what}.")
    if (early := _undecidable(claim, what, evidence, table)) is not None:
        return early
    ess = effective_draws(table)
    gross, gross_bound = float(table["gross_share"]), float(table["gross_largest"]) + MARGIN
    if ess < MIN_ESS and gross > gross_bound:
        note = (
            f"For {percent(gross)} of the {what} the means of the chains are several times as far apart as their own movement "
            f"explains (stationary chains: at most {percent(gross_bound - MARGIN)}). Effective draws are few, {ess:.0f} a chain, "
            "but slow mixing does not look like this: some chains are somewhere else. Find out what keeps them apart."
        )
        return Finding(claim, "health", "fail", gross, share_interval(gross, table), gross_bound, note)
    bounds = np.minimum(table["share_largest"].values + MARGIN, 1)
    beyond = table["share"].values > bounds
    shown = int(np.argmax(beyond))  # the first threshold that is passed too often, else the first
    value, bound = float(table["share"][shown]), float(bounds[shown])
    if ess < MIN_ESS:
        verdict = "inconclusive"
        meaning = f"With {ess:.0f} effective draws a chain, where {MIN_ESS:.0f} are needed, that settles nothing: {_remedy(ess)}."
    elif beyond.any():
        verdict = "fail"
        meaning = "The chains do not sample the same distribution: run longer, or find out what keeps them apart."
    else:
        verdict, meaning = "pass", "The chains agree as far as their own noise lets one see."
    note = f"{_shares(what, table)} {meaning}"
    return Finding(claim, "health", verdict, value, share_interval(value, table), bound, note)


def _shares(what: str, table: xr.Dataset) -> str:
    rows = zip(THRESHOLDS, *(table[name].values for name in ("share", "share_expected", "share_largest")), strict=True)
    shares = " and ".join(
        f"{percent(share)} have an R-hat above {threshold} (stationary chains as slow as these: {percent(expected)}, at most "
        f"{percent(largest)})"
        for threshold, share, expected, largest in rows
    )
    return f"Of {int(table['num_scalars'] - table['num_constant']):,} {what} {shares}."


def _undecidable(claim: str, what: str, evidence: Evidence, table: xr.Dataset) -> Finding | None:
    """Return the finding for draws that convergence statistics say nothing about."""
    count, nonfinite, constant = (int(table[name]) for name in ("num_scalars", "num_nonfinite", "num_constant"))
    if nonfinite:
        note = f"{nonfinite:,} of {count:,} {what} are NaN or infinite in some draws; see the claim finite."
        return Finding(claim, "health", "fail", nonfinite / count, bound=0, note=note)
    if evidence.num_chains < 2:
        note = "One chain cannot show that chains agree; run at least two, better four."
    elif evidence.num_draws < MIN_DRAWS:
        note = f"Statistics of convergence need at least {MIN_DRAWS} draws a chain, got {evidence.num_draws}; draw more."
    elif constant == count:
        note = f"None of the {what} changes from draw to draw, so there is nothing to compare."
    else:
        return None
    return Finding(claim, "health", "inconclusive", note=note)


def share_interval(share: float, table: xr.Dataset) -> tuple[float, float]:
    """Return Jeffreys' interval of a share of as many independent scalars as these are worth."""
    size = float(table["num_effective"])
    lower, upper = betaincinv(size * share + 0.5, size * (1 - share) + 0.5, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return (float(lower) if share > 0 else 0.0), (float(upper) if share < 1 else 1.0)
