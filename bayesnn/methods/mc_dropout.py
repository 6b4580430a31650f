"""MC dropout: hidden units switched off at random in training, and again in every draw."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from bayesnn.errors import did_you_mean
from bayesnn.methods.approximation import Approximation, FitState, approximation, training_info
from bayesnn.models import named, nest
from samplers import Batch, Info, Kernel, Target, Tempering, log_density, minibatch
from samplers.types import Position


class DropoutTuning(NamedTuple):
    """What may change without recompiling: the share of units that are switched off, and the temperatures of the target."""

    rate: Float[Array, ""]
    tempering: Tempering


class MaskedTuning(NamedTuple):
    """The fitted distribution: the trained weights, and the share of units that a draw switches off."""

    weights: Position
    rate: Float[Array, ""]


class DropoutState(NamedTuple):
    """Weights without a mask, and the optimiser's state."""

    position: Position
    optimiser: Any


def mc_dropout(
    target: Target,
    transformation: optax.GradientTransformation,
    like: Position,
    *,
    rate: float = 0.1,
    kernels: Sequence[str] | None = None,
    num_samples: int = 1,
    batch_size: int | None = None,
    tempering: Tempering | None = None,
) -> Approximation:
    r"""Train under dropout of hidden units, and draw networks with units switched off.

    A unit is switched off by a zero in the row of the kernel that it feeds; the others are scaled up, so that the mean stays:

    .. math:: \theta_{ij} = w_{ij}\, m_i / (1 - r), \quad m_i \sim \mathrm{Bernoulli}(1 - r)

    A baseline: its spread is set by the rate r, whatever the data. What is maximised is :math:`\mathbb E_m \log p(D, \theta)`,
    the bound of Gal & Ghahramani, whose entropy does not depend on w.

    Args:
        target: The distribution.
        transformation: Such as `optax.adam(1e-2)`; the loss is -log density / num_data.
        like: Shapes and types of a position.
        rate: r, the share of units that are off, above 0 and below 1.
        kernels: Dotted paths of the kernels that hidden units feed, in Flax's layout [..., in, out]; by default those of a fully
            connected network with layers layer_0, layer_1 ..., all but the first.
        num_samples: Masks for each gradient. A mask holds for a whole minibatch: a draw is one network.
        batch_size: Examples in a minibatch, without replacement by epoch; None takes all data at every step.
        tempering: Temperatures; default the posterior itself.

    Raises:
        ValueError: A setting outside its range, a kernel that the network does not have, or hidden units that nobody declared.

    References:
        Gal & Ghahramani 2016, arXiv 1506.02142, section 3.
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate must be above 0 and below 1, got {rate}")
    if num_samples < 1:
        raise ValueError(f"a gradient needs at least one mask, got num_samples={num_samples}")
    fed = _fed_kernels(named(like), kernels)
    tuning = DropoutTuning(jnp.float32(rate), Tempering.at() if tempering is None else tempering)
    trainer = Kernel(*_functions(target, transformation, fed, num_samples), tuning)
    if batch_size is not None:
        trainer = minibatch(trainer, target.num_data, batch_size)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    return approximation(trainer, _tuning_of, _draw_function(fed), MaskedTuning(zeros, tuning.rate))


def _fed_kernels(leaves: dict[str, Any], kernels: Sequence[str] | None) -> tuple[str, ...]:
    """Return the kernels whose rows hidden units feed, checked."""
    if kernels is None:
        depth = sum(name.endswith(".kernel") for name in leaves)
        shapes = [leaves[name].shape if (name := f"layer_{i}.kernel") in leaves else () for i in range(depth)]
        is_chain = all(before[1:] == after[:1] for before, after in itertools.pairwise(shapes))
        if not shapes or any(len(shape) != 2 for shape in shapes) or not is_chain:
            raise ValueError(
                "mc-dropout must know which kernels the hidden units of this network feed: name them in kernels, some of "
                f"{', '.join(name for name, leaf in leaves.items() if leaf.ndim >= 2)}"
            )
        kernels = [f"layer_{i}.kernel" for i in range(1, depth)]
    for name in kernels:
        if name not in leaves:
            raise ValueError(f"the network has no {name}{did_you_mean(name, leaves)}; kernels are named by dotted paths")
        if leaves[name].ndim < 2:
            raise ValueError(f"{name} has shape {leaves[name].shape}; a kernel that units feed has axes (..., in, out)")
    if not kernels:
        raise ValueError("the network has no hidden units, so dropout would switch nothing off")
    return tuple(kernels)


def _mask(key: Key[Array, ""], position: Position, rate: Float[Array, ""], kernels: tuple[str, ...]) -> Position:
    """Switch units off; the units of each kernel on their own."""
    leaves = named(position)
    scale = 1 / (1 - rate)  # XLA makes this product of a division on one device and not on several, which has other bits
    for name, kernel_key in zip(kernels, jax.random.split(key, len(kernels)), strict=True):
        kernel = leaves[name]
        is_on = jax.random.bernoulli(kernel_key, 1 - rate, (kernel.shape[-2], 1))
        leaves[name] = kernel * jnp.where(is_on, scale, 0).astype(kernel.dtype)
    return nest(leaves)


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(
    target: Target, transformation: optax.GradientTransformation, kernels: tuple[str, ...], num_samples: int
) -> tuple[Any, Any]:
    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: DropoutTuning) -> DropoutState:
        return DropoutState(position, transformation.init(position))

    def step(
        key: Key[Array, ""], state: DropoutState, batch: Batch, tuning: DropoutTuning, step: Int[Array, ""]
    ) -> tuple[DropoutState, Info]:
        density = log_density(target, batch, tuning.tempering)

        def loss(position: Position) -> Float[Array, ""]:
            masked = jax.vmap(lambda mask_key: density(_mask(mask_key, position, tuning.rate, kernels)))
            return -jnp.mean(masked(jax.random.split(key, num_samples))) / max(target.num_data, 1)

        updates, optimiser = transformation.update(jax.grad(loss)(state.position), state.optimiser, state.position)
        position = optax.apply_updates(state.position, updates)
        return DropoutState(position, optimiser), training_info(position, num_samples)

    return init, step


def _tuning_of(state: FitState, tuning: DropoutTuning) -> MaskedTuning:
    return MaskedTuning(state.position, tuning.rate)


@functools.lru_cache(maxsize=64)  # likewise
def _draw_function(kernels: tuple[str, ...]) -> Any:
    def draw(key: Key[Array, ""], position: Position, tuning: MaskedTuning) -> Position:
        return _mask(key, tuning.weights, tuning.rate, kernels)

    return draw
