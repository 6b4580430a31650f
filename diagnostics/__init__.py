"""From draws to numbers and verdicts: convergence, energies, predictions, and claims about runs.

Knows no sampler and no network: it reads plain arrays, and runs as `xarray.DataTree` (see `diagnostics.trees`). Names are
imported when they are first used, so that importing the package costs nothing.
"""
# ruff: noqa: F401  (the imports below are for type checkers; `__all__` is made from the table)

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diagnostics.aligned import aligned_summary
    from diagnostics.alignment import Alignment, align
    from diagnostics.claims import Claim, Finding
    from diagnostics.convergence import ess_bulk, ess_mean, ess_tail, ess_within, mcse_mean, rhat, rhat_classic, rhat_split
    from diagnostics.copies import census
    from diagnostics.costs import Efficiency, efficiency
    from diagnostics.energy import bfmi, configurational_temperature, energy_summary, kinetic_temperature
    from diagnostics.estimates import Estimate
    from diagnostics.fidelity import Comparison, compare
    from diagnostics.predictive import predictive_scores
    from diagnostics.standard import HEALTH, HealthClaim, audit, overall
    from diagnostics.stationary import stationary_null
    from diagnostics.summary import TOTAL, scalar_statistics, summarise
    from diagnostics.symmetry import architecture_of, canonical, check_symmetries, shift_of_logits
    from diagnostics.trees import KINDS, check_tree, layer_of, make_tree
    from diagnostics.units import UnitGroup, hidden_layer, mlp_symmetries

_MODULES = {
    "aligned": ("aligned_summary",),
    "alignment": ("Alignment", "align"),
    "claims": ("Claim", "Finding"),
    "convergence": ("ess_bulk", "ess_mean", "ess_tail", "ess_within", "mcse_mean", "rhat", "rhat_classic", "rhat_split"),
    "copies": ("census",),
    "costs": ("Efficiency", "efficiency"),
    "energy": ("bfmi", "configurational_temperature", "energy_summary", "kinetic_temperature"),
    "estimates": ("Estimate",),
    "fidelity": ("Comparison", "compare"),
    "predictive": ("predictive_scores",),
    "standard": ("HEALTH", "HealthClaim", "audit", "overall"),
    "stationary": ("stationary_null",),
    "summary": ("TOTAL", "scalar_statistics", "summarise"),
    "symmetry": ("architecture_of", "canonical", "check_symmetries", "shift_of_logits"),
    "trees": ("KINDS", "check_tree", "layer_of", "make_tree"),
    "units": ("UnitGroup", "hidden_layer", "mlp_symmetries"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
