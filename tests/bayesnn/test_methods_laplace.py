"""The Laplace approximation: exact where the posterior is Gaussian; its curvature against autodiff; linearised predictions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import samplers
from bayesnn import data, likelihoods, models, priors
from bayesnn.methods import curvature, laplace
from bayesnn.models import named
from bayesnn.posteriors import posterior
from tests.bayesnn.test_linear_network import NOISE, SCALE, dataset
from tests.samplers.analytic import assert_covariance

KEY = jax.random.key(5)
MESH = samplers.make_mesh(8, devices=jax.devices()[:1])
STRUCTURES = ("full", "kronecker", "diagonal", "last-layer")
# Sums of some dozen products, and an inverse of condition below a hundred, in float64.
ROUNDING = 1e-12


def linear_posterior(prior=None, **options):
    return posterior(models.mlp([], 1), prior or priors.gaussian(SCALE), likelihoods.gaussian(NOISE), dataset(), **options)


def classes(num_examples=30):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(num_examples + 7, 3))
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.5)
    return data.from_arrays(x[:num_examples], y[:num_examples], x[num_examples:], y[num_examples:], name="classes")


def curve():
    rng = np.random.default_rng(4)
    x = np.linspace(-2, 2, 40)[:, None]
    y = 10 + 5 * np.sin(2 * x[:, 0]) + rng.normal(size=40)
    return data.from_arrays(x[::2], y[::2], x[1::8], y[1::8], name="curve")


def fit(what, *, chains=1, num_steps=800, rate=0.1, **settings):
    """Return the approximation and its run at the first draw."""
    adam = optax.adam(optax.cosine_decay_schedule(rate, num_steps))
    trainer = samplers.optimise(what.target, adam, tempering=what.tempering)
    approximation = laplace(trainer, what, num_steps=num_steps, **settings)
    positions = what.init(jax.random.key(1), chains, "model")
    fitted = samplers.sample(KEY, approximation.fit.kernel, positions, what.batch, num_steps=num_steps, save=None, mesh=MESH)
    return approximation, samplers.finish(approximation.fit, fitted.run)


def draw(approximation, run, batch, num_draws, save=samplers.KEEP_POSITION):
    return samplers.sample(
        KEY, approximation.kernel, (), batch, num_steps=num_draws, run=run, save=save, mesh=MESH, chunk_draws=num_draws
    ).draws


def in_order(tree):
    """Positions [chain, ...] of the linear network as (bias, kernel) [chain, d]."""
    layer = tree["layer_0"]
    return np.concatenate([np.asarray(layer["bias"]), np.asarray(layer["kernel"])[..., 0]], axis=-1)


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURES)
def test_of_a_linear_network_it_is_the_posterior(structure):
    """Full, Kronecker and last layer exactly; the diagonal has variances 1 / diag(precision). Both temperatures enter."""
    temperature, likelihood_temperature = 0.25, 2.0  # which float32 holds exactly
    with jax.enable_x64(True):
        what = linear_posterior(temperature=temperature, likelihood_temperature=likelihood_temperature)
        approximation, run = fit(what, structure=structure)
        draws = draw(approximation, run, what.batch, 4000)
        known = what.dataset
        x = np.column_stack([np.ones(known.num_data), known.x_train.astype(np.float64)])
        precision = (x.T @ x / NOISE**2 / likelihood_temperature + np.eye(4) / SCALE**2) / temperature
        covariance = np.linalg.inv(precision)
        mean = covariance @ x.T @ known.y_train.astype(np.float64) / NOISE**2 / likelihood_temperature / temperature
        fitted = run.tuning.tuning
        np.testing.assert_allclose(in_order(fitted.mean)[0], mean, rtol=0, atol=1e-8)  # Adam's rate has fallen to zero
        if structure in ("full", "last-layer"):
            factor = np.asarray(fitted.factors[0])
            np.testing.assert_allclose(factor @ factor.T, precision, rtol=ROUNDING, atol=ROUNDING * precision.max())
        if structure == "diagonal":
            scales = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(fitted.factors)])
            np.testing.assert_allclose(scales**-2.0, np.diag(precision), rtol=ROUNDING)
            covariance = np.diag(1 / np.diag(precision))
        assert_covariance(in_order(draws), mean, covariance)
        with pytest.raises(AssertionError, match="standard errors"):
            assert_covariance(in_order(draws), mean, covariance / temperature)


def test_kronecker_of_a_linear_network_has_the_precision_of_the_posterior():
    """To rounding, with another prior for the bias than for the kernel: left eigenvectors and roots make up the precision."""
    with jax.enable_x64(True):
        scales = np.array([0.4, 1.5, 1.5, 1.5])  # of the bias, the kernel
        what = linear_posterior(priors.gaussian({"*.bias": 0.4, "*.kernel": 1.5}))
        _, run = fit(what, structure="kronecker", num_steps=1)
        f = jax.tree.map(lambda leaf: np.asarray(leaf)[0], run.tuning.tuning.factors[0]["layer_0"])
        inverse = f.left * f.root[:, 0] ** 2 @ f.left.T / f.scale / f.scale.T
        x = np.column_stack([what.dataset.x_train.astype(np.float64), np.ones(50)])  # the bias comes last
        precision = x.T @ x / NOISE**2 + np.diag(scales[[1, 2, 3, 0]] ** -2)
        np.testing.assert_allclose(inverse, precision, rtol=0, atol=1e-11 * precision.max())


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["categorical", "fixed noise"])
def test_the_curvature_is_the_gauss_newton_matrix(likelihood):
    """Against Jacobian' Hessian Jacobian with the Hessian of each example's loss by the outputs, by autodiff."""
    with jax.enable_x64(True):
        if likelihood == "categorical":
            what = posterior(models.mlp([4], 3, "tanh"), priors.gaussian(), likelihoods.categorical(), classes())
        else:
            what = posterior(models.mlp([4], 1, "tanh"), priors.gaussian(), likelihoods.gaussian(0.2), curve())
        position = jax.tree.map(lambda leaf: leaf[0], what.init(KEY, 1))
        (x, y), constants = what.batch.data, what.batch.constants
        flat, unravel = ravel_pytree(named(position))

        def outputs(flat):
            return what.form.outputs(models.nest(unravel(flat)), x, constants)[0]

        def loss(outputs, y):
            return -what.form.log_prob(outputs[None], y[None], constants.extra)[0]

        jacobian, hessian = jax.jacobian(outputs)(flat), jax.vmap(jax.hessian(loss))(outputs(flat), y)
        expected = jnp.einsum("nod,nop,npe->de", jacobian, hessian, jacobian)
        free = tuple(named(position))
        found = curvature.sum_over_data(what.form, curvature.dense(), position, free, x, what.batch.weight, constants)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * float(jnp.abs(expected).max()))


def test_a_learned_noise_has_its_fisher_information():
    """Of log sigma: 2 an example, and no correlation with the weights."""
    with jax.enable_x64(True):
        what = posterior(models.mlp([4], 1, "tanh"), priors.gaussian(), likelihoods.gaussian(), curve())
        position = jax.tree.map(lambda leaf: leaf[0], what.init(KEY, 1))
        names = sorted(named(position))
        found = curvature.sum_over_data(
            what.form, curvature.dense(), position, tuple(names), what.batch.data[0], what.batch.weight, what.batch.constants
        )
        place = names.index("noise.log_scale")
        row = sum(named(position)[name].size for name in names[:place])
        np.testing.assert_allclose(found[row, row], 2 * what.dataset.num_data, rtol=ROUNDING)
        others = np.delete(np.asarray(found)[row], row)
        np.testing.assert_allclose(others, 0, atol=ROUNDING)


def test_chunks_and_padding_change_nothing(monkeypatch):
    with jax.enable_x64(True):
        what = posterior(models.mlp([4], 3), priors.gaussian(), likelihoods.categorical(), classes(), microbatch=8)
        position = jax.tree.map(lambda leaf: leaf[0], what.init(KEY, 1))
        arguments = (position, tuple(named(position)), what.batch.data[0], what.batch.weight, what.batch.constants)
        whole = curvature.sum_over_data(what.form, curvature.dense(), *arguments)
        monkeypatch.setattr(curvature, "CHUNK_BYTES", 7 * 3 * what.num_params * 8)
        parts = curvature.sum_over_data(what.form, curvature.dense(), *arguments)
        real = np.asarray(what.batch.weight) > 0
        alone = curvature.sum_over_data(
            what.form, curvature.dense(), *arguments[:2], what.batch.data[0][real], what.batch.weight[real], arguments[-1]
        )
        assert what.batch.weight.shape[0] == 32
        for other in (parts, alone):
            np.testing.assert_allclose(other, whole, rtol=0, atol=ROUNDING * float(jnp.abs(whole).max()))


def test_structures_are_parts_of_the_full_matrix():
    """The diagonal is that of the full matrix; of a single example and output, a Kronecker product is the block of its layer."""
    with jax.enable_x64(True):
        what = posterior(models.mlp([4], 1, "tanh"), priors.gaussian(), likelihoods.gaussian(0.2), curve())
        position = jax.tree.map(lambda leaf: leaf[0], what.init(KEY, 1))
        free, constants = ("layer_0.bias", "layer_0.kernel"), what.batch.constants

        def total(structure, n):
            return curvature.sum_over_data(
                what.form, structure, position, free, what.batch.data[0][:n], what.batch.weight[:n], constants
            )

        diagonal = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(total(curvature.diagonal(), 20))])
        np.testing.assert_allclose(diagonal, jnp.diag(total(curvature.dense(), 20)), rtol=ROUNDING)
        left, right = total(curvature.kronecker(("layer_0",)), 1)[0]["layer_0"]
        full = total(curvature.dense(), 1)  # of the bias [4], then the kernel [1, 4]
        blocks = jnp.kron(left[jnp.ix_(jnp.array([1, 0]), jnp.array([1, 0]))], right)
        np.testing.assert_allclose(blocks, full, rtol=0, atol=ROUNDING * float(jnp.abs(full).max()))
        # By hand: inputs with a 1, and derivatives by what comes before the activation.
        layers, x = position, what.batch.data[0]
        hidden = np.tanh(x @ layers["layer_0"]["kernel"] + layers["layer_0"]["bias"])
        slopes = (1 - hidden**2) * np.asarray(layers["layer_1"]["kernel"])[:, 0] / 0.2
        inputs = np.column_stack([x, np.ones(20)])
        left, right = total(curvature.kronecker(("layer_0",)), 20)[0]["layer_0"]
        np.testing.assert_allclose(left, inputs.T @ inputs, rtol=0, atol=1e-10)  # divided by squares of derivatives, down to 1e-3
        np.testing.assert_allclose(right, slopes.T @ slopes, rtol=1e-10, atol=1e-10)


def test_a_prior_with_heavy_tails_counts_by_its_curvature_and_at_least_its_variance():
    with jax.enable_x64(True):
        prior = priors.from_name("StudentT", df=4.0, scale=0.05)  # so narrow that weights lie in its tails
        what = linear_posterior(prior)
        _, run = fit(what, structure="diagonal")
        theta, scales = in_order(run.tuning.tuning.mean)[0], run.tuning.tuning.factors
    scales = np.concatenate([np.asarray(scales["layer_0.bias"])[0], np.asarray(scales["layer_0.kernel"])[0, :, 0]])
    z = (theta / 0.05) ** 2 / 4
    curvature_of_prior = (4 + 1) / (4 * 0.05**2) * (1 - z) / (1 + z) ** 2
    assert curvature_of_prior.min() < 0 < curvature_of_prior.max()
    x = np.column_stack([np.ones(50), what.dataset.x_train.astype(np.float64)])
    least = 1 / (2 * 0.05**2)  # the variance of Student's t with four degrees of freedom is twice its squared scale
    expected = np.sum(x**2, axis=0) / NOISE**2 + np.maximum(curvature_of_prior, least)
    np.testing.assert_allclose(scales**-2, expected, rtol=1e-10)  # at a mode that is known to 1e-12 or so


def two_named_layers():
    """A network whose output layer comes first by name."""

    def init(key, inputs):
        keys = jax.random.split(key)
        first = {"kernel": jax.random.normal(keys[0], (inputs.shape[1], 4)), "bias": jnp.zeros(4)}
        return {"trunk": first, "head": {"kernel": jax.random.normal(keys[1], (4, 3)), "bias": jnp.zeros(3)}}

    def apply(params, inputs):
        hidden = jax.nn.relu(inputs @ params["trunk"]["kernel"] + params["trunk"]["bias"])
        return hidden @ params["head"]["kernel"] + params["head"]["bias"]

    return models.Model(init, apply)


@pytest.mark.slow
def test_the_last_layer_is_found_and_alone_is_drawn():
    what = posterior(two_named_layers(), priors.gaussian(), likelihoods.categorical(), classes())
    approximation, run = fit(what, chains=2, num_steps=50, structure="last-layer")
    draws, mean = draw(approximation, run, what.batch, 100), run.tuning.tuning.mean
    np.testing.assert_array_equal(draws["trunk"]["kernel"], np.tile(mean["trunk"]["kernel"][:, None], (1, 100, 1, 1)))
    assert np.all(draws["head"]["kernel"].std(axis=1) > 0)
    assert np.all(mean["head"]["kernel"][0] != mean["head"]["kernel"][1])  # a chain is a mode of its own


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["full", "kronecker"])
def test_linearised_predictions_are_gaussian_with_the_known_covariance(structure):
    """Of every draw those of the tangent; over draws with mean f and, for the full matrix, covariance J inverse(precision) J'."""
    with jax.enable_x64(True):
        what = posterior(models.mlp([5], 1, "tanh"), priors.gaussian(), likelihoods.gaussian(0.2), curve())
        approximation, run = fit(what, structure=structure, linearised=True, num_steps=100)
        draws = draw(approximation, run, what.batch, 4000, what.save())
        mean, x = jax.tree.map(lambda leaf: leaf[0], run.tuning.tuning.mean), jnp.asarray(what.dataset.x_test, float)
        flat, unravel = ravel_pytree(named(mean))

        def predict(flat):
            return what.functions(models.nest(unravel(flat)), x)["mean"]

        centre, jacobian = np.asarray(predict(flat)), np.asarray(jax.jacobian(predict)(flat))
        weights = np.concatenate([draws["posterior"][name].reshape(1, 4000, -1) for name in sorted(draws["posterior"])], axis=2)
        tangent = centre + (weights - np.asarray(flat)) @ jacobian.T
        np.testing.assert_allclose(draws["functions"]["mean"], tangent, rtol=1e-9)
        network = jax.vmap(predict)(jnp.asarray(weights[0]))
        assert np.abs(network - tangent[0]).max() > 0.1  # the network itself predicts something else
        y = what.observed()
        residual = (y - tangent) / (0.2 * float(what.units.y_scale))
        density = -0.5 * residual**2 - np.log(0.2 * float(what.units.y_scale) * np.sqrt(2 * np.pi))
        np.testing.assert_allclose(draws["functions"]["log_likelihood"], density, rtol=1e-9)
        if structure == "full":
            factor = np.asarray(run.tuning.tuning.factors[0])
            half = np.linalg.solve(factor, jacobian.T)
            assert_covariance(draws["functions"]["mean"], centre, half.T @ half)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"structure": "block"}, "structure must be one of full, kronecker"),
        (lambda: {"what": linear_posterior(priors.from_name("Cauchy", loc=0.0, scale=1.0))}, "needs a prior with a variance"),
        (lambda: {"what": wide(), "structure": "full"}, "dense matrix of 8998 weights is too large.*kronecker"),
        (lambda: {"what": twice()}, "passes layer shared more than once"),
        (lambda: {"what": without_bias()}, "no dense layer"),
        (lambda: {"what": squashed(), "structure": "last-layer"}, "no output layer"),
    ],
)
def test_bad_settings_are_refused(make, message):
    settings = {"structure": "kronecker"} | make()
    what = settings.pop("what", None) or linear_posterior()
    trainer = samplers.optimise(what.target, optax.adam(0.1))
    with pytest.raises(ValueError, match=message):
        laplace(trainer, what, num_steps=1, **settings)


def of_functions(init, apply):
    return posterior(models.Model(init, apply), priors.gaussian(), likelihoods.categorical(), classes())


def wide():
    return posterior(models.mlp([1285], 3), priors.gaussian(), likelihoods.categorical(), classes())


def twice():
    def init(key, inputs):
        return {"shared": {"kernel": jax.random.normal(key, (3, 3)), "bias": jnp.zeros(3)}}

    def apply(params, inputs):
        once = jnp.tanh(inputs @ params["shared"]["kernel"] + params["shared"]["bias"])
        return once @ params["shared"]["kernel"] + params["shared"]["bias"]

    return of_functions(init, apply)


def without_bias():
    return of_functions(lambda key, x: {"w": jax.random.normal(key, (3, 3))}, lambda params, x: x @ params["w"])


def squashed():
    return of_functions(lambda key, x: {"w": jax.random.normal(key, (3, 3))}, lambda params, x: jnp.tanh(x @ params["w"]))


@pytest.mark.slow
def test_gradients_are_those_of_the_optimiser_and_one_an_output():
    what = posterior(models.mlp([4], 3), priors.gaussian(), likelihoods.categorical(), classes())
    trainer = samplers.optimise(what.target, optax.adam(0.1), batch_size=10)
    approximation = laplace(trainer, what, num_steps=6, structure="diagonal")
    positions = what.init(KEY, 2)
    info = samplers.sample(KEY, approximation.fit.kernel, positions, what.batch, num_steps=6, save=None, mesh=MESH).info
    np.testing.assert_allclose(info.num_gradients, [[1 / 3] * 5 + [1 / 3 + 3]] * 2, rtol=1e-6)
