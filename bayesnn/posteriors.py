"""The posterior of a network's weights: model, prior, likelihood and data put together into what `samplers` can sample.

A position is one nested plain dict: the network's parameters and, beside them, what the likelihood learns (`noise.log_scale`).
The target's functions are made from the functions of model, prior and likelihood alone, and cached on them, while every number
(data, prior scales, a fixed noise) is an argument in `Batch`. So two posteriors that differ only in numbers share their compiled
programs, and the same posterior always gives the same function objects.

Inputs and targets are standardised inside; everything that a user reads (`functions`, `test_log_likelihood`, `save`) is in
original units. What is saved of a draw is computed anew from the data, never taken from the sampler's state: an audit that
trusted the sampler's cached density and gradient could not find them wrong.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, Num

import samplers
from bayesnn.data import Dataset
from bayesnn.density import (
    Constants,
    DrawArrays,
    Form,
    Units,
    density_functions,
    draw_function,
    original_log_likelihood,
    original_units,
)
from bayesnn.errors import did_you_mean
from bayesnn.likelihoods import Likelihood, check_likelihood
from bayesnn.models import AnyModel, Model, Params, as_model, layer_sizes, named, nest
from bayesnn.models.adapt import NUM_ROWS
from bayesnn.priors import Prior, check_prior
from bayesnn.training_batch import targets, training_batch
from samplers import Batch, Save, Target, Tempering, processes
from samplers.blocks import map_blocks

type Start = Literal["prior", "model"]
STARTS = ("prior", "model")


@dataclass(frozen=True, eq=False)
class Posterior:
    """A posterior over weights, made by `posterior`.

    Attributes:
        model: The network.
        prior: Over its parameters.
        likelihood: Of the targets given its outputs.
        dataset: Training and test data.
        target: What `samplers` samples.
        batch: Its data, padded to whole microbatches, and constants.
        tempering: Its temperatures.
        form: Its functions.
        like: Shapes and types of a position.
    """

    model: Model
    prior: Prior
    likelihood: Likelihood
    dataset: Dataset
    target: Target
    batch: Batch
    tempering: Tempering
    form: Form
    like: Params

    @functools.cached_property
    def layers(self) -> dict[str, int]:
        """Number of scalars of each layer, in the order of the virials."""
        return layer_sizes(self.like)

    @property
    def num_params(self) -> int:
        """d, the number of sampled scalars."""
        return sum(self.layers.values())

    @functools.cached_property
    def whole_batch(self) -> Batch:
        """The data on one device of this process, also where `batch` is shared out over several processes."""
        is_whole = processes.is_local(self.batch.weight)
        return self.batch if is_whole else training_batch(self.dataset, self.target, self.batch.constants)

    @property
    def units(self) -> Units:
        """Units of the targets."""
        return Units(jnp.asarray(self.dataset.y_mean, float), jnp.asarray(self.dataset.y_scale, float))

    def init(self, key: Key[Array, ""], num_chains: int, start: Start = "prior", first_chain: int = 0) -> Params:
        """Return positions to start from, every leaf with a leading chain axis.

        Args:
            key: Key; the start of a chain depends on it and on the chain's index, not on the number of chains.
            num_chains: Number of chains.
            start: "prior" draws from the prior; "model" takes the network's own initialisation (what the likelihood learns then
                still comes from its prior). A Flax NNX module given as an instance starts every chain at its present weights.
            first_chain: Index of the first of them.

        Raises:
            ValueError: An unknown start.
        """
        if start not in STARTS:
            raise ValueError(f"unknown start {start!r}{did_you_mean(start, STARTS)}")
        begin = functools.partial(self._begin, start) if isinstance(key, jax.core.Tracer) else self._starts[start]
        return begin(key, first_chain + jnp.arange(num_chains))

    @functools.cached_property
    def _starts(self) -> dict[str, Callable[..., Params]]:
        """Compiled programs by start, kept so that nothing compiles twice."""
        # Flax derives each array's key; XLA for CPUs repeats that in every draw from it, taking 90 s to optimise a ResNet-20's.
        options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
        return {start: jax.jit(functools.partial(self._begin, start), compiler_options=options) for start in STARTS}

    def _begin(self, start: str, key: Key[Array, ""], chains: Array) -> Params:
        (params, extra), inputs = self.form.split(self.like), _example(self.dataset)

        def one(chain: Array) -> Params:
            params_key, extra_key = jax.random.split(jax.random.fold_in(key, chain))
            begun = self.prior.sample(params_key, params) if start == "prior" else self.model.init(params_key, inputs)
            position = begun | self.likelihood.extra_prior.sample(extra_key, extra)
            return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), position, self.like)

        return map_blocks(one, 1, chains)  # a vmap of another width would give other last bits

    def functions(self, position: Params, x: Float[Array, "point ..."]) -> dict[str, Array]:
        """Return what one position predicts.

        Args:
            position: Of one chain.
            x: [point, ...] standardised inputs (`dataset.standardise`).

        Returns:
            {"probability": [point, class]}, or {"mean": [point], "scale": [point]} in original units.
        """
        outputs, extra = self.form.outputs(position, x, self.batch.constants)
        return original_units(self.form.functions(outputs, extra), self.units)

    def test_log_likelihood(
        self, position: Params, x: Float[Array, "point ..."], y: Num[Array, " point"]
    ) -> Float[Array, " point"]:
        """Return the log density of each target given one position, nats, of targets in original units.

        Args:
            position: Of one chain.
            x: [point, ...] standardised inputs.
            y: [point] labels, or targets in original units.
        """
        if self.dataset.task == "regression":
            y = (y - self.units.y_mean) / self.units.y_scale
        return original_log_likelihood(self.form, position, x, y, self.batch.constants, self.units)

    def terms(self, position: Params) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return log prior and log likelihood of one position on all training data, untempered, nats, standardised units."""
        return samplers.log_density_terms(self.target, position, self.batch)

    def save(self, test_points: int | None = None) -> Save:
        r"""Return what to keep of a draw: weights, predictions, densities and the virial of each layer.

        The function gives, for the state of one chain:

        - posterior: every parameter by its dotted path;
        - functions: what is predicted on the test inputs, and `log_likelihood` [point] of the test targets, original units;
        - log_prior, log_likelihood: on all training data, untempered; lp: the tempered log density;
        - virial: [layer], in the order of `layers`, the sum over a layer's scalars of
          :math:`\theta_i\, \partial U / \partial \theta_i`, U the tempered potential. Its expectation is the number of the
          layer's scalars when sampling is at the stated temperature.

        Args:
            test_points: Keep the predictions of this many test points, the first ones; all by default.

        Raises:
            ValueError: More test points than there are, or none.
        """
        rows = self._rows(test_points)
        x_test = jnp.asarray(self.dataset.x_test[rows], float)
        arrays = DrawArrays(x_test, targets(self.dataset, self.dataset.y_test[rows]), self.batch, self.tempering, self.units)
        return Save(draw_function(self.form, self.target, tuple(self.layers)), arrays)

    def observed(self, test_points: int | None = None) -> Num[np.ndarray, " point"]:
        """Return the test targets that belong to `save`: labels, or targets in original units."""
        return self.dataset.original_units(self.dataset.y_test[self._rows(test_points)])

    def prior_scales(self) -> Params | None:
        """Return the prior standard deviation of every scalar, shaped as a position; None where the prior has none."""
        params, extra = self.form.split(self.like)
        scales, extra_scales = self.prior.scale(params), self.likelihood.extra_prior.scale(extra)
        return None if scales is None or extra_scales is None else scales | extra_scales

    def unflatten(self, weights: Mapping[str, Any]) -> Params:
        """Return positions from arrays by dotted path, the inverse of what `save` keeps; any leading axes.

        Raises:
            ValueError: Arrays are missing, unknown or of another shape.
        """
        expected = named(self.like)
        if weights.keys() != expected.keys():
            missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
            raise ValueError(f"weights do not fit the model: missing {missing}, unknown {unknown}; names are dotted paths")
        for name, like in expected.items():
            shape = np.shape(weights[name])
            if shape[len(shape) - like.ndim :] != like.shape:
                raise ValueError(f"weights {name} have shape {shape}, expected (..., {', '.join(map(str, like.shape))})")
        return nest(weights)

    def _rows(self, test_points: int | None) -> slice:
        available = len(self.dataset.y_test)
        if test_points is not None and not 1 <= test_points <= available:
            raise ValueError(f"test_points must be from 1 to {available} for {self.dataset.name}, got {test_points}")
        return slice(test_points)


def posterior(
    model: AnyModel,
    prior: Prior,
    likelihood: Likelihood,
    dataset: Dataset,
    *,
    temperature: float = 1.0,
    likelihood_temperature: float = 1.0,
    microbatch: int | None = None,
    data_blocks: int = 1,
    mesh: Mesh | None = None,
) -> Posterior:
    r"""Return the tempered posterior of a network's weights.

    .. math:: p(\theta \mid D) \propto \Big(p(\theta) \prod_i p(y_i \mid f_\theta(x_i))^{1/T_\ell}\Big)^{1/T}

    Args:
        model: The network: anything that `bayesnn.models.as_model` takes.
        prior: Over its parameters.
        likelihood: Of the targets given its outputs.
        dataset: Training and test data.
        temperature: T; 1 is the posterior, below 1 a cold posterior.
        likelihood_temperature: :math:`T_\ell`, of the likelihood alone.
        microbatch: Examples whose gradient, and test points whose predictions, are computed at a time; all by default.
        data_blocks: A power of two, a multiple of the devices that share the data of a chain (`samplers.Target`).
        mesh: Lay the training data over its devices, of which each process reads those of its own; by default all on one device.

    Raises:
        TypeError: A model that cannot be adapted, or other parts of another kind.
        ValueError: Parts that do not fit: outputs of another shape than the likelihood needs, a likelihood for another task,
            log densities of another shape than they should have, parameters that are not real numbers, a prior that names other
            parameters, or settings outside their range.

    Example:
        >>> from bayesnn import data, likelihoods, models, priors
        >>> digits = data.load("digits")
        >>> p = posterior(models.mlp([50], 10), priors.gaussian(0.3), likelihoods.categorical(), digits)
        >>> p.num_params, p.layers
        (3760, {'layer_0': 3250, 'layer_1': 510})
    """
    _check_kinds(prior, likelihood, dataset)
    model = as_model(model, jnp.asarray(dataset.x_train[:NUM_ROWS], float))
    params = _parameters(model, dataset)
    _check_outputs(model, params, likelihood, dataset)
    extra = _extra(likelihood, params)
    check_likelihood(likelihood, dataset, likelihood.extra_constants | extra)
    check_prior(prior, params)
    form = Form(
        model.apply,
        prior.log_prob,
        likelihood.extra_prior.log_prob,
        likelihood.log_prob,
        likelihood.functions,
        frozenset(extra),
        likelihood.copies,
    )
    if likelihood.copies is not None and dataset.inputs != "images":
        raise ValueError(f"{likelihood.description} is for images; {dataset.name} has {dataset.inputs}")
    target = _target(form, dataset, microbatch, data_blocks)
    constants = Constants(
        prior.constants(params), likelihood.extra_prior.constants(extra), jax.tree.map(jnp.asarray, likelihood.extra_constants)
    )
    return Posterior(
        model=model,
        prior=prior,
        likelihood=likelihood,
        dataset=dataset,
        target=target,
        batch=training_batch(dataset, target, constants, mesh),
        tempering=Tempering.at(temperature, likelihood_temperature),
        form=form,
        like=params | extra,
    )


def _target(form: Form, dataset: Dataset, microbatch: int | None, data_blocks: int) -> Target:
    if microbatch is not None and microbatch < 1:
        raise ValueError(f"microbatch must be at least 1, got {microbatch}")
    if data_blocks < 1 or data_blocks & (data_blocks - 1):
        raise ValueError(f"data_blocks must be a power of two, got {data_blocks}")
    if microbatch is not None:
        microbatch = min(microbatch, math.ceil(dataset.num_data / data_blocks))
    return Target(*density_functions(form), dataset.num_data, microbatch, data_blocks)


def _extra(likelihood: Likelihood, params: Params) -> Params:
    """Return shapes of what the likelihood learns."""
    clash = params.keys() & likelihood.extra_params.keys()
    if clash:
        raise ValueError(f"both network and likelihood have parameters named {', '.join(sorted(clash))}; rename the network's")
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.result_type(float)), likelihood.extra_params)


def _example(dataset: Dataset) -> Float[Array, "1 ..."]:
    return jnp.asarray(dataset.x_train[:1], float)


def _parameters(model: Model, dataset: Dataset) -> Params:
    """Return shapes of the network's parameters, in the floating type that JAX is set to."""
    params = jax.eval_shape(model.init, jax.random.key(0), _example(dataset))
    leaves = named(params)
    if nest(leaves) != params:
        raise ValueError("the model's parameters are no nested dict of names; adapt it with as_model((init, apply), inputs)")
    for name, leaf in leaves.items():
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"parameter {name} has dtype {leaf.dtype}; only real numbers can be sampled: keep it out of init")
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.result_type(float)), params)


def _check_kinds(prior: Any, likelihood: Any, dataset: Any) -> None:
    parts = ((prior, Prior, "priors.gaussian(0.5)"), (likelihood, Likelihood, "likelihoods.categorical()"))
    for part, kind, example in (*parts, (dataset, Dataset, 'data.load("digits")')):
        if not isinstance(part, kind):
            raise TypeError(f"expected a bayesnn {kind.__name__}, as made by {example}; got {part!r:.80}")


def _check_outputs(model: Model, params: Params, likelihood: Likelihood, dataset: Dataset) -> None:
    if likelihood.task != dataset.task:
        raise ValueError(
            f"the likelihood ({likelihood.description}) is for {likelihood.task}, {dataset.name} for {dataset.task}: use one for "
            f"{dataset.task}, or say what the targets are by task='{likelihood.task}' (--data.task {likelihood.task})"
        )
    expected = (dataset.num_data, likelihood.num_outputs(dataset))
    found = jax.eval_shape(model.apply, params, jax.ShapeDtypeStruct(dataset.x_train.shape, jnp.result_type(float)))
    if getattr(found, "shape", None) != expected:
        raise ValueError(
            f"the model's outputs on the {dataset.num_data} examples of {dataset.name} have shape "
            f"{getattr(found, 'shape', type(found).__name__)}, but the likelihood ({likelihood.description}) needs {expected}"
        )
