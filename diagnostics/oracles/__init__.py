"""Posteriors with known answers, to test samplers and estimators against; each says how exact its answers are.

An `Oracle` is plain functions over JAX arrays (log prior, log likelihood) with plain numbers beside them (mean, evidence,
learning coefficient, masses of regions), so that a sampler of any library can be run on it. Where nothing is known but how to
simulate, `simulation_based_calibration`, `teacher_start` and `joint_test` make exact draws by simulating.
"""

from diagnostics.oracles.boolean import boolean_network
from diagnostics.oracles.coefficients import (
    ExactCoefficient,
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
from diagnostics.oracles.simulation import Calibration, joint_test, simulation_based_calibration, teacher_start
from diagnostics.oracles.superposition import Polygon, polygons, superposition_loss
from diagnostics.oracles.superposition_posterior import superposition
from diagnostics.oracles.tanh_zero import tanh_zero, tanh_zero_coefficient

__all__ = [
    "Calibration",
    "ExactCoefficient",
    "Oracle",
    "Polygon",
    "Regions",
    "boolean_network",
    "coefficient_of_product",
    "coefficient_of_sum",
    "deep_linear",
    "deep_linear_coefficient",
    "double_well",
    "funnel",
    "gaussian",
    "gaussian_mixture",
    "joint_test",
    "linear_regression",
    "linearised",
    "monomial_coefficient",
    "normal_crossing",
    "polygons",
    "reduced_rank_coefficient",
    "rejection_sampler",
    "simulation_based_calibration",
    "superposition",
    "superposition_loss",
    "tanh_zero",
    "tanh_zero_coefficient",
    "teacher_start",
]
