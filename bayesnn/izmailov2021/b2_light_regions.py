"""B2: chains visit regions of low mass more often than their mass deserves.

Run: HMC on a small network; regions fixed on a pilot of tempered SMC that is used for nothing else, regions without visits kept;
their masses by further tempered SMC and by parallel tempering (`bayesnn measure FOLDER basins`).

Compared: visits a unit of mass by one method go as a power of the mass by the other; whole chains are resampled, and the masses
moved by their errors. One estimate in both roles would find the effect in pure noise.

Decides: supported if the interval of the power lies below 0 (light regions over-visited, however little); else contradicted if
it lies above -0.1; inconclusive otherwise, and where the regions' masses do not span a factor of 2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import xarray as xr

from bayesnn.izmailov2021.measured import BASINS, finding_of, judgement_of
from bayesnn.izmailov2021.scales import Scale
from bayesnn.suite.suite import Hypothesis, Judgement
from diagnostics.regions.claims import SLOPE

TITLE = "Low-mass regions are over-visited"
SOURCE = "the critique of Izmailov et al. 2021"


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    return Hypothesis("B2", TITLE, SOURCE, __doc__ or "", {"network": scale.weighed()}, {"B2": judge})


def judge(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Say what the measure of basins has found."""
    found = finding_of(trees["network"], BASINS, "light-regions-over-visited")
    caption = "Power of the mass with which visits a unit of mass go; left of zero light regions are visited too often."
    return judgement_of(dataclasses.replace(found, claim="B2"), "visits by mass", caption, "power", (0.0, -SLOPE))
