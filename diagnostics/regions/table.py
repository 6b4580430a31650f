"""Everything about the regions of a run in one data set, for files and figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from diagnostics.estimates import LEVEL, NUM_RESAMPLES
from diagnostics.regions.claims import resampled_visits
from diagnostics.regions.masses import Masses
from diagnostics.regions.visits import first_entry_shares, shares_by_length, transition_matrix, visit_shares


def regions_table(
    labels: ArrayLike,
    masses: Sequence[Masses],
    *,
    prior_volume: Float[np.ndarray, " region"] | None = None,
    starts: ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> xr.Dataset:
    """Return visits and masses side by side.

    Args:
        labels: [chain, draw] regions of the draws, of 2 or more chains.
        masses: Of all regions, by one or more methods.
        prior_volume: [region] prior probability of each region, which is not its mass.
        starts: [chain] which start each chain had, integers from 0; one and the same by default.
        names: Of the regions; their numbers by default.

    Returns:
        Data set over `region`: `visit_share` with `visit_lower` and `visit_upper` (95 %, whole chains resampled), `chain_share`
        (chain), `mass`, `mass_lower` and `mass_upper` (estimator), `transition` (to: row is from), `first_entry` (start),
        `share_by_length` (length, chain), `prior_volume` if given.

    Raises:
        ValueError: No masses, or parts that do not fit together.
    """
    if not masses:
        raise ValueError("masses of at least one method are needed")
    num_regions = masses[0].share.size
    chain_share = visit_shares(labels, num_regions)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    visit_ends = np.quantile(resampled_visits(labels, num_regions), tails, axis=0).clip(0, 1)
    mass_ends = np.stack([np.quantile(one.resamples, tails, axis=0) for one in masses], 1).clip(0, 1)
    lengths, curves = shares_by_length(labels, num_regions)
    groups = np.zeros(len(chain_share), int) if starts is None else starts
    table = xr.Dataset(
        {
            "visit_share": ("region", chain_share.mean(0)),
            "visit_lower": ("region", visit_ends[0]),
            "visit_upper": ("region", visit_ends[1]),
            "chain_share": (("chain", "region"), chain_share),
            "mass": (("estimator", "region"), np.stack([one.share for one in masses])),
            "mass_lower": (("estimator", "region"), mass_ends[0]),
            "mass_upper": (("estimator", "region"), mass_ends[1]),
            "transition": (("region", "to"), transition_matrix(labels, num_regions)),
            "first_entry": (("start", "region"), first_entry_shares(labels, groups, num_regions)),
            "share_by_length": (("length", "chain", "region"), curves),
        },
        {
            "region": list(names or map(str, range(num_regions))),
            "to": list(names or map(str, range(num_regions))),
            "estimator": [one.method for one in masses],
            "length": lengths,
        },
        {"num_resamples": NUM_RESAMPLES},
    )
    return table if prior_volume is None else table.assign(prior_volume=("region", prior_volume))
