"""Gaussians, the funnel, linear regression and linearised networks against scipy, finite differences and draws."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree

from diagnostics.oracles import funnel, gaussian, linear_regression, linearised

RNG = np.random.default_rng(3)
COVARIANCE = [[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 0.2]]
X = RNG.normal(size=(20, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.2], [0, 0, 0.3]])
Y = X @ [1.0, -0.5, 2.0] + 0.4 * RNG.normal(size=20)
REGRESSION = linear_regression(X, Y, noise_scale=0.4, prior_scale=1.5)
# Sums of some twenty float32 terms of order ten.
ROUNDING = 20 * 10 * float(np.finfo(np.float32).eps)


def test_gaussian(check):
    oracle = gaussian([1.0, 0.0, -2.0], COVARIANCE)
    check.assert_draws(oracle)
    points = RNG.normal(size=(20, 3))
    expected = scipy.stats.multivariate_normal([1.0, 0.0, -2.0], COVARIANCE).logpdf(points)
    # Exponents of up to a hundred, rounded in float32.
    np.testing.assert_allclose(jax.vmap(oracle.log_density)(points), expected, rtol=1e-5)


def test_funnel(check):
    oracle = funnel(4, scale=2.0)
    draws = check.flat(oracle.draw(jax.random.key(0), 2**15))
    standard = np.column_stack([draws[:, 0] / 2, draws[:, 1:] * np.exp(-draws[:, :1] / 2)])
    check.assert_means(standard, 0.0)
    check.assert_means(standard[:, :, None] * standard[:, None, :], np.eye(4))
    point = np.array([1.0, 0.5, -1.0, 2.0])
    expected = scipy.stats.norm(0, 2).logpdf(1.0) + scipy.stats.norm(0, np.exp(0.5)).logpdf(point[1:]).sum()
    assert float(oracle.log_density(jnp.asarray(point))) == pytest.approx(expected, abs=ROUNDING)


def test_linear_regression(check):
    check.assert_draws(REGRESSION)
    marginal = scipy.stats.multivariate_normal(np.zeros(20), 0.4**2 * np.eye(20) + 1.5**2 * X @ X.T)
    assert REGRESSION.log_evidence == pytest.approx(marginal.logpdf(Y), rel=1e-10)
    assert REGRESSION.log_likelihood(REGRESSION.reference, REGRESSION.data).shape == (20,)
    check.assert_evidence(linear_regression(X, Y, noise_scale=4.0, prior_scale=1.5))


def test_a_wrong_noise_scale_would_be_noticed(check):
    other = linear_regression(X, Y, noise_scale=0.42, prior_scale=1.5)
    with pytest.raises(AssertionError):
        check.assert_draws(dataclasses.replace(other, draw=REGRESSION.draw))


def test_excess_loss_of_regression_tends_to_half_the_rank():
    features = X @ np.array([[1, 0, 1], [0, 1, 1], [0, 0, 0]])
    oracle = linear_regression(features, Y, noise_scale=1e-3, prior_scale=1.0)
    # Each direction is short of one half by (noise / (prior scale x singular value))^2 / 2, singular values being above 1.
    assert oracle.excess_loss == pytest.approx(oracle.llc, abs=1e-6)
    assert oracle.llc == 1.0


def network(weights, inputs):
    return jnp.tanh(inputs @ weights["in"] + weights["bias"]) @ weights["out"]


ANCHOR = {"in": jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32), "bias": jnp.zeros(3), "out": jnp.asarray(RNG.normal(size=3))}
INPUTS = RNG.normal(size=(15, 2)).astype(np.float32)
TARGETS = np.sin(INPUTS[:, 0])
SETTINGS = {"noise_scale": 0.3, "prior_scale": 1.0}


@functools.cache
def linear():
    return linearised(network, ANCHOR, INPUTS, TARGETS, **SETTINGS)


def finite_differences():
    """Value and Jacobian of the network in NumPy, by central differences."""
    origin = np.asarray(ravel_pytree(ANCHOR)[0], np.float64)

    def outputs(flat):
        bias, inner, outer = flat[:3], flat[3:9].reshape(2, 3), flat[9:]  # in the order of the names
        return np.tanh(INPUTS.astype(np.float64) @ inner + bias) @ outer

    step = 1e-5  # error of order step^2 = 1e-10
    columns = [(outputs(origin + step * e) - outputs(origin - step * e)) / (2 * step) for e in np.eye(len(origin))]
    return outputs(origin), np.stack(columns, 1), origin


def test_linearised_network_has_the_evidence_and_the_mean_of_its_kernel():
    value, jacobian, origin = finite_differences()
    kernel = jacobian @ jacobian.T
    centre = value - jacobian @ origin
    marginal = scipy.stats.multivariate_normal(centre, 0.3**2 * np.eye(15) + kernel)
    assert linear().log_evidence == pytest.approx(marginal.logpdf(TARGETS), rel=1e-7)
    # In function space: the mean of a Gaussian process with this kernel.
    process = centre + kernel @ np.linalg.solve(kernel + 0.3**2 * np.eye(15), TARGETS - centre)
    np.testing.assert_allclose(centre + jacobian @ linear().mean, process, atol=1e-7)


def test_draws_of_a_linearised_network_agree_with_the_answers(check):
    check.assert_draws(linear())
    draws = linear().draw(jax.random.key(0), 3)
    assert jax.tree.structure(draws) == jax.tree.structure(ANCHOR)


def test_bridge_leads_from_the_linearised_to_the_real_network():
    weights = jax.tree.map(lambda leaf: leaf + 0.5, ANCHOR)

    def predicted(fraction):
        oracle = linearised(network, ANCHOR, INPUTS, np.zeros(15), noise_scale=1.0, prior_scale=1.0, fraction=fraction)
        # Predictions from log likelihoods at two targets.
        at = [oracle.log_likelihood(weights, {"x": INPUTS, "y": np.full(15, y, np.float32)}) for y in (0.0, 1.0)]
        return np.asarray(at[1] - at[0]) + 0.5, oracle

    flat, real = predicted(0.0)[0], predicted(1.0)[0]
    value, jacobian, _ = finite_differences()
    np.testing.assert_allclose(flat, value + jacobian @ np.full(12, 0.5), atol=ROUNDING)
    np.testing.assert_allclose(real, network(weights, INPUTS), atol=ROUNDING)
    halfway, oracle = predicted(0.5)
    np.testing.assert_allclose(halfway, (flat + real) / 2, atol=ROUNDING)
    assert oracle.log_evidence is None
    assert np.abs(flat - real).max() > 0.1


def test_several_outputs_are_one_example():
    def pair(weights, inputs):
        return jnp.stack([network(weights, inputs), 2 * network(weights, inputs)], axis=1)

    oracle = linearised(pair, ANCHOR, INPUTS, np.column_stack([TARGETS, 2 * TARGETS]), **SETTINGS)
    assert oracle.log_likelihood(ANCHOR, oracle.data).shape == (15,)
    # Two outputs f and 2 f at targets y and 2 y weigh like one with a fifth of the variance.
    same = linearised(network, ANCHOR, INPUTS, TARGETS, noise_scale=0.3 / np.sqrt(5), prior_scale=1.0)
    np.testing.assert_allclose(oracle.mean, same.mean, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linearised(network, ANCHOR, INPUTS, TARGETS[:, None], **SETTINGS), "shape of the targets"),
        (lambda: linearised(network, ANCHOR, INPUTS, TARGETS, **SETTINGS, fraction=1.5), "between 0 and 1"),
        (lambda: linear_regression(X, Y[:-1], noise_scale=1.0, prior_scale=1.0), r"targets \[n\]"),
        (lambda: linear_regression(X, Y, noise_scale=0.0, prior_scale=1.0), "noise_scale must be positive"),
        (lambda: gaussian([0.0], [[-1.0]]), "positive eigenvalues"),
        (lambda: gaussian([0.0], [[1.0, 0.0]]), r"covariance \[d, d\]"),
        (lambda: funnel(1), "at least 2"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
