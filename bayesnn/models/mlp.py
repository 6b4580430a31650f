"""Fully connected networks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bayesnn.errors import did_you_mean
from bayesnn.models.model import Model
from bayesnn.models.parameters import Params

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,  # the tanh approximation, as in Flax
}


def mlp(widths: Sequence[int], num_outputs: int, activation: str = "silu") -> Model:
    r"""Return a fully connected network; without hidden layers, a linear model.

    .. math:: h_0 = x, \quad h_{i+1} = \phi(h_i W_i + b_i), \quad f = h_L W_L + b_L

    Layers are named layer_0, layer_1, ..., each with a `kernel` [in, out] and a `bias` [out], as in Flax; kernels begin
    LeCun-normal and biases at zero, as in Flax. Plain functions, because they trace without a module graph and need no import of
    Flax; the compiled gradient takes the time of the same network of `nnx.Linear` layers.

    Smooth activations suit HMC: leapfrog steps across the kinks of ReLU have an energy error of first order in the step size
    (Dinh et al. 2024, arXiv 2410.22065).

    Args:
        widths: Units of each hidden layer, each >= 1.
        num_outputs: Outputs, >= 1.
        activation: "tanh", "relu", "silu" or "gelu".

    Raises:
        ValueError: An unknown activation (the nearest is suggested), or a width below 1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = mlp([50], 10)
        >>> params = model.init(jax.random.key(0), jnp.zeros((1, 64)))
        >>> jax.tree.map(jnp.shape, params)
        {'layer_0': {'bias': (50,), 'kernel': (64, 50)}, 'layer_1': {'bias': (10,), 'kernel': (50, 10)}}
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}{did_you_mean(activation, ACTIVATIONS)}")
    if any(width < 1 for width in (*widths, num_outputs)):
        raise ValueError(f"every layer needs at least one unit, got widths={tuple(widths)} and num_outputs={num_outputs}")
    return _mlp((*widths, num_outputs), activation)


@functools.lru_cache(maxsize=64)  # the same functions for the same network, so that nothing recompiles
def _mlp(sizes: tuple[int, ...], activation: str) -> Model:
    function = ACTIVATIONS[activation]
    begin_kernel = jax.nn.initializers.lecun_normal()
    names = [f"layer_{index}" for index in range(len(sizes))]

    def init(key: Key[Array, ""], inputs: Float[Array, "n feature"]) -> Params:
        if inputs.ndim != 2:
            raise ValueError(f"an MLP needs inputs (n, features), got shape {inputs.shape}; flatten the examples first")
        params, num_inputs = {}, inputs.shape[1]
        for name, size, layer_key in zip(names, sizes, jax.random.split(key, len(sizes)), strict=True):
            params[name] = {"kernel": begin_kernel(layer_key, (num_inputs, size)), "bias": jnp.zeros(size)}
            num_inputs = size
        return params

    def apply(params: Params, inputs: Float[Array, "n feature"]) -> Float[Array, "n output"]:
        hidden = inputs
        for name in names[:-1]:
            hidden = function(hidden @ params[name]["kernel"] + params[name]["bias"])
        return hidden @ params[names[-1]]["kernel"] + params[names[-1]]["bias"]

    units = "-".join(str(size) for size in sizes)
    return Model(init, apply, f"MLP inputs-{units}, {activation}" if len(sizes) > 1 else f"linear model inputs-{units}")
