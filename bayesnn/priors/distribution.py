"""Priors from NumPyro's distributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from bayesnn.errors import did_you_mean
from bayesnn.models.parameters import Params
from bayesnn.priors.prior import EVERYTHING, Prior, by_parameter, total

if TYPE_CHECKING:
    from numpyro.distributions import Distribution


def from_distribution(distribution: Distribution | Mapping[str, Distribution]) -> Prior:
    """Return the prior in which every scalar has a NumPyro distribution, independently.

    Args:
        distribution: A scalar distribution on the whole real line, or one by pattern (see `gaussian`).

    Raises:
        TypeError: Something that is no NumPyro distribution.
        ValueError: One over vectors, or over less than the real line; when the network is known: patterns as in `gaussian`.
    """
    by_pattern = dict(distribution) if isinstance(distribution, Mapping) else {EVERYTHING: distribution}
    for pattern, value in by_pattern.items():
        _check_distribution(pattern, value)

    def constants(params: Params) -> PyTree:
        def arrays(value: Distribution, leaf: Array) -> Distribution:
            return jax.tree.map(lambda x: jnp.asarray(x, float), value)

        return by_parameter(by_pattern, params, arrays)

    def sample(key: Key[Array, ""], params: Params) -> Params:
        def draw(leaf_key: Key[Array, ""], leaf: Array, value: Distribution) -> Array:
            return jnp.asarray(value.sample(leaf_key, leaf.shape), leaf.dtype)

        return jax.tree.map(draw, _keys(key, params), params, constants(params))

    def scale(params: Params) -> Params | None:
        scales = by_parameter(by_pattern, params, lambda value, leaf: jnp.full(leaf.shape, _standard_deviation(value)))
        return scales if all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(scales)) else None

    shown = ", ".join(
        type(value).__name__ if pattern == EVERYTHING else f"{pattern}: {type(value).__name__}"
        for pattern, value in by_pattern.items()
    )
    return Prior(constants, _distribution_log_prob, sample, scale, shown)


def from_name(name: str, **arguments: float) -> Prior:
    """Return the prior in which every weight has the distribution of this name in `numpyro.distributions`.

    Args:
        name: Such as "StudentT", "Laplace", "Logistic".
        **arguments: Its parameters, such as df=4, scale=0.3.

    Raises:
        ValueError: An unknown name (the nearest is suggested), arguments that it does not take, or as `from_distribution`.
    """
    from numpyro import distributions

    known = [key for key in distributions.__all__ if isinstance(getattr(distributions, key), type)]
    if name not in known:
        raise ValueError(f"numpyro.distributions has no {name!r}{did_you_mean(name, known)}")
    try:
        distribution = getattr(distributions, name)(**arguments, validate_args=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be made with {arguments}: {error}") from None
    return from_distribution(distribution)


def _distribution_log_prob(params: Params, constants: PyTree) -> Float[Array, ""]:
    return total(jax.tree.map(lambda leaf, distribution: jnp.sum(distribution.log_prob(leaf)), params, constants))


def _keys(key: Key[Array, ""], params: Params) -> PyTree:
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, list(jax.random.split(key, len(leaves))))


def _check_distribution(pattern: str, value: Any) -> None:
    from numpyro.distributions import Distribution, constraints

    if not isinstance(value, Distribution):
        raise TypeError(f"expected a numpyro distribution for {pattern!r}, got {type(value).__name__}")
    if value.batch_shape or value.event_shape:
        raise ValueError(
            f"a prior needs a scalar distribution, {type(value).__name__} for {pattern!r} has batch shape {value.batch_shape} "
            f"and event shape {value.event_shape}; give one number for each of its parameters"
        )
    if value.support is not constraints.real:
        raise ValueError(
            f"weights live on the whole real line, {type(value).__name__} for {pattern!r} on {value.support}; choose one such as "
            "Normal, StudentT, Laplace or Logistic"
        )


def _standard_deviation(value: Distribution) -> Float[Array, ""]:
    try:
        return jnp.sqrt(jnp.asarray(value.variance, float))
    except NotImplementedError:
        return jnp.asarray(jnp.nan)
