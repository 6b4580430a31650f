"""The posterior: its density against hand-written references and itself in other guises, its starts, its refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
from flax import linen, nnx

import samplers
from bayesnn import data, likelihoods, models, priors
from bayesnn.methods import laplace
from bayesnn.posteriors import posterior
from samplers import Tempering


def regression_data(num_train=60, num_test=8, num_features=3):
    rng = np.random.default_rng(1)
    x = rng.normal(2.0, 3.0, (num_train + num_test, num_features))
    y = 40 * np.sin(x[:, 0]) + 10 * x[:, 1] + rng.normal(0, 5, len(x)) + 300
    return data.from_arrays(x[:num_train], y[:num_train], x[num_train:], y[num_train:], name="sines")


def class_data(num_train=90, num_test=7, num_features=4, num_classes=3):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(num_train + num_test, num_features))
    y = np.argmax(x[:, :num_classes] + rng.normal(size=(len(x), num_classes)), axis=1)
    return data.from_arrays(x[:num_train], y[:num_train], x[num_train:], y[num_train:], name="blobs")


def make(likelihood, dataset, *, widths=(5,), prior=None, **settings):
    model = models.mlp(widths, likelihood.num_outputs(dataset), "tanh")
    return posterior(model, priors.gaussian(0.7) if prior is None else prior, likelihood, dataset, **settings)


def position_of(p, seed=3):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), x.dtype), p.like)


def value_and_gradient(p, position):
    """Of the tempered log density, as one compiled program."""

    @jax.jit
    def program(position, batch, tempering):
        return jax.value_and_grad(samplers.log_density(p.target, batch, tempering))(position)

    return program(position, p.batch, p.tempering)


def reference_gradient(position, x, y, scale):
    """Log density and gradient of a tanh network with one hidden layer and class labels, by hand, float64."""
    w = {name: np.asarray(value, np.float64) for name, value in models.named(position).items()}
    x = x.astype(np.float64)
    hidden = np.tanh(x @ w["layer_0.kernel"] + w["layer_0.bias"])
    log_p = scipy.special.log_softmax(hidden @ w["layer_1.kernel"] + w["layer_1.bias"], axis=1)
    value = log_p[np.arange(len(y)), y].sum() + sum(scipy.stats.norm.logpdf(v, 0, scale).sum() for v in w.values())
    error = np.eye(log_p.shape[1])[y] - np.exp(log_p)
    back = error @ w["layer_1.kernel"].T * (1 - hidden**2)
    gradient = {
        "layer_0.bias": back.sum(0),
        "layer_0.kernel": x.T @ back,
        "layer_1.bias": error.sum(0),
        "layer_1.kernel": hidden.T @ error,
    }
    return value, {name: slope - w[name] / scale**2 for name, slope in gradient.items()}


def test_value_and_gradient_equal_a_reference_by_hand():
    dataset = class_data()
    p = make(likelihoods.categorical(), dataset)
    position = position_of(p)
    value, gradient = value_and_gradient(p, position)
    expected, slopes = reference_gradient(position, dataset.x_train, dataset.y_train, 0.7)
    assert float(value) == pytest.approx(expected, rel=1e-6)  # 150 float32 terms: random rounding of about 1e-7 of the total
    largest = max(np.abs(slope).max() for slope in slopes.values())
    for name, slope in models.named(gradient).items():
        # Sums over 90 examples of order 1 terms in float32, relative to the largest entry.
        np.testing.assert_allclose(slope, slopes[name], atol=2e-6 * largest)


def test_in_double_precision_it_is_the_reference_to_rounding():
    dataset = class_data()
    with jax.enable_x64(True):
        p = make(likelihoods.categorical(), dataset, microbatch=32)
        position = position_of(p)
        assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves((position, p.batch.data[0], p.batch.constants)))
        value, gradient = value_and_gradient(p, position)
        expected, slopes = reference_gradient(position, dataset.x_train, dataset.y_train, 0.7)
        # The prior's scale 0.7 and the temperatures are exact in float64; what is left is rounding, 2e-16 of about 150 terms.
        assert float(value) == pytest.approx(expected, rel=1e-13)
        for name, slope in models.named(gradient).items():
            np.testing.assert_allclose(slope, slopes[name], rtol=1e-11, atol=1e-11)


def test_temperatures_enter_as_stated():
    p = make(likelihoods.categorical(), class_data(), temperature=0.25, likelihood_temperature=4.0)
    position = position_of(p)
    log_prior, log_likelihood = p.terms(position)
    tempered, _ = value_and_gradient(p, position)
    assert float(tempered) == pytest.approx((float(log_prior) + float(log_likelihood) / 4) / 0.25, rel=1e-6)


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.layer_0 = nnx.Linear(4, 5, rngs=rngs)
        self.layer_1 = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        return self.layer_1(jnp.tanh(self.layer_0(x)))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3, name="layer_1")(jnp.tanh(linen.Dense(5, name="layer_0")(x)))


def _pair_init(key, x):
    return {
        "layer_0": {"kernel": jnp.ones((4, 5)), "bias": jnp.ones(5)},
        "layer_1": {"kernel": jnp.ones((5, 3)), "bias": jnp.ones(3)},
    }


def _pair_apply(params, x):
    for name in ("layer_0", "layer_1"):
        x = x @ params[name]["kernel"] + params[name]["bias"]
        x = jnp.tanh(x) if name == "layer_0" else x
    return x


@pytest.mark.parametrize("guise", [NNXNet(nnx.Rngs(0)), NNXNet, LinenNet(), (_pair_init, _pair_apply)])
def test_the_same_weights_have_the_same_density_in_every_guise(guise):
    dataset = class_data()
    p = make(likelihoods.categorical(), dataset)
    other = posterior(guise, priors.gaussian(0.7), likelihoods.categorical(), dataset)
    assert jax.tree.map(jnp.shape, p.like) == jax.tree.map(jnp.shape, other.like)
    position = position_of(p)
    both = [value_and_gradient(q, position) for q in (p, other)]
    # The same arithmetic; Flax adds its biases by another primitive, so a last bit may differ.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-5), *both)


def test_learned_noise_has_the_gradient_of_its_formula():
    dataset = regression_data()
    p = make(likelihoods.gaussian("learned"), dataset)
    position = position_of(p)
    _, gradient = value_and_gradient(p, position)
    params, extra = p.form.split(position)
    residual = dataset.y_train - np.asarray(p.model.apply(params, dataset.x_train), np.float64)[:, 0]
    log_scale = float(extra["noise"]["log_scale"])
    expected = np.sum(residual**2 / np.exp(2 * log_scale) - 1) - (log_scale + 1)  # likelihood, and the prior N(-1, 1)
    assert float(gradient["noise"]["log_scale"]) == pytest.approx(expected, rel=1e-5)
    assert p.num_params == p.layers["layer_0"] + p.layers["layer_1"] + 1
    scales = p.prior_scales()
    assert float(scales["noise"]["log_scale"]) == 1.0
    np.testing.assert_allclose(scales["layer_0"]["kernel"], 0.7, rtol=1e-6)


@pytest.mark.slow
def test_padding_to_microbatches_and_blocks_changes_no_density():
    dataset = regression_data(num_train=61)
    whole = make(likelihoods.gaussian(0.3), dataset)
    position = position_of(whole)
    expected = value_and_gradient(whole, position)
    for settings in ({"microbatch": 16}, {"microbatch": 1000}, {"data_blocks": 4}, {"data_blocks": 2, "microbatch": 10}):
        p = make(likelihoods.gaussian(0.3), dataset, **settings)
        found = value_and_gradient(p, position)
        assert float(p.batch.weight.sum()) == 61
        # The same float32 terms in another order.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), found, expected)


def test_posteriors_that_differ_in_numbers_share_their_functions():
    dataset = regression_data()
    p = make(likelihoods.gaussian(0.3), dataset)
    others = [
        make(likelihoods.gaussian(0.1), dataset, temperature=0.5),
        make(likelihoods.gaussian(0.3), dataset, prior=priors.gaussian({"layer_0": 0.1, "*": 2.0})),
    ]
    density = jax.jit(lambda position, batch, tempering: samplers.log_density(p.target, batch, tempering)(position))
    position = position_of(p)
    values = {float(density(position, p.batch, p.tempering))}
    for other in others:
        assert other.target == p.target
        assert hash(other.target) == hash(p.target)
        assert other.save().function is p.save().function
        values.add(float(density(position, other.batch, other.tempering)))
    assert len(values) == 3
    assert density._cache_size() == 1
    assert make(likelihoods.gaussian("learned"), dataset).target != p.target


def test_starts_from_the_prior_and_from_the_model():
    p = make(likelihoods.gaussian("learned"), regression_data(), widths=(400,))
    starts = p.init(jax.random.key(0), 3)
    kernel = starts["layer_0"]["kernel"]
    assert kernel.shape == (3, 3, 400)
    # 3,600 draws: the sample standard deviation has a relative standard error of 1 / sqrt(2 * 3600) = 1.2 %.
    assert abs(float(kernel.std()) / 0.7 - 1) < 5 * 0.012
    model_starts = p.init(jax.random.key(0), 3, "model")
    assert not model_starts["layer_0"]["bias"].any()
    assert len(np.unique(model_starts["layer_0"]["kernel"][:, 0, 0])) == 3
    in_a_program = jax.jit(lambda key: p.init(key, 3, "model"))(jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), in_a_program, model_starts)
    # A chain's start does not depend on how many there are.
    jax.tree.map(lambda few, many: np.testing.assert_array_equal(few, many[:2]), p.init(jax.random.key(0), 2), starts)
    with pytest.raises(ValueError, match="unknown start 'priors'; did you mean 'prior'"):
        p.init(jax.random.key(0), 2, "priors")


def test_weights_that_do_not_fit_are_refused():
    p = make(likelihoods.gaussian(0.3), regression_data())
    weights = models.named(position_of(p))
    with pytest.raises(ValueError, match=r"missing \['layer_0.bias'\], unknown \['layer_0.scale'\]"):
        p.unflatten({name.replace("layer_0.bias", "layer_0.scale"): value for name, value in weights.items()})
    with pytest.raises(ValueError, match=r"layer_0.bias have shape \(6,\), expected \(..., 5\)"):
        p.unflatten(weights | {"layer_0.bias": np.zeros(6)})


def _integer_init(key, x):
    return {"w": jnp.ones((3, 1)), "count": jnp.arange(3)}


def _clashing_init(key, x):
    return {"noise": jnp.ones((3, 1))}


def _clashing_apply(params, x):
    return x @ next(iter(params.values()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": models.mlp([4], 3)}, r"sines have shape \(60, 3\), but the likelihood \(Gaussian.*\) needs \(60, 1\)"),
        ({"model": (lambda key, x: {"w": jnp.ones(3)}, lambda p, x: x @ p["w"])}, r"have shape \(60,\)"),
        ({"likelihood": likelihoods.categorical()}, "categorical\\) is for classification, sines for regression"),
        ({"model": (_integer_init, lambda p, x: x @ p["w"])}, "parameter count has dtype int32"),
        (
            {"model": (_clashing_init, _clashing_apply), "likelihood": likelihoods.gaussian("learned")},
            "both network and likelihood have parameters named noise",
        ),
        ({"model": models.Model(lambda key, x: [jnp.ones((3, 1))], lambda p, x: x @ p[0])}, "no nested dict of names"),
        ({"prior": priors.gaussian({"layer_7": 1.0, "*": 1.0})}, "pattern layer_7 takes no parameter"),
        ({"microbatch": 0}, "microbatch must be at least 1, got 0"),
        ({"data_blocks": 3}, "data_blocks must be a power of two, got 3"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    parts = {"model": models.mlp([4], 1), "prior": priors.gaussian(), "likelihood": likelihoods.gaussian(0.1)}
    with pytest.raises(ValueError, match=message):
        posterior(**(parts | {"dataset": regression_data()} | change))


def normal_noise(outputs, targets, extra):
    return -0.5 * (outputs[:, 0] - targets) ** 2


def moments(outputs, extra):
    return {"mean": outputs[:, 0], "scale": jnp.ones(len(outputs))}


def own_likelihood(log_prob=normal_noise, functions=moments):
    return likelihoods.Likelihood("regression", lambda dataset: 1, log_prob, functions, "own")


def own_prior(**changes):
    gaussian = priors.gaussian(0.7)
    return gaussian._replace(description="own", **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # What an axis too many makes of the difference of outputs and targets, and what is then summed to another density.
        ({"likelihood": own_likelihood(lambda f, y, extra: -((f - y) ** 2))}, r"gives shape \(60, 60\) on 60 examples, expected"),
        ({"likelihood": own_likelihood(lambda f, y, extra: -((f - y[:, None]) ** 2))}, r"gives shape \(60, 1\) on 60"),
        ({"likelihood": own_likelihood(lambda f, y, extra: normal_noise(f, y, extra).sum())}, r"gives shape \(\) on 60"),
        ({"likelihood": own_likelihood(functions=lambda f, extra: {"mean": f[:, 0]})}, "functions of the likelihood .own. gives"),
        ({"likelihood": own_likelihood(functions=lambda f, extra: f[:, 0])}, r"gives shapes \(60,\) on 60 examples, expected"),
        (
            {"prior": own_prior(log_prob=lambda params, _: params["layer_0"]["bias"])},
            r"prior \(own\) gives \(4,\), expected a scalar",
        ),
        ({"prior": own_prior(sample=lambda key, params: params["layer_0"])}, r"sample of the prior \(own\) gives shapes"),
    ],
)
def test_own_parts_of_a_wrong_shape_are_refused(change, message):
    parts = {"prior": own_prior(), "likelihood": own_likelihood(), "dataset": regression_data()}
    assert posterior(models.mlp([4], 1), **parts).num_params == 21
    with pytest.raises(ValueError, match=message):
        posterior(models.mlp([4], 1), **(parts | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior": 0.5}, r"expected a bayesnn Prior, as made by priors.gaussian\(0.5\); got 0.5"),
        (
            {"likelihood": likelihoods.categorical},
            r"expected a bayesnn Likelihood, as made by likelihoods.categorical\(\); got <f",
        ),
        ({"dataset": (np.zeros((3, 2)), np.zeros(3))}, "expected a bayesnn Dataset, as made by data.load"),
    ],
)
def test_parts_of_another_kind_are_refused(change, message):
    parts = {"prior": priors.gaussian(), "likelihood": likelihoods.gaussian(), "dataset": regression_data()}
    with pytest.raises(TypeError, match=message):
        posterior(models.mlp([4], 1), **(parts | change))


def count_data():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(90, 2))
    y = rng.poisson(np.exp(1 + x[:, 0]))
    return data.from_arrays(x[:80], y[:80], x[80:], y[80:], task="counts", name="visits")


def test_counts_and_single_logits_have_densities_of_the_data_as_they_are():
    counts = count_data()
    p = make(likelihoods.poisson(), counts)
    position = position_of(p)
    rate = np.asarray(p.functions(position, counts.x_train)["mean"], np.float64)
    expected = scipy.stats.poisson.logpmf(counts.y_train, rate).sum()
    # 80 float32 terms of up to a hundred nats.
    assert float(p.terms(position)[1]) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(p.observed(), counts.y_test)
    with pytest.raises(ValueError, match=r"\(Poisson\) is for counts, sines for regression"):
        make(likelihoods.poisson(), regression_data())
    two = make(likelihoods.bernoulli(), class_data(num_classes=2))
    assert two.functions(position_of(two), two.dataset.x_test)["probability"].shape == (7, 2)


def test_no_curvature_of_counts_is_made_up():
    p = make(likelihoods.poisson(), count_data())
    with pytest.raises(ValueError, match="not of counts: use swag or mean-field-vi"):
        laplace(samplers.optimise(p.target, optax.adam(0.1)), p, num_steps=1)


def test_a_prior_without_variance_has_no_scales():
    p = make(likelihoods.gaussian(0.3), regression_data(), prior=priors.from_name("Cauchy"))
    assert p.prior_scales() is None
    assert np.isfinite(float(p.terms(position_of(p))[0]))


def test_at_infinite_likelihood_temperature_it_is_the_prior():
    p = make(likelihoods.gaussian(0.3), regression_data(), likelihood_temperature=float("inf"))
    position = position_of(p)
    assert float(samplers.log_density(p.target, p.batch, p.tempering)(position)) == float(p.terms(position)[0])
    assert p.tempering == Tempering.at(1.0, float("inf"))
