"""Residual networks with filter response normalisation."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from flax import nnx
from jaxtyping import Array, Float

from bayesnn.models.convolution import ComputeType, dot_general
from bayesnn.models.layers import HE_NORMAL, Conv, FilterResponseNorm, Shape, network
from bayesnn.models.mlp import activation_named
from bayesnn.models.model import Model
from bayesnn.models.parameters import Params
from diagnostics.units import UnitGroup

if TYPE_CHECKING:
    from diagnostics.units import Architecture, Owned

NUM_STACKS = 3  # each of half the places and twice the channels of the one before (He et al. 2015, section 4.2)


@functools.lru_cache(maxsize=64)  # the same functions for the same network, so that nothing recompiles
def resnet(
    num_outputs: int, *, depth: int = 20, width: int = 16, activation: str = "silu", compute_dtype: ComputeType = None
) -> Model:
    """Return a residual network for images [n, height, width, channel].

    A convolution and three stacks of (depth - 2) / 6 blocks of two 3 x 3 convolutions, each followed by filter response
    normalisation; the second and third stack begin with stride 2, twice the channels, and a 1 x 1 convolution as a short cut;
    the mean over places and a linear layer. Depth 20 and width 16 on CIFAR-10 have 274,042 parameters, those of Izmailov et al.;
    depth 8 and width 4 are for a laptop.

    Args:
        num_outputs: Outputs, >= 1.
        depth: Layers with weights along the network; 6 k + 2 with k >= 1.
        width: Channels of the first stack, >= 1.
        activation: "silu" as in the paper, "relu", "gelu" or "tanh".
        compute_dtype: "bfloat16" for products in that type; by default that of the weights.

    Raises:
        ValueError: Settings outside their range; when the inputs are known: no images.

    References:
        He et al. 2015, arXiv 1512.03385, section 4.2; Izmailov et al. 2021, arXiv 2104.14421, and their code: biases before
        the normalisation, thresholds, a normalised short cut, He-normal start.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"the depth of a residual network must be 6 k + 2 (8, 14, 20 ...), got {depth}")
    if min(width, num_outputs) < 1:
        raise ValueError(f"width and num_outputs must be at least 1, got {width} and {num_outputs}")
    activation_named(activation)

    def make(shape: Shape, rngs: nnx.Rngs) -> nnx.Module:
        if len(shape) != 3:
            raise ValueError(f"a residual network needs images (n, height, width, channels), got examples of shape {shape}")
        return ResNet(shape[-1], num_outputs, depth, width, activation, compute_dtype, rngs=rngs)

    return network(make, f"ResNet-{depth} of width {width} with filter response normalisation, {activation}", symmetries)


class NormedConv(nnx.Module):
    """A convolution and filter response normalisation."""

    def __init__(
        self, num_inputs: int, num_outputs: int, side: int, *, stride: int = 1, compute_dtype: ComputeType, rngs: nnx.Rngs
    ):
        self.conv = Conv(
            num_inputs, num_outputs, (side, side), stride=stride, begin=HE_NORMAL, compute_dtype=compute_dtype, rngs=rngs
        )
        self.norm = FilterResponseNorm(num_outputs)

    def __call__(self, inputs: Float[Array, "n h w input"]) -> Float[Array, "n h2 w2 output"]:
        """Return the outputs."""
        return self.norm(self.conv(inputs))


class Block(nnx.Module):
    """Two normalised convolutions beside a short cut, which is a convolution where the number of channels changes."""

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        *,
        stride: int,
        activation: str,
        compute_dtype: ComputeType,
        rngs: nnx.Rngs,
    ):
        build = functools.partial(NormedConv, compute_dtype=compute_dtype, rngs=rngs)
        self.first = build(num_inputs, num_outputs, 3, stride=stride)
        self.second = build(num_outputs, num_outputs, 3)
        if stride > 1:
            self.shortcut = build(num_inputs, num_outputs, 1, stride=stride)
        self.has_shortcut = stride > 1
        self.activation = activation_named(activation)

    def __call__(self, inputs: Float[Array, "n h w input"]) -> Float[Array, "n h2 w2 output"]:
        """Return the outputs."""
        branch = self.second(self.activation(self.first(inputs)))
        return self.activation(branch + (self.shortcut(inputs) if self.has_shortcut else inputs))


class ResNet(nnx.Module):
    """The network that `resnet` describes."""

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        depth: int,
        width: int,
        activation: str,
        compute_dtype: ComputeType,
        *,
        rngs: nnx.Rngs,
    ):
        self.activation = activation_named(activation)
        self.stem = NormedConv(num_inputs, width, 3, compute_dtype=compute_dtype, rngs=rngs)
        blocks, channels = [], width
        for stack in range(NUM_STACKS):
            for index in range((depth - 2) // (2 * NUM_STACKS)):
                begins = stack > 0 and index == 0
                block = functools.partial(Block, activation=activation, compute_dtype=compute_dtype, rngs=rngs)
                blocks.append(block(channels, channels * (2 if begins else 1), stride=2 if begins else 1))
                channels *= 2 if begins else 1
        self.blocks = nnx.List(blocks)
        head = dot_general(compute_dtype)
        self.head = nnx.Linear(channels, num_outputs, kernel_init=HE_NORMAL, dot_general=head, rngs=rngs)

    def __call__(self, images: Float[Array, "n h w channel"]) -> Float[Array, "n output"]:
        """Return the outputs."""
        hidden = self.activation(self.stem(images))
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden.mean(axis=(1, 2)))


def symmetries(params: Params) -> Architecture:
    """Declare the channels of each stream and of each block's branch.

    A channel behind a normalisation turns the sign of its kernel, bias and scale; in a stream, for every convolution that writes
    to it on its own.
    """
    groups: list[UnitGroup] = []
    name, writers, readers = "stream_0", ["stem"], list[str]()
    for index in range(len(params["blocks"])):
        block = f"blocks.{index}"
        readers.append(f"{block}.first.conv.kernel")
        if "shortcut" in params["blocks"][str(index)]:
            groups.append(_stream(name, writers, [*readers, f"{block}.shortcut.conv.kernel"]))
            name, writers, readers = f"stream_{index}", [f"{block}.shortcut"], []
        writers.append(f"{block}.second")
        groups.append(
            UnitGroup(
                f"{block}.first", _written(f"{block}.first"), ((f"{block}.second.conv.kernel", 2),), (_turned(f"{block}.first"),)
            )
        )
    stream = _stream(name, writers, readers)
    groups.append(stream._replace(outgoing=(*stream.outgoing, ("head.kernel", 0))))
    return _streams_first(groups)


def _streams_first(groups: list[UnitGroup]) -> Architecture:
    """Order groups so that a stream comes before the branches that read from it: their standard forms rest on its order."""
    return tuple(sorted(groups, key=lambda group: not group.name.startswith("stream")))


def _stream(name: str, writers: list[str], readers: list[str]) -> UnitGroup:
    incoming = tuple(part for writer in writers for part in _written(writer))
    return UnitGroup(name, incoming, tuple((reader, 2) for reader in readers), tuple(map(_turned, writers)))


def _turned(layer: str) -> Owned:
    # The scale first: it alone stays where it is when other groups move (`diagnostics.canonical`).
    return ((f"{layer}.norm.scale", 0), (f"{layer}.conv.bias", 0), (f"{layer}.conv.kernel", 3))


def _written(layer: str) -> Owned:
    return (*_turned(layer), (f"{layer}.norm.offset", 0), (f"{layer}.norm.threshold", 0))
