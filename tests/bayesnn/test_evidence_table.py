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
    """Particles with evidences of 1 and 3, nested runs with logarithms of -2 and 2, ladders of log likelihoods 0, 1 and 2."""
    noise = 1e-6 * np.random.default_rng(0).normal(size=(SYSTEMS, 8, 3))
    betas = np.tile([0.0, 0.2, 1.0], (SYSTEMS, 1))
    ladders = Ladders(None, np.arange(3.0) + noise, betas, np.ones(SYSTEMS, int), 1.0)
    nested = systems([-2.0, 2.0, -2.0, 2.0])
    return evidence_table(Roads(systems(np.log([1.0, 3.0, 1.0, 3.0])), ladders, nested), 1.0)


def test_each_method_is_averaged_on_the_scale_on_which_it_is_unbiased(table):
    """The evidence of particles and stepping stones, the logarithm of it of nested runs: their mean evidence is exp(1.3)."""
    found = table["log_evidence"].sel(estimator=["tempered SMC", "stepping stone", "nested sampling"])
    np.testing.assert_allclose(found, [np.log(2), 0.8, 0.0], atol=1e-5)
    error = float(table["standard_error"].sel(estimator="nested sampling"))
    assert error == pytest.approx(np.std([-2, 2, -2, 2], ddof=1) / np.sqrt(SYSTEMS))


def test_the_interval_of_the_trapezoids_holds_what_lies_between_the_rungs(table):
    """Sums of left and right ends are 0.8 and 1.8; draws hardly vary, and no other interval is wider than they say."""
    integral = table.sel(estimator="thermodynamic integration")
    np.testing.assert_allclose(integral[["lower", "log_evidence", "upper"]].to_array(), [0.8, 1.3, 1.8], atol=1e-5)
    assert (table["discretisation"].drop_sel(estimator="thermodynamic integration") == 0).all()
