"""The training data of a network as the batch that `samplers` takes: whole, or each process's share of it."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Num, PyTree

import samplers
from bayesnn.data import Dataset
from samplers import Batch, Target


def training_batch(dataset: Dataset, target: Target, constants: PyTree, mesh: Mesh | None = None) -> Batch:
    """Return the training data, padded to whole microbatches.

    Args:
        dataset: Training and test data.
        target: Whose data they are.
        constants: Of the batch.
        mesh: Over which to lay them; each process then puts on devices the examples of its own alone.
    """
    multiple = target.data_blocks * (target.microbatch or 1)
    if mesh is None:
        data = (jnp.asarray(dataset.x_train, float), targets(dataset, dataset.y_train))
        return samplers.pad_batch(Batch(data, jnp.ones(dataset.num_data), constants), multiple)
    types = (jnp.result_type(float), _target_type(dataset))

    def read(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return dataset.x_train[rows].astype(types[0]), dataset.y_train[rows].astype(types[1])

    return samplers.read_batch(read, dataset.num_data, constants, mesh, multiple)


def targets(dataset: Dataset, y: np.ndarray) -> Num[Array, " n"]:
    """Return targets as likelihoods take them: labels as integers, all else as real numbers."""
    return jnp.asarray(y, _target_type(dataset))


def _target_type(dataset: Dataset) -> Any:
    return jnp.int32 if dataset.task == "classification" else jnp.result_type(float)
