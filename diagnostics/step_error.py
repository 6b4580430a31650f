r"""How the energy error of the leapfrog depends on its step size, whether it can be run backwards and would be accepted.

Along a path of fixed length through a smooth potential the energy error is of order :math:`\epsilon^2`. Each kink of a potential
that the path crosses (a ReLU unit switching on an example) adds an error of order :math:`\epsilon` with a random sign, which
takes over as the step shrinks. The slope of the error therefore tells the two apart, without looking at the network.

References:
    Leimkuhler & Reich 2004 (order of the leapfrog); Dinh, Zhang, Dutta & Zhang 2024, arXiv 2410.22065 (ReLU).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diagnostics.claims import Finding, interval_text
from diagnostics.energy import mean_estimate
from diagnostics.estimates import NUM_RESAMPLES, SEED, Estimate, few_systems_factor, interval

SMOOTH, KINKED = 2.0, 1.0  # orders of the leapfrog's energy error at a fixed length of path
BETWEEN = (SMOOTH + KINKED) / 2
MIN_SIZES, MIN_STARTS = 3, 4  # a slope with a residual; starts whose resamples have quantiles
NEARLY_EXACT = 0.9  # acceptance at which energy errors have a standard deviation of a quarter of a nat
FAITHFUL = {"float32": 1e-3, "float64": 1e-8}  # a thousandth of the path, half the digits: rounding grows along chaotic paths


class EnergyOrder(NamedTuple):
    """Order of the energy error in the step size.

    Attributes:
        order: Slope of log error over log step size.
        verdict: "smooth", "non-smooth", or "inconclusive" where the interval holds 1.5.
        error: [step size] root mean square error over starts, nats.
    """

    order: Estimate
    verdict: str
    error: Float[np.ndarray, " size"]


def energy_order(step_size: Float[np.ndarray, " size"], energy_error: Float[np.ndarray, "size start"]) -> EnergyOrder:
    """Fit the order of the energy error at paths of one length.

    Args:
        step_size: Step sizes, decreasing or not, all different, at least 3.
        energy_error: Energy at the end less that at the start, nats, from the same starts (position and momentum) at every step
            size; at least 4 starts. Computed in float64: in float32 rounding is soon larger than either order.

    Returns:
        The least-squares slope of the logarithm of the root mean square error; its interval resamples starts.

    Raises:
        ValueError: Shapes that do not fit, too few sizes or starts, or errors that are not finite or all zero at some size.
    """
    step_size, energy_error = np.asarray(step_size, float), np.asarray(energy_error, float)
    if energy_error.ndim != 2 or step_size.shape != energy_error.shape[:1]:
        raise ValueError(f"energy_error must be (step size, start) for {step_size.shape} sizes, got {energy_error.shape}")
    if len(step_size) < MIN_SIZES or energy_error.shape[1] < MIN_STARTS:
        raise ValueError(f"need {MIN_SIZES} step sizes and {MIN_STARTS} starts, got {energy_error.shape}")
    if not (step_size > 0).all() or len(set(step_size)) < len(step_size):
        raise ValueError(f"step sizes must be positive and different, got {step_size.tolist()}")
    squares = np.square(energy_error)
    if not np.isfinite(squares).all() or not squares.any(1).all():
        raise ValueError("energy errors must be finite and not all zero at any step size: measure smaller steps, in float64")
    x = np.log(step_size)
    weight = (x - x.mean()) / np.square(x - x.mean()).sum()
    num_starts = squares.shape[1]
    rng = np.random.default_rng(SEED)
    counts = rng.multinomial(num_starts, np.full(num_starts, 1 / num_starts), NUM_RESAMPLES)
    resampled = np.maximum(squares @ counts.T, np.finfo(float).tiny)
    value = weight @ np.log(squares.mean(1)) / 2
    order = interval(value, value + few_systems_factor(num_starts) * (weight @ np.log(resampled) / 2 - value))
    verdict = "smooth" if order.lower > BETWEEN else "non-smooth" if order.upper < BETWEEN else "inconclusive"
    return EnergyOrder(order, verdict, np.sqrt(squares.mean(1)))


def smoothness_finding(order: EnergyOrder) -> Finding:
    """Say whether the potential is smooth at the scale of the step: the hypothesis that the leapfrog's theory holds here."""
    found = f"The energy error falls with the step size to the power {interval_text(*order.order)}; smooth potentials have 2."
    meaning = {
        "smooth": "Halving the step quarters the error.",
        "non-smooth": "The potential has kinks (ReLU, absolute values, pooling): smaller steps buy little acceptance; use a "
        "smooth activation, or expect small steps.",
        "inconclusive": "Both orders are in reach: measure smaller steps (--halvings), or more starts (--starts).",
    }
    verdict = {"smooth": "supported", "non-smooth": "contradicted", "inconclusive": "inconclusive"}[order.verdict]
    value, *ends = order.order
    note = f"{found} {meaning[order.verdict]}"
    return Finding("smooth-potential", "hypothesis", verdict, value, (ends[0], ends[1]), BETWEEN, note)


def reversibility_finding(relative_error: Mapping[str, Float[np.ndarray, " start"]], precision: str) -> Finding:
    """Judge whether trajectories come back when their momentum is turned round, as detailed balance asks.

    Args:
        relative_error: By precision ("float32", "float64"): distance by which each trajectory misses its start, over the
            distance that it went.
        precision: That of the run, which is judged; others stand beside it.
    """
    worst = {name: float(np.max(error)) for name, error in relative_error.items()}
    bound = FAITHFUL[precision]
    is_faithful = worst[precision] <= bound  # NaN is not
    others = "".join(f"; in {name}, by {value:.2g}" for name, value in worst.items() if name != precision)
    note = (
        f"Of {len(relative_error[precision])} trajectories run forwards and back in {precision}, the worst misses its start by "
        f"{worst[precision]:.2g} of the way that it went{others}."
    )
    if not is_faithful:
        note += " Such a sampler is not exact: shorten trajectories, lower the step size, or use float64."
    return Finding("reversible", "health", "pass" if is_faithful else "fail", worst[precision], bound=bound, note=note)


def mean_acceptance(acceptance_rate: Float[np.ndarray, "chain draw"]) -> Estimate:
    """Estimate the mean of a share that depends on the draw; its interval stays within 0 and 1."""
    return Estimate(*np.clip(mean_estimate(np.asarray(acceptance_rate, float)), 0, 1).tolist())


def acceptance_finding(acceptance_rate: Float[np.ndarray, "chain draw"]) -> Finding:
    """Judge a sampler without an accept step by what one would say of its steps.

    Energy errors add up over directions. A low acceptance may be that of many, each of them off by little; a high one may hide a
    single stiff direction: of a Gaussian in one dimension, SGLD at an acceptance of 0.925 has a variance a third too large.

    Args:
        acceptance_rate: Of full-data steps from draws of the sampler, at least 4 a chain, in order.

    References:
        Betancourt, Byrne & Girolami 2014, arXiv 1411.6669 (acceptance and the spread of energy errors).
    """
    rate = mean_acceptance(acceptance_rate)
    verdict = "pass" if rate.lower > NEARLY_EXACT else "fail" if rate.upper < NEARLY_EXACT else "inconclusive"
    meaning = {
        "pass": "Over all directions together the step is short; whether one of them is too warm, the temperatures by layer say. "
        "Gradient noise is not judged here.",
        "fail": "The step size biases the draws, in all directions together, and each of them perhaps by little: the claim on "
        "the temperature and a comparison with hmc say by how much. Halve it.",
        "inconclusive": f"Whether that is above {NEARLY_EXACT} is open: take more draws.",
    }
    note = f"An accept step would take {interval_text(*rate)} of the steps with all data. {meaning[verdict]}"
    return Finding("accept-step", "health", verdict, rate.value, (rate.lower, rate.upper), NEARLY_EXACT, note)
