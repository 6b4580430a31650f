"""Predictions on new inputs, streamed over draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bayesnn.errors import UsageError
from bayesnn.posteriors import Posterior

if TYPE_CHECKING:
    import xarray as xr

# Draws whose predictions are computed in one call.
DRAW_BLOCK = 32


def predict(posterior: Posterior, weights: xr.Dataset, inputs: Any) -> dict[str, np.ndarray]:
    """Predict with all draws of all chains.

    Args:
        posterior: Model, likelihood and units.
        weights: Group `posterior` of a run's tree.
        inputs: [point, feature], not standardised, in the units of the training data.

    Returns:
        Classification: {"probability": [point, class]}. Regression: {"mean": [point], "scale": [point]}, mean and standard
        deviation of the mixture over draws, noise included, in original units.

    Raises:
        UsageError: Inputs of the wrong shape or not finite.
    """
    try:
        x = posterior.dataset.standardise(np.asarray(inputs))
    except ValueError as error:
        raise UsageError(str(error)) from None
    evaluate = jax.jit(lambda positions, x: jax.vmap(lambda position: posterior.functions(position, x))(positions))
    num_chains, num_draws = weights.sizes["chain"], weights.sizes["draw"]
    sums: dict[str, Any] = {}
    for chain in range(num_chains):
        for first in range(0, num_draws, DRAW_BLOCK):
            block = weights.isel(chain=chain, draw=slice(first, first + DRAW_BLOCK))
            positions = posterior.unflatten({str(name): block[name].values for name in block.data_vars})
            predicted = {name: np.asarray(value, np.float64) for name, value in evaluate(positions, x).items()}
            if "scale" in predicted:
                predicted["square"] = predicted["mean"] ** 2 + predicted.pop("scale") ** 2
            for name, value in predicted.items():
                sums[name] = sums.get(name, 0.0) + value.sum(axis=0)
    mixture = {name: value / (num_chains * num_draws) for name, value in sums.items()}
    if "square" in mixture:  # law of total variance
        mixture["scale"] = np.sqrt(np.maximum(mixture.pop("square") - mixture["mean"] ** 2, 0))
    return mixture
