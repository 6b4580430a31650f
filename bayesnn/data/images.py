"""Image sets in the formats that their authors publish: idx, CIFAR's batches, SVHN's .mat; and resizing."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bayesnn.data.pickled import load_plain_pickle
from bayesnn.data.rows import Rows

CIFAR_SIDE, CIFAR_PIXELS = 32, 3 * 32 * 32
# Images a row and a column of a sheet, one sheet a batch of CIFAR.
SHEET = 100
IDX_IMAGES, IDX_LABELS = 2051, 2049  # magic numbers: unsigned bytes, of 3 and of 1 dimensions


class Split(NamedTuple):
    """Examples of one split.

    Attributes:
        x: [n, height, width, channel] intensities from 0 to 1, float32, of which bytes are kept.
        y: [n] labels.
    """

    x: Rows
    y: Int[np.ndarray, " n"]


def idx(folder: Path, split: str) -> Split:
    """Read a split of MNIST, or of a set in its format, from idx files; of those not compressed, pixels stay on disk.

    Raises:
        ValueError: Files that are missing or damaged.
    """
    prefix = {"train": "train", "test": "t10k"}[split]
    images = _idx(folder / f"{prefix}-images-idx3-ubyte", IDX_IMAGES)
    return _split(images[..., None], _idx(folder / f"{prefix}-labels-idx1-ubyte", IDX_LABELS), folder)


def cifar(folder: Path, split: str, num_classes: int) -> Split:
    """Read a split of CIFAR-10 or CIFAR-100 (fine labels), in its binary or Python form, or as lossless sheets.

    Sheets are a layout of our own: `<batch>.webp` of 100 x 100 images, row by row in the order of the batch, and `labels.npz`
    with y_train and y_test; training batches may be missing at the end.

    Raises:
        ValueError: None of the forms is in the folder, or files are damaged.
    """
    names = {10: ([f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]), 100: (["train"], ["test"])}[num_classes]
    batches = names[split == "test"]
    binary = folder / {10: "cifar-10-batches-bin", 100: "cifar-100-binary"}[num_classes]
    python = folder / f"cifar-{num_classes}-{'batches-py' if num_classes == 10 else 'python'}"
    if binary.is_dir():
        parts = [_cifar_binary(binary / f"{name}.bin", num_classes) for name in batches]
    elif python.is_dir():
        parts = [_cifar_python(python / name, num_classes) for name in batches]
    elif (folder / "labels.npz").is_file():
        return _sheets(folder, [folder / f"{name}.webp" for name in batches], split)
    else:
        raise ValueError(f"{folder} has neither {binary.name} nor {python.name}, and no sheets with labels.npz")
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    channels_first = pixels.reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE)
    return _split(channels_first.transpose(0, 2, 3, 1), labels, folder)


def svhn(folder: Path, split: str) -> Split:
    """Read a split of SVHN's cropped digits, `<split>_32x32.mat`; its label 10, for the digit 0, becomes 0.

    Raises:
        ValueError: A file that is missing or damaged.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    path = folder / f"{split}_32x32.mat"
    try:
        arrays = loadmat(path, variable_names=["X", "y"])
        images, labels = arrays["X"].transpose(3, 0, 1, 2), arrays["y"].ravel() % 10
    except (OSError, KeyError, ValueError, TypeError, NotImplementedError, MatReadError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    return _split(images, labels, path)


def resize(x: Float[np.ndarray, "n height width channel"] | Rows, size: int) -> Float[np.ndarray, "n size size channel"]:
    """Bring images to size x size by averaging over areas: every new pixel is the mean of what it covers, in part or in full.

    The mean over an image is kept exactly. Larger than before, it repeats pixels.

    Raises:
        ValueError: A size below 1.
    """
    if size < 1:
        raise ValueError(f"images need a size of at least 1, got {size}")
    rows, columns = (_overlaps(length, size) for length in x.shape[1:3])
    narrow = np.einsum("nhwc,jw->nhjc", np.asarray(x), columns, optimize=True)
    return np.einsum("nhjc,ih->nijc", narrow, rows, optimize=True).astype(np.float32)


def _overlaps(length: int, size: int) -> Float[np.ndarray, "size length"]:
    """Return the share of each old pixel in each new one, along one axis."""
    edges, old = np.linspace(0, length, size + 1), np.arange(length)
    shared = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return np.maximum(shared, 0) * size / length


def _split(images: np.ndarray, labels: np.ndarray, where: Path) -> Split:
    if len(images) != len(labels):
        raise ValueError(f"{where} is damaged: {len(images)} images and {len(labels)} labels")
    return Split(Rows(images, _intensities, np.float32), labels.astype(np.int64))


def _intensities(pixels: np.ndarray) -> np.ndarray:
    return np.divide(pixels, 255, dtype=np.float32)


def _idx(path: Path, magic: int) -> np.ndarray:
    compressed = path.with_name(f"{path.name}.gz")
    path = path if path.is_file() else compressed
    try:
        is_packed = path == compressed
        content = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8) if is_packed else np.memmap(path, np.uint8, "r")
    except FileNotFoundError:
        raise ValueError(f"no file {path}, nor one without .gz") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:  # an empty file cannot be mapped
        raise ValueError(f"{path} cannot be read: {error}") from None
    num_dims = magic % 256
    start = 4 * (1 + num_dims)
    header = content[:start].view(">i4") if len(content) >= start else np.zeros(1)
    if header[0] != magic or len(content) != start + math.prod(int(size) for size in header[1:]):
        raise ValueError(f"{path} is damaged, or no idx file of {num_dims} dimensions")
    return content[start:].reshape(header[1:])


def _cifar_binary(path: Path, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    # A record is one label, or a coarse and a fine one, and then the pixels of red, green and blue.
    num_labels = 1 if num_classes == 10 else 2
    content = np.frombuffer(_bytes(path), np.uint8)
    if not content.size or content.size % (num_labels + CIFAR_PIXELS):
        raise ValueError(f"{path} is damaged: {content.size} bytes are no whole number of images")
    records = content.reshape(-1, num_labels + CIFAR_PIXELS)
    return records[:, num_labels:], records[:, num_labels - 1]


def _cifar_python(path: Path, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = load_plain_pickle(io.BytesIO(_bytes(path)))
        labels = np.asarray(batch[b"labels" if num_classes == 10 else b"fine_labels"])
        return np.asarray(batch[b"data"]).reshape(-1, CIFAR_PIXELS), labels
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no batch of CIFAR-{num_classes}: {error}") from None


def _sheets(folder: Path, sheets: list[Path], split: str) -> Split:
    from PIL import Image, UnidentifiedImageError

    present = [path for path in sheets if path.is_file()]
    if not present or present != sheets[: len(present)]:
        raise ValueError(f"{folder} lacks {next(path.name for path in sheets if not path.is_file())}")
    pieces = []
    for path in present:
        try:
            sheet = np.asarray(Image.open(path).convert("RGB"))
            cut = sheet.reshape(SHEET, CIFAR_SIDE, SHEET, CIFAR_SIDE, 3).transpose(0, 2, 1, 3, 4)
        except (OSError, ValueError, UnidentifiedImageError) as error:
            raise ValueError(f"{path} is no sheet of {SHEET} x {SHEET} images: {error}") from None
        pieces.append(cut.reshape(-1, CIFAR_SIDE, CIFAR_SIDE, 3))
    with np.load(folder / "labels.npz") as labels:
        return _split(np.concatenate(pieces), labels[f"y_{split}"][: SHEET**2 * len(pieces)], folder)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
