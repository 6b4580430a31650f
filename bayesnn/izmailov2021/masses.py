"""Masses of the regions of a small network, from what the measure `basins` keeps of the systems that weighed them."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float

from diagnostics.regions import Masses, masses_from_systems, visit_shares


def found_by_system(basins: xr.DataTree) -> dict[str, Float[np.ndarray, "system region"]]:
    """Return what each independent system found in each region, by method, in one unit for all systems of a method.

    Of tempered SMC it is evidence times weight, of parallel tempering the share of a ladder's draws.
    """
    particles, replicas, evidence = (basins[name].to_dataset() for name in ("particles", "replicas", "evidence"))
    num_regions = basins["regions"].sizes["region"]
    weights, log_evidence = np.exp(particles["log_weight"].values.astype(float)), evidence["by_system"].values.astype(float)
    systems = zip(particles["label"].values, weights, strict=True)
    shares = [np.bincount(labels, of_particles, num_regions) for labels, of_particles in systems]
    return {
        "tempered SMC": np.exp(log_evidence - log_evidence.max())[:, None] * np.stack(shares),
        "parallel tempering": visit_shares(replicas["label"].values, num_regions),
    }


def masses_of(basins: xr.DataTree) -> list[Masses]:
    """Return the masses by tempered SMC and by parallel tempering, with their errors."""
    return [masses_from_systems(method, found) for method, found in found_by_system(basins).items()]
