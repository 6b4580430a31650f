"""Where data come from: scikit-learn's bundled sets, UCI files in a data directory, the user's own files."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from bayesnn.catalogue import DATASETS
from bayesnn.data.dataset import Dataset, Task, from_arrays
from bayesnn.errors import did_you_mean

UCI_PREFIX = "uci_"
# The usual 80/20, which for digits are 1,437 and 360 images.
SKLEARN_TRAIN_SHARE = 0.8
# Hernandez-Lobato & Adams 2015, arXiv 1502.05336, section 5: 90 % of a set for training.
UCI_TRAIN_SHARE = 0.9


def load(name: str, *, split: int = 0) -> Dataset:
    """Load a data set by name.

    Sets with published splits or folds have those; of every other set, `split` is the seed of a random one: the first 80 %
    (UCI: 90 %) of `numpy.random.RandomState(split).permutation(n)`, not stratified, are for training.

    Args:
        name: A key of `DATASETS`, or the path of an .npz file (see `from_npz`).
        split: Number of the train/test split, >= 0.

    Raises:
        ValueError: An unknown name (the nearest is suggested), no such split, or a file that is missing or damaged.
    """
    if name.endswith(".npz"):
        if split != 0:
            raise ValueError(f"{name} holds one split, got split={split}; leave it at 0")
        return from_npz(name)
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}{did_you_mean(name, DATASETS)}, or give the path of an .npz file")
    if split < 0:
        raise ValueError(f"split must be at least 0, got {split}")
    return uci(name.removeprefix(UCI_PREFIX), split=split) if name.startswith(UCI_PREFIX) else _bundled(name, split)


def uci(name: str, *, split: int = 0) -> Dataset:
    """Read a UCI set from `uci/<name>.npz` of the data directory.

    Args:
        name: Name of the set, without prefix.
        split: Number of the split: of the file's train_idx and test_idx, of its folds, or else the seed of a 90/10 split.

    Raises:
        ValueError: No data directory, no such file or split, or a file without X and y.
    """
    path = data_directory() / "uci" / f"{name}.npz"
    arrays = _read_npz(path)
    _need(arrays, ("X", "y"), path)
    x, y = arrays["X"], arrays["y"]
    if "train_idx" in arrays:
        _check_split(name, split, len(arrays["train_idx"]))
        train, test = arrays["train_idx"][split], arrays["test_idx"][split]
    elif "fold" in arrays:
        _check_split(name, split, int(arrays["fold"].max()) + 1)
        is_test = arrays["fold"] == split
        train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    else:
        train, test = _random_split(len(y), UCI_TRAIN_SHARE, split)
    task: Task = "classification" if name == "ionosphere" else "regression"
    return from_arrays(x[train], y[train], x[test], y[test], task=task, name=f"{UCI_PREFIX}{name}")


def from_npz(path: str | Path) -> Dataset:
    """Read a data set of one's own: an .npz file with x_train, y_train, x_test and y_test, raw.

    Integer targets are class labels, floats are regression targets.

    Raises:
        ValueError: A file that is missing, damaged or lacks an array, or arrays that `from_arrays` refuses.
    """
    path = Path(path).expanduser()
    arrays = _read_npz(path)
    names = ("x_train", "y_train", "x_test", "y_test")
    _need(arrays, names, path)
    try:
        return from_arrays(*(arrays[name] for name in names), name=path.stem)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def data_directory() -> Path:
    """Return the directory of data files: BAYESNN_DATA, else ../shared/data from here.

    Raises:
        ValueError: There is none; says what to put where.
    """
    named = os.environ.get("BAYESNN_DATA")
    directory = Path(named).expanduser() if named else Path("..", "shared", "data")
    if not directory.is_dir():
        raise ValueError(
            f"no data directory at {directory.absolute()}: set BAYESNN_DATA to a directory with uci/<name>.npz, each holding "
            "X [n, features], y [n] and, where splits are published, train_idx and test_idx [split, ...] or fold [n]"
        )
    return directory


def _bundled(name: str, split: int) -> Dataset:
    from sklearn import datasets

    loaders = {
        "digits": datasets.load_digits,
        "breast_cancer": datasets.load_breast_cancer,
        "wine": datasets.load_wine,
        "diabetes": lambda: datasets.load_diabetes(scaled=False),  # raw: its scaling has seen the test rows
    }
    bunch = loaders[name]()
    x, y = bunch["data"], bunch["target"]
    train, test = _random_split(len(y), SKLEARN_TRAIN_SHARE, split)
    return from_arrays(x[train], y[train], x[test], y[test], name=name)


def _random_split(num_examples: int, train_share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    # RandomState, since NumPy promises that its stream never changes; Generator's may.
    order = np.random.RandomState(seed).permutation(num_examples)
    num_train = int(train_share * num_examples)
    return order[:num_train], order[num_train:]


def _check_split(name: str, split: int, num_splits: int) -> None:
    if not 0 <= split < num_splits:
        raise ValueError(f"{name} has splits 0 to {num_splits - 1}, got split={split}")


def _need(arrays: dict[str, np.ndarray], names: tuple[str, ...], path: Path) -> None:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it has {', '.join(sorted(arrays)) or 'nothing'}")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            return dict(file)
    except FileNotFoundError:
        raise ValueError(f"no file {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as an .npz file of plain arrays: {error}") from None
