"""Families at equal variance against SciPy, and the prior with the covariance of the inputs against a multivariate normal."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

from bayesnn import build, config, models, priors

PARAMS = models.mlp([5], 3).init(jax.random.key(0), np.zeros((1, 4)))
SCALE = 0.3


def mixture(ratio):
    narrow = SCALE * np.sqrt(2 / (1 + ratio**2))
    parts = dist.Normal(jnp.zeros(2), jnp.array([narrow, ratio * narrow]))
    return dist.MixtureSameFamily(dist.Categorical(jnp.array([0.5, 0.5])), parts)


class Mixture(scipy.stats.rv_continuous):
    def _cdf(self, x):
        narrow = SCALE * np.sqrt(2 / (1 + 3.0**2))
        return 0.5 * (scipy.stats.norm.cdf(x, 0, narrow) + scipy.stats.norm.cdf(x, 0, 3 * narrow))


# Each: a prior, an independent density of one weight, and SciPy's distribution; all with standard deviation SCALE.
FAMILIES = {
    "gaussian": (priors.family("gaussian", SCALE), dist.Normal(0.0, SCALE), scipy.stats.norm(0, SCALE)),
    "logistic": (
        priors.family("logistic", SCALE),
        dist.Logistic(0.0, SCALE * np.sqrt(3) / np.pi),
        scipy.stats.logistic(0, SCALE * np.sqrt(3) / np.pi),
    ),
    "laplace": (
        priors.family("laplace", SCALE),
        dist.Laplace(0.0, SCALE / np.sqrt(2)),
        scipy.stats.laplace(0, SCALE / np.sqrt(2)),
    ),
    "student-t": (
        priors.family("student-t", SCALE, df=5),
        dist.StudentT(5.0, 0.0, SCALE * np.sqrt(3 / 5)),
        scipy.stats.t(5, 0, SCALE * np.sqrt(3 / 5)),
    ),
    "mixture": (priors.family("mixture", SCALE, ratio=3), mixture(3.0), Mixture()),
}


def random_params(scale=1.0):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.asarray(scale * rng.standard_t(3, x.shape), jnp.float32), PARAMS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])  # the peak, the middle, the far tail
def test_log_densities_are_those_of_numpyro(name, size):
    prior, reference, _ = FAMILIES[name]
    params = random_params(size)
    expected = sum(float(reference.log_prob(leaf).sum()) for leaf in jax.tree.leaves(params))
    # 43 float32 terms of both, right to a few roundings of 6e-8 of the largest.
    np.testing.assert_allclose(jax.jit(prior.log_prob)(params, prior.constants(PARAMS)), expected, rtol=5e-6, atol=1e-4)
    wider = priors.family(name, 1.1 * SCALE)
    assert not np.isclose(float(wider.log_prob(params, wider.constants(PARAMS))), expected, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_draws_have_the_distribution_and_the_stated_standard_deviation(name):
    prior, reference, exact = FAMILIES[name]
    like = {"layer_0": {"kernel": jnp.zeros((200, 100))}}
    draws = np.asarray(jax.jit(lambda key: prior.sample(key, like))(jax.random.key(3))["layer_0"]["kernel"]).ravel()
    # Kolmogorov-Smirnov on 20,000 draws; a right sampler fails one key in a thousand, and a scale off by 10 % nearly always.
    assert scipy.stats.kstest(draws, exact.cdf).pvalue > 1e-3
    assert scipy.stats.kstest(1.1 * draws, exact.cdf).pvalue < 1e-3
    np.testing.assert_allclose(np.sqrt(reference.variance), SCALE, rtol=1e-5)  # the reference is at equal variance, too
    np.testing.assert_allclose(prior.scale(like)["layer_0"]["kernel"], SCALE, rtol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_finite_everywhere_and_another_scale_recompiles_nothing(name):
    prior = FAMILIES[name][0]
    other = priors.family(name, {"*.bias": 2.0, "*": 0.1}, fan_in=True)
    assert prior.log_prob is other.log_prob
    gradient = jax.jit(jax.grad(prior.log_prob))
    for params in (jax.tree.map(jnp.zeros_like, PARAMS), random_params(1e4)):
        for one in (prior, other):
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(params, one.constants(PARAMS))))
    assert gradient._cache_size() == 1


def features(num_rows=400):
    """Four standardised columns, the last of which is the sum of two others: one direction without inputs."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(num_rows, 3))
    x = np.concatenate([x, x[:, :1] + x[:, 1:2]], 1)
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32)


def expected_covariance(rows, scale, diagonal):
    moments = rows.T.astype(float) @ rows / (len(rows) - 1)
    covariance = moments / np.trace(moments) * len(moments) + diagonal * np.eye(len(moments))
    return scale**2 * covariance * np.trace(moments) / np.trace(moments @ covariance)


def test_the_first_layer_has_the_covariance_of_the_inputs():
    x = features()
    prior = priors.empirical_covariance(x, priors.gaussian(0.7), scale=0.5, diagonal=0.02)
    covariance = expected_covariance(x, 0.5, 0.02)
    # On the inputs it responds as a layer of independent weights does; it may then well have smaller weights.
    assert np.einsum("ni,ij,nj->n", x, covariance, x).mean() == pytest.approx(0.25 * np.square(x).sum(1).mean(), rel=1e-5)
    params = random_params()
    named = models.named(params)
    kernel = np.asarray(named.pop("layer_0.kernel"), float)
    expected = scipy.stats.multivariate_normal(np.zeros(4), covariance).logpdf(kernel.T).sum()
    expected += sum(scipy.stats.norm(0, 0.7).logpdf(np.asarray(leaf, float)).sum() for leaf in named.values())
    log_prob = jax.jit(prior.log_prob)
    # Quadratic forms whose terms are up to 50 times the result: 50 roundings of 6e-8 and some spare.
    np.testing.assert_allclose(log_prob(params, prior.constants(PARAMS)), expected, rtol=2e-5)
    # Along the direction without inputs the density is far narrower than an isotropic one of the same variance.
    null = np.linalg.eigh(covariance)[1][:, 0].astype(np.float32)
    moved = jax.tree.map(jnp.zeros_like, PARAMS)
    moved["layer_0"]["kernel"] = jnp.asarray(np.outer(null, np.ones(5)))
    isotropic = priors.gaussian({"layer_0.kernel": 0.5, "*": 0.7})
    both = [float(p.log_prob(moved, p.constants(PARAMS))) for p in (prior, isotropic)]
    assert both[0] < both[1] - 100


def test_its_draws_and_scales_are_those_of_the_covariance():
    x = features()
    prior = priors.empirical_covariance(x, priors.gaussian(0.7), scale=0.5)
    like = models.mlp([20_000], 1).init(jax.random.key(0), np.zeros((1, 4)))
    drawn = prior.sample(jax.random.key(4), like)
    covariance = expected_covariance(x, 0.5, 0.01)
    found = np.cov(np.asarray(drawn["layer_0"]["kernel"], float), bias=True)
    # An entry's standard error is at most sqrt(2 / 20000) of the largest variance; 16 entries, 5 of them.
    np.testing.assert_allclose(found, covariance, atol=5 * np.sqrt(2 / 20_000) * covariance.max())
    assert float(drawn["layer_0"]["bias"].std()) == pytest.approx(0.7, rel=5 / np.sqrt(2 * 20_000))
    scale = prior.scale(like)
    np.testing.assert_allclose(scale["layer_0"]["kernel"][:, 0], np.sqrt(np.diag(covariance)), rtol=1e-5)
    assert float(scale["layer_1"]["bias"][0]) == pytest.approx(0.7)
    assert priors.empirical_covariance(x, priors.from_name("Cauchy")).scale(like) is None


def test_a_convolution_has_the_covariance_of_its_patches():
    rng = np.random.default_rng(5)
    images = np.cumsum(rng.normal(size=(20, 7, 6, 2)), axis=1).astype(np.float32)
    params = {"stem": {"conv": {"kernel": jnp.asarray(rng.normal(size=(3, 2, 2, 4)), jnp.float32), "bias": jnp.zeros(4)}}}
    prior = priors.empirical_covariance(images, priors.gaussian(), layer="stem.conv", scale=0.4, diagonal=0.1)
    patches = np.stack([images[:, i : i + 3, j : j + 2].reshape(20, -1) for i in range(5) for j in range(5)], 1)
    covariance = expected_covariance(patches.reshape(-1, 12), 0.4, 0.1)
    kernel = np.asarray(params["stem"]["conv"]["kernel"], float).reshape(12, 4)
    expected = scipy.stats.multivariate_normal(np.zeros(12), covariance).logpdf(kernel.T).sum()
    expected += 4 * scipy.stats.norm.logpdf(0)
    np.testing.assert_allclose(prior.log_prob(params, prior.constants(params)), expected, rtol=2e-5)


def test_a_fully_connected_layer_has_the_covariance_of_all_pixels():
    images = np.random.default_rng(6).normal(size=(50, 2, 2, 1)).astype(np.float32)
    of_images, of_rows = (priors.empirical_covariance(x, priors.gaussian()) for x in (images, images.reshape(50, 4)))
    params = random_params()
    assert of_images.log_prob(params, of_images.constants(PARAMS)) == of_rows.log_prob(params, of_rows.constants(PARAMS))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.family("laplce"), "did you mean 'laplace'"),
        (lambda: priors.family("x"), "^unknown prior family 'x'; known are gaussian, laplace, logistic, mixture, student-t$"),
        (lambda: priors.family("laplace", -1.0), "positive and finite, got -1.0"),
        (lambda: priors.family("laplace", df=4), "laplace has no df; leave out df=4"),
        (lambda: priors.family("student-t", df=2), "above 2"),
        (lambda: priors.family("mixture", ratio=0.5), "ratio must be finite and at least 1, got 0.5"),
        (lambda: priors.family("student-t", df=float("nan")), "above 2"),
        (lambda: priors.empirical_covariance(features(), priors.gaussian(), scale=0.0), "scale .* positive"),
        (lambda: priors.empirical_covariance(np.zeros((3, 2), int), priors.gaussian()), "int64 of shape"),
        (lambda: priors.empirical_covariance(np.zeros((9, 4)), priors.gaussian()).constants(PARAMS), "inputs are constant"),
        (
            lambda: priors.empirical_covariance(features()[:, :3], priors.gaussian()).scale(PARAMS),
            r"takes inputs of shape \(4,\)",
        ),
        (
            lambda: priors.empirical_covariance(features(), priors.gaussian(), layer="conv").scale(PARAMS),
            "no parameter conv.kernel",
        ),
    ],
)
def test_bad_priors_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_configured_priors_are_built(tmp_path):
    x = features(60)
    np.savez(tmp_path / "x.npz", x_train=x, y_train=x[:, 0] > 0, x_test=x[:5], y_test=x[:5, 0] > 0)

    def described(prior):
        settings = config.RunConfig(data=config.Data(name=str(tmp_path / "x.npz")), prior=prior, model=config.MLP(widths=(5,)))
        return build.build_posterior(settings).prior.description

    mixed = config.FamilyPrior(name="mixture", scale=0.3, layer_scales={"layer_1": 0.2})
    assert described(mixed) == "mixture (ratio 4), sd layer_1: 0.2, 0.3"
    assert "covariance of the inputs in layer_0.kernel" in described(config.EmpiricalCovariancePrior(scale=0.3))
    with pytest.raises(ValueError, match="df is a setting of the family student-t"):
        config.FamilyPrior(name="laplace", df=3)
