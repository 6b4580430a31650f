"""From a target to a log density whose gradient costs one pass, in bounded memory, over any number of devices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from samplers.blocks import map_blocks, tree_sum
from samplers.types import Batch, Position, Target, Tempering

DATA_AXIS = "data"

type LogDensity = Callable[[Position], Float[Array, ""]]


def log_density(target: Target, batch: Batch, tempering: Tempering) -> LogDensity:
    r"""Return the tempered log density of a target on a batch, as a function of the position.

    Its gradient is computed together with its value (`jax.custom_vjp`), microbatch by microbatch, block by block; blocks are
    added in a fixed binary tree, first those of this device, then across the mesh axis `data`. On a minibatch it is the unbiased
    estimate in which the likelihood is scaled by num_data / sum of weights. Reverse mode only: `jax.grad`, not `jax.jvp`.

    .. math:: \left(\log p(\theta) + \frac{1}{T_\ell} \frac{n}{\sum_i w_i} \sum_i w_i \log p(y_i \mid x_i, \theta)\right) / T

    Args:
        target: The target.
        batch: The data, or a minibatch of them; n must be a multiple of data_blocks x microbatch (see `pad_batch`).
        tempering: The two temperatures.

    Returns:
        position -> log density, nats.
    """

    @jax.custom_vjp
    def density(position: Position) -> Float[Array, ""]:
        log_prior, log_likelihood = log_density_terms(target, position, batch)
        return tempering.combine(log_prior, log_likelihood)

    def forward(position: Position) -> tuple[Float[Array, ""], Position]:
        values, gradients = log_density_gradients(target, position, batch)
        return tempering.combine(*values), jax.tree.map(tempering.combine, *gradients)

    def backward(grad: Position, cotangent: Float[Array, ""]) -> tuple[Position]:
        return (jax.tree.map(lambda g: cotangent.astype(g.dtype) * g, grad),)

    density.defvjp(forward, backward)
    return density


def _likelihood_and_gradient(target: Target, batch: Batch) -> Callable[[Position], tuple[Float[Array, ""], Position]]:
    """Return a function whose own derivative is right, which that of a sum over devices is not: Hessians times vectors use it."""

    @jax.custom_vjp
    def value_and_gradient(position: Position) -> tuple[Float[Array, ""], Position]:
        return _sum_over_data(target, position, batch, jax.value_and_grad)

    def backward(position: Position, cotangents: tuple[Float[Array, ""], Position]) -> tuple[Position]:
        def derivative(function: Callable[..., Any]) -> Callable[..., Position]:
            def along_cotangents(position: Position, examples: tuple[PyTree, Array]) -> Float[Array, ""]:
                return jax.tree.reduce(
                    jnp.add, jax.tree.map(jnp.vdot, cotangents, jax.value_and_grad(function)(position, examples))
                )

            return jax.grad(along_cotangents)

        return (_sum_over_data(target, position, batch, derivative),)

    value_and_gradient.defvjp(lambda position: (value_and_gradient(position), position), backward)
    return value_and_gradient


def log_density_terms(target: Target, position: Position, batch: Batch) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the log prior and the log likelihood of a position, untempered and apart, nats.

    On a minibatch the log likelihood is scaled by num_data / sum of weights.
    """
    log_prior = target.log_prior(position, batch.constants)
    if target.num_data == 0:
        return log_prior, jnp.zeros_like(log_prior)
    return log_prior, _sum_over_data(target, position, batch, lambda function: function)


def log_density_gradients(
    target: Target, position: Position, batch: Batch
) -> tuple[tuple[Float[Array, ""], Float[Array, ""]], tuple[Position, Position]]:
    """Return the terms of `log_density_terms`, and the gradient of each, from one pass over the data."""
    log_prior, prior_grad = jax.value_and_grad(target.log_prior)(position, batch.constants)
    if target.num_data == 0:
        return (log_prior, jnp.zeros_like(log_prior)), (prior_grad, jax.tree.map(jnp.zeros_like, position))
    log_likelihood, likelihood_grad = _likelihood_and_gradient(target, batch)(position)
    return (log_prior, log_likelihood), (prior_grad, likelihood_grad)


def from_logdensity(logdensity: Callable[[Position], Float[Array, ""]]) -> tuple[Target, Batch]:
    """Return a target without data, and its empty batch, for any log density on a pytree.

    Example:
        >>> import jax, jax.numpy as jnp, samplers
        >>> target, batch = samplers.from_logdensity(lambda x: -0.5 * jnp.sum(x**2))
        >>> kernel = samplers.hmc(target, step_size=0.5, trajectory_length=1.6)
        >>> result = samplers.sample(jax.random.key(0), kernel, jnp.zeros((2, 3)), batch, num_steps=100)
        >>> result.draws.shape
        (2, 100, 3)
    """
    target = Target(
        log_prior=lambda position, constants: logdensity(position),
        log_likelihood=lambda position, data, constants: jnp.zeros(0),
        num_data=0,
    )
    return target, Batch((), jnp.zeros(0))


def centred(target: Target, batch: Batch, position: Position) -> tuple[Target, Batch]:
    """Subtract from every example's log likelihood its value at a fixed position.

    The density changes by a constant factor, so the distribution does not change; but its float32 total stays small near the
    position, and with it the rounding error of energy differences (at 50,000 examples from 0.02 to 3e-6 nats). Use a position of
    typical likelihood, such as the start of a chain. An evidence falls by the reference values' total.

    Args:
        target: The target.
        batch: Its data, whole microbatches of them.
        position: The reference position of one chain.

    Returns:
        The centred target, and its batch whose data are pairs (data, reference value of each example).
    """
    reference = _by_microbatch(target.log_likelihood, target.microbatch)(position, batch.data, batch.constants)
    return target._replace(log_likelihood=_relative(target.log_likelihood)), batch._replace(data=(batch.data, reference))


@functools.lru_cache(maxsize=64)  # compiled once for a likelihood
def _by_microbatch(log_likelihood: Callable[..., Array], microbatch: int | None) -> Callable[..., Float[Array, " n"]]:
    """Evaluate as many examples at a time as a gradient does, in the same memory."""
    if microbatch is None:
        return jax.jit(log_likelihood)

    @jax.jit
    def evaluate(position: Position, data: PyTree, constants: PyTree) -> Float[Array, " n"]:
        parts = jax.tree.map(lambda x: x.reshape(-1, microbatch, *x.shape[1:]), data)
        return jax.lax.map(lambda part: log_likelihood(position, part, constants), parts).reshape(-1)

    return evaluate


@functools.lru_cache(maxsize=64)  # the same function for the same likelihood, so that nothing recompiles
def _relative(log_likelihood: Callable[..., Array]) -> Callable[..., Array]:
    def relative(position: Position, data: PyTree, constants: PyTree) -> Float[Array, " n"]:
        original, at_reference = data
        return log_likelihood(position, original, constants) - at_reference

    return relative


def pad_batch(batch: Batch, multiple: int) -> Batch:
    """Pad the examples to a multiple with copies of the first one, of weight 0."""
    num_examples = batch.weight.shape[0]
    missing = -num_examples % multiple
    if missing == 0:
        return batch
    data = jax.tree.map(lambda x: jnp.concatenate([x, jnp.repeat(x[:1], missing, axis=0)]), batch.data)
    return batch._replace(data=data, weight=jnp.concatenate([batch.weight, jnp.zeros(missing, batch.weight.dtype)]))


def _sum_over_data(target: Target, position: Position, batch: Batch, transform: Callable[[Any], Any]) -> Any:
    """Sum `transform(weighted log likelihood)` over microbatches, blocks and the mesh axis `data`."""

    def likelihood_of(position: Position, examples: tuple[PyTree, Array]) -> Float[Array, ""]:
        data, weight = examples
        return jnp.sum(weight * target.log_likelihood(position, data, batch.constants))

    evaluate = transform(likelihood_of)
    num_devices = _data_axis_size()
    num_blocks, num_examples = target.data_blocks // num_devices, batch.weight.shape[0]
    if target.data_blocks & (target.data_blocks - 1):
        raise ValueError(f"data_blocks must be a power of two, got {target.data_blocks}")
    if num_blocks == 0:
        raise ValueError(
            f"{num_devices} devices share the data of a chain, which are cut into {target.data_blocks} blocks: use {num_devices} "
            f"data_blocks or more, or a mesh with data={target.data_blocks}"
        )
    microbatch = target.microbatch or max(num_examples // num_blocks, 1)
    if num_examples % (num_blocks * microbatch):
        raise ValueError(
            f"{num_examples} examples on each of {num_devices} devices do not divide into {target.data_blocks} data blocks of "
            f"microbatches of {microbatch}; pad them with pad_batch(batch, data_blocks * microbatch)"
        )

    def block_sum(block: tuple[PyTree, Array]) -> Any:
        num_microbatches = num_examples // (num_blocks * microbatch)
        if num_microbatches == 1:
            return evaluate(position, block)
        parts = jax.tree.map(lambda x: x.reshape(num_microbatches, microbatch, *x.shape[1:]), block)
        first, rest = jax.tree.map(lambda x: x[0], parts), jax.tree.map(lambda x: x[1:], parts)

        def add(total: Any, part: tuple[PyTree, Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, evaluate(position, part)), None

        return jax.lax.scan(add, evaluate(position, first), rest)[0]

    examples = (batch.data, batch.weight)
    if target.data_blocks == 1:
        total = block_sum(examples)
    else:
        blocks = jax.tree.map(lambda x: x.reshape(num_blocks, num_examples // num_blocks, *x.shape[1:]), examples)
        total = tree_sum(map_blocks(lambda *block: block_sum(block), 1, *blocks), num_blocks)
    total = _tree_sum_over_devices(total, num_devices)
    scale = target.num_data / _tree_sum_over_devices(jnp.sum(batch.weight), num_devices)
    return jax.tree.map(lambda x: scale.astype(x.dtype) * x, total)


def _data_axis_size() -> int:
    try:
        return jax.lax.axis_size(DATA_AXIS)
    except NameError:  # not inside shard_map: all data are here
        return 1


def _tree_sum_over_devices(x: Any, num_devices: int) -> Any:
    """Add over the mesh axis `data`: the upper levels of the binary tree over blocks.

    By all_gather, since a permutation waits for the devices of all chains: NUTS, whose trajectories differ in length, hangs.
    """
    if num_devices == 1:
        return x
    return tree_sum(jax.lax.all_gather(x, DATA_AXIS), num_devices)
