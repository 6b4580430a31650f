"""The error over data of a learning coefficient, which no chain can see: estimates on data sets drawn again."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

import samplers
from bayesnn.measure.descent import minimise_loss
from bayesnn.measure.learning import learning_coefficient
from bayesnn.measure.llc import LocalSampling
from diagnostics.learning import Coefficient
from samplers import Batch, Target


def bootstrap_data(
    key: Key[Array, ""],
    target: Target,
    batch: Batch,
    centre: PyTree,
    how: LocalSampling | None = None,
    *,
    num_resamples: int,
    descent_steps: int = 1000,
    mask: PyTree[Bool[np.ndarray, "..."]] | None = None,
) -> dict[str, Float[np.ndarray, " resample"]]:
    """Estimate again on data sets drawn with replacement from the examples: the spread is the error over data.

    Each has a baseline of its own, the minimum of its loss below the centre: with the old one the mean form would count how far
    that minimum has moved. The two-temperature form needs none.

    Args:
        key: Of everything random.
        target: As in `learning_coefficient`.
        batch: Likewise.
        centre: Likewise; the descents set out from it.
        how: Likewise.
        num_resamples: Data sets, >= 2.
        descent_steps: Steps of L-BFGS at most.
        mask: Likewise; descents, too, move only these.

    Returns:
        Every form by name; resamples in which all chains are lost are NaN.

    Raises:
        ValueError: As `learning_coefficient`.
    """
    if num_resamples < 2:
        raise ValueError(f"num_resamples must be at least 2 to have a spread, got {num_resamples}")
    if mask is not None:
        restricted = samplers.restrict(target, batch, centre, mask)
        target, batch, centre = restricted.target, restricted.batch, restricted.take(centre)
    found: list[dict[str, Coefficient]] = []
    for one in jax.random.split(key, num_resamples):
        row_key, own_key = jax.random.split(one)
        rows = jax.random.randint(row_key, (target.num_data,), 0, target.num_data)
        rows = jnp.concatenate([rows, jnp.arange(target.num_data, batch.weight.shape[0])])  # padding stays
        drawn = batch._replace(data=jax.tree.map(lambda x, rows=rows: x[rows], batch.data))
        lowest = minimise_loss(target, drawn, centre, num_steps=descent_steps).position
        found.append(learning_coefficient(own_key, target, drawn, lowest, how).estimates)
    names = dict.fromkeys(name for estimates in found for name in estimates)
    lost = Coefficient(math.nan, math.nan)
    return {name: np.array([estimates.get(name, lost).value for estimates in found]) for name in names}
