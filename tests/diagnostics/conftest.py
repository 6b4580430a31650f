"""Simulated runs: stationary chains with known autocorrelation and cross-correlation, and the ways in which runs go wrong."""

import itertools
import types

import numpy as np
import pytest

from diagnostics.trees import make_tree


def autoregressive(rng, phi, num_chains, num_draws):
    """Stationary AR(1) chains of unit variance, (chain, draw, component), one coefficient a component."""
    phi = np.atleast_1d(np.asarray(phi, float))
    draws = rng.standard_normal((num_draws, num_chains, len(phi)))
    draws[1:] *= np.sqrt(1 - phi**2)
    for previous, current in itertools.pairwise(draws):
        current += phi * previous
    return np.moveaxis(draws, 0, 1)


def correlated(rng, num_scalars, num_factors, num_chains, num_draws, largest_phi=0.5):
    """Scalars that are mixtures of a few processes, fast and slow: (chain, draw, scalar)."""
    phi = np.linspace(0, largest_phi, num_factors)
    return autoregressive(rng, phi, num_chains, num_draws) @ rng.normal(size=(num_factors, num_scalars)) / np.sqrt(num_factors)


def healthy_arrays(seed=0, *, num_chains=4, num_draws=400, num_points=20, num_classes=4, largest_phi=0.4, temperature=1.0):
    """Arrays of a classification run that has nothing wrong with it."""
    rng = np.random.default_rng(seed)
    shape = num_chains, num_draws
    weights = correlated(rng, 150, 50, *shape, largest_phi)
    logits = correlated(rng, num_points * num_classes, 12, *shape, largest_phi).reshape(*shape, num_points, num_classes)
    logits = logits + 2 * rng.normal(size=(num_points, num_classes))
    probability = np.exp(logits - logits.max(-1, keepdims=True))
    probability /= probability.sum(-1, keepdims=True)
    mean = probability.mean((0, 1))
    y_test = np.array([rng.choice(num_classes, p=row) for row in mean])
    layers = {"layer_0": 120, "layer_1": 30}
    # theta . grad U of d Gaussian directions at the nominal temperature: chi-square with d degrees of freedom.
    virial = np.stack([rng.chisquare(size, shape) for size in layers.values()], -1)
    return {
        "posterior": {
            "layer_0.kernel": weights[..., :100].reshape(*shape, 20, 5),
            "layer_0.bias": weights[..., 100:120],
            "layer_1.kernel": weights[..., 120:],
        },
        "functions": {
            "probability": probability,
            "log_likelihood": np.log(np.take_along_axis(probability, y_test[None, None, :, None], -1)[..., 0]),
        },
        "sample_stats": {
            "acceptance_rate": rng.uniform(0.6, 1.0, shape),
            "energy": 75 + rng.normal(size=shape) * np.sqrt(75),
            "energy_error": rng.normal(0.1, 0.4, shape),
            "kinetic_temperature": rng.chisquare(150, shape) / 150,
            "num_gradients": np.full(shape, 10.0),
            "diverging": np.zeros(shape, bool),
            "is_finite": np.ones(shape, bool),
            "virial": virial,
        },
        "observed_data": {"y_test": y_test},
        "attrs": {
            "kind": "mcmc",
            "name": "simulated",
            "sampler": "hmc",
            "task": "classification",
            "temperature": temperature,
            "likelihood_temperature": 1.0,
            "num_data": 100,
            "num_params": 150,
            "gradients": 10.0 * num_chains * num_draws,
            "seconds": 20.0,
            "num_nonfinite": [0] * num_chains,
        },
    }


def healthy_tree(seed=0, **settings):
    return make_tree(**healthy_arrays(seed, **settings))


@pytest.fixture(scope="session")
def simulate():
    """The functions of this file, for tests that cannot import it."""
    functions = (autoregressive, correlated, healthy_arrays, healthy_tree)
    return types.SimpleNamespace(**{function.__name__: function for function in functions})
