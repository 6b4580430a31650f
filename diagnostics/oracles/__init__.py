"""Posteriors with known answers, to test samplers and estimators against; each says how exact its answers are.

An `Oracle` is plain functions over JAX arrays (log prior, log likelihood) with plain numbers beside them (mean, evidence,
learning coefficient, masses of regions), so that a sampler of any library can be run on it.
"""

from diagnostics.oracles.double_well import double_well
from diagnostics.oracles.mixtures import gaussian_mixture
from diagnostics.oracles.oracle import Oracle, Regions, rejection_sampler

__all__ = [
    "Oracle",
    "Regions",
    "double_well",
    "gaussian_mixture",
    "rejection_sampler",
]
