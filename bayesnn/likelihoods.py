"""Likelihoods: from a network's outputs to a log density of each target, and to what is predicted.

Regression works in standardised targets, of mean 0 and standard deviation 1 in training; `bayesnn.posteriors` turns predictions
back to original units. Labels and counts are left as they are. Temperature is not here: one definition serves all
(`samplers.Tempering`), and every density keeps its normaliser, which a learned or predicted noise needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, Num

from bayesnn.augmentation import COPIES
from bayesnn.data import Dataset, Task
from bayesnn.errors import did_you_mean
from bayesnn.models.parameters import Params
from bayesnn.priors import LOG_SQRT_2PI, Prior
from bayesnn.priors import gaussian as gaussian_prior

# A thousandth of the targets' standard deviation. Without a floor the density of a fitted point has no bound, and float32 meets
# it where the softplus underflows. Izmailov et al. 2021 have none.
MIN_SCALE = 1e-3

# log sd ~ N(-1, 1), weakly informative: in standardised units the noise is near 1 if the inputs explain nothing and below it
# otherwise; the median is 0.37, 95 % lie in 0.05 to 2.6, and a hundredth costs 6.5 nats, which a few dozen examples outweigh.
LOG_NOISE_LOCATION, LOG_NOISE_SCALE = -1.0, 1.0


class Likelihood(NamedTuple):
    """How targets follow from outputs.

    `extra` is a nested dict of what the density needs besides the outputs: `extra_constants` and, from the position, the current
    values of `extra_params`.

    Attributes:
        task: The data that it is for.
        num_outputs: (data set) -> outputs that the network must have.
        log_prob: (outputs [n, output], targets [n], extra) -> [n] log density of each target, nats.
        functions: (outputs [n, output], extra) -> what is predicted: {"probability": [n, class]}, or {"mean": [n],
            "scale": [n]} in standardised units, mean and standard deviation of the target.
        description: One line.
        extra_constants: Nested dict of NumPy arrays, which become constants of the batch.
        extra_params: Nested dict of arrays: parameters sampled with the weights, at some start; of no weight's name.
        extra_prior: Their prior.
        copies: Augmentation: (inputs [n, ...]) -> [copy, n, ...], over which the log likelihood of an example is averaged.
    """

    task: Task
    num_outputs: Callable[[Dataset], int]
    log_prob: Callable[[Float[Array, "n output"], Num[Array, " n"], Params], Float[Array, " n"]]
    functions: Callable[[Float[Array, "n output"], Params], dict[str, Array]]
    description: str = ""
    extra_constants: Params = {}  # noqa: RUF012 (never changed)
    extra_params: Params = {}  # noqa: RUF012
    extra_prior: Prior = gaussian_prior()
    copies: Callable[[Array], Array] | None = None


def categorical() -> Likelihood:
    r"""Return the likelihood of class labels given logits, one output a class.

    .. math:: \log p(y \mid f) = f_y - \log \sum_k e^{f_k}
    """
    return Likelihood("classification", _num_classes, _categorical_log_prob, _categorical_functions, "categorical")


def bernoulli() -> Likelihood:
    r"""Return the likelihood of two classes given one logit, that of class 1.

    .. math:: \log p(y \mid f) = \log \sigma((2 y - 1) f)

    `categorical` has two outputs for two classes, of which only the difference matters: a direction in which the prior is alone.
    """
    return Likelihood("classification", _one_logit, _bernoulli_log_prob, _bernoulli_functions, "Bernoulli")


def augmented(augmentation: str) -> Likelihood:
    r"""Return the likelihood of class labels whose log is averaged over changed copies of the image.

    .. math:: \log p(y \mid x) = \frac{1}{K} \sum_k \log p(y \mid f(g_k x))

    This is what training on randomly augmented images maximises. K copies of an image that predict alike count as one example, so
    that the temperature keeps its meaning; where they differ, the density is that of no distribution over labels.

    Args:
        augmentation: "shifts" by a pixel (5 copies) or "flips" left to right (2 copies).

    Raises:
        ValueError: An unknown augmentation.

    References:
        Wenzel et al. 2020, arXiv 2002.02405, appendix K; Izmailov et al. 2021, section 7.
    """
    if augmentation not in COPIES:
        raise ValueError(f"unknown augmentation {augmentation!r}{did_you_mean(augmentation, COPIES)}")
    return categorical()._replace(description=f"categorical, averaged over {augmentation}", copies=COPIES[augmentation])


def gaussian(noise: float | Literal["learned"] = "learned") -> Likelihood:
    r"""Return Gaussian noise of one scale around the network's single output.

    .. math:: \log p(y \mid f) = -\frac{(y - f)^2}{2 \sigma^2} - \log \sigma - \tfrac12 \log 2\pi

    Args:
        noise: :math:`\sigma`, the standard deviation of the noise as a share of that of the training targets; or "learned": its
            logarithm, `noise.log_scale`, is sampled with the weights under the prior N(-1, 1).

    Raises:
        ValueError: A noise that is not positive and finite.
    """
    if noise == "learned":
        log_scale = {"noise": {"log_scale": np.asarray(LOG_NOISE_LOCATION)}}
        prior = gaussian_prior(LOG_NOISE_SCALE, location=LOG_NOISE_LOCATION)
        extra: dict[str, Any] = {"description": "Gaussian, learned noise", "extra_params": log_scale, "extra_prior": prior}
    elif isinstance(noise, str) or not 0 < noise < math.inf:
        raise ValueError(f"noise must be positive and finite, or 'learned'; got {noise!r}")
    else:
        log_scale = {"noise": {"log_scale": np.asarray(math.log(noise))}}
        extra = {"description": f"Gaussian, noise {noise:g} of the targets' sd", "extra_constants": log_scale}
    return Likelihood("regression", _one_output, _gaussian_log_prob, _gaussian_functions, **extra)


def heteroscedastic() -> Likelihood:
    r"""Return Gaussian noise whose scale depends on the inputs: the network's second output.

    .. math:: \mu = f_1, \quad \sigma = 10^{-3} + \mathrm{softplus}(f_2)

    References:
        Izmailov et al. 2021, arXiv 2104.14421, UCI experiments: mean and inverse-softplus standard deviation. The floor is ours.
    """
    return Likelihood(
        "regression", _two_outputs, _heteroscedastic_log_prob, _heteroscedastic_functions, "Gaussian, predicted noise"
    )


def poisson() -> Likelihood:
    r"""Return the likelihood of counts given the logarithm of their rate, the network's single output.

    .. math:: \log p(y \mid f) = y f - e^f - \log y!

    Predicted are the rate, and its square root as the standard deviation, from which audits know the distribution.
    """
    return Likelihood("counts", _one_output, _poisson_log_prob, _poisson_functions, "Poisson")


def check_likelihood(likelihood: Likelihood, dataset: Dataset, extra: Params) -> None:
    """Refuse a likelihood whose values have other shapes than those that use them need.

    A log density of shape [n, n] or [n, 1], for want of `outputs[:, 0]`, would be broadcast against the weights of the examples
    and summed to the density of something else.

    Args:
        likelihood: The likelihood.
        dataset: The data.
        extra: Of the likelihood, arrays or their shapes.

    Raises:
        ValueError: Says which function returns what, and what it should.
    """
    count, name = dataset.num_data, likelihood.description or "yours"
    outputs = jax.ShapeDtypeStruct((count, likelihood.num_outputs(dataset)), jnp.result_type(float))
    targets = jax.ShapeDtypeStruct((count,), jnp.int32 if likelihood.task == "classification" else jnp.result_type(float))
    density = _shapes(likelihood.log_prob, outputs, targets, extra)
    if density != (count,):
        raise ValueError(
            f"log_prob of the likelihood ({name}) gives shape {density} on {count} examples, expected ({count},), one log "
            "density an example; outputs are [n, output]: take outputs[:, 0] of a single one"
        )
    classes = {"probability": (count, dataset.num_classes)}
    expected = classes if likelihood.task == "classification" else {"mean": (count,), "scale": (count,)}
    found = _shapes(likelihood.functions, outputs, extra)
    if found != expected:
        raise ValueError(f"functions of the likelihood ({name}) gives shapes {found} on {count} examples, expected {expected}")


def _shapes(function: Callable[..., Any], *arguments: Any) -> Any:
    return jax.tree.map(lambda x: x.shape, jax.eval_shape(function, *arguments))


def _num_classes(dataset: Dataset) -> int:
    if dataset.num_classes is None:
        raise ValueError(
            f"a categorical likelihood needs class labels, {dataset.name} is for {dataset.task}: make labels integers, or say "
            f"task='classification' (--data.task classification), or use a likelihood for {dataset.task}"
        )
    return dataset.num_classes


def _one_logit(dataset: Dataset) -> int:
    if dataset.num_classes != 2:
        found = f"is for {dataset.task}" if dataset.num_classes is None else f"has {dataset.num_classes}"
        raise ValueError(f"a Bernoulli likelihood needs labels of two classes, {dataset.name} {found}; categorical() takes more")
    return 1


def _one_output(dataset: Dataset) -> int:
    return 1


def _two_outputs(dataset: Dataset) -> int:
    return 2


def _categorical_log_prob(outputs: Array, targets: Array, extra: Params) -> Float[Array, " n"]:
    # Dense, because the gradient of an indexed logit is a scatter, which accelerators add up in any order. Selected and not
    # multiplied, because XLA's CPU compiler sums products of vmapped outputs with labels that they share three times slower.
    is_label = jax.nn.one_hot(targets, outputs.shape[-1], dtype=bool)
    # What `log_softmax` computes, of the label alone. Of a network of 3,760 parameters density and gradient together take 1.03 to
    # 1.05 times as long as the gradient, and 1.09 by `log_softmax` (JAX 0.12, CPU).
    shifted = outputs - jax.lax.stop_gradient(jnp.max(outputs, axis=-1, keepdims=True))
    of_label = jnp.sum(jnp.where(is_label, shifted, 0), axis=-1)
    return of_label - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))


def _categorical_functions(outputs: Array, extra: Params) -> dict[str, Array]:
    return {"probability": jax.nn.softmax(outputs)}


def _bernoulli_log_prob(outputs: Array, targets: Array, extra: Params) -> Float[Array, " n"]:
    return jax.nn.log_sigmoid(jnp.where(targets == 1, outputs[:, 0], -outputs[:, 0]))


def _bernoulli_functions(outputs: Array, extra: Params) -> dict[str, Array]:
    return {"probability": jax.nn.sigmoid(jnp.stack([-outputs[:, 0], outputs[:, 0]], axis=-1))}


def _poisson_log_prob(outputs: Array, targets: Array, extra: Params) -> Float[Array, " n"]:
    return targets * outputs[:, 0] - jnp.exp(outputs[:, 0]) - gammaln(targets + 1)


def _poisson_functions(outputs: Array, extra: Params) -> dict[str, Array]:
    return {"mean": jnp.exp(outputs[:, 0]), "scale": jnp.exp(0.5 * outputs[:, 0])}


def _normal_log_prob(targets: Array, mean: Array, scale: Array) -> Float[Array, " n"]:
    return -0.5 * ((targets - mean) / scale) ** 2 - jnp.log(scale) - LOG_SQRT_2PI


def _gaussian_log_prob(outputs: Array, targets: Array, extra: Params) -> Float[Array, " n"]:
    return _normal_log_prob(targets, **_gaussian_functions(outputs, extra))


def _gaussian_functions(outputs: Array, extra: Params) -> dict[str, Array]:
    mean = outputs[:, 0]
    return {"mean": mean, "scale": jnp.full_like(mean, jnp.exp(extra["noise"]["log_scale"]))}


def _heteroscedastic_log_prob(outputs: Array, targets: Array, extra: Params) -> Float[Array, " n"]:
    return _normal_log_prob(targets, **_heteroscedastic_functions(outputs, extra))


def _heteroscedastic_functions(outputs: Array, extra: Params) -> dict[str, Array]:
    return {"mean": outputs[:, 0], "scale": MIN_SCALE + jax.nn.softplus(outputs[:, 1])}
