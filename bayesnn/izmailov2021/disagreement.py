"""Runs whose chains disagree in function space: what predicts there is no posterior, and nothing about one follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import xarray as xr

from diagnostics.estimates import Estimate
from diagnostics.evidence import Evidence
from diagnostics.mixing import functions_converge


def chains_disagree(tree: xr.DataTree) -> bool:
    """Tell whether the chains of a run are shown to predict different things."""
    return functions_converge(Evidence(tree)).verdict == "fail"


def without_knowledge[K](gains: Mapping[K, Estimate], apart: Mapping[K, bool]) -> dict[K, Estimate]:
    """Return gains, those of runs whose chains disagree as if they might be anything."""
    return {key: Estimate(gain.value, -math.inf, math.inf) if apart[key] else gain for key, gain in gains.items()}
