"""WAIC and the singular fluctuation, from log likelihoods of draws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from diagnostics.convergence import mcse_mean


class Fluctuation(NamedTuple):
    r"""What the spread of the log likelihoods over draws says.

    Attributes:
        functional_variance: :math:`V_n = \sum_i \mathrm{Var}_w[\log p(y_i | x_i, w)]`.
        singular_fluctuation: :math:`\hat\nu = \beta V_n / 2`; in a regular model d / 2 at beta = 1.
        singular_fluctuation_error: Its standard error, of sampling.
        training_loss: :math:`T_n = -\frac{1}{n} \sum_i \log E_w[p(y_i | x_i, w)]`, nats an example.
        waic: :math:`T_n + \beta V_n / n`, an estimate of the loss on new data, nats an example.
        waic_error: Its standard error over examples.
    """

    functional_variance: float
    singular_fluctuation: float
    singular_fluctuation_error: float
    training_loss: float
    waic: float
    waic_error: float


def fluctuation(log_likelihoods: Float[np.ndarray, "chain draw example"], *, inverse_temperature: float = 1.0) -> Fluctuation:
    """Compute functional variance, singular fluctuation and WAIC.

    Args:
        log_likelihoods: [chain, draw, example] of the training examples, nats, untempered, of draws from the posterior whose
            likelihood has the power beta.
        inverse_temperature: beta.

    Raises:
        ValueError: Not three axes, fewer than 4 draws, or values that are not finite.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)  # a mean, known noise, 400 examples: one parameter
        >>> y, means = rng.normal(size=400), rng.normal(size=(4, 500, 1)) / np.sqrt(400)
        >>> log_likelihoods = -0.5 * (y - y.mean() - means) ** 2 - 0.5 * np.log(2 * np.pi)
        >>> round(fluctuation(log_likelihoods).singular_fluctuation, 1)
        0.5

    References:
        Watanabe 2010, JMLR 11, equations 5, 16 and 17; at other temperatures Watanabe 2018, section 6.
    """
    values = np.asarray(log_likelihoods, np.float64)
    if values.ndim != 3 or values.shape[1] < 4:
        raise ValueError(f"log_likelihoods must be [chain, draw, example] with at least 4 draws, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a log likelihood is not finite; take the chain that it is of out whole, and say so")
    num_draws, num_data = values.shape[0] * values.shape[1], values.shape[2]
    deviations = values - values.mean((0, 1))
    variances = (deviations**2).sum((0, 1)) / (num_draws - 1)
    losses = np.log(num_draws) - logsumexp(values, axis=(0, 1))
    pointwise = losses + inverse_temperature * variances
    return Fluctuation(
        functional_variance=float(variances.sum()),
        singular_fluctuation=float(inverse_temperature * variances.sum() / 2),
        singular_fluctuation_error=float(inverse_temperature / 2 * mcse_mean((deviations**2).sum(2))),
        training_loss=float(losses.mean()),
        waic=float(pointwise.mean()),
        waic_error=float(pointwise.std(ddof=1) / np.sqrt(num_data)) if num_data > 1 else np.nan,
    )
