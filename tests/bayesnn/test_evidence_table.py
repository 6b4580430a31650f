"""What `measure evidence` makes of systems and ladders whose evidence is known."""

from __future__ import annotations

import numpy as np
import pytest

from bayesnn.measure.evidence import evidence_table
from bayesnn.measure.tempered import Ladders, Particles, Roads

SYSTEMS = 4


def systems(log_evidence):
    return Particles(None, np.zeros((len(log_evidence), 2)), np.asarray(log_evidence), 1.0)


@pytest.fixture(scope="module")
def table():
    """Particles with evidences of 1 and 3, nested runs with logarithms of -2 and 2, ladders of likelihoods that hardly vary."""
    noise = 1e-6 * np.random.default_rng(0).normal(size=(SYSTEMS, 8, 3))
    ladders = Ladders(None, np.log(2) + noise, np.tile([0.0, 0.2, 1.0], (SYSTEMS, 1)), np.ones(SYSTEMS, int), 1.0)
    nested = systems([-2.0, 2.0, -2.0, 2.0])
    return evidence_table(Roads(systems(np.log([1.0, 3.0, 1.0, 3.0])), ladders, nested), 1.0)


def test_each_method_is_averaged_on_the_scale_on_which_it_is_unbiased(table):
    """The evidence of particles and stepping stones, the logarithm of it of nested runs: their mean evidence is exp(1.3)."""
    found = table["log_evidence"].sel(estimator=["tempered SMC", "stepping stone", "nested sampling"])
    np.testing.assert_allclose(found, [np.log(2), np.log(2), 0.0], atol=1e-5)
    error = float(table["standard_error"].sel(estimator="nested sampling"))
    assert error == pytest.approx(np.std([-2, 2, -2, 2], ddof=1) / np.sqrt(SYSTEMS))
