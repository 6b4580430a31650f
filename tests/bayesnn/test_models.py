"""Networks: the MLP against its formula, adapters against each other, and what they must refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from flax import linen, nnx

import samplers
from bayesnn import catalogue, models

ROOT = Path(__file__).resolve().parents[2]
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
REFERENCE = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),  # Hendrycks & Gimpel 2016, section 2
}


class NNXNet(nnx.Module):
    def __init__(self, rngs, *, norm=None, dropout=0.0):
        self.hidden = nnx.List([nnx.Linear(3, 4, rngs=rngs)])
        self.norm = norm(4, rngs=rngs) if norm else None
        self.drop = nnx.Dropout(dropout, rngs=rngs)
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        x = jnp.tanh(self.hidden[0](x))
        return self.out(self.drop(self.norm(x) if self.norm else x))


class LinenNet(linen.Module):
    training_norm: bool = False
    dropout: bool = False

    @linen.compact
    def __call__(self, x):
        x = jnp.tanh(linen.Dense(4)(x))
        x = linen.BatchNorm(use_running_average=not self.training_norm)(x)
        x = linen.Dropout(0.5, deterministic=not self.dropout)(x)
        return linen.Dense(2)(x)


class Weights(NamedTuple):
    first: object
    rest: list


def random_like(params, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)


@pytest.mark.parametrize("activation", models.ACTIVATIONS)
@pytest.mark.parametrize("widths", [(), (5,), (4, 5, 6)])
def test_the_mlp_is_its_formula(widths, activation):
    model = models.mlp(widths, 2, activation)
    params = random_like(model.init(jax.random.key(0), X))
    assert list(params) == [f"layer_{index}" for index in range(len(widths) + 1)]
    hidden = X.astype(np.float64)
    for index, layer in enumerate(params.values()):
        hidden = hidden @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        hidden = REFERENCE[activation](hidden) if index < len(widths) else hidden
    # Float32 dot products of at most 6 terms through 4 layers: some tens of roundings of 6e-8, relative to the largest output.
    np.testing.assert_allclose(jax.jit(model.apply)(params, X), hidden, atol=1e-5 * np.abs(hidden).max())


def test_the_mlp_has_derivatives_in_its_inputs():
    model = models.mlp([5], 2)
    params = random_like(model.init(jax.random.key(0), X))
    forward, backward = (make(lambda x: model.apply(params, x))(X) for make in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(forward, backward, atol=1e-6)
    by_example = jax.vmap(lambda x: model.apply(params, x[None])[0])(X)
    np.testing.assert_allclose(by_example, model.apply(params, X), atol=1e-6)


def test_the_mlp_has_derivatives_in_its_parameters():
    model = models.mlp([5], 2)
    params, direction = (random_like(model.init(jax.random.key(0), X), seed) for seed in (0, 1))

    def rows(params, inputs):
        first, last = params.values()
        return jax.nn.silu(inputs @ first["kernel"] + first["bias"]) @ last["kernel"] + last["bias"]

    def derivatives(apply):
        def gradient(params):
            return jax.grad(lambda p: jnp.sum(jnp.sin(apply(p, X))))(params)

        tangent = jax.jvp(lambda p: apply(p, X), (params,), (direction,))[1]
        hessian_vector = jax.jvp(gradient, (params,), (direction,))[1]
        slope_of_slope = jax.grad(lambda p: jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, gradient(p), direction)))(params)
        of_many = jax.vmap(gradient)(jax.tree.map(lambda x, y: jnp.stack([x, y]), params, direction))
        return jax.tree.leaves([tangent, hessian_vector, slope_of_slope, of_many])

    for found, expected in zip(derivatives(model.apply), derivatives(rows), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())  # some tens of roundings of 6e-8


def test_the_mlp_begins_as_flax_does():
    params = models.mlp([200], 100).init(jax.random.key(1), np.zeros((1, 300)))
    kernel = params["layer_0"]["kernel"]
    assert kernel.shape == (300, 200)
    # LeCun: variance 1 / inputs. 60,000 draws: the sample variance has a relative standard error below sqrt(2 / 60000) = 0.6 %.
    assert abs(300 * float(kernel.var()) - 1) < 5 * 0.006
    assert not params["layer_1"]["bias"].any()


def test_the_same_mlp_has_the_same_functions():
    assert models.mlp([5], 2) == models.mlp((5,), 2)
    assert models.mlp([5], 2) != models.mlp([5], 2, "tanh")
    assert hash(models.mlp([5], 2)) == hash(models.mlp([5], 2))


def test_the_mlp_refuses_what_it_cannot_be():
    with pytest.raises(ValueError, match="unknown activation 'slu'; did you mean 'silu'"):
        models.mlp([5], 2, "slu")
    with pytest.raises(ValueError, match="at least one unit, got widths=\\(5, 0\\)"):
        models.mlp([5, 0], 2)


def test_the_mlp_flattens_images():
    images = np.random.default_rng(3).normal(size=(2, 4, 3, 2)).astype(np.float32)
    model = models.mlp([5], 2)
    params = model.init(jax.random.key(0), images)
    np.testing.assert_array_equal(model.apply(params, images), model.apply(params, images.reshape(2, 24)))


def test_nnx_weights_become_one_plain_dict_and_back():
    module = NNXNet(nnx.Rngs(0))
    module.eval()
    model = models.as_model(module, X)
    params = model.init(jax.random.key(1), X)
    assert list(models.named(params)) == ["hidden.0.bias", "hidden.0.kernel", "out.bias", "out.kernel"]
    np.testing.assert_array_equal(params["out"]["kernel"], module.out.kernel[...])
    np.testing.assert_array_equal(model.apply(params, X), module(X))
    new = random_like(params)
    expected = np.tanh(X @ new["hidden"]["0"]["kernel"] + new["hidden"]["0"]["bias"]) @ new["out"]["kernel"] + new["out"]["bias"]
    np.testing.assert_allclose(model.apply(new, X), expected, rtol=1e-5, atol=1e-5)  # a dozen float32 roundings of order-1 terms


def test_training_a_module_further_changes_nothing():
    module = NNXNet(nnx.Rngs(0), norm=nnx.BatchNorm)
    module.eval()
    model = models.as_model(module, X)
    params = model.init(jax.random.key(0), X)
    before = model.apply(params, X)
    module.train()
    module(5 * X)
    module.eval()
    assert not np.allclose(module(X), before)
    np.testing.assert_array_equal(model.apply(params, X), before)


def test_a_function_that_makes_nnx_modules_initialises_by_the_key():
    def make(rngs):
        module = NNXNet(rngs)
        module.eval()
        return module

    model = models.as_model(make, X)
    starts = jax.jit(jax.vmap(model.init, (0, None)))(jax.random.split(jax.random.key(0), 3), X)
    assert starts["out"]["kernel"].shape == (3, 4, 2)
    assert len(np.unique(starts["out"]["kernel"][:, 0, 0])) == 3
    module = NNXNet(nnx.Rngs(jax.random.key(5)))
    np.testing.assert_array_equal(model.init(jax.random.key(5), X)["out"]["kernel"], module.out.kernel[...])


@pytest.mark.parametrize("source", ["nnx", "linen", "pair"])
def test_frozen_statistics_are_constants_and_calls_are_pure(source):
    if source == "nnx":
        module = NNXNet(nnx.Rngs(0), norm=nnx.BatchNorm)
        module(X * 3 + 1)  # training mode: moves the running statistics
        module.eval()
        model = models.as_model(module, X)
    elif source == "linen":
        model = models.as_model(LinenNet(), X)
    else:
        net, statistics = LinenNet(), {"mean": jnp.full(4, 0.2), "var": jnp.full(4, 1.7)}
        model = models.as_model(
            (
                lambda key, x: net.init(key, x)["params"],
                lambda p, x: net.apply({"params": p, "batch_stats": {"BatchNorm_0": statistics}}, x),
            ),
            X,
        )
    params = model.init(jax.random.key(0), X)
    first = model.apply(params, X)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(model.apply(p, X) ** 2)))(params)
    model.apply(random_like(params), X + 1)
    np.testing.assert_array_equal(first, model.apply(params, X))
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    # Rows do not see each other; matrix products of other shapes may round otherwise.
    np.testing.assert_allclose(first[2:3], model.apply(params, X[2:3]), rtol=1e-5, atol=1e-6)


def _noise(params, x):
    return x @ params["w"] + np.random.normal(size=(len(x), 2))


def _start(key, x):
    return {"w": jnp.ones((3, 2))}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: NNXNet(nnx.Rngs(0), dropout=0.5), r"differ \(the call changes drop.rngs.count\).*model.eval\(\)"),
        (lambda: NNXNet(nnx.Rngs(0), norm=nnx.BatchNorm), r"other examples.*norm.mean, norm.var.*model.eval\(\).*LayerNorm"),
        (lambda: LinenNet(dropout=True), r"Dropout_0 draws random numbers.*deterministic=True"),
        (lambda: LinenNet(training_norm=True), r"other examples.*BatchNorm_0.mean.*use_running_average=True"),
        (lambda: (_start, _noise), "two calls of the model on the same inputs differ"),
        (lambda: (_start, lambda p, x: (x - x.mean(0)) @ p["w"]), "depend on the other examples of its batch; switch"),
        (lambda: (lambda key, x: {}, lambda p, x: x), "no parameters"),
    ],
)
def test_models_without_a_likelihood_are_refused(model, message):
    np.random.seed(0)
    with pytest.raises(ValueError, match=message):
        models.as_model(model(), X)


def test_layer_norm_and_inactive_dropout_are_fine():
    assert models.as_model(NNXNet(nnx.Rngs(0), norm=nnx.LayerNorm), X).description == "NNXNet (Flax NNX)"


def test_other_things_are_refused_by_type():
    with pytest.raises(TypeError, match="cannot sample a int; expected a bayesnn Model"):
        models.as_model(3, X)
    with pytest.raises(TypeError, match="cannot sample a tuple"):
        models.as_model((_start, 3), X)
    model = models.mlp([2], 1)
    assert models.as_model(model, X) is model


def test_any_container_becomes_a_dict_and_comes_back():
    tree = Weights({"a.b": jnp.zeros(2), "c/d": {"w": jnp.ones(3)}}, [jnp.arange(2.0), (jnp.eye(2),)])
    container = models.Container.of(tree)
    params = container.to_dict(tree)
    assert list(models.named(params)) == ["first.a_b", "first.c_d.w", "rest.0", "rest.1.0"]
    assert isinstance(params["rest"]["1"], dict)
    back = container.from_dict(params)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, back, tree)
    assert models.Container.of(jnp.ones(3)).to_dict(jnp.ones(3)).keys() == {"params"}
    with pytest.raises(ValueError, match="two parameters have the name a_b"):
        models.Container.of({"a.b": jnp.ones(1), "a_b": jnp.ones(1)})


def test_names_come_in_natural_order_and_layers_are_all_before_the_last_dot():
    params = models.mlp([2] * 11, 1).init(jax.random.key(0), np.zeros((1, 3)))
    assert list(models.layer_sizes(params)) == [f"layer_{index}" for index in range(12)]
    assert models.layer_sizes(params)["layer_0"] == 3 * 2 + 2
    assert models.layer_of("block.0.kernel") == "block.0"
    assert models.layer_of("kernel") == "kernel"
    assert models.nest(models.named(params)) == params


def normal_model(num_groups, y=None, *, scale):
    sigma = numpyro.sample("sigma", dist.HalfNormal(scale))
    with numpyro.plate("groups", num_groups):
        mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    numpyro.deterministic("total", mean.sum())
    numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def test_a_numpyro_model_has_its_density_on_unconstrained_space():
    y = np.array([0.3, -1.0, 2.0], np.float32)
    target, batch, init, constrain = models.from_numpyro(normal_model, 3, y, scale=np.float32(1.5) * np.ones(()))
    positions = init(jax.random.key(0), 4)
    assert positions["mean"].shape == (4, 3)
    assert len(np.unique(positions["sigma"])) == 4
    density = jax.jit(lambda position, batch: samplers.log_density(target, batch, samplers.Tempering.at())(position))
    for chain in range(4):
        position = jax.tree.map(lambda x, chain=chain: x[chain], positions)
        mean, sigma = np.asarray(position["mean"], np.float64), np.exp(float(position["sigma"]))
        for data in (y, y + 1):
            expected = (
                scipy.stats.halfnorm.logpdf(sigma, scale=1.5)
                + np.log(sigma)  # change of variables
                + scipy.stats.norm.logpdf(mean, 0, 2).sum()
                + scipy.stats.norm.logpdf(data, mean, sigma).sum()
            )
            constants = [jnp.asarray(data) if x.shape == (3,) else x for x in batch.constants]
            # Eight terms of order 1 to 100 in float32.
            np.testing.assert_allclose(density(position, batch._replace(constants=constants)), expected, rtol=1e-5, atol=1e-4)
        values = constrain(position)
        np.testing.assert_allclose(values["sigma"], sigma, rtol=1e-6)
        np.testing.assert_allclose(values["total"], mean.sum(), atol=1e-5)
    assert density._cache_size() == 1  # other data are other arguments of the same program


def test_a_numpyro_model_can_be_sampled():
    target, batch, init, _ = models.from_numpyro(normal_model, 2, np.zeros(2, np.float32), scale=1.0)
    kernel = samplers.hmc(target, step_size=0.2, trajectory_length=1.0)
    result = samplers.sample(jax.random.key(1), kernel, init(jax.random.key(0), 2), batch, num_steps=20)
    assert result.draws["mean"].shape == (2, 20, 2)
    assert np.isfinite(result.draws["mean"]).all()


def test_numpyro_models_that_cannot_be_sampled_are_refused():
    def discrete():
        numpyro.sample("which", dist.Bernoulli(0.5))

    def impossible():
        numpyro.factor("never", -jnp.inf * numpyro.sample("mean", dist.Normal()) ** 2)

    with pytest.raises(ValueError, match="which are discrete"):
        models.from_numpyro(discrete)
    with pytest.raises(ValueError, match="no latent variable"):
        models.from_numpyro(lambda: numpyro.sample("y", dist.Normal(), obs=1.0))
    with pytest.raises(ValueError, match="no finite density"):
        models.from_numpyro(impossible)


def test_the_built_in_models_are_listed_and_need_neither_flax_nor_numpyro():
    assert all(callable(getattr(models, name.replace("-", "_"))) for name in catalogue.MODELS)
    imports = "import sys, bayesnn.models, bayesnn.posteriors"
    code = f"{imports}; sys.exit(len({{'flax', 'numpyro', 'sklearn', 'arviz'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
