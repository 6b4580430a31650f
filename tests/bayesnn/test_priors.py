"""Priors: densities against SciPy, draws against their moments, patterns and refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

from bayesnn import models, priors

PARAMS = models.mlp([5], 3).init(jax.random.key(0), np.zeros((1, 4)))
MIXTURE = dist.MixtureSameFamily(dist.Categorical(jnp.array([0.3, 0.7])), dist.Normal(jnp.zeros(2), jnp.array([0.1, 1.0])))


class SpikeAndSlab:
    """MIXTURE in float64, with the two methods that the tests need."""

    spike, slab = scipy.stats.norm(0, 0.1), scipy.stats.norm(0, 1)

    def logpdf(self, x):
        return np.logaddexp(np.log(0.3) + self.spike.logpdf(x), np.log(0.7) + self.slab.logpdf(x))

    def cdf(self, x):
        return 0.3 * self.spike.cdf(x) + 0.7 * self.slab.cdf(x)


# Each: a prior, and its references for layer_0.kernel, layer_1.kernel and biases.
FAMILIES = {
    "gaussian": (priors.gaussian(0.3), *[scipy.stats.norm(0, 0.3)] * 3),
    "layers": (
        priors.gaussian({"*.bias": 0.1, "layer_0": 2.0, "*": 0.5}, location=1.0),
        scipy.stats.norm(1, 2.0),
        scipy.stats.norm(1, 0.5),
        scipy.stats.norm(1, 0.1),
    ),
    "student": (priors.from_name("StudentT", df=4.0, scale=0.3), *[scipy.stats.t(4, scale=0.3)] * 3),
    "mixed": (
        priors.from_distribution({"*.bias": dist.Laplace(0.0, 2.0), "*": MIXTURE}),
        SpikeAndSlab(),
        SpikeAndSlab(),
        scipy.stats.laplace(0, 2),
    ),
    "cauchy": (priors.from_distribution(dist.Cauchy(0.0, 0.5)), *[scipy.stats.cauchy(0, 0.5)] * 3),
}


def random_params(seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), PARAMS)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_density_is_normalised_and_right(family):
    prior, first_kernel, last_kernel, bias = FAMILIES[family]
    references = {"layer_0.kernel": first_kernel, "layer_1.kernel": last_kernel, "layer_0.bias": bias, "layer_1.bias": bias}
    params = random_params()
    named = models.named(params)
    expected = sum(reference.logpdf(np.asarray(named[name], np.float64)).sum() for name, reference in references.items())
    # Forty float32 terms, each right to a few roundings of 6e-8.
    np.testing.assert_allclose(jax.jit(prior.log_prob)(params, prior.constants(PARAMS)), expected, rtol=2e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_have_the_distribution(family):
    prior, reference, _, bias = FAMILIES[family]
    like = {"layer_0": {"kernel": jnp.zeros((200, 100)), "bias": jnp.zeros(20_000)}, "layer_1": {"kernel": jnp.zeros((1, 1))}}
    sample = jax.jit(lambda key: prior.sample(key, like))(jax.random.key(3))["layer_0"]
    # Kolmogorov-Smirnov on 20,000 draws; a right sampler fails one key in a thousand, and a scale off by 10 % nearly always.
    for draws, exact in ((np.asarray(sample["kernel"]).ravel(), reference), (np.asarray(sample["bias"]), bias)):
        centre = np.median(draws)
        assert scipy.stats.kstest(draws, exact.cdf).pvalue > 1e-3
        assert scipy.stats.kstest(centre + 1.1 * (draws - centre), exact.cdf).pvalue < 1e-3


def test_draws_of_different_parameters_differ():
    sample = priors.gaussian().sample(jax.random.key(0), {"a": jnp.zeros(4), "b": jnp.zeros(4)})
    assert not np.isclose(sample["a"], sample["b"]).any()
    sample = priors.from_name("Laplace").sample(jax.random.key(0), {"a": jnp.zeros(4), "b": jnp.zeros(4)})
    assert not np.isclose(sample["a"], sample["b"]).any()


def test_fan_in_divides_kernels_alone():
    like = {"conv": {"kernel": jnp.zeros((3, 3, 4, 8)), "bias": jnp.zeros(8)}, "dense": {"kernel": jnp.zeros((25, 2))}}
    scale = priors.gaussian(2.0, fan_in=True).scale(like)
    np.testing.assert_allclose(scale["conv"]["kernel"], 2 / 6, rtol=1e-6)
    np.testing.assert_allclose(scale["dense"]["kernel"], 2 / 5, rtol=1e-6)
    np.testing.assert_allclose(scale["conv"]["bias"], 2)


def test_scales_are_standard_deviations_shaped_as_the_parameters():
    scale = priors.gaussian({"layer_1.bias": 0.2, "*": 3.0}).scale(PARAMS)
    assert jax.tree.map(jnp.shape, scale) == jax.tree.map(jnp.shape, PARAMS)
    assert float(scale["layer_1"]["bias"][0]) == pytest.approx(0.2)
    assert float(scale["layer_1"]["kernel"][0, 0]) == 3.0
    student = priors.from_name("StudentT", df=4.0, scale=0.3).scale(PARAMS)
    np.testing.assert_allclose(student["layer_0"]["bias"], 0.3 * np.sqrt(2), rtol=1e-6)  # sqrt(df / (df - 2))
    mixture = priors.from_distribution(MIXTURE).scale(PARAMS)
    np.testing.assert_allclose(mixture["layer_0"]["bias"], np.sqrt(0.3 * 0.01 + 0.7), rtol=1e-6)


@pytest.mark.parametrize(
    "prior",
    [
        priors.from_name("Cauchy"),
        priors.from_name("StudentT", df=1.5),
        priors.from_distribution({"*.bias": dist.Cauchy(), "*": dist.Normal()}),
    ],
)
def test_without_a_variance_there_is_no_scale(prior):
    assert prior.scale(PARAMS) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (priors.gaussian(0.1), priors.gaussian({"*.bias": 5.0, "*": 2.0}, fan_in=True)),
        (priors.from_name("StudentT", df=3.0), priors.from_name("StudentT", df=5.0, scale=0.2)),
    ],
)
def test_another_scale_recompiles_nothing(one, other):
    assert one.log_prob is other.log_prob
    density = jax.jit(lambda params, constants: one.log_prob(params, constants))
    values = {float(density(PARAMS, prior.constants(PARAMS))) for prior in (one, other)}
    assert len(values) == 2
    assert density._cache_size() == 1


def test_the_empty_prior_is_neutral():
    prior = priors.gaussian()
    assert float(prior.log_prob({}, prior.constants({}))) == 0.0
    assert prior.sample(jax.random.key(0), {}) == prior.scale({}) == {}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: priors.gaussian(0.0), ValueError, "positive and finite, got 0.0"),
        (lambda: priors.gaussian({"layer_0": -1.0}), ValueError, "got -1.0 for 'layer_0'"),
        (lambda: priors.gaussian(float("nan")), ValueError, "got nan"),
        (lambda: priors.gaussian(1.0, location=float("inf")), ValueError, "location of a prior must be finite, got inf"),
        (lambda: priors.gaussian({"layer_0": 1.0}).constants(PARAMS), ValueError, "no prior for layer_1.bias, layer_1.kernel"),
        (lambda: priors.gaussian({"layr_0": 1.0, "*": 1.0}).constants(PARAMS), ValueError, "pattern layr_0 takes no parameter"),
        (lambda: priors.gaussian({"*": 1.0, "layer_0": 1.0}).constants(PARAMS), ValueError, "pattern layer_0 takes no parameter"),
        (lambda: priors.from_name("StudntT"), ValueError, "did you mean 'StudentT'"),
        (lambda: priors.from_name("Normal", sd=1.0), ValueError, "Normal cannot be made with {'sd': 1.0}"),
        (lambda: priors.from_name("Normal", scale=-1.0), ValueError, "Normal cannot be made with"),
        (lambda: priors.from_name("HalfNormal"), ValueError, "HalfNormal for '\\*' on Positive"),
        (lambda: priors.from_distribution(dist.Normal(jnp.zeros(3), 1.0)), ValueError, r"batch shape \(3,\)"),
        (lambda: priors.from_distribution({"*": 1.0}), TypeError, "expected a numpyro distribution for '\\*', got float"),
    ],
)
def test_bad_priors_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_layer_is_not_taken_for_another_with_the_same_beginning():
    params = models.mlp([2] * 11, 1).init(jax.random.key(0), np.zeros((1, 3)))
    scale = priors.gaussian({"layer_1": 0.5, "*": 1.0}).scale(params)
    assert float(scale["layer_1"]["bias"][0]) == 0.5
    assert float(scale["layer_10"]["bias"][0]) == 1.0
