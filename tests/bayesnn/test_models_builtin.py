"""Built-in networks: their layers against XLA's and Flax's, their published sizes, what every likelihood needs of them."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bayesnn import build, config, models
from bayesnn.models import layers
from bayesnn.models.convolution import convolve, convolve_by_xla, matmul, max_pool
from diagnostics.units import from_json

RNG = np.random.default_rng(0)
SMALL = {
    "lenet": (models.lenet(3, channels=(3, 4), widths=(6,), activation="tanh"), RNG.normal(size=(4, 8, 8, 2))),
    "resnet": (models.resnet(3, depth=8, width=2), RNG.normal(size=(4, 8, 8, 3))),
    "cnn_lstm": (models.cnn_lstm(2, vocabulary=30, embedding=4, filters=5, units=6), RNG.integers(0, 30, (4, 14))),
}


def random_params(model, x, dtype=np.float32):
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 2, dtype), shapes)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("shape", "window", "stride"),
    [
        ((2, 9, 8, 3), (3, 3), 1),
        ((2, 9, 8, 3), (3, 3), 2),
        ((2, 8, 8, 2), (1, 1), 2),
        ((3, 11, 4), (5,), 1),
        ((3, 11, 4), (4,), 3),
    ],
)
def test_patches_times_a_matrix_are_the_convolution_of_xla(shape, window, stride, padding):
    x = jnp.asarray(RNG.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(RNG.normal(size=(*window, shape[-1], 5)), jnp.float32)
    found = convolve(x, kernel, stride, padding)
    expected = convolve_by_xla(x, kernel, stride, padding)
    # Dot products of at most 27 terms of order 1: 27 roundings of 6e-8 and some spare.
    np.testing.assert_allclose(found, expected, atol=1e-5)
    cotangent = jnp.asarray(RNG.normal(size=found.shape), jnp.float32)

    def gradient(function):
        return jax.grad(lambda x, kernel: jnp.sum(cotangent * function(x, kernel, stride, padding)), (0, 1))(x, kernel)

    for ours, theirs in zip(gradient(convolve), gradient(convolve_by_xla), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)  # at most 144 terms
    if shape[1] % stride == 0 and padding == "SAME" and window[0] > 1:
        assert not np.allclose(found, convolve(x, kernel[::-1], stride, padding), atol=1e-2)  # a flipped kernel is another one


@pytest.mark.parametrize("function", [convolve, convolve_by_xla])
def test_products_in_bfloat16_are_right_to_its_rounding(function):
    x, kernel = (jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in ((2, 6, 6, 3), (3, 3, 3, 4)))
    exact, rough = function(x, kernel), function(x, kernel, 1, "SAME", "bfloat16")
    assert rough.dtype == jnp.float32
    # Each operand and the result have 8 bits, rounded to half a unit: 3 * 2^-9 of the sum of absolute terms.
    bound = 3 * 2**-9 * np.asarray(function(jnp.abs(x), jnp.abs(kernel)))
    assert (np.abs(rough - exact) <= bound).all()
    assert np.abs(rough - exact).max() > 1e-4  # it is not float32 in disguise
    assert matmul(x, kernel[0, 0], "bfloat16").dtype == jnp.float32


def test_pooling_is_that_of_flax():
    x = jnp.asarray(RNG.normal(size=(2, 9, 8, 3)), jnp.float32)
    for window, stride in ((3, 2), (2, 2)):
        np.testing.assert_array_equal(max_pool(x, window, stride), nnx.max_pool(x, (window,) * 2, (stride,) * 2))


def test_filter_response_normalisation_is_its_formula():
    norm = layers.FilterResponseNorm(3)
    scale, offset, threshold = RNG.normal(size=(3, 3)).astype(np.float32)
    for parameter, value in ((norm.scale, scale), (norm.offset, offset), (norm.threshold, threshold)):
        parameter[...] = jnp.asarray(value)
    x = RNG.normal(size=(2, 4, 5, 3)).astype(np.float32)
    root = np.sqrt((x**2).mean((1, 2), keepdims=True) + 1e-6)
    np.testing.assert_allclose(norm(jnp.asarray(x)), np.maximum(scale * x / root + offset, threshold), rtol=1e-5, atol=1e-6)


def test_the_lstm_is_that_of_flax():
    lstm = layers.LSTM(4, 5, compute_dtype=None, rngs=nnx.Rngs(0))
    theirs = nnx.OptimizedLSTMCell(4, 5, rngs=nnx.Rngs(1))
    i, f, o = (slice(5 * k, 5 * (k + 1)) for k in range(3))
    for ours, kernel in (("kernel", theirs.dense_i.kernel), ("recurrent_kernel", theirs.dense_h.kernel)):
        gates, candidate = getattr(lstm.gates, ours)[...], getattr(lstm.candidate, ours)[...]
        kernel[...] = jnp.concatenate([gates[:, i], gates[:, f], candidate, gates[:, o]], 1)  # Flax: i, f, g, o
    theirs.dense_h.bias[...] = jnp.zeros(20).at[5:10].set(layers.FORGET_BIAS)
    x = jnp.asarray(RNG.normal(size=(3, 6, 4)), jnp.float32)
    carry = (jnp.zeros((3, 5)), jnp.zeros((3, 5)))
    for time in range(6):
        carry, output = theirs(carry, x[:, time])
    np.testing.assert_allclose(lstm(x), output, atol=1e-6)  # a few roundings of numbers below 1


@pytest.mark.parametrize(
    ("model", "shape", "count", "num_outputs"),
    [
        # Counted from the published code: biases and three numbers a channel of the normalisation.
        (models.resnet(10), (1, 32, 32, 3), 274_042, 10),
        (models.cnn_lstm(2), (1, 100), 2_700_098, 2),
        (models.lenet(7), (1, 28, 28, 3), 91_991, 7),
        (models.mlp([50], 2, "relu"), (1, 8), 552, 2),
    ],
)
def test_published_networks_have_their_number_of_parameters(model, shape, count, num_outputs):
    params = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    outputs = jax.eval_shape(model.apply, params, jax.ShapeDtypeStruct((3, *shape[1:]), jnp.float32))
    assert outputs.shape == (3, num_outputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_networks_make_a_likelihood(name):
    model, x = SMALL[name]
    x = jnp.asarray(x, jnp.float32)
    params = random_params(model, x)

    @jax.jit
    def loss(params, x):
        outputs = model.apply(params, x)
        return jnp.sum(jax.nn.log_softmax(outputs)[:, 0]), outputs

    (_, outputs), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, x)
    assert outputs.dtype == jnp.float32
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    reached = {name for name, leaf in models.named(gradient).items() if np.any(leaf)}
    assert reached == set(models.named(params))  # every parameter matters
    # An example's outputs do not depend on the others; some tens of float32 roundings.
    np.testing.assert_allclose(model.apply(params, x[1:2]), outputs[1:2], rtol=1e-4, atol=1e-5)
    shuffled = loss(params, x[::-1])[1]
    np.testing.assert_allclose(shuffled[::-1], outputs, rtol=1e-4, atol=1e-5)


SLOW_RESNET = [pytest.param(name, marks=pytest.mark.slow) if name == "resnet" else name for name in SMALL]


@pytest.mark.parametrize("name", SLOW_RESNET)
def test_double_precision_goes_all_the_way(name):
    model, x = SMALL[name]
    outputs = []
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype is np.float64):
            x_typed = jnp.asarray(x, dtype)
            # The same numbers, of single precision, so that only the arithmetic differs.
            params = jax.tree.map(lambda leaf: leaf.astype(dtype), random_params(model, x_typed, np.float32))  # noqa: B023
            outputs.append(jax.jit(model.apply)(params, x_typed))
            assert outputs[-1].dtype == dtype
    single, double = map(np.asarray, outputs)
    assert 0 < np.abs(double - single).max() < 1e-4 * np.abs(double).max()
    assert (double.astype(np.float32) != double).any()  # more digits than a float32 on the way could give


@pytest.mark.slow
def test_rounded_products_stay_near():
    model, x = SMALL["lenet"]
    rough = models.lenet(3, channels=(3, 4), widths=(6,), activation="tanh", compute_dtype="bfloat16")
    x = jnp.asarray(x, jnp.float32)
    params = random_params(model, x)
    exact, found = model.apply(params, x), rough.apply(params, x)
    assert found.dtype == jnp.float32
    # Four layers of about 2^-8 each; the sums are not of one sign, so that a few times that is lost.
    assert 1e-4 < np.abs(found - exact).max() / np.abs(exact).max() < 0.1
    gradients = [jax.jit(jax.grad(lambda params, one=one: jnp.sum(one.apply(params, x) ** 2)))(params) for one in (model, rough)]
    for ours, theirs in zip(*map(jax.tree.leaves, gradients), strict=True):
        assert theirs.dtype == jnp.float32
        assert np.abs(ours - theirs).max() < 0.1 * np.abs(ours).max()
    narrow = models.mlp([5], 2, "tanh", compute_dtype="bfloat16")
    assert narrow != models.mlp([5], 2, "tanh")


def test_tokens_may_be_floats_and_unknown_ones_are_the_last():
    model, x = SMALL["cnn_lstm"]
    params = random_params(model, x)
    expected = model.apply(params, jnp.asarray(x))
    np.testing.assert_array_equal(model.apply(params, jnp.asarray(x, jnp.float32)), expected)
    beyond = np.where(x == 29, 10_000, x)
    np.testing.assert_array_equal(model.apply(params, jnp.asarray(beyond)), expected)
    assert np.isfinite(expected).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.resnet(10, depth=18), r"6 k \+ 2 .* got 18"),
        (lambda: models.resnet(10, width=0), "at least 1, got 0 and 10"),
        (lambda: models.resnet(10, activation="silo"), "did you mean 'silu'"),
        (lambda: models.lenet(10, channels=()), "LeNet needs a convolution"),
        (lambda: models.cnn_lstm(2, units=0), "'units': 0"),
        (lambda: models.resnet(2).init(jax.random.key(0), np.zeros((2, 5))), r"needs images .* shape \(5,\)"),
        (lambda: models.lenet(2).init(jax.random.key(0), np.zeros((2, 8, 8, 1))), "too small for 3 convolutions"),
        (lambda: models.lenet(2).init(jax.random.key(0), np.zeros((2, 8))), r"LeNet needs images .* shape \(8,\)"),
        (lambda: models.cnn_lstm(2).init(jax.random.key(0), np.zeros((2, 7))), "length 8 or more"),
    ],
)
def test_what_networks_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_same_settings_give_the_same_functions():
    assert models.resnet(3, depth=8, width=2) is SMALL["resnet"][0]
    assert hash(models.lenet(3)) == hash(models.lenet(3))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "prior", "num_groups"),
    [
        (config.LeNet(channels=(2, 3), widths=(4,)), config.EmpiricalCovariancePrior(scale=0.3), 3),
        (config.ResNet(depth=8, width=2), config.FamilyPrior(name="student-t", scale=0.3, df=5), 6),
    ],
)
def test_a_configured_network_is_sampled_and_says_what_symmetries_it_has(model, prior, num_groups, tmp_path):
    images = RNG.normal(size=(30, 8, 8, 1)).astype(np.float32)
    labels = np.arange(30) % 2
    np.savez(tmp_path / "images.npz", x_train=images, y_train=labels, x_test=images[:4], y_test=labels[:4])
    settings = config.RunConfig(data=config.Data(name=str(tmp_path / "images.npz")), model=model, prior=prior, chains=1)
    assert config.RunConfig.model_validate_json(settings.model_dump_json()) == settings
    problem = build.build_problem(settings)
    assert len(from_json(problem.description["architecture"])) == num_groups
    position = jax.tree.map(lambda x: x[0], problem.init(jax.random.key(0), 1, "prior"))
    prior_term, likelihood_term = jax.jit(problem.posterior.terms)(position)
    assert math.isfinite(prior_term)
    assert math.isfinite(likelihood_term)
