r"""Estimates of the log evidence from log likelihoods at several temperatures, systems of particles and nested sampling.

The evidence is :math:`\int p(y \mid \theta) p(\theta) d\theta` with the prior normalised, whether or not `Target.log_prior` is:
the estimates see likelihoods alone. No error knows of a mode that no draw has seen.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from blackjax.diagnostics import effective_sample_size
from jaxtyping import ArrayLike, Float, Int
from scipy.special import logsumexp


class Evidence(NamedTuple):
    """An estimate and its error.

    Attributes:
        log_evidence: Nats.
        standard_error: Of it, from sampling; nats.
        discretisation: How much farther off it may be at most because there are no draws between the rungs, nats; 0 of methods
            that need none.
    """

    log_evidence: float
    standard_error: float
    discretisation: float = 0.0


class NestedEvidence(NamedTuple):
    """The outcome of one run.

    Attributes:
        log_evidence: Nats.
        standard_error: Of it, from the volumes that are not known; about sqrt(information / n).
        information: Kullback-Leibler divergence of the posterior from the prior, nats.
        log_weights: [draws * k + n] normalised posterior weights of the dead points, draw by draw, then of the live ones.
    """

    log_evidence: float
    standard_error: float
    information: float
    log_weights: Float[np.ndarray, " points"]


def thermodynamic_integration(betas: ArrayLike, log_likelihood: Float[np.ndarray, "chain draw K"]) -> Evidence:
    r"""Integrate the mean log likelihood over the inverse temperature, from the prior to the posterior.

    .. math:: \log Z = \int_0^1 E_\beta[L] \, d\beta \approx \sum_k \frac{\Delta_k}{2} (E_k + E_{k+1})
        - \sum_k \frac{\Delta_k^2}{12} (V_{k+1} - V_k)

    with :math:`\Delta_k = \beta_{k+1} - \beta_k` and :math:`V_k` the variance of L, which is the slope of the curve: it corrects
    the trapezoids to fourth order. What is left of their error is not in the standard error, and can be many of them: on a
    normal crossing with 12 rungs at powers of 4 it was 0.9 nats, 20 standard errors (measured). But since :math:`E_\beta[L]`
    increases on every target, the integral lies between the sums of left and of right ends, in whose middle the trapezoids are:

    .. math:: \left| \log Z - \widehat{\log Z} \right| \le \sum_k \frac{\Delta_k}{2} (E_{k+1} - E_k)
        + \left| \sum_k \frac{\Delta_k^2}{12} (V_{k+1} - V_k) \right|

    This bound is `discretisation`, to be added to what the standard error allows. It halves where rungs double; the error itself
    falls faster where the curve is smooth. `stepping_stone` has no such error.

    Args:
        betas: [K] inverse likelihood temperatures, increasing; those of `parallel_tempering`, which must be the same on every
            ladder. 0 and 1 at the ends give the evidence, others the ratio of two normalising constants.
        log_likelihood: [chain, draw, K] log likelihood on each rung: draws of `LadderState.log_likelihood`. Independent ladders
            on the chain axis; rungs of one ladder may depend on each other.

    Returns:
        Evidence.

    Raises:
        ValueError: Shapes that do not fit, or betas that do not increase.

    References:
        Friel & Pettitt 2008; Friel, Hurn & Wyse 2014, arXiv 1209.3198, equation 7 (the correction); Lartillot & Philippe 2006,
        Systematic Biology 55 (the trapezoids' worst error); Masrani, Le & Wood 2019, arXiv 1907.00031 (sums of left and right
        ends bracket the integral).
    """
    steps, values = _checked(betas, log_likelihood)
    weights = (np.append(steps, 0) + np.append(0, steps)) / 2
    curvatures = (np.append(steps**2, 0) - np.append(0, steps**2)) / 12
    means = values.mean(axis=(0, 1))
    corrections = (values - means) ** 2 @ curvatures
    series = values @ weights + corrections
    # Means of few draws may decrease.
    discretisation = steps @ np.abs(np.diff(means)) / 2 + abs(corrections.mean())
    return Evidence(float(series.mean()), _standard_error(series), float(discretisation))


def stepping_stone(betas: ArrayLike, log_likelihood: Float[np.ndarray, "chain draw K"]) -> Evidence:
    r"""Multiply the ratios of neighbouring normalising constants, each by importance sampling from the hotter rung.

    .. math:: \hat Z = \prod_k \frac{1}{N} \sum_t \exp\left((\beta_{k+1} - \beta_k) L_{k,t}\right)

    Each ratio is unbiased whatever the ladder; the logarithm is low by half its variance.

    Args:
        betas: As in `thermodynamic_integration`.
        log_likelihood: As in `thermodynamic_integration`; the coldest rung is not used.

    Returns:
        Evidence.

    Raises:
        ValueError: Shapes that do not fit, or betas that do not increase.

    References:
        Xie, Lewis, Fan, Kuo & Chen 2011, Systematic Biology 60.
    """
    steps, values = _checked(betas, log_likelihood)
    log_weights = steps * values[..., :-1]
    log_ratios = logsumexp(log_weights, axis=(0, 1)) - np.log(log_weights[..., 0].size)
    # The logarithm of a mean varies as the mean of weight / mean weight (delta method); rungs add up draw by draw, since swaps
    # make them depend on each other.
    series = np.sum(np.exp(log_weights - log_ratios), axis=-1)
    return Evidence(float(log_ratios.sum()), _standard_error(series))


def mean_evidence(log_evidence: Float[np.ndarray, " system"]) -> Evidence:
    """Return the logarithm of the mean evidence of independent systems (chains of `tempered_smc`), whose error is theirs.

    The error comes from the spread of the systems, so it holds whatever they did, if there are enough of them: with R systems use
    the quantiles of Student's t with R - 1 degrees of freedom. Where their log evidences spread by more than about 1, the mean
    hangs on the largest one and the error is too small: take more particles.

    Args:
        log_evidence: [system] nats, at least two.

    Returns:
        Evidence.

    Raises:
        ValueError: Fewer than two systems.
    """
    values = _systems(log_evidence)
    log_mean = logsumexp(values) - np.log(values.size)
    relative = np.exp(values - log_mean)
    return Evidence(float(log_mean), float(relative.std(ddof=1) / np.sqrt(values.size)))


def mean_log_evidence(log_evidence: Float[np.ndarray, " system"]) -> Evidence:
    r"""Return the mean log evidence of independent systems (runs of `nested_sampling`), whose error is theirs.

    The logarithm of a nested run's evidence sums the logarithms of many shrinkages, so that it is about normal around the truth,
    with the information over the number of points as its variance :math:`\sigma^2`. The logarithm of the mean evidence would be
    high by about :math:`\sigma^2 / 2`. For `tempered_smc` and `stepping_stone`, whose evidence itself is unbiased, use
    `mean_evidence`. With R systems use the quantiles of Student's t with R - 1 degrees of freedom.

    Args:
        log_evidence: [system] nats, at least two: `NestedEvidence.log_evidence` of each run.

    Returns:
        Evidence.

    Raises:
        ValueError: Fewer than two systems.

    References:
        Skilling 2006, section 4 (the law of the logarithm).
    """
    values = _systems(log_evidence)
    return Evidence(float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size)))


def nested_evidence(
    log_likelihood: Float[np.ndarray, "draw k"],
    num_live: Int[np.ndarray, "draw k"],
    live_log_likelihood: Float[np.ndarray, " n"],
    *,
    num_simulations: int = 200,
    seed: int = 0,
) -> NestedEvidence:
    """Return the evidence of one run, averaged over simulations of the volumes, and the posterior weights of its points.

    Args:
        log_likelihood: [draw, k] of the dead, in the order in which they died.
        num_live: [draw, k] as saved; where it is 0 nobody died.
        live_log_likelihood: [n] of the points that live at the end, which are taken to die one by one.
        num_simulations: Draws of the sequence of volumes, >= 2.
        seed: Of these draws.

    Raises:
        ValueError: Shapes that do not fit.

    References:
        Skilling 2006, section 4; Higson, Handley, Hobson & Lasenby 2018, arXiv 1704.03459.
    """
    dead, alive_then, live = (
        np.asarray(log_likelihood, np.float64),
        np.asarray(num_live),
        np.asarray(live_log_likelihood, np.float64),
    )
    if dead.ndim != 2 or dead.shape != alive_then.shape or live.ndim != 1:
        raise ValueError(f"got shapes {dead.shape}, {alive_then.shape} and {live.shape}; expected [draw, k] twice and [n]")
    died, last = np.flatnonzero(alive_then), dead.size + np.argsort(live)
    order = np.concatenate([died, last])
    values = np.concatenate([dead.ravel(), live])[order]
    counts = np.concatenate([alive_then.ravel()[died], np.arange(live.size, 0, -1)])

    uniform = np.random.default_rng(seed).uniform(size=(num_simulations, order.size))
    log_shrinkage = np.log(uniform) / counts
    log_volume = np.cumsum(log_shrinkage, axis=1) - log_shrinkage
    log_terms = log_volume + np.log(-np.expm1(log_shrinkage)) + values
    log_evidences = logsumexp(log_terms, axis=1)
    log_shares = logsumexp(log_terms - log_evidences[:, None], axis=0) - np.log(num_simulations)
    information = float(np.exp(log_shares) @ values - log_evidences.mean())
    log_weights = np.full(dead.size + live.size, -np.inf)
    log_weights[order] = log_shares
    return NestedEvidence(float(log_evidences.mean()), float(log_evidences.std(ddof=1)), information, log_weights)


def _systems(log_evidence: Float[np.ndarray, " system"]) -> Float[np.ndarray, " system"]:
    """Return the log evidences in double precision."""
    values = np.asarray(log_evidence, np.float64)
    if values.ndim != 1 or values.size < 2:
        raise ValueError(f"log_evidence must be [system] with at least two independent systems, got the shape {values.shape}")
    return values


def _checked(betas: ArrayLike, log_likelihood: Float[np.ndarray, "chain draw K"]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps of beta and the log likelihoods, in double precision."""
    ladder, values = np.asarray(betas, np.float64), np.asarray(log_likelihood, np.float64)
    if ladder.ndim != 1 or ladder.size < 2 or not (np.diff(ladder) > 0).all():
        raise ValueError(f"betas must be at least two numbers that increase, got {betas}")
    if values.ndim != 3 or values.shape[2] != ladder.size or values.shape[1] < 8:
        raise ValueError(
            f"log_likelihood must be [chain, draw, rung], 8 draws or more on {ladder.size} rungs; got the shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("a log likelihood is not finite; a ladder that met one has no evidence")
    return np.diff(ladder), values


# A hundred operations, each of which JAX would send by itself: a thousand times slower.
_effective_sample_size = jax.jit(effective_sample_size)


def _standard_error(series: Float[np.ndarray, "chain draw"]) -> float:
    """Return the standard error of the mean of autocorrelated draws; chains in halves, so that drifts count as well."""
    num_draws = series.shape[1] // 2 * 2
    halves = series[:, :num_draws].reshape(2 * series.shape[0], -1)
    halves = halves - halves.mean()  # the size of the log likelihood would drown its spread in single precision
    return float(halves.std(ddof=1) / np.sqrt(np.asarray(_effective_sample_size(halves), np.float64)))
