"""What measures have found on a run, as judgements of a suite."""

from __future__ import annotations

import xarray as xr

from bayesnn.suite.suite import Exhibit, Judgement
from diagnostics.claims import Finding
from diagnostics.estimates import Estimate

BASINS, DIRECTIONS = "basins", "directions"  # measures, and the groups of a tree that hold what they say


def finding_of(tree: xr.DataTree, measure: str, claim: str) -> Finding:
    """Return what a measure has found on a run.

    Raises:
        ValueError: It says nothing about this claim.
    """
    for found in tree[measure].attrs["findings"]:
        if found["claim"] == claim:
            return Finding.from_dict(found)
    raise ValueError(
        f"the measure {measure} has no finding {claim}: an older version made it; delete measures/{measure} in the run's folder, "
        "and run the suite again"
    )


def judgement_of(finding: Finding, label: str, caption: str, unit: str, marks: tuple[float, ...]) -> Judgement:
    """Return a judgement that shows the number of its finding, if that has one with an interval.

    Args:
        finding: On the hypothesis.
        label: Of the number.
        caption: Of its exhibit, with the others, see `Exhibit`.
        unit: Of the axis.
        marks: Places on it that decide.
    """
    if finding.value is None or finding.interval is None:
        return Judgement(finding)
    return Judgement(finding, (Exhibit(caption, unit, {label: Estimate(finding.value, *finding.interval)}, marks),))
