r"""The prior whose first layer has the covariance of the inputs.

.. math:: w_j \sim \mathcal N\Big(0,\; \frac{s^2}{c} \big(\Sigma / \bar v + \delta I\big)\Big), \qquad
    \Sigma = \frac1{n - 1} \sum_i x_i x_i^\top, \quad \bar v = \mathrm{tr}\,\Sigma / m, \quad
    c = \frac{\mathrm{tr}\,\Sigma^2}{m \bar v^2} + \delta

for the m weights :math:`w_j` into each unit j of the first layer. Under an isotropic prior, weights along directions in which the
inputs do not vary keep their prior spread, for the data say nothing of them, and a corrupted input that moves along such a
direction changes the predictions at random. Here those weights are near zero from the start.

With this c the sums :math:`w_j^\top x` that enter the units vary as much as under :math:`\mathcal N(0, s^2 I)`, over weights and
training inputs, so that the two priors differ in directions and not in how strongly the layer responds. At equal variance of the
*weights* instead, c = 1 + δ, those sums would vary 17 times as much on digits, whose pixels share a mean that is most of Σ, and
whatever such a prior gains a wider isotropic one might gain as well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from bayesnn.models.parameters import Params, named, nest
from bayesnn.priors.gaussian import LOG_SQRT_2PI
from bayesnn.priors.prior import Prior

DIAGONAL = 1e-2  # delta: standard deviation along directions without inputs a tenth; float32 inverts the covariance
MAX_PATCHES = 200_000  # of images; a covariance of some hundred numbers is then known to well below a percent
SEED = 0  # of the choice of patches


def empirical_covariance(
    inputs: Float[np.ndarray, "n ..."], rest: Prior, *, layer: str = "layer_0", scale: float = 1.0, diagonal: float = DIAGONAL
) -> Prior:
    r"""Return a prior whose first kernel has the covariance of the inputs (EmpCov); all other parameters have another prior.

    For a convolution the inputs are the patches that its kernel sees, those that hang over the edges left out. Units are
    independent and alike, and signs are as likely as not: permutations and flips of hidden units stay symmetries.

    Args:
        inputs: [n, feature], or images [n, height, width, channel]: standardised, as the network sees them.
        rest: Prior of all other parameters, the layer's own bias among them.
        layer: Dotted path of the first layer; its `kernel` is [feature, out] or [height, width, channel, out].
        scale: s > 0: what enters the units varies on the training inputs as under `gaussian(scale)`.
        diagonal: :math:`\delta > 0`. In the paper's terms :math:`\alpha \Sigma + \epsilon I`, :math:`\alpha = s^2 / (\bar v c)`
            and :math:`\epsilon = s^2 \delta / c`.

    Raises:
        ValueError: Inputs that are constant or of another form, a scale or diagonal that is not positive and finite; when the
            network is known: no such kernel, or one that takes other inputs.

    References:
        Izmailov, Nicholson, Lotfi & Wilson 2021, "Dangers of Bayesian model averaging under covariate shift", arXiv 2106.11905,
        section 6. The scales are ours: theirs are chosen for each data set.
    """
    for what, value in (("scale", scale), ("diagonal", diagonal)):
        if not 0 < value < math.inf:
            raise ValueError(f"the {what} of an empirical-covariance prior must be positive and finite, got {value}")
    inputs = np.asarray(inputs)
    if inputs.ndim not in (2, 4) or inputs.dtype.kind != "f":
        raise ValueError(
            f"an empirical-covariance prior needs inputs (n, features) or images (n, height, width, channels), got "
            f"{inputs.dtype} of shape {inputs.shape}"
        )
    kernel_name = f"{layer}.kernel"

    @functools.lru_cache(maxsize=8)  # an eigenvalue problem
    def spectrum(window: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eigh(_second_moments(inputs, window, kernel_name))
        mean = values.mean()
        if not mean > 0:
            raise ValueError("the inputs are constant: they have no covariance")
        variances = np.maximum(values, 0) / mean
        return scale * np.sqrt((variances + diagonal) / (np.square(variances).mean() + diagonal)), vectors

    def parts(params: Params) -> tuple[Array, Params]:
        leaves = named(params)
        if kernel_name not in leaves:
            raise ValueError(
                f"the network has no parameter {kernel_name}, only {', '.join(leaves)}: say which layer is the first"
            )
        return leaves.pop(kernel_name), nest(leaves)

    def constants(params: Params) -> PyTree:
        kernel, others = parts(params)
        deviations, vectors = spectrum(tuple(kernel.shape[:-1]))
        # Multiplied by this the weights of a unit are independent standard normals.
        return {
            "whiten": jnp.asarray(vectors / deviations, float),
            "log_deviations": jnp.asarray(np.log(deviations).sum(), float),
            "rest": rest.constants(others),
        }

    def sample(key: Key[Array, ""], params: Params) -> Params:
        kernel, others = parts(params)
        kernel_key, rest_key = jax.random.split(key)
        deviations, vectors = spectrum(tuple(kernel.shape[:-1]))
        normal = jax.random.normal(kernel_key, (len(deviations), kernel.shape[-1]), kernel.dtype)
        drawn = (jnp.asarray(vectors * deviations, kernel.dtype) @ normal).reshape(kernel.shape)
        return nest({**named(rest.sample(rest_key, others)), kernel_name: drawn})

    def scales(params: Params) -> Params | None:
        kernel, others = parts(params)
        deviations, vectors = spectrum(tuple(kernel.shape[:-1]))
        each = np.sqrt(np.square(vectors * deviations).sum(1)).reshape(*kernel.shape[:-1], 1)
        of_others = rest.scale(others)
        if of_others is None:
            return None
        return nest({**named(of_others), kernel_name: jnp.broadcast_to(jnp.asarray(each, float), kernel.shape)})

    strength = f"as strong as sd {scale:g}, diagonal {diagonal:g}"
    shown = f"covariance of the inputs in {kernel_name} ({strength}); else {rest.description}"
    return Prior(constants, _log_prob(kernel_name, rest.log_prob), sample, scales, shown)


@functools.lru_cache(maxsize=64)  # the same function for every network and scale, so that nothing recompiles
def _log_prob(
    kernel_name: str, rest: Callable[[Params, PyTree], Float[Array, ""]]
) -> Callable[[Params, PyTree], Float[Array, ""]]:
    def log_prob(params: Params, constants: Mapping[str, Any]) -> Float[Array, ""]:
        others = named(params)
        kernel = others.pop(kernel_name)
        weights = kernel.reshape(-1, kernel.shape[-1])
        standard = constants["whiten"].T @ weights
        own = -0.5 * jnp.sum(jnp.square(standard)) - weights.size * LOG_SQRT_2PI
        return own - weights.shape[-1] * constants["log_deviations"] + rest(nest(others), constants["rest"])

    return log_prob


def _second_moments(inputs: np.ndarray, window: tuple[int, ...], kernel_name: str) -> Float[np.ndarray, "feature feature"]:
    """Return the second moments, about zero, of what one unit of the first layer sees."""
    if len(window) == 1 and window[0] == math.prod(inputs.shape[1:]):
        rows = inputs.reshape(len(inputs), -1).astype(float)
    elif inputs.ndim == 4 and len(window) == 3 and window[2] == inputs.shape[3]:
        patches = np.lib.stride_tricks.sliding_window_view(inputs, window[:2], axis=(1, 2))
        count, height, width = patches.shape[:3]
        rng = np.random.default_rng(SEED)
        total = count * height * width
        chosen = np.arange(total) if total <= MAX_PATCHES else rng.choice(total, MAX_PATCHES, replace=False)
        image, row, column = np.unravel_index(chosen, (count, height, width))
        # (patch, channel, y, x) to the order of the kernel's axes.
        rows = np.moveaxis(patches[image, row, column], 1, -1).reshape(len(chosen), -1).astype(float)
    else:
        raise ValueError(
            f"{kernel_name} takes inputs of shape {window}, the data have examples of shape {inputs.shape[1:]}: say which layer "
            "is the first, and use a network of plain features or images"
        )
    return rows.T @ rows / max(len(rows) - 1, 1)
