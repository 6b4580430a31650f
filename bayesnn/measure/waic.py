"""WAIC and the singular fluctuation of a run's own draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import numpy as np

from bayesnn.posteriors import Posterior
from bayesnn.predict import DRAW_BLOCK
from diagnostics.convergence import MIN_DRAWS
from diagnostics.learning import Fluctuation, fluctuation

if TYPE_CHECKING:
    import xarray as xr


def run_fluctuation(posterior: Posterior, weights: xr.Dataset) -> tuple[Fluctuation | None, int]:
    """Compute WAIC and the singular fluctuation from the log likelihoods of all training examples at all draws.

    Args:
        posterior: What the run sampled.
        weights: Group `posterior` of its tree.

    Returns:
        In the units of the likelihood, standardised targets, at the inverse temperature of the run's likelihood; None when no
        chain is left, or draws are too few. And the number of chains left out, for a draw that is not finite.
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
    left_out = weights.sizes["chain"] - len(chains)
    if not chains or len(chains[0]) < MIN_DRAWS:
        return None, left_out
    tempering = posterior.tempering
    beta = 1 / float(tempering.temperature * tempering.likelihood_temperature)
    return fluctuation(np.stack(chains), inverse_temperature=beta), left_out
