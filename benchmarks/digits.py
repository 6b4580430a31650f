"""The problem that the benchmarks share: digits, 1,437 x 64, MLP 64-50-10, four chains around a typical position."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import bayesnn
import samplers
from bayesnn import data, likelihoods, models, priors

NUM_CHAINS = 4
PRIOR_SCALE = 0.3
STEP_SIZE = 0.01
NUM_LEAPFROG = 40


def digits_posterior(widths: tuple[int, ...] = (50,)) -> Any:
    """Return the posterior that the demo samples."""
    return bayesnn.posterior(models.mlp(widths, 10), priors.gaussian(PRIOR_SCALE), likelihoods.categorical(), data.load("digits"))


def starts(posterior: Any) -> Any:
    """Return starting positions near the prior's bulk."""
    return posterior.init(jax.random.key(0), NUM_CHAINS, "model")


def continuing(run: Callable[..., samplers.Result]) -> Callable[[], samplers.Result]:
    """Return a call that continues where it was last, in chunks as long as it then found right."""
    last = run()

    def call() -> samplers.Result:
        nonlocal last
        last = run(run=last.run)
        return last

    return call


def hand_over(folder: str) -> str:
    """Write the training data where a peer in another environment reads them: an .npz file of x and y."""
    digits, file = data.load("digits"), Path(folder) / "digits.npz"
    np.savez(file, x=digits.x_train.astype(np.float32), y=digits.y_train.astype(np.int64))
    return str(file)
