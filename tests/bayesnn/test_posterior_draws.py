"""What is kept of a draw: against closed forms, finite differences and changes of units."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import samplers
from bayesnn import data, likelihoods, models, priors
from bayesnn.posteriors import posterior


def regression_data(num_train=60, num_test=8, num_features=3):
    rng = np.random.default_rng(1)
    x = rng.normal(2.0, 3.0, (num_train + num_test, num_features))
    y = 40 * np.sin(x[:, 0]) + 10 * x[:, 1] + rng.normal(0, 5, len(x)) + 300
    return data.from_arrays(x[:num_train], y[:num_train], x[num_train:], y[num_train:], name="sines")


def make(likelihood, dataset, *, widths=(5,), prior=None, **settings):
    model = models.mlp(widths, likelihood.num_outputs(dataset), "tanh")
    return posterior(model, priors.gaussian(0.7) if prior is None else prior, likelihood, dataset, **settings)


def position_of(p, seed=3):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), x.dtype), p.like)


class State(NamedTuple):
    """What `save` needs of a sampler's state."""

    position: dict


def saved(p, position, test_points=None):
    save = p.save(test_points)
    return jax.jit(save.function)(State(position), save.arrays)


def linear_gaussian(p, noise, scale):
    """Return posterior mean, covariance and log evidence of the linear model, in closed form; columns: bias, kernel."""
    x = np.column_stack([np.ones(p.dataset.num_data), p.dataset.x_train.astype(np.float64)])
    y = p.dataset.y_train.astype(np.float64)
    covariance = np.linalg.inv(x.T @ x / noise**2 + np.eye(x.shape[1]) / scale**2)
    evidence = scipy.stats.multivariate_normal.logpdf(y, np.zeros(len(y)), noise**2 * np.eye(len(y)) + scale**2 * x @ x.T)
    return covariance @ x.T @ y / noise**2, covariance, evidence


def linear_posterior(**settings):
    return make(likelihoods.gaussian(0.6), regression_data(), widths=(), prior=priors.gaussian(1.5), **settings)


def linear_position(theta):
    return {"layer_0": {"bias": jnp.asarray(theta[:1]), "kernel": jnp.asarray(theta[1:, None])}}


def test_the_linear_model_has_its_closed_form_posterior_and_evidence():
    with jax.enable_x64(True):
        p = linear_posterior()
        mean, covariance, evidence = linear_gaussian(p, 0.6, 1.5)
        for theta in np.random.default_rng(0).multivariate_normal(mean, 4 * covariance, 5):
            log_prior, log_likelihood = p.terms(linear_position(theta))
            log_posterior = scipy.stats.multivariate_normal.logpdf(theta, mean, covariance)
            # Bayes' theorem at every theta; float64 rounding of terms of order 100.
            assert float(log_prior + log_likelihood) - log_posterior == pytest.approx(evidence, abs=1e-9)


def test_virials_of_exact_draws_count_the_scalars_and_those_of_a_wrong_temperature_do_not():
    with jax.enable_x64(True):
        p = linear_posterior(temperature=0.5)
        mean, covariance, _ = linear_gaussian(p, 0.6, 1.5)
        save = p.save()
        virials = jax.jit(jax.vmap(lambda theta: save.function(State(linear_position(theta)), save.arrays)["virial"]))
        sizes = np.array(list(p.layers.values()))
        for temperature, is_right in ((0.5, True), (1.0, False)):
            draws = np.random.default_rng(1).multivariate_normal(mean, temperature * covariance, 4000)
            found = np.asarray(virials(draws))
            z = (found.mean(0) - sizes) / (found.std(0) / np.sqrt(len(draws)))
            assert (np.abs(z) < 5).all() == is_right


KINDS = {
    "categorical": likelihoods.categorical(),
    "learned": likelihoods.gaussian("learned"),
    "heteroscedastic": likelihoods.heteroscedastic(),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_virials_are_directional_derivatives_of_the_tempered_potential(kind):
    likelihood = KINDS[kind]
    with jax.enable_x64(True):
        dataset = data.load("wine") if kind == "categorical" else regression_data()
        p = make(likelihood, dataset, temperature=0.5, likelihood_temperature=2.0, microbatch=40)
        position = position_of(p)
        draw = saved(p, position)
        assert list(p.layers) == ["layer_0", "layer_1"] + (["noise"] if kind == "learned" else [])

        def potential(layer, factor):
            scaled = position | {layer: jax.tree.map(lambda x: factor * x, position[layer])}
            log_prior, log_likelihood = p.terms(scaled)
            return -(float(log_prior) + float(log_likelihood) / 2.0) / 0.5

        h = 1e-5
        for layer, virial in zip(p.layers, draw["virial"], strict=True):
            difference = (potential(layer, 1 + h) - potential(layer, 1 - h)) / (2 * h)
            # Central difference: rounding 2e-16 * 1e3 / h and truncation of order h^2.
            assert float(virial) == pytest.approx(difference, rel=1e-6, abs=1e-6)
        assert float(draw["lp"]) == pytest.approx(-potential("layer_0", 1.0), rel=1e-12)


def test_a_draw_of_classification():
    p = make(likelihoods.categorical(), data.load("wine"))
    position = position_of(p)
    draw = saved(p, position, test_points=4)
    assert list(draw["posterior"]) == sorted(models.named(position))
    np.testing.assert_array_equal(draw["posterior"]["layer_0.kernel"], position["layer_0"]["kernel"])
    probability = np.asarray(draw["functions"]["probability"])
    assert probability.shape == (4, 3)
    labels = p.observed(4)
    np.testing.assert_array_equal(labels, p.dataset.y_test[:4])
    np.testing.assert_allclose(
        draw["functions"]["log_likelihood"], np.log(probability[np.arange(4), labels]), rtol=1e-5, atol=1e-6
    )
    log_prior, log_likelihood = p.terms(position)
    np.testing.assert_allclose((draw["log_prior"], draw["log_likelihood"]), (log_prior, log_likelihood), rtol=1e-6)


@pytest.mark.parametrize(
    "likelihood", [likelihoods.gaussian(0.3), likelihoods.gaussian("learned"), likelihoods.heteroscedastic()]
)
def test_predictions_and_test_densities_are_in_original_units(likelihood):
    p = make(likelihood, regression_data())
    position = position_of(p)
    functions = p.functions(position, p.dataset.x_test)
    y = p.observed()
    np.testing.assert_allclose(y.mean(), 300, atol=5 * 30 / np.sqrt(8))  # the data's own mean and scale
    expected = scipy.stats.norm.logpdf(y, np.asarray(functions["mean"], np.float64), np.asarray(functions["scale"], np.float64))
    # Means near 300 are rounded by 2e-5, which moves a density of scale 3 or more by at most 5 sd / 3 * 2e-5.
    np.testing.assert_allclose(p.test_log_likelihood(position, p.dataset.x_test, y), expected, rtol=1e-4, atol=1e-4)
    draw = saved(p, position)["functions"]
    np.testing.assert_allclose(draw["log_likelihood"], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(draw["mean"], functions["mean"], rtol=1e-6)
    raw_outputs = p.model.apply(p.form.split(position)[0], p.dataset.x_test)
    np.testing.assert_allclose(functions["mean"], raw_outputs[:, 0] * p.dataset.y_scale + p.dataset.y_mean, rtol=1e-5)


def test_rescaled_targets_give_the_same_posterior_and_rescaled_predictions():
    dataset = regression_data()
    raw = [dataset.x_train * dataset.x_scale + dataset.x_mean, dataset.original_units(dataset.y_train)]
    raw += [dataset.x_test * dataset.x_scale + dataset.x_mean, dataset.original_units(dataset.y_test)]
    p = make(likelihoods.heteroscedastic(), data.from_arrays(*raw))
    q = make(likelihoods.heteroscedastic(), data.from_arrays(raw[0], 1000 * raw[1], raw[2], 1000 * raw[3]))
    position = position_of(p)
    np.testing.assert_allclose(p.terms(position), q.terms(position), rtol=1e-6)
    one, other = saved(p, position)["functions"], saved(q, position)["functions"]
    np.testing.assert_allclose(other["mean"], 1000 * one["mean"], rtol=1e-5)
    np.testing.assert_allclose(other["log_likelihood"], one["log_likelihood"] - np.log(1000), rtol=1e-5, atol=1e-4)


@pytest.mark.slow
def test_draws_come_from_a_sampler_and_go_back_to_positions():
    p = make(likelihoods.gaussian("learned"), regression_data())
    kernel = samplers.hmc(p.target, step_size=0.01, trajectory_length=0.1, tempering=p.tempering)
    positions = p.init(jax.random.key(0), 2)
    draws = samplers.sample(jax.random.key(1), kernel, positions, p.batch, num_steps=3, save=p.save(5)).draws
    assert draws["virial"].shape == (2, 3, 3)
    assert draws["functions"]["log_likelihood"].shape == (2, 3, 5)
    back = p.unflatten(draws["posterior"])
    assert jax.tree.map(np.shape, back) == jax.tree.map(lambda x: (2, 3, *x.shape), p.like)
    last = jax.tree.map(lambda x: jnp.asarray(x[1, 2]), back)
    np.testing.assert_allclose(p.functions(last, p.dataset.x_test[:5])["mean"], draws["functions"]["mean"][1, 2], rtol=1e-5)
    assert float(samplers.log_density(p.target, p.batch, p.tempering)(last)) == pytest.approx(draws["lp"][1, 2], rel=1e-5)


@pytest.mark.parametrize("test_points", [0, 9])
def test_test_points_are_checked(test_points):
    with pytest.raises(ValueError, match=f"test_points must be from 1 to 8 for sines, got {test_points}"):
        make(likelihoods.gaussian(0.3), regression_data()).save(test_points)
