"""One adapter from whatever the user has (Flax NNX, Flax Linen, a pair of functions) to a `Model`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from bayesnn.models.model import AnyModel, Model
from bayesnn.models.parameters import Container, Params

if TYPE_CHECKING:
    from flax import linen, nnx

# Batch statistics move outputs by the order of their size; matrices of another shape, by 1e-6 of it in float32 and 1e-3 in TF32.
ROW_TOLERANCE = 1e-2
# Enough rows for batch statistics to differ from those of one row.
NUM_ROWS = 4

REMEDY = (
    "switch to evaluation mode (NNX: model.eval(); Linen: use_running_average=True, deterministic=True), where BatchNorm has "
    "frozen statistics and dropout is off, or use LayerNorm"
)


def as_model(model: AnyModel, inputs: Float[Array, "n ..."]) -> Model:
    """Adapt a network to a `Model`, and refuse one that does not define a likelihood.

    Accepted are:

    - a `Model`, which is returned as it is;
    - a Flax NNX module: its `nnx.Param` variables are sampled, everything else (BatchNorm statistics) stays as it is now, and
      `init` returns the weights it has now, whatever the key;
    - a function or class that makes one, called with `rngs=`: `init` then makes new weights from the key;
    - a Flax Linen module: its collection `params` is sampled, every other collection stays as `module.init` makes it; to keep
      trained statistics pass the pair `(init, lambda params, x: module.apply({"params": params, **statistics}, x))`;
    - a pair (init, apply) of pure functions (key, inputs) -> parameters, any pytree, and (parameters, inputs) -> outputs.

    The model is run on a few inputs: an example's outputs must depend neither on chance nor on the examples beside it, else
    there is no likelihood of one example, and minibatches, data shards and repeated calls would each see another density.

    Args:
        model: The network.
        inputs: [n, ...] examples of the inputs that it will see.

    Raises:
        TypeError: Something else than the above.
        ValueError: Active dropout, BatchNorm in training mode or any other dependence on chance or on the batch; names the layer.
    """
    if isinstance(model, Model):
        return model
    inputs = jnp.asarray(inputs[:NUM_ROWS])
    if isinstance(model, tuple) and len(model) == 2 and all(callable(part) for part in model):
        init, apply = model
        return _from_pair(init, apply, inputs)
    from flax import linen, nnx

    if isinstance(model, nnx.Module):
        return _from_nnx(model, None, inputs)
    if isinstance(model, linen.Module):
        return _from_linen(model, inputs)
    if callable(model):
        made = model(rngs=nnx.Rngs(0))
        if isinstance(made, nnx.Module):
            return _from_nnx(made, model, inputs)
    raise TypeError(
        f"cannot sample a {type(model).__name__}; expected a bayesnn Model, a Flax NNX module or a function of rngs that makes "
        "one, a Flax Linen module, or a pair (init, apply)"
    )


def _from_pair(init: Callable[..., PyTree], apply: Callable[..., Array], inputs: Array) -> Model:
    params = init(jax.random.key(0), inputs)
    container = Container.of(params)
    first = _outputs(lambda: apply(params, inputs), inputs)
    _refuse_impure(first, apply(params, inputs), apply(params, inputs[:1]), [])
    return Model(
        lambda key, inputs: container.to_dict(init(key, inputs)),
        lambda params, inputs: apply(container.from_dict(params), inputs),
        f"functions {getattr(init, '__name__', 'init')}, {getattr(apply, '__name__', 'apply')}",
    )


def _from_nnx(module: nnx.Module, make: Callable[..., nnx.Module] | None, inputs: Array) -> Model:
    from flax import nnx

    def split(module: nnx.Module) -> Any:
        graph, variables, others = cast(Any, nnx.split(module, nnx.Param, ...))
        return graph, nnx.to_pure_dict(variables), others

    graph, weights, others = split(nnx.clone(module))  # a copy, or training the module further would change the density
    container = Container.of(weights)

    def init(key: Key[Array, ""], inputs: Array) -> Params:
        return container.to_dict(weights if make is None else split(make(rngs=nnx.Rngs(key)))[1])

    def merged(params: Params) -> Any:
        # Without a copy the module would change the captured variables, and the next call would see them.
        return nnx.merge(graph, container.from_dict(params), others, copy=True)

    params = container.to_dict(weights)
    trial = merged(params)
    first, second, alone = _outputs(lambda: trial(inputs), inputs), trial(inputs), merged(params)(inputs[:1])
    _refuse_impure(first, second, alone, _changed(nnx.to_pure_dict(others), nnx.to_pure_dict(split(trial)[2])))
    return Model(init, lambda params, inputs: merged(params)(inputs), f"{type(module).__name__} (Flax NNX)")


def _from_linen(module: linen.Module, inputs: Array) -> Model:
    from flax.errors import InvalidRngError

    def split(key: Key[Array, ""], inputs: Array) -> tuple[PyTree, PyTree]:
        variables = dict(module.init(key, inputs))
        return variables.pop("params", {}), variables

    try:
        weights, others = split(jax.random.key(0), inputs)
        first, after = module.apply({"params": weights, **others}, inputs, mutable=True)
        alone, _ = module.apply({"params": weights, **others}, inputs[:1], mutable=True)
    except InvalidRngError as error:
        layer = str(error).partition(" needs PRNG")[0]
        raise ValueError(f"two calls of the model would differ, since {layer} draws random numbers; {REMEDY}") from error
    container = Container.of(weights)
    _refuse_impure(first, first, alone, _changed(others, {name: after[name] for name in others}))
    return Model(
        lambda key, inputs: container.to_dict(split(key, inputs)[0]),
        lambda params, inputs: cast(Array, module.apply({"params": container.from_dict(params), **others}, inputs)),
        f"{type(module).__name__} (Flax Linen)",
    )


def _outputs(call: Callable[[], Array], inputs: Array) -> Array:
    """Apply a network for the first time, saying to what where it fails."""
    try:
        return call()
    except TypeError as error:  # with its traceback, which says where in the user's own code
        message = f"the model cannot be applied to inputs of shape {inputs.shape}: {error}"
        raise TypeError(message).with_traceback(error.__traceback__) from None


def _changed(before: PyTree, after: PyTree) -> list[str]:
    """Name the variables that a call has changed."""
    later = dict(jax.tree_util.tree_leaves_with_path(after))
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, value in jax.tree_util.tree_leaves_with_path(before)
        if not jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and not np.array_equal(value, later[path])
    ]


def _refuse_impure(first: Array, second: Array, alone: Array, changed: list[str]) -> None:
    """Compare two calls on the same inputs, and one on their first row alone."""
    culprit = f" (the call changes {', '.join(changed)})" if changed else ""
    if not np.array_equal(first, second, equal_nan=True):
        raise ValueError(f"two calls of the model on the same inputs differ{culprit}; {REMEDY}")
    if not np.allclose(first[:1], alone, rtol=0, atol=ROW_TOLERANCE * float(jnp.abs(first).max()), equal_nan=True):
        raise ValueError(f"the outputs of an example depend on the other examples of its batch{culprit}; {REMEDY}")
