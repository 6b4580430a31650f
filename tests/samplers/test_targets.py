"""The log density against a plain one in float64: blocks, microbatches, padding, minibatches, tempering, devices, centring."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec

from samplers import (
    Batch,
    Target,
    Tempering,
    centred,
    from_logdensity,
    hmc,
    log_density,
    log_density_gradients,
    log_density_terms,
    make_mesh,
    pad_batch,
    sample,
)
from samplers.mesh import batch_spec, over_mesh
from tests.samplers.rows import NETWORK, network_batch, network_positions

TEMPERING = Tempering.at(0.7, 0.3)
EPS = float(np.finfo(np.float32).eps)
POSITION = jax.tree.map(lambda x: x[0], network_positions(1))


def plain(position, batch, tempering=TEMPERING, num_data=21):
    """Value, gradient and Hessian of the same density, unfused, in float64."""
    with jax.enable_x64(True):
        widen = functools.partial(jax.tree.map, lambda x: jnp.asarray(np.asarray(x), jnp.float64))
        position, batch, tempering = widen(position), widen(batch), widen(tempering)
        flat, unravel = ravel_pytree(position)

        def density(flat):
            x = unravel(flat)
            log_likelihood = jnp.sum(batch.weight * NETWORK.log_likelihood(x, batch.data, batch.constants))
            log_likelihood *= num_data / jnp.sum(batch.weight)
            log_prior = NETWORK.log_prior(x, batch.constants)
            return (log_prior + log_likelihood / tempering.likelihood_temperature) / tempering.temperature

        return [np.asarray(f(flat)) for f in (density, jax.grad(density), jax.hessian(density))]


def assert_close(value, expected, num_roundings):
    """Off by at most so many float32 roundings of the largest entry."""
    bound = num_roundings * EPS * np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(value, np.float64), expected, rtol=0, atol=bound)


# A value or a gradient adds 24 examples and some 300 terms of a hidden layer or prior: in any order within 300 roundings.
NUM_ROUNDINGS = 300


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data_blocks", "microbatch"), [(1, None), (1, 8), (1, 1), (4, None), (4, 2), (8, 3)], ids=lambda x: str(x)
)
def test_value_and_gradient_equal_a_plain_float64_density(data_blocks, microbatch):
    target = NETWORK._replace(data_blocks=data_blocks, microbatch=microbatch)
    density = log_density(target, network_batch(), TEMPERING)
    value, gradient = jax.jit(jax.value_and_grad(density))(POSITION)
    expected_value, expected_gradient, _ = plain(POSITION, network_batch())
    assert_close(value, expected_value, NUM_ROUNDINGS)
    assert_close(ravel_pytree(gradient)[0], expected_gradient, NUM_ROUNDINGS)
    # The value alone takes another path.
    assert_close(jax.jit(density)(POSITION), expected_value, NUM_ROUNDINGS)


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_hessian_products_are_right_on_any_number_of_devices(num_devices):
    """Derivatives of a sum over devices are silently wrong by default; the divergence of a preconditioner takes one."""
    mesh = make_mesh(1, data=num_devices, devices=jax.devices()[:num_devices])
    direction = jax.tree.map(jnp.cos, POSITION)

    def product(batch):
        gradient = jax.grad(log_density(NETWORK, batch, TEMPERING))
        return jax.vjp(gradient, POSITION)[1](direction)[0]

    on_mesh = jax.jit(over_mesh(product, mesh, (batch_spec(),), PartitionSpec()))
    _, _, hessian = plain(POSITION, network_batch())
    expected = hessian @ np.asarray(ravel_pytree(direction)[0], np.float64)
    # A sum over the 320 entries of a row on top of that of an entry.
    assert_close(ravel_pytree(on_mesh(network_batch()))[0], expected, 2 * NUM_ROUNDINGS)


def test_padding_changes_nothing():
    batch = network_batch()
    real = Batch(jax.tree.map(lambda x: x[:21], batch.data), batch.weight[:21], batch.constants)
    spoilt = batch._replace(data=jax.tree.map(lambda x: x.at[21:].set(100.0), batch.data))
    values = [log_density(NETWORK._replace(data_blocks=1), b, TEMPERING)(POSITION) for b in (real, batch, spoilt)]
    assert_close(np.array(values), plain(POSITION, real)[0], NUM_ROUNDINGS)


def test_minibatches_are_unbiased():
    """The mean over all minibatches of an epoch is the full density and gradient: exactly, since their sizes are equal."""
    batch, target = network_batch(), NETWORK._replace(data_blocks=1)

    def part(i):
        return Batch(jax.tree.map(lambda x: x[3 * i : 3 * i + 3], batch.data), batch.weight[3 * i : 3 * i + 3], batch.constants)

    parts = [jax.value_and_grad(log_density(target, part(i), TEMPERING))(POSITION) for i in range(7)]
    values, gradients = zip(*[(value, ravel_pytree(gradient)[0]) for value, gradient in parts], strict=True)
    expected_value, expected_gradient, _ = plain(POSITION, batch)
    assert_close(np.mean(values), expected_value, NUM_ROUNDINGS)
    assert_close(np.mean(gradients, axis=0), expected_gradient, NUM_ROUNDINGS)
    assert np.std(values) > 100 * NUM_ROUNDINGS * EPS * abs(expected_value)  # each alone is something else


def test_terms_are_untempered_and_apart():
    log_prior, log_likelihood = log_density_terms(NETWORK, POSITION, network_batch())
    assert_close(log_prior, plain(POSITION, network_batch(), Tempering.at(1.0, np.inf))[0], NUM_ROUNDINGS)
    assert_close(log_prior + log_likelihood, plain(POSITION, network_batch(), Tempering.at())[0], NUM_ROUNDINGS)


def test_gradients_of_the_terms_are_those_of_the_limits():
    """The prior's is that of an infinitely hot likelihood; both together are that of the posterior."""
    batch = network_batch()
    (log_prior, log_likelihood), gradients = log_density_gradients(NETWORK, POSITION, batch)
    np.testing.assert_array_equal((log_prior, log_likelihood), log_density_terms(NETWORK, POSITION, batch))
    prior, likelihood = (ravel_pytree(gradient)[0] for gradient in gradients)
    assert_close(prior, plain(POSITION, batch, Tempering.at(1.0, np.inf))[1], NUM_ROUNDINGS)
    assert_close(prior + likelihood, plain(POSITION, batch, Tempering.at())[1], NUM_ROUNDINGS)


def test_density_without_data_has_its_own_gradient():
    target, batch = from_logdensity(lambda x: -0.25 * jnp.sum(x**4))
    value, gradient = jax.value_and_grad(log_density(target, batch, Tempering.at(2.0)))(jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(value, -17 / 8)
    np.testing.assert_array_equal(gradient, [-0.5, -4.0])


def test_shapes_that_do_not_divide_say_so():
    batch = network_batch()
    for target, match in (
        (NETWORK._replace(data_blocks=16), r"24 examples .* do not divide into 16 data blocks .* pad_batch"),
        (NETWORK._replace(microbatch=2), r"microbatches of 2; pad them"),
        (NETWORK._replace(data_blocks=3), "data_blocks must be a power of two, got 3"),
    ):
        with pytest.raises(ValueError, match=match):
            log_density(target, batch, TEMPERING)(POSITION)


def test_devices_that_have_no_block_of_data_say_so():
    kernel = hmc(NETWORK._replace(data_blocks=1), step_size=0.1, trajectory_length=0.1)
    mesh = make_mesh(1, data=2, devices=jax.devices()[:2])
    with pytest.raises(ValueError, match=r"2 devices share .* cut into 1 blocks: use 2 data_blocks or more"):
        sample(jax.random.key(0), kernel, network_positions(1), network_batch(), num_steps=1, mesh=mesh)


@pytest.mark.parametrize("temperatures", [(0.0, 1.0), (1.0, -1.0), (np.nan, 1.0)])
def test_temperatures_are_positive(temperatures):
    with pytest.raises(ValueError, match="temperature must be positive"):
        Tempering.at(*temperatures)


def test_padding_copies_real_rows():
    batch = Batch({"x": jnp.arange(1, 6)}, jnp.ones(5))
    padded = pad_batch(batch, 4)
    np.testing.assert_array_equal(padded.data["x"], [1, 2, 3, 4, 5, 1, 1, 1])
    np.testing.assert_array_equal(padded.weight, [1, 1, 1, 1, 1, 0, 0, 0])
    assert pad_batch(padded, 4) is padded


def _line_log_prior(position, constants):
    return -0.5 * jnp.sum(position**2)


def _line_log_likelihood(position, data, constants):
    x, y = data
    return -0.5 * (y - x @ position) ** 2 - 0.918938533  # a normaliser, as real likelihoods have


def test_centring_keeps_the_law_and_lowers_the_rounding_of_energy_differences():
    num_data = 50_000
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num_data, 3))
    y = x @ [1.0, -1.0, 0.5] + rng.normal(size=num_data)
    target = Target(_line_log_prior, _line_log_likelihood, num_data)
    batch = Batch((jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)), jnp.ones(num_data))
    reference = jnp.array([1.0, -1.0, 0.5])
    # Where a sampler at n = 50,000 goes: some 1 / sqrt(n) from the reference.
    positions = reference + jnp.asarray(rng.normal(size=(100, 3)) / np.sqrt(num_data), jnp.float32)
    exact_data = [np.asarray(a, np.float64) for a in batch.data]

    def exact(position):
        position = np.asarray(position, np.float64)
        return -0.5 * np.sum(position**2) - 0.5 * np.sum((exact_data[1] - exact_data[0] @ position) ** 2)

    differences = np.diff([exact(p) for p in positions])

    def error(target, batch):
        values_and_gradients = jax.jit(lambda p, b: jax.value_and_grad(log_density(target, b, Tempering.at()))(p))
        values, gradients = zip(*[values_and_gradients(p, batch) for p in positions], strict=True)
        return np.abs(np.diff(np.asarray(values, np.float64)) - differences).max(), np.array(gradients)

    plain_error, plain_gradients = error(target, batch)
    centred_error, centred_gradients = error(*centred(target, batch, reference))
    # The total is some -70,000 nats, of which a float32 keeps 1/128; centred, some nats remain, each term to 1e-7 of some 1e-2.
    assert plain_error > 2**-8
    assert centred_error < 2**-8 / 20
    # The same gradients: a constant has none. Sums of 50,000 terms of order 1 in another fusion: sqrt(n) roundings of n^(1/2).
    np.testing.assert_allclose(centred_gradients, plain_gradients, rtol=0, atol=num_data * EPS)


def test_centring_takes_a_microbatch_at_a_time():
    sizes = []

    def log_likelihood(position, data, constants):
        sizes.append(data.shape[0])
        return -0.5 * (data - position) ** 2

    target = Target(_line_log_prior, log_likelihood, 24, microbatch=8)
    _, batch = centred(target, Batch(jnp.arange(24.0), jnp.ones(24)), jnp.float32(2))
    assert set(sizes) == {8}
    np.testing.assert_array_equal(batch.data[1], -0.5 * (np.arange(24) - 2) ** 2)
