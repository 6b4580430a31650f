"""Runs with planted predictions, for verdicts that must come out a known way."""

from __future__ import annotations

import numpy as np
import xarray as xr

from diagnostics.trees import make_tree

NUM_POINTS = 500


def predictions(skill: float, *, chains: int = 4, draws: int = 20, noise: float = 0.05, seed: int = 0) -> xr.DataTree:
    """Return a classifier of two classes whose log odds for the right class are `skill` on average.

    The difficulty of a point is common to all runs, as it is on real data.

    Args:
        skill: Mean log odds of the right class.
        chains: Number of chains.
        draws: Draws a chain.
        noise: Of the log odds of a draw.
        seed: Of the draws' noise alone.
    """
    difficulty = np.random.default_rng(1).normal(size=NUM_POINTS)
    rng = np.random.default_rng(seed)
    logit = skill + difficulty + noise * rng.normal(size=(chains, draws, NUM_POINTS))
    right = 1 / (1 + np.exp(-logit))
    y = np.arange(NUM_POINTS) % 2
    probability = np.where(np.arange(2) == y[:, None], right[..., None], 1 - right[..., None])
    return make_tree(
        attrs={"kind": "mcmc", "task": "classification", "name": f"skill {skill:g}", "num_data": 4 * NUM_POINTS},
        posterior={"layer_0.kernel": rng.normal(size=(chains, draws, 3))},
        functions={"probability": probability, "log_likelihood": np.log(right)},
        observed_data={"y_test": y},
    )
