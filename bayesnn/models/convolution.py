"""Products and windows of arrays: convolutions, pooling, and the precision in which products are computed.

XLA's convolutions are slow on a CPU, five to twenty times slower in the gradient of a small network inside a loop than the same
product of patches and a matrix (docs/models.md). So the function chooses by the backend for which it is traced.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

type ComputeType = Literal["bfloat16"] | None
type Padding = Literal["SAME", "VALID"]


def dot_general(compute_dtype: ComputeType) -> Callable[..., Array]:
    """Return `jax.lax.dot_general` with both operands and the result rounded to a type; sums inside a product are float32.

    Args:
        compute_dtype: "bfloat16", or None for the type of the operands.
    """
    if compute_dtype is None:
        return jax.lax.dot_general

    def rounded(lhs: Array, rhs: Array, dimension_numbers: Any, **settings: Any) -> Array:
        product = jax.lax.dot_general(lhs.astype(compute_dtype), rhs.astype(compute_dtype), dimension_numbers, **settings)
        return product.astype(lhs.dtype)

    return rounded


def matmul(lhs: Float[Array, "... k"], rhs: Float[Array, "k m"], compute_dtype: ComputeType = None) -> Float[Array, "... m"]:
    """Multiply matrices, in `compute_dtype` if there is one."""
    return dot_general(compute_dtype)(lhs, rhs, (((lhs.ndim - 1,), (0,)), ((), ())))


def convolve(
    inputs: Float[Array, "n *place channel"],
    kernel: Float[Array, "*window channel output"],
    stride: int = 1,
    padding: Padding = "SAME",
    compute_dtype: ComputeType = None,
) -> Float[Array, "n *place output"]:
    """Convolve, channels last, in any number of dimensions; what `jax.lax.conv_general_dilated` computes.

    Args:
        inputs: Images [n, height, width, channel], or sequences [n, time, channel].
        kernel: [height, width, channel, output], or [time, channel, output], as in Flax.
        stride: Of the output places, along every axis.
        padding: "SAME" pads with zeros to ceil(places / stride) outputs, "VALID" not at all.
        compute_dtype: Of the products (`dot_general`).
    """
    if jax.default_backend() == "cpu":
        patches = jnp.concatenate(windows(inputs, kernel.shape[:-2], stride, padding), axis=-1)
        return matmul(patches, kernel.reshape(-1, kernel.shape[-1]), compute_dtype)
    return convolve_by_xla(inputs, kernel, stride, padding, compute_dtype)


def convolve_by_xla(
    inputs: Array, kernel: Array, stride: int = 1, padding: Padding = "SAME", compute_dtype: ComputeType = None
) -> Array:
    """Convolve by XLA's own operation, for accelerators."""
    num_axes = kernel.ndim - 2
    places = "DHW"[-num_axes:]
    layout = (f"N{places}C", f"{places}IO", f"N{places}C")
    lhs, rhs = (x.astype(compute_dtype) if compute_dtype else x for x in (inputs, kernel))
    outputs = jax.lax.conv_general_dilated(lhs, rhs, (stride,) * num_axes, padding, dimension_numbers=layout)
    return outputs.astype(inputs.dtype)


def max_pool(inputs: Float[Array, "n *place channel"], window: int, stride: int) -> Float[Array, "n *place channel"]:
    """Return the largest value of each window of `window` places a side; windows that do not fit are left out.

    The gradient of equal largest values is shared among them.
    """
    outputs, *others = windows(inputs, (window,) * (inputs.ndim - 2), stride, "VALID")
    for other in others:
        outputs = jnp.maximum(outputs, other)
    return outputs


def windows(inputs: Array, window: Sequence[int], stride: int, padding: Padding) -> list[Array]:
    """Return, for each place of a window, what every window sees there: arrays [n, *place, channel], row by row."""
    sizes = inputs.shape[1:-1]
    if padding == "SAME":
        counts = [math.ceil(size / stride) for size in sizes]
        missing = [max((m - 1) * stride + w - size, 0) for m, w, size in zip(counts, window, sizes, strict=True)]
        inputs = jnp.pad(inputs, ((0, 0), *((lack // 2, lack - lack // 2) for lack in missing), (0, 0)))
    else:
        counts = [(size - w) // stride + 1 for w, size in zip(window, sizes, strict=True)]
        if min(counts) < 1:
            raise ValueError(f"a window of {tuple(window)} places does not fit into {sizes}; use larger inputs or fewer layers")

    def seen(start: Sequence[int]) -> Array:
        slices = (slice(s, s + (m - 1) * stride + 1, stride) for s, m in zip(start, counts, strict=True))
        return inputs[(slice(None), *slices)]

    return [seen(start) for start in itertools.product(*map(range, window))]
