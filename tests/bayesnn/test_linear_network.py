"""A linear Flax network with Gaussian noise, whose posterior is known in closed form, sampled from end to end."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx

import bayesnn
from bayesnn import config as c
from bayesnn import data, likelihoods, priors
from tests.samplers.analytic import assert_covariance

pytestmark = pytest.mark.slow

NOISE, SCALE = 0.6, 1.5
# In units of the posterior's own width the scales are from 0.08 to 0.1.
SAMPLERS = (
    c.HMC(step_size=0.05, trajectory_length=0.25),
    c.NUTS(step_size=0.1),
    c.MALA(step_size=0.1),
    c.AdjustedMCLMC(step_size=0.1, trajectory_length=0.3),
)


def dataset():
    rng = np.random.default_rng(7)
    x = rng.normal(2.0, 3.0, (60, 3))
    y = 4 * x[:, 0] - 2 * x[:, 1] + rng.normal(0, 5, 60) + 300
    return data.from_arrays(x[:50], y[:50], x[50:], y[50:], name="plane")


def closed_form(known, temperature):
    """Mean and covariance of (bias, kernel) in standardised units."""
    x = np.column_stack([np.ones(known.num_data), known.x_train.astype(np.float64)])
    covariance = np.linalg.inv(x.T @ x / NOISE**2 + np.eye(4) / SCALE**2)
    return covariance @ x.T @ known.y_train.astype(np.float64) / NOISE**2, temperature * covariance


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.kind)
def test_draws_have_the_closed_form_posterior(sampler, temperature):
    """Mean and covariance within five Monte Carlo standard errors; predictions in original units, by hand."""
    known = dataset()
    network = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    posterior = bayesnn.posterior(network, priors.gaussian(SCALE), likelihoods.gaussian(NOISE), known, temperature=temperature)
    draws = 20_000 if sampler.kind == "mala" else 3_000
    run = bayesnn.sample(jax.random.key(3), posterior, sampler, chains=4, draws=draws, warmup=200)
    weights = run.tree["posterior"]
    theta = np.concatenate([weights["bias"].values, weights["kernel"].values[..., 0]], axis=2).astype(float)
    mean, covariance = closed_form(known, temperature)
    assert_covariance(theta, mean, covariance)
    predicted = run.predict(known.x_test * known.x_scale + known.x_mean)
    x = np.column_stack([np.ones(10), known.x_test.astype(np.float64)])
    expected = known.y_mean + known.y_scale * (x @ mean)
    spread = known.y_scale * np.sqrt(np.einsum("ij,jk,ik->i", x, covariance, x) + NOISE**2)
    # Both are averages over some thousand effective draws: a twentieth of the spread is five standard errors and more.
    assert np.abs(predicted["mean"] - expected).max() < spread.max() / 20
    np.testing.assert_allclose(predicted["scale"], spread, rtol=0.05)


def test_a_wrong_temperature_is_seen():
    """The same check fails for draws at half the temperature."""
    known = dataset()
    network = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    posterior = bayesnn.posterior(network, priors.gaussian(SCALE), likelihoods.gaussian(NOISE), known, temperature=0.5)
    run = bayesnn.sample(jax.random.key(3), posterior, SAMPLERS[0], chains=4, draws=2_000, warmup=100)
    weights = run.tree["posterior"]
    theta = np.concatenate([weights["bias"].values, weights["kernel"].values[..., 0]], axis=2).astype(float)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_covariance(theta, *closed_form(known, 1.0))
