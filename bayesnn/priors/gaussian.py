"""Independent Gaussians."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from bayesnn.models.parameters import Params
from bayesnn.priors.prior import Prior, by_parameter, num_inputs, scales_by_pattern, shown_scales, total

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


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
    by_pattern = scales_by_pattern(scale)
    if not math.isfinite(location):
        raise ValueError(f"the location of a prior must be finite, got {location}")

    def normal(value: float, leaf: Array) -> Normal:
        inputs = num_inputs(leaf) if fan_in else 1
        return Normal(jnp.asarray(location, float), jnp.asarray(value / math.sqrt(inputs), float))

    def constants(params: Params) -> PyTree:
        return by_parameter(by_pattern, params, normal)

    def sample(key: Key[Array, ""], params: Params) -> Params:
        # All deviates in one call: each call of another shape costs a tenth of a second to compile.
        flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params))
        standard = unravel(jax.random.normal(key, flat.shape, flat.dtype))
        return jax.tree.map(lambda x, normal: (normal.location + normal.scale * x).astype(x.dtype), standard, constants(params))

    def scales(params: Params) -> Params:
        return jax.tree.map(lambda leaf, normal: jnp.full(leaf.shape, normal.scale), params, constants(params))

    return Prior(constants, _gaussian_log_prob, sample, scales, f"Gaussian, {shown_scales(by_pattern, fan_in=fan_in)}")


def _gaussian_log_prob(params: Params, constants: PyTree) -> Float[Array, ""]:
    def log_prob(leaf: Array, normal: Normal) -> Float[Array, ""]:
        standard = (leaf - normal.location) / normal.scale
        return -0.5 * jnp.sum(standard**2) - leaf.size * (jnp.log(normal.scale) + LOG_SQRT_2PI)

    return total(jax.tree.map(log_prob, params, constants))
