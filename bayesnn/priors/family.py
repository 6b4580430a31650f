r"""Families of priors that differ in shape alone: zero mean, the same standard deviation.

.. math:: \theta_i = s_i z_i, \quad \mathrm E\, z_i = 0, \quad \mathrm{Var}\, z_i = 1, \qquad
    \log p(\theta_i) = \log f(\theta_i / s_i) - \log s_i

At equal variance a comparison of families is one of tails and peaks, not of scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from bayesnn.errors import did_you_mean
from bayesnn.models.parameters import Params
from bayesnn.priors.gaussian import LOG_SQRT_2PI
from bayesnn.priors.prior import Prior, by_parameter, num_inputs, scales_by_pattern, shown_scales, total

# Ours: a clear peak without an atom.
DEFAULT_RATIO = 4.0
DEFAULT_DF = 4.0  # heavy tails, finite variance; the third and higher moments do not exist


class Standard(NamedTuple):
    """A distribution of mean 0 and variance 1.

    Attributes:
        log_prob: (z, shape) -> log density of each entry, nats.
        sample: (key, dimensions, dtype, shape) -> draws.
        shape: Name of the number that decides its shape; empty if there is none.
        default: That number.
    """

    log_prob: Callable[[Array, Array], Array]
    sample: Callable[[Key[Array, ""], tuple[int, ...], jnp.dtype, Array], Array]
    shape: str = ""
    default: float = 0.0


class Scaled(NamedTuple):
    """Standard deviation of every scalar of a parameter, and the number that decides the family's shape."""

    scale: Float[Array, ""]
    shape: Float[Array, ""]


def family(
    name: str,
    scale: float | Mapping[str, float] = 1.0,
    *,
    fan_in: bool = False,
    df: float | None = None,
    ratio: float | None = None,
) -> Prior:
    r"""Return independent weights of one family, with zero mean and a given standard deviation.

    Args:
        name: "gaussian"; "logistic" and "laplace" (heavier tails); "student-t" (polynomial tails); "mixture" (two equally
            likely Gaussians around zero, a narrow and a wide one). All are even: they keep permutations and flips of signs.
        scale: Standard deviation > 0, whatever the family: one number, or numbers by pattern (see `gaussian`).
        fan_in: Divide the scale of kernels by the square root of their number of inputs (see `gaussian`).
        df: Degrees of freedom of "student-t", > 2; 4 by default.
        ratio: Standard deviation of the wide Gaussian of "mixture" over that of the narrow one, >= 1; 4 by default.

    Raises:
        ValueError: An unknown family (the nearest is suggested), a number out of its range or of another family, or scales and
            patterns as in `gaussian`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> laplace = family("laplace", 0.5)
        >>> params = {"layer_0": {"bias": jnp.zeros(1)}}
        >>> float(laplace.log_prob(params, laplace.constants(params)))  # log(1 / (2 b)), b = 0.5 / sqrt(2)
        0.34657...

    References:
        Fortuin et al. 2022, arXiv 2102.06571 (families); Izmailov et al. 2021, arXiv 2104.14421, section 6.3 (Gaussian, mixture
        and logistic at equal variance).
    """
    if name not in FAMILIES:
        raise ValueError(f"unknown prior family {name!r}{did_you_mean(name, FAMILIES)}")
    standard = FAMILIES[name]
    by_pattern = scales_by_pattern(scale)
    shape = _shape(name, standard, {"df": df, "ratio": ratio})

    def scaled(value: float, leaf: Array) -> Scaled:
        inputs = num_inputs(leaf) if fan_in else 1
        return Scaled(jnp.asarray(value / math.sqrt(inputs), float), jnp.asarray(shape, float))

    def constants(params: Params) -> PyTree:
        return by_parameter(by_pattern, params, scaled)

    def sample(key: Key[Array, ""], params: Params) -> Params:
        # All deviates in one call: each call of another shape costs a tenth of a second to compile.
        flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params))
        drawn = unravel(standard.sample(key, flat.shape, flat.dtype, jnp.asarray(shape, flat.dtype)))
        return jax.tree.map(lambda x, numbers: (numbers.scale * x).astype(x.dtype), drawn, constants(params))

    def scales(params: Params) -> Params:
        return jax.tree.map(lambda leaf, numbers: jnp.full(leaf.shape, numbers.scale), params, constants(params))

    suffix = f" ({standard.shape} {shape:g})" if standard.shape else ""
    return Prior(constants, LOG_PROBS[name], sample, scales, f"{name}{suffix}, {shown_scales(by_pattern, fan_in=fan_in)}")


def _shape(name: str, standard: Standard, given: Mapping[str, float | None]) -> float:
    ranges = {"df": "above 2, for the variance to be finite", "ratio": "at least 1"}
    for key, value in given.items():
        if value is None:
            continue
        if key != standard.shape:
            raise ValueError(f"the family {name} has no {key}; leave out {key}={value}")
        if not (value > 2 if key == "df" else value >= 1) or value == math.inf:
            raise ValueError(f"{key} must be finite and {ranges[key]}, got {value}")
    return given.get(standard.shape) or standard.default


def _gaussian(z: Array, _: Array) -> Array:
    return -0.5 * jnp.square(z) - LOG_SQRT_2PI


def _laplace(z: Array, _: Array) -> Array:
    return -math.sqrt(2) * jnp.abs(z) - 0.5 * math.log(2)  # b = 1 / sqrt(2)


def _logistic(z: Array, _: Array) -> Array:
    width = math.sqrt(3) / math.pi  # variance pi^2 width^2 / 3
    x = jnp.abs(z) / width  # even: no exponential overflows
    return -x - 2 * jnp.log1p(jnp.exp(-x)) - math.log(width)


def _student_t(z: Array, df: Array) -> Array:
    # Width sqrt((df - 2) / df), for variance 1.
    normaliser = jax.lax.lgamma((df + 1) / 2) - jax.lax.lgamma(df / 2) - 0.5 * jnp.log(jnp.pi * (df - 2))
    return normaliser - (df + 1) / 2 * jnp.log1p(jnp.square(z) / (df - 2))


def _widths(ratio: Array) -> tuple[Array, Array]:
    """Return the standard deviations of the two Gaussians, whose squares have the mean 1."""
    narrow = jnp.sqrt(2 / (1 + jnp.square(ratio)))
    return narrow, ratio * narrow


def _mixture(z: Array, ratio: Array) -> Array:
    parts = [-0.5 * jnp.square(z / width) - jnp.log(width) - LOG_SQRT_2PI for width in _widths(ratio)]
    return jnp.logaddexp(*parts) - math.log(2)


def _draw_student_t(key: Key[Array, ""], dimensions: tuple[int, ...], dtype: jnp.dtype, df: Array) -> Array:
    return jnp.sqrt((df - 2) / df) * jax.random.t(key, df, dimensions, dtype)


def _draw_mixture(key: Key[Array, ""], dimensions: tuple[int, ...], dtype: jnp.dtype, ratio: Array) -> Array:
    which, normal = jax.random.split(key)
    narrow, wide = _widths(ratio)
    width = jnp.where(jax.random.bernoulli(which, shape=dimensions), narrow, wide)
    return (width * jax.random.normal(normal, dimensions, dtype)).astype(dtype)


FAMILIES: dict[str, Standard] = {
    "gaussian": Standard(_gaussian, lambda key, size, dtype, _: jax.random.normal(key, size, dtype)),
    "logistic": Standard(_logistic, lambda key, size, dtype, _: math.sqrt(3) / math.pi * jax.random.logistic(key, size, dtype)),
    "laplace": Standard(_laplace, lambda key, size, dtype, _: jax.random.laplace(key, size, dtype) / math.sqrt(2)),
    "student-t": Standard(_student_t, _draw_student_t, "df", DEFAULT_DF),
    "mixture": Standard(_mixture, _draw_mixture, "ratio", DEFAULT_RATIO),
}


def _log_prob_of(standard: Standard) -> Callable[[Params, PyTree], Float[Array, ""]]:
    def log_prob(params: Params, constants: PyTree) -> Float[Array, ""]:
        def one(leaf: Array, numbers: Scaled) -> Float[Array, ""]:
            return jnp.sum(standard.log_prob(leaf / numbers.scale, numbers.shape)) - leaf.size * jnp.log(numbers.scale)

        return total(jax.tree.map(one, params, constants))

    return log_prob


# The same function for every network and scale, so that nothing recompiles.
LOG_PROBS = {name: _log_prob_of(standard) for name, standard in FAMILIES.items()}
