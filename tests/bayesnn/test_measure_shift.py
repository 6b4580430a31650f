"""Scores of predictions on corrupted inputs."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bayesnn.measure import shift


def test_scores_under_shift_are_of_the_mixture_and_of_each_chain(monkeypatch):
    by_chain = np.array([[[0.9, 0.1], [0.4, 0.6]], [[0.3, 0.7], [0.8, 0.2]]])  # [chain, point, class]
    monkeypatch.setattr(shift, "_chain_probabilities", lambda *_: by_chain)
    found = shift._scores(None, {"posterior": xr.DataTree()}, None, np.array([0, 0]))
    np.testing.assert_allclose(found["log_score"], np.log([0.6, 0.6]))  # not the mean of logarithms
    np.testing.assert_allclose(found["chain_log_score"], np.log([[0.9, 0.4], [0.3, 0.8]]))
    np.testing.assert_array_equal(found["accuracy"], [1, 1])
    np.testing.assert_array_equal(found["chain_accuracy"], [[1, 0], [0, 1]])
