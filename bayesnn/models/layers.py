"""Layers of the built-in networks that Flax has not, and the way from a network of layers to a `Model`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from bayesnn.models.convolution import ComputeType, Padding, convolve, matmul
from bayesnn.models.model import Model
from bayesnn.models.parameters import Container, Params

if TYPE_CHECKING:
    from diagnostics.units import Architecture, Owned

LECUN_NORMAL, HE_NORMAL = nnx.initializers.lecun_normal(), nnx.initializers.he_normal()
FRN_EPSILON = 1e-6  # Singh & Krishnan 2020, section 3.1, and the code of Izmailov et al. 2021
FORGET_BIAS = 1.0  # Jozefowicz et al. 2015; added to the sampled bias, as Haiku and so Izmailov et al. 2021 do

type Shape = tuple[int, ...]


class Conv(nnx.Module):
    """Convolution with a kernel [*window, in, out] and a bias [out]."""

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        window: Shape,
        *,
        stride: int = 1,
        padding: Padding = "SAME",
        begin: Callable[..., Array] = LECUN_NORMAL,
        compute_dtype: ComputeType,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(begin(rngs.params(), (*window, num_inputs, num_outputs)))
        self.bias = nnx.Param(jnp.zeros(num_outputs))
        self.convolve = functools.partial(convolve, stride=stride, padding=padding, compute_dtype=compute_dtype)

    def __call__(self, inputs: Float[Array, "n *place input"]) -> Float[Array, "n *place output"]:
        """Return the outputs."""
        return self.convolve(inputs, self.kernel[...]) + self.bias[...]


class FilterResponseNorm(nnx.Module):
    r"""Filter response normalisation with its thresholded linear unit, channel by channel of one example.

    .. math:: y = \max\Big(\gamma \frac{x}{\sqrt{\overline{x^2} + \epsilon}} + \beta, \tau\Big)

    The mean is over places; gamma is `scale`, beta `offset`, tau `threshold`. No example sees another, unlike in BatchNorm.

    References:
        Singh & Krishnan 2020, arXiv 1911.09737, equations 1 to 4.
    """

    def __init__(self, num_channels: int):
        self.scale = nnx.Param(jnp.ones(num_channels))
        self.offset = nnx.Param(jnp.zeros(num_channels))
        self.threshold = nnx.Param(jnp.zeros(num_channels))

    def __call__(self, inputs: Float[Array, "n *place channel"]) -> Float[Array, "n *place channel"]:
        """Return the outputs."""
        mean_square = jnp.mean(jnp.square(inputs), axis=tuple(range(1, inputs.ndim - 1)), keepdims=True)
        normalised = inputs * jax.lax.rsqrt(mean_square + FRN_EPSILON)
        return jnp.maximum(self.scale[...] * normalised + self.offset[...], self.threshold[...])


class RecurrentLinear(nnx.Module):
    """Linear in a new input, kernel [in, out], and in the last output, recurrent_kernel [unit, out]; with a bias [out]."""

    def __init__(self, num_inputs: int, num_units: int, num_outputs: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(LECUN_NORMAL(rngs.params(), (num_inputs, num_outputs)))
        self.recurrent_kernel = nnx.Param(LECUN_NORMAL(rngs.params(), (num_units, num_outputs)))
        self.bias = nnx.Param(jnp.zeros(num_outputs))


class LSTM(nnx.Module):
    r"""Long short-term memory; returns its last output.

    .. math:: c_t = \sigma(f_t + 1)\, c_{t-1} + \sigma(i_t) \tanh(g_t), \quad h_t = \sigma(o_t) \tanh(c_t)

    g comes from `candidate`; i, f and o from `gates`, side by side. Apart, because the sign of a unit turns in g and not in them.
    """

    def __init__(self, num_inputs: int, num_units: int, *, compute_dtype: ComputeType, rngs: nnx.Rngs):
        self.candidate = RecurrentLinear(num_inputs, num_units, num_units, rngs=rngs)
        self.gates = RecurrentLinear(num_inputs, num_units, 3 * num_units, rngs=rngs)
        self.compute_dtype = compute_dtype

    def __call__(self, inputs: Float[Array, "n time input"]) -> Float[Array, "n unit"]:
        """Return the last output."""
        parts = (self.candidate, self.gates)
        kernels = [part.recurrent_kernel[...] for part in parts]
        # What the inputs contribute is one product for all times.
        from_inputs = [matmul(inputs, part.kernel[...], self.compute_dtype) + part.bias[...] for part in parts]

        def advance(carry: tuple[Array, Array], now: list[Array]) -> tuple[tuple[Array, Array], None]:
            output, memory = carry
            candidate, gates = (x + matmul(output, kernel, self.compute_dtype) for x, kernel in zip(now, kernels, strict=True))
            enter, forget, leave = jnp.split(gates, 3, axis=-1)
            memory = jax.nn.sigmoid(forget + FORGET_BIAS) * memory + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
            return (jax.nn.sigmoid(leave) * jnp.tanh(memory), memory), None

        zeros = jnp.zeros((inputs.shape[0], kernels[0].shape[0]), inputs.dtype)
        times = [jnp.moveaxis(x, 1, 0) for x in from_inputs]
        # Unrolled: XLA's count of operations, from which runs are planned, takes the body of a loop once.
        (output, _), _ = jax.lax.scan(advance, (zeros, zeros), times, unroll=True)
        return output


def network(
    make: Callable[[Shape, nnx.Rngs], nnx.Module], description: str, symmetries: Callable[[Params], Architecture]
) -> Model:
    """Return the `Model` of a Flax NNX network whose every variable is sampled.

    Args:
        make: (shape of one example, rngs) -> module that computes outputs from inputs.
        description: One line.
        symmetries: As in `Model`.
    """

    def split(module: nnx.Module) -> tuple[Any, Params]:
        graph, variables = cast(Any, nnx.split(module, nnx.Param))
        return graph, nnx.to_pure_dict(variables)

    @functools.lru_cache(maxsize=64)  # a graph for each shape of inputs
    def form(shape: Shape) -> tuple[Any, Container]:
        graph, shapes = split(nnx.eval_shape(lambda: make(shape, nnx.Rngs(0))))
        return graph, Container.of(shapes)

    def init(key: Key[Array, ""], inputs: Float[Array, "n ..."]) -> Params:
        shape = inputs.shape[1:]
        return form(shape)[1].to_dict(split(make(shape, nnx.Rngs(key)))[1])

    def apply(params: Params, inputs: Float[Array, "n ..."]) -> Float[Array, "n output"]:
        graph, container = form(inputs.shape[1:])
        return nnx.merge(graph, container.from_dict(params))(inputs)

    return Model(init, apply, description, symmetries)


def conv_parts(layer: str, axis: int) -> Owned:
    """Return what a channel owns of the `Conv` or linear layer that feeds it; `axis` is the last of the kernel."""
    return ((f"{layer}.bias", 0), (f"{layer}.kernel", axis))
