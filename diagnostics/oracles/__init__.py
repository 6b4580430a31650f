"""Posteriors with known answers, to test samplers and estimators against; each says how exact its answers are.

An `Oracle` is plain functions over JAX arrays (log prior, log likelihood) with plain numbers beside them (mean, evidence,
learning coefficient, masses of regions), so that a sampler of any library can be run on it.
"""

from diagnostics.oracles.coefficients import (
    LearningCoefficient,
    coefficient_of_product,
    coefficient_of_sum,
    monomial_coefficient,
)
from diagnostics.oracles.crossings import normal_crossing
from diagnostics.oracles.double_well import double_well
from diagnostics.oracles.gaussians import funnel, gaussian
from diagnostics.oracles.linear_regression import linear_regression
from diagnostics.oracles.linearised import linearised
from diagnostics.oracles.mixtures import gaussian_mixture
from diagnostics.oracles.oracle import Oracle, Regions, rejection_sampler
from diagnostics.oracles.reduced_rank import deep_linear, deep_linear_coefficient, reduced_rank_coefficient

__all__ = [
    "LearningCoefficient",
    "Oracle",
    "Regions",
    "coefficient_of_product",
    "coefficient_of_sum",
    "deep_linear",
    "deep_linear_coefficient",
    "double_well",
    "funnel",
    "gaussian",
    "gaussian_mixture",
    "linear_regression",
    "linearised",
    "monomial_coefficient",
    "normal_crossing",
    "reduced_rank_coefficient",
    "rejection_sampler",
]
