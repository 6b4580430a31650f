"""WAIC and the singular fluctuation of a run's own draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import numpy as np

from bayesnn.posteriors import Posterior
from bayesnn.predict import DRAW_BLOCK
from diagnostics.learning import Fluctuation, fluctuation

if TYPE_CHECKING:
    import xarray as xr


def run_fluctuation(posterior: Posterior, weights: xr.Dataset) -> Fluctuation | None:
    """Compute WAIC and the singular fluctuation from the log likelihoods of all training examples at all draws.

    Args:
        posterior: What the run sampled.
        weights: Group `posterior` of its tree.

    Returns:
        In the units of the likelihood, standardised targets, at the inverse temperature of the run's likelihood. Chains with a
        draw that is not finite are left out; None when none is left, or draws are too few.
    """
    target, batch = posterior.target, posterior.batch
    evaluate = jax.jit(
        lambda positions, batch: jax.vmap(lambda p: target.log_likelihood(p, batch.data, batch.constants))(positions)
    )
    chains = []
    for chain in range(weights.sizes["chain"]):
        blocks = []
        for first in range(0, weights.sizes["draw"], DRAW_BLOCK):
            block = weights.isel(chain=chain, draw=slice(first, first + DRAW_BLOCK))
            positions = posterior.unflatten({str(name): block[name].values for name in block.data_vars})
            blocks.append(np.asarray(evaluate(positions, batch))[:, : target.num_data])  # the rest is padding
        values = np.concatenate(blocks)
        if np.isfinite(values).all():
            chains.append(values)
    if not chains or len(chains[0]) < 4:
        return None
    tempering = posterior.tempering
    beta = 1 / float(tempering.temperature * tempering.likelihood_temperature)
    return fluctuation(np.stack(chains), inverse_temperature=beta)
