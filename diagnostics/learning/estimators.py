r"""Estimates of the local learning coefficient from losses of draws around a centre.

The draws come from the density proportional to :math:`\exp(-n\beta L_n(w)) \varphi(w)`, where L_n is the mean loss over n
examples (minus the mean log likelihood, nats), :math:`\beta` the inverse temperature and :math:`\varphi` a localiser or a prior.
Losses must be of all examples: the variance of a minibatch's would enter the variance form.

At a finite n none of these is the asymptotic :math:`\lambda`: a perfect sampler finds

.. math:: n\beta\, E[L_n - L_n(w^*)] = \lambda - (m - 1) / \log(n\beta) + O(1 / \log^2(n\beta)),

which at n = 1000 is 29 % below :math:`\lambda` on the crossing :math:`w_1^2 w_2^2`, of multiplicity m = 2.

References:
    Watanabe 2013, JMLR 14 (WBIC, and the variance of its temperature); Lau, Furman, Wang, Murfet & Wei 2025, arXiv 2308.12108
    (the mean form).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diagnostics.convergence import MIN_DRAWS, mcse_mean

type Losses = Float[np.ndarray, "chain draw"]
type Ladder = Float[np.ndarray, "temperature chain draw"]


class Coefficient(NamedTuple):
    """An estimate and its error.

    Attributes:
        value: Estimate.
        standard_error: Of sampling, by effective sample size over all chains, and of the baseline where one is used. It knows
            nothing of the data: see `bayesnn.measure.resample.bootstrap_data`.
    """

    value: float
    standard_error: float


class Slope(NamedTuple):
    """The line through the mean losses at several temperatures.

    Attributes:
        llc: Its slope.
        baseline: Its end at infinite inverse temperature, a mean loss; to be held against that of the centre.
        chi_squared: Squared deviations from the line in standard errors, summed; about `degrees` where a line fits.
        degrees: Temperatures less two.
    """

    llc: Coefficient
    baseline: Coefficient
    chi_squared: float
    degrees: int


def mean_form(
    losses: Losses, *, num_data: int, inverse_temperature: float, baseline: float, baseline_error: float = 0.0
) -> Coefficient:
    r"""Estimate from the mean loss above that of the centre, which must be a minimum of the loss.

    .. math:: \hat\lambda = n\beta\, (E[L_n] - L_n(w^*))

    Args:
        losses: [chain, draw] mean losses, nats an example.
        num_data: n.
        inverse_temperature: beta at which the draws were made.
        baseline: Mean loss of the centre.
        baseline_error: Standard error of the baseline; 0 when it was computed from all examples. All chains share it.

    Raises:
        ValueError: Losses of another shape, or not finite.
    """
    n_beta = num_data * inverse_temperature
    mean, error = _mean(losses)
    return Coefficient(n_beta * (mean - baseline), n_beta * math.hypot(error, baseline_error))


def two_temperature_form(losses: Ladder, *, num_data: int, inverse_temperatures: Sequence[float]) -> Coefficient:
    r"""Estimate from the mean losses at two temperatures, without a baseline, so none can be wrong.

    .. math:: \hat\lambda = n\, (E_1[L_n] - E_2[L_n]) / (1 / \beta_1 - 1 / \beta_2)

    Args:
        losses: [2, chain, draw] mean losses, nats an example; chains at different temperatures independent.
        num_data: n.
        inverse_temperatures: beta_1 and beta_2, different.

    Raises:
        ValueError: Not two different temperatures, losses of another shape, or not finite.
    """
    _check_ladder(losses, inverse_temperatures, at_least=2)
    if len(inverse_temperatures) > 2:
        raise ValueError(f"got {len(inverse_temperatures)} temperatures; choose two, or take slope_form")
    (first, first_error), (second, second_error) = (_mean(part) for part in losses)
    scale = num_data / (1 / inverse_temperatures[0] - 1 / inverse_temperatures[1])
    return Coefficient(scale * (first - second), abs(scale) * math.hypot(first_error, second_error))


def variance_form(losses: Losses, *, num_data: int, inverse_temperature: float) -> Coefficient:
    r"""Estimate from the variance of the loss, without a baseline.

    .. math:: \hat\lambda = (n\beta)^2\, \mathrm{Var}[L_n]

    Args:
        losses: [chain, draw] mean losses of all examples, nats an example.
        num_data: n.
        inverse_temperature: beta.

    Raises:
        ValueError: Losses of another shape, or not finite.
    """
    scaled = num_data * inverse_temperature * _checked(losses)
    squares = (scaled - scaled.mean()) ** 2
    return Coefficient(float(scaled.var(ddof=1)), float(mcse_mean(squares)))


def slope_form(losses: Ladder, *, num_data: int, inverse_temperatures: Sequence[float]) -> Slope:
    r"""Estimate by the slope of :math:`n E_\beta[L_n] = n L^* + \lambda / \beta` over 1 / beta, weighted by its errors.

    Args:
        losses: [temperature, chain, draw] mean losses, nats an example; chains at different temperatures independent.
        num_data: n.
        inverse_temperatures: At least three, all different.

    Raises:
        ValueError: Fewer than three different temperatures, losses of another shape, not finite, or that never change.
    """
    _check_ladder(losses, inverse_temperatures, at_least=3)
    means, errors = np.array([_mean(part) for part in losses]).T
    if not (errors > 0).all():
        raise ValueError(
            "the losses at a temperature never change, so they have no error to weigh them by; drop that temperature"
        )
    design = np.stack([1 / np.asarray(inverse_temperatures, float), np.ones(len(means))], axis=1)
    weighted = design / (num_data * errors)[:, None]
    covariance = np.linalg.inv(weighted.T @ weighted)
    slope, intercept = covariance @ weighted.T @ (means / errors)
    residuals = (num_data * means - design @ [slope, intercept]) / (num_data * errors)
    return Slope(
        Coefficient(float(slope), float(np.sqrt(covariance[0, 0]))),
        Coefficient(float(intercept / num_data), float(np.sqrt(covariance[1, 1]) / num_data)),
        float(residuals @ residuals),
        len(means) - 2,
    )


def wbic(losses: Losses, *, num_data: int, inverse_temperature: float) -> Coefficient:
    r"""Estimate the free energy :math:`-\log \int e^{-n L_n} \varphi` by :math:`n E_\beta[L_n]` at :math:`\beta = 1 / \log n`.

    Of the region that the draws stay in. Over data sets it varies by about :math:`\sqrt{\lambda \log n / 2}`, which the error of
    sampling does not show.

    Args:
        losses: [chain, draw] mean losses, nats an example.
        num_data: n.
        inverse_temperature: Must be 1 / log n.

    Raises:
        ValueError: Another temperature, losses of another shape, or not finite.
    """
    if num_data < 2 or not math.isclose(inverse_temperature, 1 / math.log(num_data), rel_tol=1e-3):
        raise ValueError(
            f"WBIC is defined at the inverse temperature 1 / log n; got {inverse_temperature:.6g} with n = {num_data}: "
            "sample at that temperature"
        )
    mean, error = _mean(losses)
    return Coefficient(num_data * mean, num_data * error)


def localiser_sensitivity(
    losses: Losses,
    squared_distances: Losses,
    *,
    num_data: int,
    inverse_temperature: float,
    localisation: float,
) -> Coefficient:
    r"""Estimate by how much the mean form grows when the localiser is weakened, per unit of the logarithm of its precision.

    An identity, not a model: with the localiser :math:`\exp(-\gamma |w - w^*|^2 / 2)`

    .. math:: -\partial \hat\lambda / \partial \log \gamma = \mathrm{Cov}(n\beta L_n,\ \gamma |w - w^*|^2 / 2).

    On a direction of curvature h it is :math:`n\beta h \gamma / 2 (n\beta h + \gamma)^2`: flat and stiff directions give nothing,
    those with :math:`n\beta h \approx \gamma` most.

    Args:
        losses: [chain, draw] mean losses, nats an example.
        squared_distances: [chain, draw] :math:`|w - w^*|^2`.
        num_data: n.
        inverse_temperature: beta.
        localisation: gamma.

    Raises:
        ValueError: Arrays of other shapes, or not finite.
    """
    energies = num_data * inverse_temperature * _checked(losses)
    pulls = localisation / 2 * _checked(squared_distances)
    products = (energies - energies.mean()) * (pulls - pulls.mean())
    return Coefficient(float(products.sum() / (products.size - 1)), float(mcse_mean(products)))


def _mean(losses: Losses) -> tuple[float, float]:
    checked = _checked(losses)
    return float(checked.mean()), float(mcse_mean(checked))


def _checked(values: Losses) -> Losses:
    array = np.asarray(values, np.float64)
    if array.ndim != 2 or array.shape[1] < MIN_DRAWS:
        raise ValueError(f"losses must be [chain, draw] with at least {MIN_DRAWS} draws, got shape {array.shape}")
    if not np.isfinite(array).all():
        lost = np.flatnonzero(~np.isfinite(array).all(axis=1)).tolist()
        raise ValueError(f"chains {lost} are not finite; take them out whole (LossDraws does), and say so")
    return array


def _check_ladder(losses: Ladder, inverse_temperatures: Sequence[float], at_least: int) -> None:
    if len(set(inverse_temperatures)) < max(at_least, len(inverse_temperatures)) or not min(inverse_temperatures) > 0:
        raise ValueError(f"needs at least {at_least} different positive inverse temperatures, got {list(inverse_temperatures)}")
    if len(losses) != len(inverse_temperatures):
        raise ValueError(f"got losses at {len(losses)} temperatures and {len(inverse_temperatures)} inverse temperatures")
