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
    from diagnostics.chainwise import Variances, chain_variances, ess_indicator, rhat_between, rhat_chainwise
    from diagnostics.claims import Claim, Finding
    from diagnostics.convergence import ess_bulk, ess_mean, ess_tail, ess_within, mcse_mean, rhat, rhat_classic, rhat_split
    from diagnostics.copies import census
    from diagnostics.costs import Efficiency, efficiency
    from diagnostics.directions import NullSpread, along_leading, image_patches, null_directions, null_finding, null_spread
    from diagnostics.energy import bfmi, configurational_temperature, energy_summary, kinetic_temperature
    from diagnostics.estimates import Estimate
    from diagnostics.fidelity import Comparison, compare
    from diagnostics.floor import Fidelity, Floor, Prefixes, fidelity_to, prefixes
    from diagnostics.nested import rhat_nested
    from diagnostics.ood import auroc, auroc_difference
    from diagnostics.predictive import Histogram, entropy_histogram, predictive_scores
    from diagnostics.resonance import resonance_finding, resonance_table
    from diagnostics.selected import selected_summary
    from diagnostics.standard import HEALTH, HealthClaim, audit, overall
    from diagnostics.stationary import stationary_null
    from diagnostics.step_error import (
        EnergyOrder,
        acceptance_finding,
        energy_order,
        reversibility_finding,
        smoothness_finding,
    )
    from diagnostics.streaming import StreamingStatistics, streaming_statistics
    from diagnostics.summary import TOTAL, scalar_statistics, summarise
    from diagnostics.symmetry import architecture_of, canonical, check_symmetries, shift_of_logits
    from diagnostics.tails import TailIndex, noise_finding, tail_index
    from diagnostics.trees import KINDS, check_tree, layer_of, make_tree
    from diagnostics.units import UnitGroup, hidden_layer, mlp_symmetries
    from diagnostics.wasserstein import mixture_quantiles, negative_mean_wasserstein_1, wasserstein_distance

_MODULES = {
    "aligned": ("aligned_summary",),
    "alignment": ("Alignment", "align"),
    "chainwise": ("Variances", "chain_variances", "ess_indicator", "rhat_between", "rhat_chainwise"),
    "claims": ("Claim", "Finding"),
    "convergence": ("ess_bulk", "ess_mean", "ess_tail", "ess_within", "mcse_mean", "rhat", "rhat_classic", "rhat_split"),
    "copies": ("census",),
    "costs": ("Efficiency", "efficiency"),
    "directions": ("NullSpread", "along_leading", "image_patches", "null_directions", "null_finding", "null_spread"),
    "energy": ("bfmi", "configurational_temperature", "energy_summary", "kinetic_temperature"),
    "estimates": ("Estimate",),
    "fidelity": ("Comparison", "compare"),
    "floor": ("Fidelity", "Floor", "Prefixes", "fidelity_to", "prefixes"),
    "nested": ("rhat_nested",),
    "ood": ("auroc", "auroc_difference"),
    "predictive": ("Histogram", "entropy_histogram", "predictive_scores"),
    "resonance": ("resonance_finding", "resonance_table"),
    "selected": ("selected_summary",),
    "standard": ("HEALTH", "HealthClaim", "audit", "overall"),
    "stationary": ("stationary_null",),
    "step_error": ("EnergyOrder", "acceptance_finding", "energy_order", "reversibility_finding", "smoothness_finding"),
    "streaming": ("StreamingStatistics", "streaming_statistics"),
    "summary": ("TOTAL", "scalar_statistics", "summarise"),
    "symmetry": ("architecture_of", "canonical", "check_symmetries", "shift_of_logits"),
    "tails": ("TailIndex", "noise_finding", "tail_index"),
    "trees": ("KINDS", "check_tree", "layer_of", "make_tree"),
    "units": ("UnitGroup", "hidden_layer", "mlp_symmetries"),
    "wasserstein": ("mixture_quantiles", "negative_mean_wasserstein_1", "wasserstein_distance"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
