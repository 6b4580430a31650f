"""The suite: the paper's claims and its critics', at a scale."""

from __future__ import annotations

from collections.abc import Callable

from bayesnn.izmailov2021 import c1_beats_sgd, c2_one_long_chain, c3_cold_posterior, c4_priors, c6_fidelity
from bayesnn.izmailov2021.scales import Scale, laptop
from bayesnn.suite.suite import Suite

SCALES: dict[str, Callable[[], Scale]] = {"laptop": laptop}
CLAIMS = (c1_beats_sgd, c2_one_long_chain, c3_cold_posterior, c4_priors, c6_fidelity)


def suite(scale: str) -> Suite:
    """Return the suite at a scale, one of `SCALES`."""
    chosen = SCALES[scale]()
    return Suite("izmailov2021", chosen.name, chosen.description, tuple(module.plan(chosen) for module in CLAIMS))
