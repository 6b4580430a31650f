"""Priors over the weights of a network: normalised, and resolved to one distribution a parameter by dotted-name patterns.

A prior is written before the network's parameters are known: everything it computes takes them, or arrays of their shapes, as an
argument. Its numbers (scales, degrees of freedom) are constants of the batch, so that another scale recompiles nothing.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from bayesnn.errors import did_you_mean
from bayesnn.models.parameters import Params, named, nest

if TYPE_CHECKING:
    from numpyro.distributions import Distribution

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
EVERYTHING = "*"


class Prior(NamedTuple):
    """A distribution over the parameters of a network.

    Attributes:
        constants: (parameters) -> pytree of arrays, the numbers of the prior for a network with parameters of these shapes.
        log_prob: (parameters, constants) -> log density, scalar, nats, normalised. The same function for every network and scale.
        sample: (key, parameters) -> parameters drawn from the prior, in the shapes and types of the given ones.
        scale: (parameters) -> prior standard deviation of every scalar, shaped as the parameters; None where there is none.
        description: One line.
    """

    constants: Callable[[Params], PyTree]
    log_prob: Callable[[Params, PyTree], Float[Array, ""]]
    sample: Callable[[Key[Array, ""], Params], Params]
    scale: Callable[[Params], Params | None]
    description: str = ""


class Normal(NamedTuple):
    """Location and standard deviation of every scalar of a parameter."""

    location: Float[Array, ""]
    scale: Float[Array, ""]


def gaussian(scale: float | Mapping[str, float] = 1.0, *, location: float = 0.0, fan_in: bool = False) -> Prior:
    r"""Return independent Gaussians.

    .. math:: \theta_i \sim \mathcal N(\mu, s_i^2)

    With `fan_in`, a parameter with two axes or more has :math:`s_i = s / \sqrt{m}`, m the product of all its axes but the last:
    in Flax's layout [in, out] or [height, width, in, out], the inputs of one unit. Parameters with fewer axes (biases, scales of
    normalisation layers) have s itself. Layouts whose last axis is not the output (embeddings, attention's query kernels) need
    a pattern of their own.

    Args:
        scale: Standard deviation s > 0: one number, or numbers by pattern. A pattern is a dotted name (layer_0.kernel), the name
            of a layer (layer_0) or a glob (`*.bias`); of several that match a parameter, the first in the given order holds.
        location: Mean of every weight.
        fan_in: Divide the scale of kernels by the square root of their number of inputs.

    Raises:
        ValueError: A scale that is not positive and finite; when the network is known: a pattern that takes no parameter (`*`
            may), or a parameter without a prior.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params = {"layer_0": {"kernel": jnp.zeros((4, 2)), "bias": jnp.zeros(2)}}
        >>> prior = gaussian({"*.bias": 0.1, "*": 2.0}, fan_in=True)
        >>> jax.tree.map(lambda x: round(float(x.mean()), 3), prior.scale(params))
        {'layer_0': {'bias': 0.1, 'kernel': 1.0}}
    """
    by_pattern = dict(scale) if isinstance(scale, Mapping) else {EVERYTHING: scale}
    for pattern, value in by_pattern.items():
        if not 0 < value < math.inf:
            raise ValueError(f"a prior scale must be positive and finite, got {value} for {pattern!r}")
    if not math.isfinite(location):
        raise ValueError(f"the location of a prior must be finite, got {location}")

    def normal(value: float, leaf: Array) -> Normal:
        inputs = math.prod(leaf.shape[:-1]) if fan_in and leaf.ndim >= 2 else 1
        return Normal(jnp.asarray(location, float), jnp.asarray(value / math.sqrt(inputs), float))

    def constants(params: Params) -> PyTree:
        return _by_parameter(by_pattern, params, normal)

    def sample(key: Key[Array, ""], params: Params) -> Params:
        # All deviates in one call: each call of another shape costs a tenth of a second to compile.
        flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params))
        standard = unravel(jax.random.normal(key, flat.shape, flat.dtype))
        return jax.tree.map(lambda x, normal: (normal.location + normal.scale * x).astype(x.dtype), standard, constants(params))

    def scales(params: Params) -> Params:
        return jax.tree.map(lambda leaf, normal: jnp.full(leaf.shape, normal.scale), params, constants(params))

    shown = ", ".join(f"{value:g}" if pattern == EVERYTHING else f"{pattern}: {value:g}" for pattern, value in by_pattern.items())
    return Prior(constants, _gaussian_log_prob, sample, scales, f"Gaussian, sd {shown}{' / sqrt(fan-in)' if fan_in else ''}")


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

        return _by_parameter(by_pattern, params, arrays)

    def sample(key: Key[Array, ""], params: Params) -> Params:
        def draw(leaf_key: Key[Array, ""], leaf: Array, value: Distribution) -> Array:
            return jnp.asarray(value.sample(leaf_key, leaf.shape), leaf.dtype)

        return jax.tree.map(draw, _keys(key, params), params, constants(params))

    def scale(params: Params) -> Params | None:
        scales = _by_parameter(by_pattern, params, lambda value, leaf: jnp.full(leaf.shape, _standard_deviation(value)))
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


def _gaussian_log_prob(params: Params, constants: PyTree) -> Float[Array, ""]:
    def log_prob(leaf: Array, normal: Normal) -> Float[Array, ""]:
        standard = (leaf - normal.location) / normal.scale
        return -0.5 * jnp.sum(standard**2) - leaf.size * (jnp.log(normal.scale) + LOG_SQRT_2PI)

    return _total(jax.tree.map(log_prob, params, constants))


def _distribution_log_prob(params: Params, constants: PyTree) -> Float[Array, ""]:
    return _total(jax.tree.map(lambda leaf, distribution: jnp.sum(distribution.log_prob(leaf)), params, constants))


def _total(log_probs: PyTree) -> Float[Array, ""]:
    return jnp.asarray(sum(jax.tree.leaves(log_probs)), float)


def _keys(key: Key[Array, ""], params: Params) -> PyTree:
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, list(jax.random.split(key, len(leaves))))


def _by_parameter(by_pattern: Mapping[str, Any], params: Params, make: Callable[[Any, Array], Any]) -> PyTree:
    """Return `make(value of the first pattern that matches, parameter)` for every parameter, nested as the parameters.

    Raises:
        ValueError: A pattern takes no parameter, or no pattern matches one.
    """
    names = named(params)
    chosen = {name: next((pattern for pattern in by_pattern if _matches(name, pattern)), None) for name in names}
    lacking = [name for name, pattern in chosen.items() if pattern is None]
    if lacking:
        raise ValueError(f"no prior for {', '.join(lacking)}: patterns are {', '.join(by_pattern)}; add one, or '*' as the last")
    unused = set(by_pattern) - set(chosen.values()) - {EVERYTHING}
    if unused:
        raise ValueError(
            f"prior pattern {', '.join(sorted(unused))} takes no parameter of {', '.join(names)}; "
            "names are dotted paths, and of several patterns that match, the first holds"
        )
    return nest({name: make(by_pattern[pattern], names[name]) for name, pattern in chosen.items() if pattern is not None})


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")


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
