"""Energies and temperatures: does the sampler move through the energies of its target, and at the right temperature?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.special import stdtrit

from diagnostics.convergence import MIN_DRAWS, ess_mean, mcse_mean
from diagnostics.estimates import LEVEL, Estimate


def bfmi(energy: Float[np.ndarray, "chain draw"]) -> Float[np.ndarray, " chain"]:
    """Compute the Bayesian fraction of missing information of each chain: ArviZ's `bfmi`.

    The mean squared change of energy from draw to draw over the variance of the energy: below 0.3 a chain needs many steps to
    cross the energies of its target, and its heavy tails are in doubt.

    Args:
        energy: Hamiltonian after each step, nats.

    Returns:
        [chain]; NaN for a chain of constant or non-finite energy, or fewer than 4 draws.

    References:
        Betancourt 2016, arXiv 1604.00695.
    """
    energy = np.asarray(energy, float)
    if energy.shape[1] < MIN_DRAWS:
        return np.full(len(energy), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.square(np.diff(energy)).mean(1) / energy.var(1, ddof=1)


def bfmi_error(value: Float[np.ndarray, " chain"], num_draws: int) -> Float[np.ndarray, " chain"]:
    r"""Return the standard error of `bfmi`.

    The fraction is twice one minus the lag-one autocorrelation :math:`\phi`; for an AR(1) process the variance of the estimate of
    :math:`\phi` is :math:`(1 - \phi^2) / n` (Bartlett 1946), so that of the fraction f is f (4 - f) / n.
    """
    return np.sqrt(np.maximum(value * (4 - value), 0) / num_draws)


class EnergySummary(NamedTuple):
    """What the energies of the chains say; NaN where the sampler does not report them.

    Attributes:
        bfmi: [chain].
        bfmi_error: [chain] standard error.
        divergent: [chain] share of divergent transitions.
        acceptance: [chain] mean acceptance rate.
        error_sd: [chain] standard deviation of the energy error, nats.
        error_largest: [chain] largest absolute energy error, nats.
    """

    bfmi: Float[np.ndarray, " chain"]
    bfmi_error: Float[np.ndarray, " chain"]
    divergent: Float[np.ndarray, " chain"]
    acceptance: Float[np.ndarray, " chain"]
    error_sd: Float[np.ndarray, " chain"]
    error_largest: Float[np.ndarray, " chain"]


def energy_summary(sample_stats: xr.Dataset) -> EnergySummary:
    """Summarise energies, divergences and acceptance by chain.

    Args:
        sample_stats: Variables (chain, draw): `energy`, `energy_error`, `acceptance_rate`, `diverging`; any may be missing.
    """
    shape = sample_stats.sizes["chain"], sample_stats.sizes["draw"]
    missing = np.full(shape, np.nan)
    energy, error, acceptance, diverging = (
        np.asarray(sample_stats[name], float) if name in sample_stats else missing
        for name in ("energy", "energy_error", "acceptance_rate", "diverging")
    )
    fraction = bfmi(energy)
    with np.errstate(invalid="ignore"):
        return EnergySummary(
            fraction, bfmi_error(fraction, shape[1]), diverging.mean(1), acceptance.mean(1), error.std(1), np.abs(error).max(1)
        )


def configurational_temperature(
    virial: Float[np.ndarray, "chain draw layer"],
    layer_size: Float[np.ndarray, " layer"],
    temperature: float,
    level: float = LEVEL,
) -> tuple[Estimate, list[Estimate]]:
    r"""Estimate the temperature at which positions are sampled, in total and by layer.

    For the density :math:`\exp(-U)`, the temperature being part of U, integration by parts gives
    :math:`E[\theta_l \cdot \nabla_l U] = d_l`: a virial of twice that says that the draws are spread as at twice the nominal
    temperature. It needs no momentum, so it tells the truth where a thermostat holds the momenta at the right temperature.

    Args:
        virial: :math:`\theta_l \cdot \nabla_l U` of the tempered potential U, from a full-data gradient.
        layer_size: Number of scalars of each layer.
        temperature: Nominal temperature.
        level: Probability of the intervals.

    Returns:
        The estimate of all layers together and that of each layer; the intervals by layer are so wide that all of them hold at
        once with probability `level` (Bonferroni). NaN for non-finite draws.

    References:
        Leimkuhler & Matthews 2015, Molecular Dynamics (configurational temperature); used for networks by Wenzel et al. 2020,
        arXiv 2002.02405.
    """
    size = np.asarray(layer_size, float)
    total = mean_estimate(virial.sum(-1) / size.sum(), temperature, level)
    of_each = 1 - (1 - level) / len(size)
    return total, [mean_estimate(virial[..., layer] / size[layer], temperature, of_each) for layer in range(len(size))]


def kinetic_temperature(values: Float[np.ndarray, "chain draw"], temperature: float) -> Estimate:
    """Estimate the temperature of the momenta at the ends of trajectories.

    Args:
        values: p . M^-1 p / d in units of the tempered density: 1 in expectation.
        temperature: Nominal temperature.
    """
    return mean_estimate(values, temperature)


def mean_estimate(draws: Float[np.ndarray, "chain draw"], scale: float = 1.0, level: float = LEVEL) -> Estimate:
    """Estimate the mean of dependent draws, all chains together.

    The interval is that of Student's t with as many degrees of freedom as there are effective draws, less one; chains that
    disagree have few and make it wide.

    Args:
        draws: A scalar.
        scale: Factor on the result.
        level: Probability of the interval.
    """
    mean, error, ess = np.mean(draws), mcse_mean(draws), ess_mean(draws)
    half = error * stdtrit(max(float(ess) - 1, 1), (1 + level) / 2) if np.isfinite(error) else np.nan
    return Estimate(*(float(scale * value) for value in (mean, mean - half, mean + half)))
