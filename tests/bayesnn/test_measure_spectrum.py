"""Spectra by products with vectors, against those of matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesnn.measure.spectrum import AGREEMENT, DENSE, PROBES, lanczos, largest_curvature, loss_spectra
from samplers import Batch, Target
from tests.bayesnn import loss_targets as t

LARGE, RESOLUTION = 1000, 0.01
H = np.concatenate([np.geomspace(1e-3, 1, LARGE - 100), np.zeros(100)])


def effective(measure):
    """A smooth function of the Hessian: the directions that a localiser leaves, twice over."""
    nodes = np.maximum(measure.nodes, 0)
    return measure.weights @ (nodes / (nodes + RESOLUTION))


def test_random_vectors_find_the_trace_of_a_function():
    target, batch = t.quadratic(H)
    found = loss_spectra(jax.random.key(0), target, batch, jnp.zeros(LARGE), resolution=RESOLUTION).hessian
    assert LARGE > DENSE
    assert found.weights.sum() == pytest.approx(LARGE, rel=1e-5)
    # Of random signs on a diagonal Hessian the quadratic form is the trace itself: what is left is that of the quadrature.
    assert effective(found) == pytest.approx(np.sum(H / (H + RESOLUTION)), rel=AGREEMENT)
    assert found.largest == pytest.approx(1, rel=1e-3)


def test_random_vectors_know_a_rotated_hessian_to_their_error():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 300)) * np.geomspace(0.1, 1, 300)
    target = Target(t.flat_prior, t.regression_log_likelihood, 400)
    batch = Batch((jnp.asarray(x, float), jnp.zeros(400)), jnp.ones(400))
    exact = np.linalg.eigvalsh(x.T @ x / 400)
    values = exact / (exact + RESOLUTION)
    found = loss_spectra(jax.random.key(1), target, batch, jnp.zeros(300), resolution=RESOLUTION).hessian
    # The variance of a form in random signs is at most twice the squared Frobenius norm.
    error = np.sqrt(2 * np.sum(values**2) / PROBES)
    assert abs(effective(found) - values.sum()) < 4 * error
    assert error < 0.05 * values.sum()
    assert found.largest == pytest.approx(exact[-1], rel=0.02)


def test_small_spectra_are_exact():
    target, batch, solution, hessian = t.regression()
    found = loss_spectra(
        jax.random.key(0), target, batch, jnp.asarray(solution + 0.1, jnp.float32), resolution=1.0, batch_size=10
    )
    np.testing.assert_allclose(found.hessian.nodes, np.linalg.eigvalsh(hessian), rtol=1e-4)
    # The gradient at a displacement s is H s; its squared length and g' H^-1 g are sums over its measure.
    shift = np.full(3, 0.1)
    assert found.gradient.weights.sum() == pytest.approx(shift @ hessian @ hessian @ shift, rel=1e-3)
    assert found.gradient.weights @ (1 / found.gradient.nodes) == pytest.approx(shift @ hessian @ shift, rel=1e-3)
    x, y = (np.asarray(part, np.float64) for part in batch.data)
    gradients = -(y - x @ (solution + 0.1))[:, None] * x
    # Of 8 minibatches: 3 chi-squared directions, 8 of each.
    expected = gradients.var(0).sum() / 10
    assert 0.4 * expected < found.batch_noise.weights.sum() < 2 * expected


def test_a_vector_of_few_directions_ends_the_recursion():
    found = lanczos(lambda v: 3.0 * v, jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(found.nodes, [3.0], rtol=1e-6)
    np.testing.assert_allclose(found.weights, [25.0], rtol=1e-6)
    assert lanczos(lambda v: v, jnp.zeros(2)).weights.sum() == 0
    assert np.isnan(lanczos(lambda v: v * jnp.nan, jnp.ones(2)).nodes).all()


@pytest.mark.slow
def test_ill_conditioned_networks_keep_their_rank():
    """Most directions are flat, and the stiff ones spread over four orders: a recursion too short would count flat ones."""
    widths = (16, 16, 8, 16, 24)
    keys = jax.random.split(jax.random.key(3), 4)
    layers = [jax.random.normal(k, (b, a)) / np.sqrt(a) for k, a, b in zip(keys, widths[:-1], widths[1:], strict=True)]
    target, batch = t.linear_network(layers, 10**6)
    found = loss_spectra(jax.random.key(0), target, batch, layers, resolution=1e-4)
    assert found.hessian.largest > 10
    nodes = np.maximum(found.hessian.nodes, 0)
    rank = found.hessian.weights @ (nodes / (nodes + 1e-4))
    # 8 (16 + 24 - 8) = 256 directions, which 8 random vectors know to less than sqrt(2 * 256 / 8) = 8 (three percent).
    assert abs(rank - 256) < 4 * 8


def test_the_largest_curvature_of_a_position():
    target, batch = t.crossing()
    # K = (w1 w2)^2 at (2, 0): curvature 8 along w2, none along w1.
    assert largest_curvature(jax.random.key(0), target, batch, jnp.array([2.0, 0.0])) == pytest.approx(8, rel=1e-5)
    assert np.isnan(largest_curvature(jax.random.key(0), target, batch, jnp.array([jnp.nan, 0.0])))
