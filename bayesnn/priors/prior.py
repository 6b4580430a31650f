"""What a prior is, and how its numbers find their parameters: by patterns of dotted names."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from bayesnn.models.parameters import Params, named, nest

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


def check_prior(prior: Prior, params: Params) -> None:
    """Refuse a prior whose values have other shapes than those that use them need.

    Args:
        prior: The prior.
        params: Parameters of the network, or arrays of their shapes.

    Raises:
        ValueError: Says which function gives what, and what it should.
    """
    density = jax.eval_shape(prior.log_prob, params, prior.constants(params))
    if getattr(density, "shape", None) != ():
        shape = getattr(density, "shape", type(density).__name__)
        raise ValueError(f"log_prob of the prior ({prior.description}) gives {shape}, expected a scalar: sum over all parameters")
    found, expected = (
        jax.tree.map(jnp.shape, tree) for tree in (jax.eval_shape(prior.sample, jax.random.key(0), params), params)
    )
    if found != expected:
        raise ValueError(
            f"sample of the prior ({prior.description}) gives shapes {found}, expected those of the network, {expected}"
        )


def scales_by_pattern(scale: float | Mapping[str, float]) -> dict[str, float]:
    """Return standard deviations by pattern.

    Raises:
        ValueError: One that is not positive and finite.
    """
    by_pattern = dict(scale) if isinstance(scale, Mapping) else {EVERYTHING: scale}
    for pattern, value in by_pattern.items():
        if not 0 < value < math.inf:
            raise ValueError(f"a prior scale must be positive and finite, got {value} for {pattern!r}")
    return by_pattern


def shown_scales(by_pattern: Mapping[str, float], *, fan_in: bool) -> str:
    """Write standard deviations by pattern in words."""
    shown = ", ".join(f"{value:g}" if pattern == EVERYTHING else f"{pattern}: {value:g}" for pattern, value in by_pattern.items())
    return f"sd {shown}{' / sqrt(fan-in)' if fan_in else ''}"


def num_inputs(leaf: Array) -> int:
    """Return the inputs of one unit: the product of all axes of a kernel but the last; 1 for biases."""
    return math.prod(leaf.shape[:-1]) if leaf.ndim >= 2 else 1


def by_parameter(by_pattern: Mapping[str, Any], params: Params, make: Callable[[Any, Array], Any]) -> PyTree:
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


def total(log_probs: PyTree) -> Float[Array, ""]:
    """Add up the log densities of parameters."""
    return jnp.asarray(sum(jax.tree.leaves(log_probs)), float)


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")
