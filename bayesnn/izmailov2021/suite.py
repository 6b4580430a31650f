"""The suite: the paper's claims and its critics', at a scale."""

from __future__ import annotations

from collections.abc import Callable

from bayesnn.izmailov2021 import c1_beats_sgd, c2_one_long_chain, c3_cold_posterior, c4_priors, c5_shift, c6_fidelity, f2_rhat
from bayesnn.izmailov2021.scales import Scale, laptop, laptop_full
from bayesnn.suite.suite import Suite

SCALES: dict[str, Callable[[], Scale]] = {"laptop": laptop, "laptop-full": laptop_full}
CLAIMS = (c1_beats_sgd, c2_one_long_chain, c3_cold_posterior, c4_priors, c5_shift, c6_fidelity, f2_rhat)


def suite(scale: str) -> Suite:
    """Return the suite at a scale, one of `SCALES`."""
    chosen = SCALES[scale]()
    return Suite("izmailov2021", chosen.name, chosen.description, tuple(module.plan(chosen) for module in CLAIMS))
