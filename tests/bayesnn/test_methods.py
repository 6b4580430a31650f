"""Fit and draw: what each method fits, where that is known in closed form, and that its draws have the law that it fitted."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import samplers
from bayesnn import data, likelihoods, models, priors
from bayesnn.methods import mc_dropout, mean_field_vi, swag
from bayesnn.posteriors import posterior
from samplers import Batch, Target, Tempering
from tests.samplers.analytic import assert_covariance, assert_means, regression

KEY = jax.random.key(5)
MESH = samplers.make_mesh(8, devices=jax.devices()[:1])


def fit_and_draw(approximation, positions, batch, *, num_steps, num_draws=1, save=samplers.KEEP_POSITION, key=KEY):
    """Return the fitted distribution of every chain, draws, and the gradients that the fit took."""
    fit = samplers.sample(key, approximation.fit.kernel, positions, batch, num_steps=num_steps, save=None, mesh=MESH)
    run = samplers.finish(approximation.fit, fit.run)
    drawn = samplers.sample(
        key, approximation.kernel, positions, batch, num_steps=num_draws, run=run, save=save, mesh=MESH, chunk_draws=num_draws
    )
    assert np.all(drawn.info.num_gradients == 0)
    return run.tuning.tuning, drawn.draws, fit.info.num_gradients.sum(axis=1)


def adam(num_steps, rate=0.05):
    return optax.adam(optax.cosine_decay_schedule(rate, num_steps))


def assert_chains_agree_on(values, expected, precision):
    """Independent fits have this mean within five of their standard errors, which are small enough to tell."""
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    assert np.max(error) < precision
    deviation = np.abs(values.mean(axis=0) - expected) / error
    assert deviation.max() < 5, deviation  # of the t distribution with 7 degrees of freedom: 0.2 %, at 6 comparisons, fixed seed


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"num_samples": 4}, {"batch_size": 20}], ids=str)
def test_mean_field_vi_finds_the_known_optimum(settings):
    """Of a Gaussian posterior: its mean, and variances 1 / diag(precision), at any temperatures."""
    known = regression(0.5, 2.0)
    steps = 4000
    approximation = mean_field_vi(known.target, adam(steps), jnp.zeros(3), tempering=Tempering.at(0.5, 2.0), **settings)
    fitted, draws, gradients = fit_and_draw(approximation, jnp.zeros((8, 3)), known.batch, num_steps=steps, num_draws=500)
    scale = 1 / np.sqrt(np.diag(np.linalg.inv(known.covariance)))
    assert_chains_agree_on(np.asarray(fitted.mean) / scale, known.mean / scale, 0.05)
    assert_chains_agree_on(np.asarray(fitted.log_scale), np.log(scale), 0.05)
    marginal = np.sqrt(np.diag(known.covariance))
    with pytest.raises(AssertionError):  # which is not the posterior's own
        assert_chains_agree_on(np.asarray(fitted.log_scale), np.log(marginal), 0.05)
    standard = (draws - np.asarray(fitted.mean)[:, None]) / np.exp(np.asarray(fitted.log_scale))[:, None]
    assert_covariance(standard, np.zeros(3), np.eye(3))
    share = settings.get("batch_size", 40) / 40
    np.testing.assert_allclose(gradients, steps * share * settings.get("num_samples", 1), rtol=1e-5)


@pytest.mark.slow
def test_swag_has_the_moments_of_the_path_of_its_trainer():
    """Against the positions that the trainer passes, kept: bit for bit the same path, its moments to rounding."""
    known, positions = regression(), jnp.zeros((3, 3)) + jnp.arange(3.0)[:, None]
    trainer = samplers.optimise(known.target, optax.sgd(0.05, momentum=0.9), batch_size=8)
    path = samplers.sample(KEY, trainer, positions, known.batch, num_steps=60, mesh=MESH).draws
    gathered = path[:, 14:60:5].astype(np.float64)  # the ends of periods of 5 after the first 10: 10 of them
    approximation = swag(trainer, jnp.zeros(3), num_steps=60, first=10, period=5, rank=4)
    fitted, draws, gradients = fit_and_draw(approximation, positions, known.batch, num_steps=60, num_draws=4000)
    running = np.cumsum(gathered, axis=1) / np.arange(1, 11)[:, None]
    close = {"rtol": 0, "atol": 1e-5}  # of numbers of order one in float32, ten of them summed
    np.testing.assert_allclose(fitted.mean, gathered.mean(axis=1), **close)
    np.testing.assert_allclose(2 * fitted.variance, gathered.var(axis=1), **close)
    expected = np.einsum("ckd,cke->cde", *[(gathered - running)[:, -4:]] * 2) / (2 * 3)
    np.testing.assert_allclose(np.einsum("ckd,cke->cde", *[fitted.deviations] * 2), expected, **close)
    np.testing.assert_allclose(gradients, 60 * 8 / 40, rtol=1e-6)
    for chain in range(3):
        covariance = np.diag(gathered[chain].var(axis=0)) / 2 + expected[chain]
        assert_covariance(draws[chain : chain + 1], gathered[chain].mean(axis=0), covariance)


def test_swag_of_a_quadratic_has_the_stationary_variance_of_sgd():
    """x <- x - r (a x + noise) has variance r^2 s^2 / (1 - (1 - r a)^2); the mean is the optimum."""
    curvature, rate, noise = np.array([0.5, 2.0]), 0.1, 0.7
    target, batch = samplers.from_logdensity(lambda x: -0.5 * jnp.sum(jnp.array([0.5, 2.0]) * x**2))
    noisy = optax.chain(optax.add_noise(eta=noise**2, gamma=0.0, key=3), optax.sgd(rate))
    steps, memory = 40_000, 1 - rate * curvature
    approximation = swag(samplers.optimise(target, noisy), jnp.zeros(2), num_steps=steps, first=1000, period=1, rank=0)
    fitted, draws, _ = fit_and_draw(approximation, jnp.ones((1, 2)), batch, num_steps=steps, num_draws=4000)
    variance = (rate * noise) ** 2 / (1 - memory**2)
    # Of an autoregression: the standard errors of mean and variance (Bartlett).
    error = np.sqrt(variance * (1 + memory) / (1 - memory) / (steps - 1000))
    assert np.all(np.abs(fitted.mean[0]) < 5 * error)
    error = variance * np.sqrt(2 * (1 + memory**2) / (1 - memory**2) / (steps - 1000))
    assert np.all(np.abs(fitted.variance[0] - variance) < 5 * error)
    assert np.all(error < 0.1 * variance)  # small enough to tell
    assert_covariance(draws, np.asarray(fitted.mean[0]), np.diag(fitted.variance[0]))


@pytest.mark.slow
def test_dropout_switches_whole_units_off_and_keeps_the_mean():
    known = data.from_arrays(np.eye(4), np.arange(4) % 2, np.eye(4), np.arange(4) % 2, name="four")
    network = models.mlp([30, 20], 2)
    params = jax.eval_shape(network.init, KEY, jnp.zeros((1, 4)))
    what = posterior(network, priors.gaussian(), likelihoods.categorical(), known)
    approximation = mc_dropout(what.target, adam(3), params, rate=0.25)
    fitted, draws, _ = fit_and_draw(approximation, what.init(KEY, 2), what.batch, num_steps=3, num_draws=600)
    for layer, units in (("layer_1", 30), ("layer_2", 20)):
        weights, drawn = np.asarray(fitted.weights[layer]["kernel"])[:, None], draws[layer]["kernel"]
        is_on = drawn[..., :1] != 0
        np.testing.assert_allclose(drawn, weights * is_on / 0.75, rtol=1e-6)
        assert_means(is_on[..., 0].astype(float), np.full(units, 0.75))
        together = is_on[..., 0].astype(float).sum(axis=-1)
        assert_means((together - 0.75 * units) ** 2, 0.75 * 0.25 * units)  # units are independent
    for name in ("layer_0", "layer_1", "layer_2"):
        np.testing.assert_array_equal(draws[name]["bias"], np.tile(fitted.weights[name]["bias"][:, None], (1, 600, 1)))
    np.testing.assert_array_equal(
        draws["layer_0"]["kernel"], np.tile(fitted.weights["layer_0"]["kernel"][:, None], (1, 600, 1, 1))
    )


def _fed_log_likelihood(position, batch, constants):
    x, y = batch
    return -0.5 * ((y - (x @ position["layer_1"]["kernel"])[:, 0]) / 0.5) ** 2


FED = Target(lambda position, constants: -0.5 * ravel_pytree(position)[0] @ ravel_pytree(position)[0], _fed_log_likelihood, 40)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [None, 20])
def test_dropout_of_inputs_trains_to_its_known_ridge(batch_size):
    """The mean loss under masks of a linear model is a ridge with penalty r / (1 - r) diag(x'x) (Wager et al. 2013)."""
    rng, rate = np.random.default_rng(2), 0.3
    x = rng.normal(size=(40, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 0.6]])
    y = x @ np.array([1.0, -2.0, 0.5]) + 0.5 * rng.normal(size=40)
    batch = Batch((jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)), jnp.ones(40))
    like = {"layer_0": {"kernel": jnp.zeros((2, 3))}, "layer_1": {"kernel": jnp.zeros((3, 1))}}
    positions = jax.tree.map(lambda leaf: jnp.zeros((8, *leaf.shape)), like)
    steps = 4000
    approximation = mc_dropout(FED, adam(steps), like, rate=rate, num_samples=4, batch_size=batch_size)
    fitted, _, gradients = fit_and_draw(approximation, positions, batch, num_steps=steps)
    gram = x.T @ x / 0.25
    ridge = gram + rate / (1 - rate) * np.diag(np.diag(gram)) + np.eye(3) / (1 - rate)
    values = np.asarray(fitted.weights["layer_1"]["kernel"])[..., 0]
    assert_chains_agree_on(values, np.linalg.solve(ridge, x.T @ y / 0.25), 0.02)
    with pytest.raises(AssertionError):  # which is not the optimum without dropout
        assert_chains_agree_on(values, np.linalg.solve(gram + np.eye(3), x.T @ y / 0.25), 0.02)
    np.testing.assert_allclose(gradients, 4 * steps * (1 if batch_size is None else 0.5), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t, like: swag(t, like, num_steps=100, first=0, period=10, rank=1), "rank must be 0"),
        (lambda t, like: swag(t, like, num_steps=100, first=50, period=10, rank=20), "gathers 5 positions.*needs 20"),
        (lambda t, like: swag(t, like, num_steps=100, first=-1, period=10), "first must be at least 0"),
        (lambda t, like: mean_field_vi(FED, adam(1), like, num_samples=0), "at least one sample"),
        (lambda t, like: mean_field_vi(FED, adam(1), like, initial_scale=0.0), "initial_scale must be positive"),
        (lambda t, like: mean_field_vi(FED, adam(1), like, batch_size=41), "batch_size must be from 1"),
        (lambda t, like: mc_dropout(FED, adam(1), like, rate=1.0), "rate must be above 0 and below 1"),
        (lambda t, like: mc_dropout(FED, adam(1), like, kernels=["layer_2.kernel"]), "no layer_2.kernel.*did you mean"),
        (lambda t, like: mc_dropout(FED, adam(1), like, kernels=["layer_0.bias"]), r"has axes \(\.\.\., in, out\)"),
        (lambda t, like: mc_dropout(FED, adam(1), {"out": like["layer_1"]}), "must know which kernels.*out.kernel"),
        (lambda t, like: mc_dropout(FED, adam(1), {"layer_0": like["layer_0"]}), "no hidden units"),
    ],
)
def test_bad_settings_are_refused(make, message):
    like = {
        "layer_0": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)},
        "layer_1": {"kernel": jnp.zeros((3, 1))},
    }
    with pytest.raises(ValueError, match=message):
        make(samplers.optimise(FED, adam(1)), like)
