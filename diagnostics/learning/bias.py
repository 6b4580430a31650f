r"""Biases of a learning coefficient to expect where the loss is quadratic, from the spectrum of its Hessian.

With curvatures :math:`h_i` of the mean loss, :math:`t = n\beta`, the precision :math:`\gamma` of the localiser and
:math:`a_i = t h_i + \gamma`, the variance of SGLD of step :math:`\epsilon` along direction i, s steps after the centre, is

.. math:: \frac{1 + \epsilon t^2 C_i / 4}{a_i (1 - \epsilon a_i / 4)} \left(1 - (1 - \epsilon a_i / 2)^{2s}\right),

C_i the variance of the minibatch gradient of the mean loss. Nothing is approximated where the loss is quadratic and that variance
does not change with the position; directions along which the loss is flatter than quadratic are not seen.

References:
    Vollmer, Zygalakis & Teh 2016, arXiv 1501.00438 (step); the recursion of the variance is linear, and solved exactly.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

# A step at which directions of the largest curvature have a variance a third too large; beyond it nothing is worth predicting.
LARGEST_STEP = 1.0


class Spectrum(NamedTuple):
    r"""A spectral measure of the Hessian H of the mean loss: :math:`v^T f(H) v` is the sum of f(node) times its weight.

    Attributes:
        nodes: Curvatures, nats an example.
        weights: How many directions each node stands for, or how much of a vector v lies along it.
    """

    nodes: Float[np.ndarray, " node"]
    weights: Float[np.ndarray, " node"]

    @property
    def largest(self) -> float:
        """The largest curvature, not below 0."""
        return max(float(np.max(self.nodes)), 0.0)


class PredictedBias(NamedTuple):
    """What a sampler will find where the loss is quadratic, in units of the learning coefficient.

    Attributes:
        exact: Mean form of an exact sampler at this n beta and localiser; half the effective number of directions.
        localiser: By how much that grows when the localiser is weakened, per unit of the logarithm of its precision.
        step: Added by the discretisation; infinite where the chain diverges.
        batch: Added by the noise of minibatch gradients.
        burn_in: Added (it is negative) because the chains set out from the centre: directions that they have not filled yet.
        centre: Added (it is negative) because the centre is no minimum: its gradient is not zero.
    """

    exact: float
    localiser: float = 0.0
    step: float = 0.0
    batch: float = 0.0
    burn_in: float = 0.0
    centre: float = 0.0

    @property
    def expected(self) -> float:
        """Mean form that the sampler will find."""
        return self.exact + self.bias

    @property
    def bias(self) -> float:
        """All that the sampler adds."""
        return self.step + self.batch + self.burn_in + self.centre


def predict_bias(
    spectrum: Spectrum,
    *,
    n_beta: float,
    localisation: float,
    step_size: float = 0.0,
    burn_in: int | None = None,
    num_draws: int = 1,
    thin: int = 1,
    batch_noise: Spectrum | None = None,
    gradient: Spectrum | None = None,
) -> PredictedBias:
    """Predict the biases of the mean form.

    Args:
        spectrum: Of the Hessian at the centre, its weights adding up to the number of directions. Negative curvatures, which a
            minimum has not, count as 0.
        n_beta: t, n times the inverse temperature.
        localisation: gamma.
        step_size: epsilon of SGLD as `samplers.sgld` has it; 0 for an exact sampler.
        burn_in: Steps from the centre to the first draw, which comes `thin` steps later; None in equilibrium.
        num_draws: Draws of a chain.
        thin: Steps between draws.
        batch_noise: Measure of the deviation of a minibatch's mean gradient from that of all examples, as an expectation.
        gradient: Measure of the gradient of the mean loss at the centre.

    Returns:
        The biases; infinite and alone where the step is not stable.
    """
    h, t = np.maximum(spectrum.nodes, 0), n_beta
    exact = _total(spectrum, t * h / 2, t * h + localisation, 0.0)
    held = np.divide(localisation, t * h + localisation, out=np.zeros_like(h), where=h > 0)
    localiser = _total(spectrum, t * h / 2 * held, t * h + localisation, 0.0)
    centre = 0.0
    if gradient is not None:
        slopes, a = gradient, t * np.maximum(gradient.nodes, 0) + localisation
        shift = np.divide(t, a, out=np.zeros_like(a), where=a > 0)
        centre = float(slopes.weights @ (-t * shift + t * np.maximum(slopes.nodes, 0) * shift**2 / 2))
    if step_size == 0:
        return PredictedBias(exact, localiser, centre=centre)
    if step_size * (t * spectrum.largest + localisation) >= 4:
        return PredictedBias(exact, localiser, math.inf, centre=centre)

    def moved(measure: Spectrum, power: float, start: int | None) -> float:
        g = np.maximum(measure.nodes, 0)
        a = t * g + localisation
        filled = np.ones_like(a) if start is None else _filled(step_size * a, start, num_draws, thin)
        return _total(measure, power * t * g / 2 * filled, a, step_size)

    noisy = 0.0 if batch_noise is None else step_size * t**2 / 4
    step = moved(spectrum, 1.0, None) - exact
    batch = 0.0 if batch_noise is None else moved(batch_noise, noisy, None)
    filled = moved(spectrum, 1.0, burn_in) + (0.0 if batch_noise is None else moved(batch_noise, noisy, burn_in))
    return PredictedBias(exact, localiser, step, batch, filled - (exact + step + batch), centre)


def step_size_for(spectrum: Spectrum, *, n_beta: float, localisation: float, relative_bias: float) -> float:
    """Return the SGLD step that adds this share to the mean form, or the largest that is stable throughout if that adds less.

    Args:
        spectrum: As in `predict_bias`.
        n_beta: t.
        localisation: gamma.
        relative_bias: Share, > 0.

    Raises:
        ValueError: Neither curvature nor localiser: any step is stable, and none right.
    """
    stiffest = n_beta * spectrum.largest + localisation
    if not stiffest > 0:
        raise ValueError("the loss has no curvature at the centre and there is no localiser; give a step_size, or a localisation")
    largest = LARGEST_STEP / stiffest

    def excess(step_size: float) -> float:
        predicted = predict_bias(spectrum, n_beta=n_beta, localisation=localisation, step_size=step_size)
        return predicted.step - relative_bias * predicted.exact

    return largest if excess(largest) <= 0 else float(brentq(excess, 0.0, largest, xtol=1e-6 * largest))


def _total(measure: Spectrum, energies: np.ndarray, precisions: np.ndarray, step_size: float) -> float:
    """Sum energies times variances 1 / (a (1 - epsilon a / 4)); a direction without curvature and localiser has no energy."""
    scale = precisions * (1 - step_size * precisions / 4)
    return float(measure.weights @ np.divide(energies, scale, out=np.zeros_like(scale), where=scale > 0))


def _filled(rates: np.ndarray, burn_in: int, num_draws: int, thin: int) -> np.ndarray:
    """Return the mean over draws of 1 - (1 - rate / 2)^(2 s), s the step of a draw: a geometric sum."""
    keep = (1 - rates / 2) ** 2
    ratio = keep**thin
    ones = np.isclose(ratio, 1, rtol=0, atol=1e-12)
    sums = np.where(ones, num_draws, ratio * (1 - ratio**num_draws) / np.where(ones, 1, 1 - ratio))
    return 1 - keep**burn_in * sums / num_draws
