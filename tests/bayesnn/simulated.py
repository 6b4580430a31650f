"""Runs made of random numbers, as arguments of `diagnostics.make_tree`, healthy until a test breaks them; and their reports."""

from __future__ import annotations

import numpy as np

from bayesnn.report import render
from diagnostics.standard import audit
from diagnostics.summary import summarise
from diagnostics.trees import make_tree

NUM_POINTS, NUM_CLASSES = 60, 3
LAYERS = {"layer_0": 24, "layer_1": 6}


def classification(seed=0, *, num_chains=4, num_draws=120, error=0.0):
    """A run on test points that are the same for all seeds.

    Args:
        error: Of the logits that all draws share, in units of their noise from draw to draw.
    """
    truth, rng, shape = np.random.default_rng(1000), np.random.default_rng(seed), (num_chains, num_draws)
    logits = 1.5 * truth.normal(size=(NUM_POINTS, NUM_CLASSES))
    y = (softmax(logits).cumsum(-1) < truth.random((NUM_POINTS, 1))).sum(-1)
    logits = logits + 0.3 * error * rng.normal(size=logits.shape)
    probability = softmax(logits + 0.3 * rng.normal(size=(*shape, *logits.shape)))
    functions = {
        "probability": probability,
        "log_likelihood": np.log(np.take_along_axis(probability, y[None, None, :, None], -1)[..., 0]),
    }
    return _run(rng, shape, "classification", functions, y)


def regression(seed=0, *, num_chains=4, num_draws=120):
    """A run of predictions with noise of standard deviation 1."""
    truth, rng, shape = np.random.default_rng(1000), np.random.default_rng(seed), (num_chains, num_draws)
    y = truth.normal(size=NUM_POINTS)
    mean, scale = 0.1 * rng.normal(size=(*shape, NUM_POINTS)), np.ones((*shape, NUM_POINTS))
    functions = {"mean": mean, "scale": scale, "log_likelihood": -0.5 * (np.log(2 * np.pi) + (y - mean) ** 2)}
    return _run(rng, shape, "regression", functions, y)


def density(seed=0, *, num_chains=4, num_draws=120):
    """A run that predicts nothing."""
    arrays = classification(seed, num_chains=num_chains, num_draws=num_draws)
    del arrays["functions"], arrays["observed_data"], arrays["attrs"]["num_data"]
    return arrays | {"attrs": arrays["attrs"] | {"task": "density"}}


def ensemble(seed=0, *, num_members=4):
    """Members of an ensemble: one draw a chain, and no statistics but the likelihood."""
    arrays = classification(seed, num_chains=num_members, num_draws=1)
    arrays["sample_stats"] = {"log_likelihood": arrays["sample_stats"]["log_likelihood"]}
    return arrays | {"attrs": arrays["attrs"] | {"kind": "ensemble", "sampler": "adam"}}


def page_of(*runs, findings=None, facts=None):
    """Render runs given by name and arrays; return the page's source."""
    trees = {name: make_tree(**arrays) for name, arrays in runs}
    summaries = {name: summarise(tree) for name, tree in trees.items()}
    name = runs[0][0]
    return render(trees, summaries, findings or audit(trees[name], summary=summaries[name]), facts)


def softmax(logits):
    exponential = np.exp(logits - logits.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def _run(rng, shape, task, functions, y):
    num_params = sum(LAYERS.values())
    return {
        "posterior": {
            "layer_0.kernel": rng.normal(size=(*shape, 5, 4)),
            "layer_0.bias": rng.normal(size=(*shape, 4)),
            "layer_1.kernel": rng.normal(size=(*shape, 6)),
        },
        "functions": functions,
        "sample_stats": {
            "lp": rng.normal(-200, 4, shape),
            "log_likelihood": rng.normal(-80, 3, shape),
            "acceptance_rate": rng.uniform(0.7, 1.0, shape),
            "energy": rng.normal(230, np.sqrt(num_params), shape),
            "energy_error": rng.normal(0.05, 0.3, shape),
            "kinetic_temperature": rng.chisquare(num_params, shape) / num_params,
            "num_gradients": np.full(shape, 20.0),
            "diverging": np.zeros(shape, bool),
            "is_finite": np.ones(shape, bool),
            # Position times gradient of a Gaussian direction at temperature 1, summed over a layer.
            "virial": np.stack([rng.chisquare(size, shape) for size in LAYERS.values()], -1),
        },
        "observed_data": {"y_test": y},
        "attrs": {
            "kind": "mcmc",
            "task": task,
            "sampler": "hmc",
            "data": "simulated",
            "num_data": 100,
            "num_params": num_params,
            "gradients": 20.0 * shape[0] * shape[1],
            "seconds": 12.0,
            "num_nonfinite": [0] * shape[0],
            "num_divergent": [0] * shape[0],
        },
    }
