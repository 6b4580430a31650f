"""Likelihoods: densities against SciPy, normalisation, extremes and refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from bayesnn import data, likelihoods

RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(7, 2)).astype(np.float32)
TARGETS = RNG.normal(size=7).astype(np.float32)


def extra_of(likelihood):
    return likelihood.extra_constants | likelihood.extra_params


def test_categorical_is_log_softmax_of_the_label():
    logits, labels = RNG.normal(size=(7, 4)).astype(np.float32) * 5, np.array([0, 1, 2, 3, 0, 1, 2], np.int32)
    likelihood = likelihoods.categorical()
    expected = scipy.special.log_softmax(logits.astype(np.float64), axis=1)[np.arange(7), labels]
    # Float32 roundings of logits up to 20.
    np.testing.assert_allclose(likelihood.log_prob(logits, labels, {}), expected, atol=1e-5)
    probability = likelihood.functions(logits, {})["probability"]
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.log(probability)[np.arange(7), labels], expected, atol=1e-5)


def test_categorical_survives_saturated_logits():
    logits = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
    log_prob = likelihoods.categorical().log_prob
    np.testing.assert_allclose(log_prob(logits, jnp.array([0, 0]), {}), [0.0, -2e4])
    gradient = jax.grad(lambda f: log_prob(f, jnp.array([0, 0]), {}).sum())(logits)
    np.testing.assert_allclose(gradient, [[0, 0, 0], [1, -1, 0]], atol=1e-7)


def test_bernoulli_is_categorical_with_one_logit_held_at_zero():
    logits, labels = RNG.normal(size=(7, 1)).astype(np.float32) * 5, np.array([0, 1, 1, 0, 0, 1, 0], np.int32)
    bernoulli, both = likelihoods.bernoulli(), np.concatenate([np.zeros_like(logits), logits], axis=1)
    # The same number by two float32 formulas.
    expected = likelihoods.categorical().log_prob(both, labels, {})
    np.testing.assert_allclose(bernoulli.log_prob(logits, labels, {}), expected, rtol=1e-5, atol=1e-6)
    probability = np.asarray(bernoulli.functions(logits, {})["probability"])
    np.testing.assert_allclose(probability[:, 1], scipy.special.expit(logits[:, 0]), rtol=1e-5)
    np.testing.assert_allclose(np.log(probability)[np.arange(7), labels], expected, rtol=1e-5, atol=1e-6)


def test_bernoulli_survives_saturated_logits():
    logits, log_prob = jnp.array([[1e4], [-1e4]]), likelihoods.bernoulli().log_prob
    np.testing.assert_allclose(log_prob(logits, jnp.array([1, 1]), {}), [0.0, -1e4])
    gradient = jax.grad(lambda f: log_prob(f, jnp.array([1, 1]), {}).sum())(logits)
    np.testing.assert_allclose(gradient, [[0], [1]], atol=1e-7)


def test_poisson_is_the_mass_function_of_the_rate():
    log_rate, counts = np.linspace(-3, 5, 7, dtype=np.float32)[:, None], np.array([0, 1, 0, 3, 9, 40, 160], np.float32)
    poisson = likelihoods.poisson()
    rate = np.exp(log_rate[:, 0].astype(np.float64))
    # Terms of up to 700 nats cancel in float32, whose rounding is 6e-8 of each.
    np.testing.assert_allclose(poisson.log_prob(log_rate, counts, {}), scipy.stats.poisson.logpmf(counts, rate), atol=5e-4)
    functions = poisson.functions(log_rate, {})
    np.testing.assert_allclose(functions["mean"], rate, rtol=1e-5)
    np.testing.assert_allclose(functions["scale"], scipy.stats.poisson.std(rate), rtol=1e-5)


@pytest.mark.parametrize("noise", [0.1, 2.0, "learned"])
def test_gaussian_is_the_normalised_density(noise):
    likelihood = likelihoods.gaussian(noise)
    extra = extra_of(likelihood)
    scale = np.exp(-1) if noise == "learned" else noise
    log_prob = likelihood.log_prob(OUTPUTS[:, :1], TARGETS, extra)
    expected = scipy.stats.norm.logpdf(TARGETS.astype(np.float64), OUTPUTS[:, 0].astype(np.float64), scale)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-6)  # squares of up to 30 sd in float32
    functions = likelihood.functions(OUTPUTS[:, :1], extra)
    np.testing.assert_array_equal(functions["mean"], OUTPUTS[:, 0])
    np.testing.assert_allclose(functions["scale"], np.full(7, scale), rtol=1e-6)


def test_a_learned_noise_has_its_prior_and_a_fixed_one_has_none():
    learned, fixed = likelihoods.gaussian("learned"), likelihoods.gaussian(0.1)
    prior, params = learned.extra_prior, {"noise": {"log_scale": jnp.float32(0.7)}}
    # The stated prior, N(-1, 1) on the logarithm.
    np.testing.assert_allclose(prior.log_prob(params, prior.constants(params)), scipy.stats.norm.logpdf(0.7, -1, 1), rtol=1e-6)
    assert learned.extra_params.keys() == {"noise"}
    assert not fixed.extra_params
    assert learned.log_prob is fixed.log_prob


def test_heteroscedastic_is_the_normalised_density():
    likelihood = likelihoods.heteroscedastic()
    raw = OUTPUTS[:, 1].astype(np.float64)
    scale = 1e-3 + np.log1p(np.exp(raw))
    expected = scipy.stats.norm.logpdf(TARGETS.astype(np.float64), OUTPUTS[:, 0].astype(np.float64), scale)
    np.testing.assert_allclose(likelihood.log_prob(OUTPUTS, TARGETS, {}), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(likelihood.functions(OUTPUTS, {})["scale"], scale, rtol=1e-6)


def test_densities_integrate_to_one():
    y = np.linspace(-30, 30, 20001)
    outputs = np.tile(OUTPUTS[:1], (len(y), 1))
    for likelihood, width in ((likelihoods.gaussian(0.1), 1), (likelihoods.heteroscedastic(), 2)):
        density = np.exp(np.asarray(likelihood.log_prob(outputs[:, :width], jnp.asarray(y), extra_of(likelihood)), np.float64))
        # The trapezoidal rule is exact to rounding for densities this smooth at 30 points a standard deviation.
        assert np.trapezoid(density, y) == pytest.approx(1, abs=1e-5)


def test_a_vanishing_predicted_scale_stays_finite():
    outputs = jnp.array([[0.0, -1e4], [0.0, -200.0]])  # the softplus underflows to 0 in float32
    log_prob = likelihoods.heteroscedastic().log_prob
    value, gradient = jax.value_and_grad(lambda f: log_prob(f, jnp.array([0.0, 1.0]), {}).sum())(outputs)
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()


def test_the_number_of_outputs_follows_from_the_data():
    x = np.eye(4)
    labels = data.from_arrays(x, [0, 1, 2, 0], x, [0, 1, 2, 0])
    targets = data.from_arrays(x, [0.0, 1.0, 2.0, 0.5], x, [0.0, 1.0, 2.0, 0.5])
    assert likelihoods.categorical().num_outputs(labels) == 3
    assert likelihoods.gaussian().num_outputs(targets) == 1
    assert likelihoods.heteroscedastic().num_outputs(targets) == 2
    with pytest.raises(ValueError, match="needs class labels, arrays is for regression"):
        likelihoods.categorical().num_outputs(targets)
    two = data.from_arrays(x, [False, True, True, False], x, [False, True, True, False])
    assert likelihoods.bernoulli().num_outputs(two) == 1
    with pytest.raises(ValueError, match=r"needs labels of two classes, arrays has 3; categorical\(\) takes more"):
        likelihoods.bernoulli().num_outputs(labels)
    with pytest.raises(ValueError, match="needs labels of two classes, arrays is for regression"):
        likelihoods.bernoulli().num_outputs(targets)


@pytest.mark.parametrize("noise", [0.0, -1.0, float("inf"), float("nan"), "learnt"])
def test_bad_noise_is_refused(noise):
    with pytest.raises(ValueError, match="noise must be positive and finite, or 'learned'; got"):
        likelihoods.gaussian(noise)
