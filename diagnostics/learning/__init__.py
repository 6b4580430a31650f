"""Learning coefficients: estimates from losses of draws, the biases to expect of them, and verdicts on them.

Four quantities are never mixed: `num_data` is n, of the loss; `inverse_temperature` is beta, of the likelihood; `n_beta` is their
product, the scale at which a sampler sees the loss; a batch size concerns the noise of a sampler's gradients and nothing else.
"""

from diagnostics.learning.bias import PredictedBias, Spectrum, predict_bias, step_size_for
from diagnostics.learning.draws import LossDraws
from diagnostics.learning.estimators import (
    Coefficient,
    Slope,
    localiser_sensitivity,
    mean_form,
    slope_form,
    two_temperature_form,
    variance_form,
    wbic,
)
from diagnostics.learning.fluctuation import Fluctuation, fluctuation
from diagnostics.learning.verdicts import Sampling, estimate_all, judge

__all__ = [
    "Coefficient",
    "Fluctuation",
    "LossDraws",
    "PredictedBias",
    "Sampling",
    "Slope",
    "Spectrum",
    "estimate_all",
    "fluctuation",
    "judge",
    "localiser_sensitivity",
    "mean_form",
    "predict_bias",
    "slope_form",
    "step_size_for",
    "two_temperature_form",
    "variance_form",
    "wbic",
]
