r"""Which part of bad R-hat is resonance: trajectories of one length that come back to where they began.

A direction of standard deviation s oscillates with period :math:`2 \pi s`. Trajectories of half a period, or of a whole one,
map it onto itself or its mirror image, however often they are drawn, and its chains never mix, even on an exact Gaussian. Jitter
of the length cures it; basins it does not cure. So before bad R-hat is put down to basins, chains are run both ways.

References:
    Mackenzie 1989, Biometrika 76; Neal 2011, arXiv 1206.1901, section 3.2. The interval of a paired difference of shares: Agresti
    & Min 2005, Statistics in Medicine 24.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from scipy.special import betaincinv, ndtri

from diagnostics.claims import Finding, percent
from diagnostics.convergence import Draws
from diagnostics.estimates import LEVEL
from diagnostics.mixing import MIN_ESS
from diagnostics.stationary import THRESHOLDS
from diagnostics.summary import TOTAL, Part, layer_table

HELD = 1.1  # the threshold that the finding is about: few stationary chains pass it
LEAST = 0.01  # share of directions; as the margin of the claims on convergence


def resonance_table(fixed: Mapping[str, Draws], jittered: Mapping[str, Draws]) -> xr.Dataset:
    """Hold the R-hats of chains of fixed trajectories against those of jittered ones.

    Args:
        fixed: Draws (chain, draw, ...) by kind of direction (weights, leading directions, functions), from trajectories of one
            length.
        jittered: The same from the same starts with jittered lengths.

    Returns:
        Dataset over `direction` (the kinds), `trajectory` ("fixed", "jittered") and `threshold`:

        - `share`, `share_lower`, `share_upper`: share of scalars with a rank R-hat above the threshold, with its 95 % interval
          (Jeffreys, for as many independent scalars as these are worth);
        - `ess_within_low`: effective draws a chain that 95 % of the scalars reach;
        - `share_expected`, `share_largest`: what stationary chains as slow as these show, on average and at most;
        - `removed`, `removed_lower`, `removed_upper`: share that jitter takes away, fixed less jittered, paired by scalar; and
        - `removed_of_bad`: the same over the share with fixed trajectories; NaN where that is 0.

    Raises:
        ValueError: Different kinds of directions or shapes.
    """
    if fixed.keys() != jittered.keys():
        raise ValueError(f"both need the same directions, got {', '.join(fixed)} and {', '.join(jittered)}")
    rows = [_row(name, np.asarray(fixed[name]), np.asarray(jittered[name])) for name in fixed]
    return xr.concat(rows, "direction").assign_coords(direction=list(fixed), threshold=list(THRESHOLDS))


def _row(name: str, fixed: Draws, jittered: Draws) -> xr.Dataset:
    if fixed.shape != jittered.shape:
        raise ValueError(f"{name}: fixed draws have shape {fixed.shape}, jittered ones {jittered.shape}; run both alike")
    parts = [Part.of(draws) for draws in (fixed, jittered)]
    tables = [layer_table({name: part}, fixed.shape[1]).sel(layer=TOTAL) for part in parts]
    effective = np.array([float(table["num_effective"]) for table in tables])
    is_live = np.logical_and(*(np.isfinite(part.statistics.mean) & (part.statistics.sd > 0) for part in parts))
    above = [part.statistics.rhat[is_live, None] > THRESHOLDS for part in parts]
    share = np.array([flags.mean(0) for flags in above])
    lower, upper = _jeffreys(share, effective[:, None])
    removed = share[0] - share[1]
    # Half a scalar is added to each of the four cells, after Agresti & Min 2005, and scalars count as independent ones.
    size = effective.min() + 2
    gone, come = (((flags.mean(0) * effective.min()) + 0.5) / size for flags in (above[0] & ~above[1], above[1] & ~above[0]))
    half = ndtri((1 + LEVEL) / 2) * np.sqrt((gone + come - (gone - come) ** 2) / size)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_bad = np.where(share[0] > 0, removed / share[0], np.nan)
    both = ("trajectory", "threshold")
    return xr.Dataset(
        {
            "share": (both, share),
            "share_lower": (both, lower),
            "share_upper": (both, upper),
            "share_expected": (both, np.array([table["share_expected"].values for table in tables])),
            "share_largest": (both, np.array([table["share_largest"].values for table in tables])),
            "ess_within_low": ("trajectory", [float(table["ess_within_low"]) for table in tables]),
            "removed": ("threshold", removed),
            "removed_lower": ("threshold", np.maximum(gone - come - half, -1)),
            "removed_upper": ("threshold", np.minimum(gone - come + half, 1)),
            "removed_of_bad": ("threshold", of_bad),
        },
        {"trajectory": ["fixed", "jittered"]},
    )


def _jeffreys(share: np.ndarray, size: np.ndarray) -> Sequence[np.ndarray]:
    lower, upper = (betaincinv(size * share + 0.5, size * (1 - share) + 0.5, end) for end in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return np.where(share > 0, lower, 0), np.where(share < 1, upper, 1)


def resonance_finding(table: xr.Dataset, direction: str) -> Finding:
    """Say which share of bad R-hat resonance explains: the hypothesis that trajectories of this length resonate.

    It is not applicable where no R-hat is bad with trajectories of one length: there is nothing to explain.

    Args:
        table: From `resonance_table`.
        direction: The kind of directions that the finding is about.
    """
    row = table.sel(direction=direction, threshold=HELD)
    removed, lower, upper = (float(row[name]) for name in ("removed", "removed_lower", "removed_upper"))
    fixed, jittered = (row.sel(trajectory=name) for name in ("fixed", "jittered"))
    note = (
        f"Of the {direction}, {percent(float(fixed['share']))} have an R-hat above {HELD} with trajectories of one length and "
        f"{percent(float(jittered['share']))} with jittered ones (stationary chains as slow as these: at most "
        f"{percent(float(fixed['share_largest']))} and {percent(float(jittered['share_largest']))})."
    )
    if float(fixed["share"]) == 0:
        return Finding("resonance", "hypothesis", "not applicable", bound=LEAST, note=f"{note} There is nothing to explain.")
    if lower > LEAST:
        left = float(row["removed_of_bad"])
        verdict, meaning = "supported", f"Jitter removes {percent(left)} of the bad ones: do not put those down to basins."
    elif float(jittered["ess_within_low"]) < MIN_ESS:
        verdict = "inconclusive"
        meaning = f"Jittered chains have fewer than {MIN_ESS:.0f} effective draws each, which may hide it: draw more."
    elif upper < LEAST:
        verdict, meaning = "contradicted", "Jitter removes none of it to speak of."
    else:
        verdict, meaning = "inconclusive", "The interval of what jitter removes is too wide: run longer (--draws, --chains)."
    return Finding("resonance", "hypothesis", verdict, removed, (lower, upper), LEAST, f"{note} {meaning}")
