"""The data set: standardised arrays, the way back to original units, and a hash that says which data they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Num

from bayesnn.data.rows import Rows, blocks

type Task = Literal["classification", "regression", "counts"]
type Inputs = Literal["features", "images", "tokens"]

# More than this many names in an error message help nobody.
MAX_NAMED = 8


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test data, standardised by the statistics of the training split.

    Made by `load`, `from_arrays` or `from_npz`, which check everything. No row and no column is ever dropped.

    Attributes:
        name: What to call it.
        task: "classification", "regression" or "counts".
        inputs: "features" (every entry of an example standardised on its own), "images" (height, width, channel; standardised by
            channel) or "tokens" (ids, int32, left as they are).
        x_train: [n, ...] inputs, float32, standardised; tokens int32.
        y_train: [n] labels (int32), standardised targets (float32), or counts as they are (float32).
        x_test: [point, ...] inputs, standardised likewise.
        y_test: [point] labels, targets standardised likewise, or counts.
        x_mean: [...] mean of the training inputs, original units; [channel] for images, 0 for tokens.
        x_scale: [...] their standard deviation (ddof 0), likewise; 1 for what is constant in training, and for tokens.
        y_mean: Mean of the training targets; 0 for classes and counts.
        y_scale: Their standard deviation; 1 for classes and counts.
        num_classes: Number of classes; None for other tasks.
        vocabulary_size: Ids of tokens are below it; None for other inputs.
        hash: sha256 over the raw arrays of both splits.
    """

    name: str
    task: Task
    inputs: Inputs
    x_train: Float[np.ndarray, "n ..."]
    y_train: Num[np.ndarray, " n"]
    x_test: Float[np.ndarray, "point ..."]
    y_test: Num[np.ndarray, " point"]
    x_mean: Float[np.ndarray, "..."]
    x_scale: Float[np.ndarray, "..."]
    y_mean: float
    y_scale: float
    num_classes: int | None
    vocabulary_size: int | None
    hash: str

    @property
    def num_data(self) -> int:
        """n, the number of training examples."""
        return len(self.x_train)

    def standardise(self, x_raw: Any) -> Num[np.ndarray, "point ..."]:
        """Bring inputs from original units to those of the network.

        Args:
            x_raw: [point, ...] inputs in the units of the raw training data.

        Raises:
            ValueError: Another shape than the training inputs, values that are not finite, or tokens outside the vocabulary.
        """
        x = _numeric(x_raw, "inputs")
        if x.ndim != self.x_train.ndim or x.shape[1:] != self.x_train.shape[1:]:
            raise ValueError(f"inputs have shape {x.shape}, expected (points, {_dims(self.x_train.shape[1:])}) as in training")
        _check_finite(x, "inputs")
        if self.vocabulary_size is not None:
            _check_tokens(x, "inputs", self.vocabulary_size)
        return _standardised(x, self.x_mean, self.x_scale, self.x_train.dtype)

    def original_inputs(self, x: Num[np.ndarray, "point ..."]) -> Num[np.ndarray, "point ..."]:
        """Bring standardised inputs back to original units, float64; tokens stay as they are. The inverse of `standardise`."""
        return x if self.inputs == "tokens" else x.astype(np.float64) * self.x_scale + self.x_mean

    def original_units(self, y: Any) -> np.ndarray:
        """Bring standardised targets back to original units, float64; labels and counts stay as they are."""
        y = np.asarray(y)
        return y if self.task == "classification" else y.astype(np.float64) * self.y_scale + self.y_mean


def from_arrays(
    x_train: Any,
    y_train: Any,
    x_test: Any,
    y_test: Any,
    *,
    task: Task | None = None,
    num_classes: int | None = None,
    inputs: Inputs = "features",
    vocabulary_size: int | None = None,
    name: str = "arrays",
) -> Dataset:
    """Make a data set from raw arrays.

    Args:
        x_train: [n, ...] inputs in original units.
        y_train: [n] labels from 0, or targets.
        x_test: [point, ...] inputs.
        y_test: [point] labels or targets.
        task: Defaults to classification when the targets are integers or booleans, to regression when they are floats.
            "counts" are not standardised.
        num_classes: Defaults to the largest label plus one, of which every class must then occur in training.
        inputs: What the inputs are, and so how they are standardised, see `Dataset`.
        vocabulary_size: Of tokens; defaults to the largest training id plus one.
        name: What to call it.

    Raises:
        ValueError: Arrays of other shapes, an empty split, values that are not finite (their columns are named), labels that are
            not integers from 0 to num_classes - 1, counts that are negative or no integers, targets that are all equal, or
            tokens outside the vocabulary.
    """
    raw: dict[str, Any] = {
        "x_train": x_train if isinstance(x_train, Rows) else _numeric(x_train, "x_train"),
        "y_train": _numeric(y_train, "y_train"),
        "x_test": x_test if isinstance(x_test, Rows) else _numeric(x_test, "x_test"),
        "y_test": _numeric(y_test, "y_test"),
    }
    _check_shapes(raw)
    for key, array in raw.items():
        _check_finite(array, key)
    if task is None:
        task = "classification" if raw["y_train"].dtype.kind in "iub" else "regression"
    if task not in get_args(Task.__value__):
        raise ValueError(f"task must be one of {', '.join(get_args(Task.__value__))}, got {task!r}")
    if task != "classification" and num_classes is not None:
        raise ValueError(f"num_classes={num_classes} is for classification; leave it out for {task}")
    y_mean, y_scale = 0.0, 1.0
    if task == "classification":
        num_classes = _check_labels(raw["y_train"], raw["y_test"], num_classes)
    elif task == "counts":
        _check_counts(raw["y_train"], raw["y_test"])
    else:
        y_mean, y_scale = _target_moments(raw["y_train"])
    if inputs == "tokens":
        vocabulary_size = int(raw["x_train"].max()) + 1 if vocabulary_size is None else vocabulary_size
        for split in ("x_train", "x_test"):
            _check_tokens(raw[split], split, vocabulary_size)
    elif vocabulary_size is not None:
        raise ValueError(f"vocabulary_size={vocabulary_size} is for tokens; leave it out for {inputs}")
    x_type, y_type = np.int32 if inputs == "tokens" else np.float32, np.int32 if task == "classification" else np.float32
    x_mean, x_scale = _input_moments(raw["x_train"], inputs)
    return Dataset(
        name=name,
        task=task,
        inputs=inputs,
        x_train=_standardised(raw["x_train"], x_mean, x_scale, x_type),
        y_train=((raw["y_train"] - y_mean) / y_scale).astype(y_type),
        x_test=_standardised(raw["x_test"], x_mean, x_scale, x_type),
        y_test=((raw["y_test"] - y_mean) / y_scale).astype(y_type),
        x_mean=x_mean,
        x_scale=x_scale,
        y_mean=y_mean,
        y_scale=y_scale,
        num_classes=num_classes,
        vocabulary_size=vocabulary_size,
        hash=_hash(raw),
    )


def _numeric(values: Any, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "iubf":
        raise ValueError(f"{name} has dtype {array.dtype}, expected numbers; encode categories and dates first")
    # Images are float32 in the hundreds of megabytes: float64 would hold no more of them.
    return array if array.dtype.kind in "iub" or array.dtype == np.float32 else array.astype(np.float64)


def _check_shapes(raw: dict[str, Any]) -> None:
    for split in ("train", "test"):
        x, y = raw[f"x_{split}"], raw[f"y_{split}"]
        if x.ndim < 2:
            raise ValueError(f"x_{split} has shape {x.shape}, expected (examples, features); reshape a single feature to (n, 1)")
        if y.ndim != 1:
            raise ValueError(f"y_{split} has shape {y.shape}, expected one target an example, ({len(x)},)")
        if len(x) != len(y):
            raise ValueError(f"x_{split} has {len(x)} examples and y_{split} has {len(y)} targets; they must be as many")
        if x.size == 0:
            raise ValueError(f"x_{split} is empty, of shape {x.shape}; both splits need at least one example and one feature")
    if raw["x_train"].shape[1:] != raw["x_test"].shape[1:]:
        raise ValueError(
            f"x_train has examples of shape {raw['x_train'].shape[1:]} and x_test of shape {raw['x_test'].shape[1:]}; "
            "both splits need the same features in the same order"
        )


def _check_finite(array: Any, name: str) -> None:
    if all(np.isfinite(array[rows]).all() for rows in blocks(array)):
        return
    bad = ~np.isfinite(array)
    where = f"rows {_few(np.flatnonzero(bad.reshape(len(array), -1).any(axis=1)))}"
    if array.ndim > 1:
        where = f"columns {_few(np.flatnonzero(bad.reshape(len(array), -1).any(axis=0)))}, {where}"
    raise ValueError(f"{name} has {bad.sum()} values that are NaN or infinite, in {where}; impute or remove them yourself")


def _check_labels(y_train: np.ndarray, y_test: np.ndarray, num_classes: int | None) -> int:
    both = np.concatenate([y_train, y_test])
    if (both != np.round(both)).any():
        raise ValueError(
            f"labels must be integers, got {both[both != np.round(both)][0]}; for real targets use task='regression'"
        )
    low, high = int(both.min()), int(both.max())
    expected = high + 1 if num_classes is None else num_classes
    if low < 0 or high >= expected or expected < 2:
        raise ValueError(
            f"labels must be from 0 to num_classes - 1 of at least two classes, got {low} to {high} with num_classes={expected}; "
            "recode them, or use task='regression' for integer targets that are no classes"
        )
    missing = np.setdiff1d(np.arange(expected), y_train)
    if num_classes is None and missing.size:
        raise ValueError(
            f"labels run from {low} to {high}, but no training example has label {_few(missing)}; recode them to 0, 1, ..., "
            f"say num_classes={expected} if such classes exist, or use task='regression' or 'counts' for targets that are none"
        )
    return expected


def _check_counts(y_train: np.ndarray, y_test: np.ndarray) -> None:
    both = np.concatenate([y_train, y_test])
    bad = both[(both < 0) | (both != np.round(both))]
    if bad.size:
        raise ValueError(f"counts must be 0, 1, 2 ..., got {bad[0]}; for real targets use task='regression'")


def _target_moments(y_train: np.ndarray) -> tuple[float, float]:
    if (y_train == y_train[0]).all():
        raise ValueError(f"all {len(y_train)} training targets are {y_train[0]}; there is nothing to learn")
    mean, scale = _moments(y_train)
    return float(mean), float(scale)


def _check_tokens(x: np.ndarray, name: str, vocabulary_size: int) -> None:
    if x.dtype.kind not in "iu" or x.ndim != 2:
        raise ValueError(f"{name} must hold token ids (examples, length) of an integer type, got {x.dtype} {x.shape}")
    low, high = int(x.min()), int(x.max())
    if low < 0 or high >= vocabulary_size:
        raise ValueError(f"{name} has tokens {low} to {high}, expected 0 to vocabulary_size - 1 = {vocabulary_size - 1}")


def _input_moments(x: Any, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    if inputs == "tokens":
        return np.zeros(()), np.ones(())
    if inputs == "features":
        return _moments(x)
    if inputs != "images":
        raise ValueError(f"inputs must be 'features', 'images' or 'tokens', got {inputs!r}")
    if x.ndim != 4:
        raise ValueError(f"images have shape {x.shape}, expected (examples, height, width, channels); grey ones have 1 channel")
    count = x.size / x.shape[-1]
    mean = np.sum([x[rows].sum((0, 1, 2), dtype=np.float64) for rows in blocks(x)], 0) / count
    square = np.sum([np.square(x[rows] - mean).sum((0, 1, 2)) for rows in blocks(x)], 0) / count
    low, high = (edge([edge(x[rows], (0, 1, 2)) for rows in blocks(x)], 0) for edge in (np.min, np.max))
    is_constant = low == high
    return np.where(is_constant, low, mean), np.where(is_constant, 1.0, np.sqrt(square))


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation over examples; exactly (value, 1) where all are equal, whatever rounding does."""
    x = x.astype(np.float64)
    is_constant = np.ptp(x, axis=0) == 0
    return np.where(is_constant, x[0], x.mean(axis=0)), np.where(is_constant, 1.0, x.std(axis=0))


def _standardised(x: Any, mean: np.ndarray, scale: np.ndarray, dtype: Any) -> np.ndarray:
    standardised = np.empty(x.shape, dtype)
    for rows in blocks(x):
        standardised[rows] = (x[rows] - mean) / scale
    return standardised


def _hash(raw: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, array in raw.items():
        # One number type and byte order, so that the same values have the same hash on every machine.
        digest.update(f"{name}{array.shape}".encode())
        for rows in blocks(array):
            digest.update(np.ascontiguousarray(array[rows], dtype="<f8").tobytes())
    return digest.hexdigest()


def _few(values: np.ndarray) -> str:
    shown = ", ".join(str(value) for value in values[:MAX_NAMED])
    return shown if len(values) <= MAX_NAMED else f"{shown} and {len(values) - MAX_NAMED} more"


def _dims(shape: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in shape)
