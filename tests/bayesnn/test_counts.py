"""A run on counts, from data to the scores of its predictions."""

import jax
import numpy as np

import bayesnn
from bayesnn import config, data, likelihoods, models, priors
from diagnostics.calibration import count_coverage
from diagnostics.predictive import scores


def test_runs_on_counts_say_so_and_their_coverage_is_of_counts():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    y = rng.poisson(np.exp(0.5 * x[:, 0]))
    visits = data.from_arrays(x[:40], y[:40], x[40:], y[40:], task="counts")
    posterior = bayesnn.posterior(models.mlp([], 1), priors.gaussian(), likelihoods.poisson(), visits)
    tree = bayesnn.sample(jax.random.key(0), posterior, config.HMC(step_size=0.05), chains=2, draws=5, warmup=0).tree
    assert tree.attrs["task"] == "counts"
    functions = tree["functions"].to_dataset()
    covered = count_coverage(y[40:].astype(float), functions["mean"].values, functions["scale"].values)
    assert scores(tree)["coverage_50"].value() == covered[:, 0].mean()
