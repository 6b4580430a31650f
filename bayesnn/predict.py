"""Predictions on new inputs, streamed over draws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bayesnn.errors import UsageError
from bayesnn.posteriors import Posterior
from diagnostics.trees import FUNCTION_DIMS, SAMPLE_DIMS

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
    sums: dict[str, Any] = {}
    for predicted in _by_block(posterior, weights, inputs):
        block = {name: value.astype(np.float64) for name, value in predicted.items()}
        if "scale" in block:
            block["square"] = block["mean"] ** 2 + block.pop("scale") ** 2
        for name, value in block.items():
            sums[name] = sums.get(name, 0.0) + value.sum(axis=0)
    mixture = {name: value / (weights.sizes["chain"] * weights.sizes["draw"]) for name, value in sums.items()}
    if "square" in mixture:  # law of total variance
        mixture["scale"] = np.sqrt(np.maximum(mixture.pop("square") - mixture["mean"] ** 2, 0))
    return mixture


def predict_draws(posterior: Posterior, weights: xr.Dataset, inputs: Any) -> xr.Dataset:
    """Predict with every draw on its own: what a mixture hides, such as how far draws differ. Held in memory, whole.

    Args:
        posterior: Model, likelihood and units.
        weights: Group `posterior` of a run's tree.
        inputs: [point, feature], not standardised, in the units of the training data.

    Returns:
        As the group `functions` of a run's tree: `probability` (chain, draw, point, class), or `mean` and `scale` (chain, draw,
        point) in original units.

    Raises:
        UsageError: Inputs of the wrong shape or not finite.
    """
    import xarray as xr

    blocks = list(_by_block(posterior, weights, inputs))
    sizes = tuple(weights.sizes[dim] for dim in SAMPLE_DIMS)
    whole = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    variables = {
        name: ((*SAMPLE_DIMS, *FUNCTION_DIMS[name]), value.reshape(*sizes, *value.shape[1:])) for name, value in whole.items()
    }
    return xr.Dataset(variables, {dim: weights[dim] for dim in SAMPLE_DIMS})


def _by_block(posterior: Posterior, weights: xr.Dataset, inputs: Any) -> Iterator[dict[str, np.ndarray]]:
    """Yield the predictions of some draws at a time, [draw, ...], chain by chain."""
    try:
        x = posterior.dataset.standardise(np.asarray(inputs))
    except ValueError as error:
        raise UsageError(str(error)) from None
    evaluate = jax.jit(lambda positions, x: jax.vmap(lambda position: posterior.functions(position, x))(positions))
    for chain in range(weights.sizes["chain"]):
        for first in range(0, weights.sizes["draw"], DRAW_BLOCK):
            block = weights.isel(chain=chain, draw=slice(first, first + DRAW_BLOCK))
            positions = posterior.unflatten({str(name): block[name].values for name in block.data_vars})
            yield {name: np.asarray(value) for name, value in evaluate(positions, x).items()}
