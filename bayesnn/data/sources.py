"""Where data come from: scikit-learn's bundled sets, files in a data directory, the user's own files."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bayesnn.catalogue import DATASETS
from bayesnn.data import images, text
from bayesnn.data.dataset import Dataset, Task, from_arrays
from bayesnn.data.rows import Rows
from bayesnn.errors import did_you_mean
from bayesnn.npz import read_npz

UCI_PREFIX = "uci_"
# The usual 80/20, which for digits are 1,437 and 360 images.
SKLEARN_TRAIN_SHARE = 0.8
# Hernandez-Lobato & Adams 2015, arXiv 1502.05336, section 5: 90 % of a set for training.
UCI_TRAIN_SHARE = 0.9
DIGITS_WHITE = 16  # of scikit-learn's digits, which count pixels of 4 x 4

# (folder, split) -> examples, of the sets that have published splits; notmnist has a test split alone.
IMAGES: dict[str, Callable[[Path, str], images.Split]] = {
    "mnist": images.idx,
    "fashion_mnist": images.idx,
    "notmnist": images.idx,
    "cifar10": functools.partial(images.cifar, num_classes=10),
    "cifar100": functools.partial(images.cifar, num_classes=100),
    "svhn": images.svhn,
}


class Raw(NamedTuple):
    """Arrays of both splits in original units, and the settings of `from_arrays` that belong to them."""

    x_train: np.ndarray | Rows
    y_train: np.ndarray
    x_test: np.ndarray | Rows
    y_test: np.ndarray
    settings: dict[str, Any]


class Table(NamedTuple):
    """All rows of a set of features, and (split) -> the rows of its training and of its test split."""

    x: np.ndarray
    y: np.ndarray
    rows: Callable[[int], tuple[np.ndarray, np.ndarray]]
    settings: dict[str, Any]


def load(
    name: str,
    *,
    split: int = 0,
    gap: bool = False,
    num_train: int | None = None,
    size: int | None = None,
    task: Task | None = None,
) -> Dataset:
    """Load a data set by name.

    Sets with published splits or folds have those; of every other set, `split` is the seed of a random one: the first 80 %
    (UCI: 90 %) of `numpy.random.RandomState(split).permutation(n)`, not stratified, are for training.

    Args:
        name: A key of `DATASETS`, or the path of an .npz file (see `from_npz`).
        split: Number of the train/test split, >= 0. Where only one is published, the seed of the subset.
        gap: Test on the middle third of all rows, ordered by feature number `split`, and train on both outer thirds.
        num_train: Keep so many training examples, the first of `RandomState(split).permutation(n)`; all by default.
        size: Height and width of images, averaged over areas; their own by default.
        task: What the targets of an .npz file are; by default classes if they are integers, else real numbers.

    Raises:
        ValueError: An unknown name (the nearest is suggested), no such split, settings that do not suit the set, or a file that
            is missing or damaged.

    References:
        Gap splits: Foong et al. 2019, arXiv 1906.11537, section 4.
    """
    if split < 0:
        raise ValueError(f"split must be at least 0, got {split}")
    if task is not None and not name.endswith(".npz"):
        raise ValueError(f"task={task} is for .npz files, {name} has a task of its own; leave it out")
    raw = _raw(name, split, gap, num_train is not None)
    if task is not None:
        raw = raw._replace(settings={"task": task})
    if num_train is not None:
        raw = _subset(raw, name, num_train, split)
    if size is not None:
        if raw.settings.get("inputs") != "images":
            raise ValueError(f"size={size} is for images, and {name} has none; leave it out")
        raw = raw._replace(x_train=images.resize(raw.x_train, size), x_test=images.resize(raw.x_test, size))
    label = Path(name).stem if name.endswith(".npz") else name
    try:
        return from_arrays(*raw[:4], name=f"{label} with a gap" if gap else label, **raw.settings)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def outside(dataset: Dataset, name: str) -> np.ndarray:
    """Return the test images of another set as inputs on which a network trained on this one should be unsure.

    Args:
        dataset: The set that the network was trained on.
        name: Another image set, `notmnist` included.

    Returns:
        [point, ...] brought to the size of the data set's own images and standardised by its statistics.

    Raises:
        ValueError: No image sets, another number of channels, or files that are missing or damaged.
    """
    if name not in IMAGES:
        raise ValueError(f"{name!r} is no image set{did_you_mean(name, IMAGES)}")
    if dataset.inputs != "images":
        raise ValueError(f"{dataset.name} has no images but {dataset.inputs}; images of {name} mean nothing to it")
    x = _images(name, "test").x
    height, width, channels = dataset.x_train.shape[1:]
    if x.shape[-1] != channels or height != width:
        raise ValueError(
            f"images of {name} have {x.shape[-1]} channels, those of {dataset.name} are {height} x {width} x {channels}"
        )
    return dataset.standardise(x if x.shape[1] == height else images.resize(x, height))


def from_npz(path: str | Path, *, task: Task | None = None) -> Dataset:
    """Read a data set of one's own: an .npz file with x_train, y_train, x_test and y_test, raw.

    Args:
        path: The file.
        task: What the targets are; by default classes if they are integers, else real numbers.

    Raises:
        ValueError: A file that is missing, damaged or lacks an array, or arrays that `from_arrays` refuses.
    """
    return load(str(path), task=task)


def data_directory() -> Path:
    """Return the directory of data files: BAYESNN_DATA, else ../shared/data from here.

    Raises:
        ValueError: There is none; says what to put where.
    """
    named = os.environ.get("BAYESNN_DATA")
    directory = Path(named).expanduser() if named else Path("..", "shared", "data")
    if not directory.is_dir():
        raise ValueError(
            f"no data directory at {directory.absolute()}: set BAYESNN_DATA to a directory with uci/<name>.npz, mnist/ and the "
            "like, which `bayesnn data fetch NAME` fills"
        )
    return directory


def _raw(name: str, split: int, gap: bool, is_subset: bool) -> Raw:
    if not name.endswith(".npz") and name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}{did_you_mean(name, DATASETS)}, or give the path of an .npz file")
    has_one_split = name.endswith(".npz") or name in IMAGES or name == "imdb"
    if not has_one_split:
        table = _uci(name.removeprefix(UCI_PREFIX)) if name.startswith(UCI_PREFIX) else _bundled(name)
        train, test = gap_rows(table.x, split) if gap else table.rows(split)
        return Raw(table.x[train], table.y[train], table.x[test], table.y[test], table.settings)
    if gap:
        raise ValueError(f"{name} has one train/test split and no gaps; gap is for uci_ and bundled sets of features")
    if split and not is_subset:
        raise ValueError(f"{name} holds one split, got split={split}; leave it at 0, or choose a subset with num_train")
    if name.endswith(".npz"):
        return _own(Path(name).expanduser())
    if name == "imdb":
        (x, y), (x_test, y_test) = text.imdb(_folder("imdb"))
        return Raw(x, y, x_test, y_test, {"inputs": "tokens", "num_classes": 2, "vocabulary_size": text.VOCABULARY_SIZE})
    parts = (*_images(name, "train"), *_images(name, "test"))
    return Raw(*parts, {"inputs": "images", "num_classes": 100 if name == "cifar100" else 10})


def _images(name: str, split: str) -> images.Split:
    return IMAGES[name](_folder(name), split)


def _folder(name: str) -> Path:
    folder = data_directory() / name
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; `bayesnn data fetch {name}` fills it")
    return folder


def _uci(name: str) -> Table:
    path = data_directory() / "uci" / f"{name}.npz"
    arrays = read_npz(path, f"; `bayesnn data fetch {UCI_PREFIX}{name}` makes it")
    _need(arrays, ("X", "y"), path)

    def rows(split: int) -> tuple[np.ndarray, np.ndarray]:
        if "train_idx" in arrays:
            _check_split(name, split, len(arrays["train_idx"]))
            return arrays["train_idx"][split], arrays["test_idx"][split]
        if "fold" in arrays:
            _check_split(name, split, int(arrays["fold"].max()) + 1)
            is_test = arrays["fold"] == split
            return np.flatnonzero(~is_test), np.flatnonzero(is_test)
        return _random_rows(len(arrays["y"]), UCI_TRAIN_SHARE, split)

    return Table(arrays["X"], arrays["y"], rows, {"task": "classification" if name == "ionosphere" else "regression"})


def _bundled(name: str) -> Table:
    from sklearn import datasets

    loaders = {
        "digits": datasets.load_digits,
        "digits_images": datasets.load_digits,
        "breast_cancer": datasets.load_breast_cancer,
        "wine": datasets.load_wine,
        "diabetes": lambda: datasets.load_diabetes(scaled=False),  # raw: its scaling has seen the test rows
    }
    bunch = loaders[name]()
    x, y = bunch["data"], bunch["target"]
    settings = {}
    if name == "digits_images":
        x, settings = (bunch["images"][..., None] / DIGITS_WHITE).astype(np.float32), {"inputs": "images"}
    return Table(x, y, lambda split: _random_rows(len(y), SKLEARN_TRAIN_SHARE, split), settings)


def gap_rows(x: np.ndarray, feature: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows outside and inside the middle third of the rows in the order of one feature; ties by row.

    Raises:
        ValueError: No such feature, or inputs that are no table.
    """
    if x.ndim != 2:
        raise ValueError(f"a gap needs features (rows, features), got inputs of shape {x.shape}")
    _check_split("a gap split, one a feature,", feature, x.shape[1])
    order, third = np.argsort(x[:, feature], kind="stable"), len(x) // 3
    is_inside = np.zeros(len(x), bool)
    is_inside[order[third : len(x) - third]] = True
    return np.flatnonzero(~is_inside), np.flatnonzero(is_inside)


def _subset(raw: Raw, name: str, num_train: int, seed: int) -> Raw:
    if not 1 <= num_train <= len(raw.x_train):
        raise ValueError(f"num_train must be from 1 to {len(raw.x_train)} for {name}, got {num_train}")
    rows = _permutation(len(raw.x_train), seed)[:num_train]
    settings = raw.settings
    is_classes = raw.y_train.dtype.kind in "iub" and settings.get("task", "classification") == "classification"
    if is_classes:  # of a small subset, some class may have no example
        settings = {"num_classes": int(raw.y_train.max()) + 1} | settings
    return raw._replace(x_train=raw.x_train[rows], y_train=raw.y_train[rows], settings=settings)


def _random_rows(num_examples: int, train_share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = _permutation(num_examples, seed)
    num_train = int(train_share * num_examples)
    return order[:num_train], order[num_train:]


def _permutation(num_examples: int, seed: int) -> np.ndarray:
    # RandomState, since NumPy promises that its stream never changes; Generator's may.
    return np.random.RandomState(seed).permutation(num_examples)


def _check_split(name: str, split: int, num_splits: int) -> None:
    if not 0 <= split < num_splits:
        raise ValueError(f"{name} has splits 0 to {num_splits - 1}, got split={split}")


def _own(path: Path) -> Raw:
    arrays, names = read_npz(path), ("x_train", "y_train", "x_test", "y_test")
    _need(arrays, names, path)
    x_train, y_train, x_test, y_test = (arrays[name] for name in names)
    return Raw(x_train, y_train, x_test, y_test, {})


def _need(arrays: dict[str, np.ndarray], names: tuple[str, ...], path: Path) -> None:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it has {', '.join(sorted(arrays)) or 'nothing'}")
