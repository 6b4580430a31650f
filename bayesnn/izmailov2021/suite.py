"""The suite: the paper's claims and its critics', at a scale."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from bayesnn.errors import UsageError, did_you_mean
from bayesnn.izmailov2021 import (
    b1_region_weights,
    b2_light_regions,
    b3_right_weights,
    b4_sgd_prefers,
    c1_beats_sgd,
    c2_one_long_chain,
    c3_cold_posterior,
    c4_priors,
    c5_gaps,
    c5_shift,
    c6_fidelity,
    f2_rhat,
    r1_published,
)
from bayesnn.izmailov2021.scales import Scale, gpu, laptop, laptop_full, paper
from bayesnn.suite.suite import Suite

ALL = (
    c1_beats_sgd,
    c2_one_long_chain,
    c3_cold_posterior,
    c4_priors,
    c5_shift,
    c6_fidelity,
    f2_rhat,
    b1_region_weights,
    b2_light_regions,
    b3_right_weights,
    b4_sgd_prefers,
    r1_published,
)
# Tables have splits and gaps, and neither images to corrupt nor time for sweeps on all of them.
TABLES = (c1_beats_sgd, c5_gaps, f2_rhat)
SCALES: dict[str, tuple[Callable[[], Scale], tuple[ModuleType, ...]]] = {
    "laptop": (laptop, ALL),
    "laptop-full": (laptop_full, TABLES),
    "gpu": (gpu, ALL),
    "paper": (paper, ALL),
}


def suite(scale: str) -> Suite:
    """Return the suite at a scale.

    Raises:
        UsageError: An unknown scale.
    """
    if scale not in SCALES:
        raise UsageError(f"unknown scale {scale!r}{did_you_mean(scale, SCALES)}")
    make, modules = SCALES[scale]
    chosen = make()
    return Suite("izmailov2021", chosen.name, chosen.description, tuple(module.plan(chosen) for module in modules))
