"""LeNet: convolutions and pooling, then fully connected layers."""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING

from flax import nnx
from jaxtyping import Array, Float

from bayesnn.models.convolution import ComputeType, dot_general, max_pool
from bayesnn.models.layers import Conv, Shape, conv_parts, network
from bayesnn.models.mlp import activation_named
from bayesnn.models.model import Model
from bayesnn.models.parameters import Params
from diagnostics.units import hidden_layer

if TYPE_CHECKING:
    from diagnostics.units import Architecture, Owned

SIDE, POOL, STRIDE = 5, 3, 2  # of kernels and pooling windows, and between windows: the code of Izmailov et al. 2021


@functools.lru_cache(maxsize=64)  # the same functions for the same network, so that nothing recompiles
def lenet(
    num_outputs: int,
    *,
    channels: tuple[int, ...] = (6, 16, 120),
    widths: tuple[int, ...] = (84,),
    activation: str = "relu",
    compute_dtype: ComputeType = None,
) -> Model:
    """Return a network inspired by LeNet-5 for images [n, height, width, channel].

    Every convolution (5 x 5, padded) is followed by the activation and a maximum over windows of 3 x 3 with stride 2; then come
    fully connected layers. The defaults are the published ones (91,991 parameters on 28 x 28 x 3 and 7 classes); channels
    (4, 8) and widths (16,) are for a laptop and images of 8 x 8 or more.

    Args:
        num_outputs: Outputs, >= 1.
        channels: Of each convolution; one or more.
        widths: Units of each fully connected hidden layer.
        activation: "relu" as published, "silu", "gelu" or "tanh".
        compute_dtype: "bfloat16" for products in that type; by default that of the weights.

    Raises:
        ValueError: Settings outside their range; when the inputs are known: no images, or ones too small for so many layers.

    References:
        Izmailov et al. 2021, arXiv 2104.14421, their code; Wilson et al. 2022, PMLR 176, which has it on DermaMNIST.
    """
    if not channels or min((*channels, *widths, num_outputs)) < 1:
        raise ValueError(
            f"LeNet needs a convolution, and a channel, unit or output in every layer; got {channels=}, {widths=}, {num_outputs=}"
        )
    activation_named(activation)

    def make(shape: Shape, rngs: nnx.Rngs) -> nnx.Module:
        if len(shape) != 3:
            raise ValueError(f"LeNet needs images (n, height, width, channels), got examples of shape {shape}")
        return LeNet(shape, num_outputs, channels, widths, activation, compute_dtype, rngs=rngs)

    shown = "-".join(map(str, (*channels, *widths, num_outputs)))
    return network(make, f"LeNet images-{shown}, {activation}", functools.partial(symmetries, activation=activation))


class LeNet(nnx.Module):
    """The network that `lenet` describes."""

    def __init__(
        self,
        shape: Shape,
        num_outputs: int,
        channels: tuple[int, ...],
        widths: tuple[int, ...],
        activation: str,
        compute_dtype: ComputeType,
        *,
        rngs: nnx.Rngs,
    ):
        self.activation = activation_named(activation)
        self.convs = nnx.List(
            Conv(before, after, (SIDE, SIDE), compute_dtype=compute_dtype, rngs=rngs)
            for before, after in itertools.pairwise((shape[-1], *channels))
        )
        features = math.prod(_pooled(size, len(channels)) for size in shape[:2])
        self.layers = nnx.List(
            nnx.Linear(before, after, dot_general=dot_general(compute_dtype), rngs=rngs)
            for before, after in itertools.pairwise((features * channels[-1], *widths, num_outputs))
        )

    def __call__(self, images: Float[Array, "n h w channel"]) -> Float[Array, "n output"]:
        """Return the outputs."""
        hidden = images
        for conv in self.convs:
            hidden = max_pool(self.activation(conv(hidden)), POOL, STRIDE)
        hidden = hidden.reshape(len(hidden), -1)
        for layer in self.layers[:-1]:
            hidden = self.activation(layer(hidden))
        return self.layers[-1](hidden)


def symmetries(params: Params, *, activation: str) -> Architecture:
    """Declare the channels of convolutions and the units of fully connected layers.

    The maximum over a window does not turn its sign with its channel: only fully connected layers have signs to turn.
    """
    num_convs, num_layers = len(params["convs"]), len(params["layers"])
    groups = []
    for index in range(num_convs):
        following: Owned = ((f"convs.{index + 1}.kernel", 2),)
        if index == num_convs - 1:
            num_channels = params["convs"][str(index)]["bias"].shape[0]
            following = (("layers.0.kernel", 0, params["layers"]["0"]["kernel"].shape[0] // num_channels),)
        group = hidden_layer(f"convs.{index}", conv_parts(f"convs.{index}", 3), following, activation)
        groups.append(group._replace(flips=()))
    for index in range(num_layers - 1):
        layer = f"layers.{index}"
        groups.append(hidden_layer(layer, conv_parts(layer, 1), ((f"layers.{index + 1}.kernel", 0),), activation))
    return tuple(groups)


def _pooled(size: int, times: int) -> int:
    """Return the places that are left along an axis."""
    for _ in range(times):
        if size < POOL:
            raise ValueError(f"images are too small for {times} convolutions, each with a maximum over {POOL} places: use fewer")
        size = (size - POOL) // STRIDE + 1
    return size
