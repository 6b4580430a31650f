"""Fully connected networks."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bayesnn.errors import did_you_mean
from bayesnn.models.convolution import ComputeType, dot_general
from bayesnn.models.model import Model
from bayesnn.models.parameters import Params
from diagnostics.units import Architecture, mlp_symmetries

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,  # the tanh approximation, as in Flax
}


def activation_named(name: str) -> Callable[[Array], Array]:
    """Return an activation.

    Raises:
        ValueError: An unknown one (the nearest is suggested).
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}{did_you_mean(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


def mlp(widths: Sequence[int], num_outputs: int, activation: str = "silu", compute_dtype: ComputeType = None) -> Model:
    r"""Return a fully connected network; without hidden layers, a linear model.

    .. math:: h_0 = x, \quad h_{i+1} = \phi(h_i W_i + b_i), \quad f = h_L W_L + b_L

    Examples with several axes, such as images, are flattened. Layers are named layer_0, layer_1, ..., each with a `kernel`
    [in, out] and a `bias` [out], as in Flax; kernels begin LeCun-normal and biases at zero, as in Flax. Plain functions, because
    they trace without a module graph and need no import of Flax.

    Inside, arrays are [unit, example]: what a CPU's vector registers hold are then examples, and no product leaves them half
    empty for having 50 columns or 10. `make bench`, part `layouts`, says what it is worth against examples in rows, as
    `nnx.Linear` has them.

    Smooth activations suit HMC: leapfrog steps across the kinks of ReLU have an energy error of first order in the step size
    (Dinh et al. 2024, arXiv 2410.22065).

    Args:
        widths: Units of each hidden layer, each >= 1.
        num_outputs: Outputs, >= 1.
        activation: "tanh", "relu", "silu" or "gelu".
        compute_dtype: "bfloat16" for products in that type; by default that of the weights.

    Raises:
        ValueError: An unknown activation (the nearest is suggested), or a width below 1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = mlp([50], 10)
        >>> params = model.init(jax.random.key(0), jnp.zeros((1, 64)))
        >>> jax.tree.map(jnp.shape, params)
        {'layer_0': {'bias': (50,), 'kernel': (64, 50)}, 'layer_1': {'bias': (10,), 'kernel': (50, 10)}}
    """
    activation_named(activation)
    if any(width < 1 for width in (*widths, num_outputs)):
        raise ValueError(f"every layer needs at least one unit, got widths={tuple(widths)} and num_outputs={num_outputs}")
    return _mlp((*widths, num_outputs), activation, compute_dtype)


@functools.lru_cache(maxsize=64)  # the same functions for the same network, so that nothing recompiles
def _mlp(sizes: tuple[int, ...], activation: str, compute_dtype: ComputeType) -> Model:
    function = activation_named(activation)
    begin_kernel = jax.nn.initializers.lecun_normal()
    names = [f"layer_{index}" for index in range(len(sizes))]

    def init(key: Key[Array, ""], inputs: Float[Array, "n ..."]) -> Params:
        params, num_inputs = {}, math.prod(inputs.shape[1:])
        for name, size, layer_key in zip(names, sizes, jax.random.split(key, len(sizes)), strict=True):
            params[name] = {"kernel": begin_kernel(layer_key, (num_inputs, size)), "bias": jnp.zeros(size)}
            num_inputs = size
        return params

    def apply(params: Params, inputs: Float[Array, "n ..."]) -> Float[Array, "n output"]:
        dot, turned = dot_general(compute_dtype), _turned if jax.default_backend() == "cpu" else jnp.transpose
        # The barrier makes it an array of its own, which XLA moves out of loops; else it is folded into products, which it slows.
        hidden = jax.lax.optimization_barrier(inputs.reshape(len(inputs), -1).T)
        for name in names:
            kernel, bias = params[name]["kernel"], params[name]["bias"]
            kernel = turned(kernel) if name == names[0] else kernel.T
            hidden = dot(kernel, hidden, (((1,), (0,)), ((), ()))) + bias[:, None]
            hidden = function(hidden) if name != names[-1] else hidden
        return hidden.T

    def symmetries(params: Params) -> Architecture:
        return mlp_symmetries(names, activation) if len(names) > 1 else ()

    units = "-".join(str(size) for size in sizes)
    shown = f"MLP inputs-{units}, {activation}" if len(sizes) > 1 else f"linear model inputs-{units}"
    return Model(init, apply, shown, symmetries)


@jax.custom_jvp
def _turned(kernel: Float[Array, "input unit"]) -> Float[Array, "unit input"]:
    """Transpose the first layer's kernel, whose gradient is then a product of units with inputs, and not of inputs with units.

    On a CPU that product takes 0.6 to 1.0 times as long in most shapes (13 x 50: 0.77, 64 x 50: 0.63, 784 x 50: 0.77, 64 x 950:
    0.84, 784 x 200: 1.0; 64 x 32: 1.2). Of a plain transpose XLA's simplifications make the other one.
    """
    return kernel.T


@_turned.defjvp
def _turned_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return primals[0].T, jax.lax.optimization_barrier(tangents[0].T)
