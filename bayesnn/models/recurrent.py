"""A network for text: embedding, convolution, LSTM."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from bayesnn.models.convolution import ComputeType, dot_general, max_pool
from bayesnn.models.layers import LSTM, Conv, Shape, conv_parts, network
from bayesnn.models.mlp import activation_named
from bayesnn.models.model import Model
from bayesnn.models.parameters import Params
from diagnostics.units import UnitGroup, hidden_layer

if TYPE_CHECKING:
    from diagnostics.units import Architecture

WINDOW, POOL = 5, 4  # words that a filter sees, and places of which the largest is kept: the code of Izmailov et al. 2021


@functools.lru_cache(maxsize=64)  # the same functions for the same network, so that nothing recompiles
def cnn_lstm(
    num_outputs: int,
    *,
    vocabulary: int = 20_000,
    embedding: int = 128,
    filters: int = 64,
    units: int = 128,
    activation: str = "relu",
    compute_dtype: ComputeType = None,
) -> Model:
    """Return a network for token ids [n, length], integers or floats that hold them.

    An embedding, a convolution over 5 words, the activation, the largest of every 4 places, an LSTM, and a linear layer on its
    last output. The defaults are those of Izmailov et al. on IMDB (2,700,098 parameters); a vocabulary of 1,000 and 8 of all
    else are for a laptop. The LSTM is unrolled, so that compiling takes time in proportion to the length.

    Args:
        num_outputs: Outputs, >= 1.
        vocabulary: Number of tokens; ids run from 0 to one below it, larger ones count as the last.
        embedding: Numbers that stand for a token.
        filters: Channels of the convolution.
        units: Of the LSTM.
        activation: "relu" as in the paper, "silu", "gelu" or "tanh".
        compute_dtype: "bfloat16" for products in that type; by default that of the weights.

    Raises:
        ValueError: Settings outside their range; when the inputs are known: no sequences, or ones too short for the windows.

    References:
        Izmailov et al. 2021, arXiv 2104.14421, and their code.
    """
    sizes = {"num_outputs": num_outputs, "vocabulary": vocabulary, "embedding": embedding, "filters": filters, "units": units}
    if min(sizes.values()) < 1:
        raise ValueError(f"every size must be at least 1, got {sizes}")
    activation_named(activation)

    def make(shape: Shape, rngs: nnx.Rngs) -> nnx.Module:
        if len(shape) != 1 or shape[0] < WINDOW + POOL - 1:
            raise ValueError(
                f"a CNN-LSTM needs token ids (n, length) of length {WINDOW + POOL - 1} or more, got examples of shape {shape}"
            )
        return CNNLSTM(num_outputs, vocabulary, embedding, filters, units, activation, compute_dtype, rngs=rngs)

    shown = f"{vocabulary} tokens-{embedding}-{filters}-{units}-{num_outputs}"
    return network(make, f"CNN-LSTM {shown}, {activation}", functools.partial(symmetries, activation=activation))


class CNNLSTM(nnx.Module):
    """The network that `cnn_lstm` describes."""

    def __init__(
        self,
        num_outputs: int,
        vocabulary: int,
        embedding: int,
        filters: int,
        units: int,
        activation: str,
        compute_dtype: ComputeType,
        *,
        rngs: nnx.Rngs,
    ):
        self.activation = activation_named(activation)
        self.last_token = vocabulary - 1
        self.embed = nnx.Embed(vocabulary, embedding, rngs=rngs)
        self.conv = Conv(embedding, filters, (WINDOW,), padding="VALID", compute_dtype=compute_dtype, rngs=rngs)
        self.lstm = LSTM(filters, units, compute_dtype=compute_dtype, rngs=rngs)
        self.head = nnx.Linear(units, num_outputs, dot_general=dot_general(compute_dtype), rngs=rngs)

    def __call__(self, tokens: Num[Array, "n length"]) -> Float[Array, "n output"]:
        """Return the outputs."""
        words = self.embed(jnp.minimum(tokens.astype(jnp.int32), self.last_token))
        return self.head(self.lstm(max_pool(self.activation(self.conv(words)), POOL, POOL)))


def symmetries(params: Params, *, activation: str) -> Architecture:
    """Declare the numbers of an embedding, the filters, and the units of the LSTM.

    The numbers of an embedding have any orthogonal rotation as a symmetry, of which permutations and signs are declared. A unit
    of the LSTM turns the sign of its candidate and of all that it feeds, never of its gates.
    """
    kernel = ("conv.kernel", 1)
    embedded = (("embed.embedding", 1),)
    read = (("lstm.candidate.kernel", 0), ("lstm.gates.kernel", 0))
    filters = hidden_layer("conv", conv_parts("conv", 2), read, activation)
    candidate = (*conv_parts("lstm.candidate", 1), ("lstm.candidate.recurrent_kernel", 1))
    gates = tuple((f"lstm.gates.{name}", axis, 3) for name, axis in (("bias", 0), ("kernel", 1), ("recurrent_kernel", 1)))
    fed = (("lstm.candidate.recurrent_kernel", 0), ("lstm.gates.recurrent_kernel", 0), ("head.kernel", 0))
    return (
        UnitGroup("embed", embedded, (kernel,), ((*embedded, kernel),), rescales=True),
        filters._replace(flips=()),  # the maximum over places does not turn its sign
        UnitGroup("lstm", (*candidate, *gates), fed, ((*candidate, *fed),)),
    )
