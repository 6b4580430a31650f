"""A NumPyro model as a target on unconstrained space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from samplers import Batch, Target


def from_numpyro(
    model: Callable[..., Any], *args: Any, **kwargs: Any
) -> tuple[Target, Batch, Callable[..., dict[str, Array]], Callable[[PyTree], dict[str, Array]]]:
    """Return the posterior of a NumPyro model as a target, in the unconstrained coordinates that NumPyro itself samples.

    The whole log joint density, change of variables included, stands in the target's log prior; num_data is 0, so there are no
    minibatches and no tempering of the likelihood alone. Arrays among the arguments become constants of the batch.

    Args:
        model: A NumPyro model whose latent variables are continuous.
        *args: Its arguments.
        **kwargs: Its keyword arguments.

    Returns:
        Target; batch; (key, number of chains, index of the first = 0) -> starts [chain, ...] by NumPyro's init_to_uniform; and
        constrain, position -> values of all sample and deterministic sites of one draw.

    Raises:
        ValueError: A model without latent variables, with a discrete one, or without a finite density at any start.
    """
    from numpyro.infer.util import initialize_model

    leaves, structure = jax.tree.flatten((args, kwargs))
    is_array = [isinstance(leaf, np.ndarray | jax.Array) for leaf in leaves]
    settings = [None if array else leaf for leaf, array in zip(leaves, is_array, strict=True)]

    def arguments(arrays: list[Array]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        remaining = iter(arrays)
        merged = [next(remaining) if array else value for value, array in zip(settings, is_array, strict=True)]
        return jax.tree.unflatten(structure, merged)

    def initialise(key: Key[Array, ""] | Key[Array, " chain"]) -> Any:
        try:
            return initialize_model(key, model, dynamic_args=True, model_args=args, model_kwargs=kwargs)
        except RuntimeError as error:
            raise ValueError(f"the NumPyro model has no finite density at any of its starts: {error}") from error

    _refuse_discrete(model, args, kwargs)
    info = initialise(jax.random.key(0))
    potential, constrained = info.potential_fn, info.postprocess_fn

    def log_joint(position: dict[str, Array], constants: list[Array]) -> Float[Array, ""]:
        model_args, model_kwargs = arguments(constants)
        return -potential(*model_args, **model_kwargs)(position)

    def init(key: Key[Array, ""], num_chains: int, first_chain: int = 0) -> dict[str, Array]:
        return initialise(jax.random.split(key, first_chain + num_chains)[first_chain:]).param_info.z

    arrays = [jnp.asarray(leaf) for leaf, array in zip(leaves, is_array, strict=True) if array]
    target = Target(log_joint, lambda position, data, constants: jnp.zeros(0), num_data=0)
    return target, Batch((), jnp.zeros(0), arrays), init, constrained(*args, **kwargs)


def _refuse_discrete(model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    from numpyro import handlers

    trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(*args, **kwargs)
    latent = {name: site["fn"] for name, site in trace.items() if site["type"] == "sample" and not site["is_observed"]}
    discrete = [name for name, distribution in latent.items() if distribution.support.is_discrete]
    if discrete:
        raise ValueError(f"latent variables {', '.join(discrete)} are discrete and have no gradient; marginalise them")
    if not latent:
        raise ValueError("the NumPyro model has no latent variable to sample; is every sample site observed?")
