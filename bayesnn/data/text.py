"""IMDB reviews as token ids: the Keras file, the original folders of text, or arrays already cut and padded.

Ids are those of Keras: 0 pads in front, 1 starts a review, 2 stands for words outside the vocabulary, 3 is not used, and the word
of frequency rank r is r + 3.
"""

from __future__ import annotations

import collections
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from bayesnn.data.pickled import load_object_array

PAD, START, UNKNOWN = 0, 1, 2
FIRST_RANK = 3  # added to ranks, which begin at 1
# Izmailov et al. 2021, arXiv 2104.14421: 20,000 words, the last 100 tokens of a review.
VOCABULARY_SIZE, LENGTH = 20_000, 100
KERAS_SEED = 113  # of keras.datasets.imdb.load_data, whose order of reviews this reproduces
CUT = "imdb_keras_v20000_len100.npz"
# What Keras's text_to_word_sequence takes out; an apostrophe stays.
NO_WORD = re.compile(r"[!\"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~\t\n\s]+")


class Reviews(NamedTuple):
    """Reviews of one split.

    Attributes:
        x: [n, 100] token ids, int32.
        y: [n] 1 for a positive review.
    """

    x: Int[np.ndarray, "n length"]
    y: Int[np.ndarray, " n"]


def imdb(folder: Path) -> tuple[Reviews, Reviews]:
    """Read training and test reviews.

    Args:
        folder: Has `imdb_keras_v20000_len100.npz` (arrays cut and padded), Keras's `imdb.npz`, or the original `aclImdb`. From
            its texts the vocabulary is made anew, by frequency in the training reviews and then by the alphabet, and reviews are
            in the order of their files, so that ids and order differ from those of Keras.

    Raises:
        ValueError: None of them is there, or it is damaged.
    """
    try:
        if (folder / CUT).is_file():
            with np.load(folder / CUT, allow_pickle=False) as file:
                return _cut(file["x_train"], file["y_train"]), _cut(file["x_test"], file["y_test"])
        if (folder / "imdb.npz").is_file():
            return _keras(folder / "imdb.npz")
        if (folder / "aclImdb").is_dir():
            return _texts(folder / "aclImdb")
    except (OSError, KeyError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"the reviews in {folder} cannot be read: {error}") from None
    raise ValueError(f"{folder} has none of {CUT}, imdb.npz, aclImdb")


def words(text: str) -> list[str]:
    """Split a text into words, lower case, as Keras does.

    Example:
        >>> words("It's GREAT,<br />isn't it?")
        ["it's", 'great', 'br', "isn't", 'it']
    """
    return [word for word in NO_WORD.split(text.lower()) if word]


def _keras(path: Path) -> tuple[Reviews, Reviews]:
    order = np.random.RandomState(KERAS_SEED)
    found = []
    with zipfile.ZipFile(path) as archive:
        for split in ("train", "test"):
            with archive.open(f"x_{split}.npy") as file:
                ranks = load_object_array(file)
            with archive.open(f"y_{split}.npy") as file:
                labels = load_object_array(file)
            shuffled = np.arange(len(ranks))
            order.shuffle(shuffled)
            found.append(Reviews(_padded(ranks[shuffled]), labels[shuffled].astype(np.int64)))
    train, test = found
    return train, test


def _texts(folder: Path) -> tuple[Reviews, Reviews]:
    texts = {
        (split, label): [words(path.read_text(encoding="utf-8")) for path in sorted((folder / split / label).glob("*.txt"))]
        for split in ("train", "test")
        for label in ("neg", "pos")
    }
    if empty := ["/".join(key) for key, reviews in texts.items() if not reviews]:
        raise ValueError(f"no reviews in {', '.join(empty)}")
    counts = collections.Counter(word for label in ("neg", "pos") for review in texts["train", label] for word in review)
    by_frequency = sorted(counts, key=lambda word: (-counts[word], word))
    rank = {word: index for index, word in enumerate(by_frequency, start=1)}
    found = []
    for split in ("train", "test"):
        reviews = texts[split, "neg"] + texts[split, "pos"]
        # A word that no training review has is of no rank.
        ranks = [[rank.get(word, VOCABULARY_SIZE) for word in review] for review in reviews]
        labels = np.repeat([0, 1], [len(texts[split, "neg"]), len(texts[split, "pos"])])
        found.append(Reviews(_padded(ranks), labels))
    train, test = found
    return train, test


def _padded(reviews: Iterable[Sequence[int]]) -> Int[np.ndarray, "n length"]:
    """Turn ranks into ids, cut reviews to their last `LENGTH` tokens and pad shorter ones in front."""
    rows = []
    for ranks in reviews:
        ids = np.concatenate([[START], np.asarray(ranks, np.int64) + FIRST_RANK])[-LENGTH:]
        rows.append(np.pad(np.where(ids < VOCABULARY_SIZE, ids, UNKNOWN), (LENGTH - len(ids), 0), constant_values=PAD))
    return np.asarray(rows, np.int32)


def _cut(x: np.ndarray, y: np.ndarray) -> Reviews:
    if x.ndim != 2 or len(x) != len(y):
        raise ValueError(f"tokens of shape {x.shape} and {len(y)} labels; expected (reviews, length) and one label a review")
    return Reviews(x.astype(np.int32), y.astype(np.int64))
