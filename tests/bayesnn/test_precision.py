"""Products of matrices are as exact as a run says, wherever a network is evaluated. On a CPU all settings have the same bits."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

import bayesnn
from bayesnn import build, inference
from bayesnn.build import build_problem
from bayesnn.config import HMC
from bayesnn.load import load_run
from bayesnn.measure import shift
from bayesnn.plan import _lowered_gradient
from bayesnn.report.surface import surfaces_of
from tests.bayesnn.experiments import SHORT


class SeenError(Exception):
    """Ends what a test has seen enough of."""


def setting():
    return jax.config.jax_default_matmul_precision


@pytest.fixture
def reduced():
    """Let JAX make products as it pleases, unless told otherwise; what a test sets is taken back."""
    before = setting()
    jax.config.update("jax_default_matmul_precision", None)
    yield
    jax.config.update("jax_default_matmul_precision", before)


@pytest.mark.parametrize("precision", ["highest", "high", "default"])
def test_products_of_a_gradient(precision, reduced):
    """Forward and back, and where a layer has a derivative of its own."""
    lowered, _ = _lowered_gradient(build_problem(SHORT.model_copy(update={"matmul_precision": precision})))
    products = re.findall(r"dot_general.*", lowered.as_text())
    assert len(products) == 5  # two layers forward, and back but for the gradient of the inputs
    assert all(f"precision = [{precision.upper()}, {precision.upper()}]" in product for product in products)


@pytest.mark.parametrize(
    "evaluate",
    [
        lambda run: run.predict(np.zeros((2, 13))),
        lambda run: run.predict_draws(np.zeros((2, 13))),
        surfaces_of,
        lambda run: shift.measure(run, shift.Shift(), None),
    ],
    ids=["predict", "predict draws", "surfaces", "shift"],
)
def test_what_evaluates_a_finished_run_computes_as_it_did(evaluate, finished, reduced, monkeypatch):
    def see(config):
        raise SeenError(setting())

    monkeypatch.setattr(build, "build_posterior", see)
    with pytest.raises(SeenError, match="highest"):
        evaluate(load_run(finished))
    assert setting() is None


@pytest.mark.parametrize(("chosen", "seen"), [(None, "highest"), ("high", "high")])
def test_in_a_notebook_products_are_whole_unless_jax_was_told_otherwise(chosen, seen, reduced, monkeypatch):
    def see(*_):
        raise SeenError(setting())

    problem = bayesnn.density_problem(lambda x: -(x @ x), np.zeros(2))
    monkeypatch.setattr(inference, "build_method", see)
    jax.config.update("jax_default_matmul_precision", chosen)
    with pytest.raises(SeenError, match=seen):
        bayesnn.sample(jax.random.key(0), problem, HMC(step_size=0.1))
