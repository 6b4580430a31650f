"""The target of a learning coefficient: the likelihood of a target, its prior replaced by a Gaussian around a centre."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

import samplers
from samplers import Batch, Save, Target


class Around(NamedTuple):
    """Constants of a localised target.

    Attributes:
        constants: Of the original target.
        centre: Where the localiser is.
        precision: gamma of the localiser, 0 for none.
    """

    constants: PyTree
    centre: PyTree
    precision: Float[Array, ""]


def localise(target: Target, batch: Batch, centre: PyTree, precision: float) -> tuple[Target, Batch]:
    r"""Replace the prior by :math:`\exp(-\gamma |w - w^*|^2 / 2)`, and count log likelihoods from their values at the centre.

    The temperature stays where a sampler has it (`Tempering.likelihood_temperature` is 1 / beta), an argument, so that chains at
    different ones run in one program.

    Args:
        target: The target.
        batch: Its data.
        centre: Position of one chain.
        precision: gamma, >= 0.

    Returns:
        The target and its batch; the same functions for the same target, so that another centre or localiser recompiles nothing.
    """
    around = Around(batch.constants, centre, jnp.asarray(precision, jnp.result_type(float)))
    localised = target._replace(log_prior=_log_prior, log_likelihood=_likelihood(target.log_likelihood))
    return samplers.centred(localised, batch._replace(constants=around), centre)


def save_loss(target: Target, batch: Batch) -> Save:
    """Return what to keep of a draw: {"loss": above that of the centre, of all examples, nats each; "squared_distance"}."""
    return Save(_loss_function(target), batch)


def squared_distance(position: PyTree, centre: PyTree) -> Float[Array, ""]:
    """Return the squared Euclidean distance of two positions."""
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda x, c: jnp.sum((x - c) ** 2), position, centre))


def _log_prior(position: PyTree, around: Around) -> Float[Array, ""]:
    return -around.precision / 2 * squared_distance(position, around.centre)


@functools.lru_cache(maxsize=64)  # the same function for the same likelihood, so that nothing recompiles
def _likelihood(log_likelihood: Callable[..., Array]) -> Callable[..., Array]:
    def of_examples(position: PyTree, data: PyTree, around: Around) -> Float[Array, " n"]:
        return log_likelihood(position, data, around.constants)

    return of_examples


@functools.lru_cache(maxsize=64)  # likewise
def _loss_function(target: Target) -> Callable[[Any, Batch], dict[str, Array]]:
    def loss(state: Any, batch: Batch) -> dict[str, Array]:
        log_likelihood = samplers.log_density_terms(target, state.position, batch)[1]
        distance = squared_distance(state.position, batch.constants.centre)
        return {"loss": -log_likelihood / target.num_data, "squared_distance": distance}

    return loss
