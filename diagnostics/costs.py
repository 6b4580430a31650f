"""What an effective draw costs, in full-data gradients and in seconds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from diagnostics.summary import TOTAL


class Efficiency(NamedTuple):
    """Effective draws of the median scalar, all chains together; NaN where the run does not know its cost.

    Attributes:
        ess: Median bulk effective sample size.
        per_gradient: The same over the number of full-data gradients of the sampling phase.
        per_second: The same over its wall time.
    """

    ess: float
    per_gradient: float
    per_second: float


def efficiency(summary: xr.DataTree) -> dict[str, Efficiency]:
    """Compute effective draws per gradient and per second, of the functions and of the weights.

    The median over scalars, because the slowest of thousands is mostly noise. Chains that disagree have few effective draws in
    this count, as they should.

    Args:
        summary: From `diagnostics.summarise`.

    Returns:
        Efficiency by group, `posterior` and `functions`, as far as the run has them.
    """
    result = {}
    for group in [name for name in ("functions", "posterior") if name in summary.children]:
        ess = float(summary[f"{group}_layers"].to_dataset().sel(layer=TOTAL)["ess_bulk_median"])
        costs = (float(summary.attrs.get(cost) or np.nan) for cost in ("gradients", "seconds"))
        result[group] = Efficiency(ess, *(ess / cost for cost in costs))
    return result
