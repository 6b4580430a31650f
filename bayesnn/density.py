"""The functions of a posterior over weights, without its numbers: density, predictions, and what is kept of a draw."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PyTree

import samplers
from bayesnn.models import Params, layer_of, named
from samplers import Batch, Target, Tempering


class Constants(NamedTuple):
    """Numbers of the density, the constants of its batch.

    Attributes:
        prior: Of the prior over the network's parameters.
        extra_prior: Of the prior over what the likelihood learns.
        extra: Of the likelihood.
    """

    prior: PyTree
    extra_prior: PyTree
    extra: Params


class Units(NamedTuple):
    """Mean and standard deviation of the training targets; 0 and 1 for classification."""

    y_mean: Float[Array, ""]
    y_scale: Float[Array, ""]


class DrawArrays(NamedTuple):
    """Arrays from which a draw is evaluated; test data standardised."""

    x_test: Float[Array, "point ..."]
    y_test: Num[Array, " point"]
    batch: Batch
    tempering: Tempering
    units: Units


class Linearised(NamedTuple):
    """State of a chain whose draws predict by the network linearised at another position.

    Attributes:
        position: The draw.
        centre: Where the network is linearised.
    """

    position: Params
    centre: Params


class Form(NamedTuple):
    """The functions that make a posterior, without any number; compiled programs are cached on it."""

    apply: Callable[[Params, Array], Array]
    prior: Callable[[Params, PyTree], Array]
    extra_prior: Callable[[Params, PyTree], Array]
    log_prob: Callable[[Array, Array, Params], Array]
    functions: Callable[[Array, Params], dict[str, Array]]
    extra_names: frozenset[str]
    copies: Callable[[Array], Array] | None = None

    def split(self, position: Params) -> tuple[Params, Params]:
        """Return the network's parameters, and what the likelihood learns."""
        params = {name: value for name, value in position.items() if name not in self.extra_names}
        return params, {name: position[name] for name in self.extra_names}

    def outputs(self, position: Params, x: Array, constants: Constants) -> tuple[Array, Params]:
        """Return the network's outputs and the likelihood's extra."""
        params, extra = self.split(position)
        return self.apply(params, x), constants.extra | extra

    def linearised(self, centre: Params) -> Form:
        """Return the form whose outputs are affine in the network's parameters: their tangent at the centre."""
        origin, _ = self.split(centre)

        def apply(params: Params, x: Array) -> Array:
            step = jax.tree.map(jnp.subtract, params, origin)
            outputs, change = jax.jvp(lambda p: self.apply(p, x), (origin,), (step,))
            return outputs + change

        return self._replace(apply=apply)


@functools.lru_cache(maxsize=64)  # the same functions for the same form, so that nothing recompiles
def density_functions(form: Form) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """Return log prior and log likelihood as `samplers.Target` has them."""

    def log_prior(position: Params, constants: Constants) -> Float[Array, ""]:
        params, extra = form.split(position)
        return form.prior(params, constants.prior) + form.extra_prior(extra, constants.extra_prior)

    def log_likelihood(position: Params, data: tuple[Array, Array], constants: Constants) -> Float[Array, " n"]:
        x, y = data
        if form.copies is None:
            outputs, extra = form.outputs(position, x, constants)
            return form.log_prob(outputs, y, extra)
        copies = form.copies(x)
        outputs, extra = form.outputs(position, copies.reshape(-1, *x.shape[1:]), constants)
        by_copy = outputs.reshape(*copies.shape[:2], *outputs.shape[1:])
        return jax.vmap(lambda one: form.log_prob(one, y, extra))(by_copy).mean(0)

    return log_prior, log_likelihood


@functools.lru_cache(maxsize=64)  # the same function for the same posterior, so that nothing recompiles
def draw_function(form: Form, target: Target, layers: tuple[str, ...]) -> Callable[[Any, DrawArrays], dict[str, Any]]:
    """Return the function of a chain's state that `Posterior.save` describes; predictions of a `Linearised` are the tangent's."""

    def draw(state: Any, arrays: DrawArrays) -> dict[str, Any]:
        position = state.position
        (log_prior, log_likelihood), gradients = samplers.log_density_gradients(target, position, arrays.batch)
        gradient = jax.tree.map(arrays.tempering.combine, *gradients)
        predicting = form.linearised(state.centre) if isinstance(state, Linearised) else form
        return {
            "posterior": named(position),
            "functions": test_predictions(predicting, target.microbatch, position, arrays),
            "log_prior": log_prior,
            "log_likelihood": log_likelihood,
            "lp": arrays.tempering.combine(log_prior, log_likelihood),
            "virial": _virials(position, gradient, layers),
        }

    return draw


def test_predictions(form: Form, microbatch: int | None, position: Params, arrays: DrawArrays) -> dict[str, Array]:
    """Return what a form predicts on the test inputs, and `log_likelihood` [point] of the test targets, original units.

    Args:
        form: The functions.
        microbatch: Points that are evaluated at a time, so that memory does not grow with their number; all if None.
        position: Of one chain.
        arrays: The test data.
    """
    constants = arrays.batch.constants

    def predict(x: Array, y: Array) -> dict[str, Array]:
        outputs, extra = form.outputs(position, x, constants)
        functions = original_units(form.functions(outputs, extra), arrays.units)
        return functions | {"log_likelihood": original_log_likelihood(form, position, x, y, constants, arrays.units)}

    num_points = arrays.x_test.shape[0]
    if microbatch is None or microbatch >= num_points:
        return predict(arrays.x_test, arrays.y_test)

    def piece(first: Array) -> dict[str, Array]:
        return predict(*(jax.lax.dynamic_slice_in_dim(x, first, microbatch) for x in (arrays.x_test, arrays.y_test)))

    # All pieces have one size, so that one program does; the last one begins early enough, and what it repeats is dropped.
    firsts = jnp.minimum(jnp.arange(0, num_points, microbatch), num_points - microbatch)
    repeated = -num_points % microbatch
    return jax.tree.map(
        lambda x: jnp.concatenate([x[:-1].reshape(-1, *x.shape[2:]), x[-1, repeated:]]), jax.lax.map(piece, firsts)
    )


def original_log_likelihood(
    form: Form, position: Params, x: Array, y: Array, constants: Constants, units: Units
) -> Float[Array, " point"]:
    """Return log densities of targets in original units, given standardised targets: a change of variables."""
    outputs, extra = form.outputs(position, x, constants)
    return form.log_prob(outputs, y, extra) - jnp.log(units.y_scale)


def original_units(predicted: dict[str, Array], units: Units) -> dict[str, Array]:
    """Return predictions in original units; probabilities have none."""
    if "mean" not in predicted:
        return predicted
    return predicted | {"mean": predicted["mean"] * units.y_scale + units.y_mean, "scale": predicted["scale"] * units.y_scale}


def _virials(position: Params, gradient: Params, layers: tuple[str, ...]) -> Float[Array, " layer"]:
    sums = dict.fromkeys(layers, jnp.zeros(()))
    slopes = named(gradient)
    for name, value in named(position).items():
        sums[layer_of(name)] -= jnp.sum(value * slopes[name])
    return jnp.stack(list(sums.values()))
