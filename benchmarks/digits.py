"""The problem that the benchmarks share: digits, 1,437 x 64, MLP 64-50-10, four chains around a typical position."""

from __future__ import annotations

from typing import Any

import jax

import bayesnn
from bayesnn import data, likelihoods, models, priors

NUM_CHAINS = 4
STEP_SIZE = 0.01
NUM_LEAPFROG = 40


def digits_posterior(widths: tuple[int, ...] = (50,)) -> Any:
    """Return the posterior that the demo samples."""
    return bayesnn.posterior(models.mlp(widths, 10), priors.gaussian(0.3), likelihoods.categorical(), data.load("digits"))


def starts(posterior: Any) -> Any:
    """Return starting positions near the prior's bulk."""
    return posterior.init(jax.random.key(0), NUM_CHAINS, "model")
