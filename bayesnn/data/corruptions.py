"""Test inputs made worse in known ways, at five intensities: images by noise, blur and light, reviews by lost and wrong words.

The same seed, corruption and intensity give the same result on every machine, and the first inputs of a set become the same
whether or not others follow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter

from bayesnn.data import images, text
from bayesnn.data.dataset import Dataset
from bayesnn.errors import did_you_mean

INTENSITIES = (1, 2, 3, 4, 5)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)  # of the words of a review; ours, as no published corruption of token ids is

type Images = Float[np.ndarray, "n height width channel"]
type Tokens = Int[np.ndarray, "n length"]


def _gaussian_noise(x: Images, scale: float, rng: Any) -> Images:
    return x + scale * rng.standard_normal(x.shape)


def _shot_noise(x: Images, photons: float, rng: Any) -> Images:
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: Images, share: float, rng: Any) -> Images:
    drawn = rng.random_sample(x.shape)
    return np.where(drawn < share / 2, 0.0, np.where(drawn < share, 1.0, x))


def _gaussian_blur(x: Images, pixels: float, rng: Any) -> Images:
    return gaussian_filter(x, (0, pixels, pixels, 0), mode="nearest")


def _brightness(x: Images, rise: float, rng: Any) -> Images:
    # Hue and saturation stay, the largest channel rises; black becomes grey, as in the HSV cone.
    value = x.max(-1, keepdims=True)
    raised = np.minimum(value + rise, 1)
    return np.where(value > 0, x / np.where(value > 0, value, 1) * raised, raised)


def _contrast(x: Images, factor: float, rng: Any) -> Images:
    mean = x.mean((1, 2), keepdims=True)
    return mean + factor * (x - mean)


def _pixelate(x: Images, share: float, rng: Any) -> Images:
    size, small = x.shape[1], max(1, int(share * x.shape[1]))
    nearest = ((np.arange(size) + 0.5) * small / size).astype(int)
    return images.resize(x, small)[:, nearest][:, :, nearest]


def _word_dropout(x: Tokens, share: float, rng: Any, vocabulary_size: int) -> Tokens:
    return np.where((rng.random_sample(x.shape) < share) & (x > text.START), text.UNKNOWN, x)


def _word_replacement(x: Tokens, share: float, rng: Any, vocabulary_size: int) -> Tokens:
    # Two numbers a token, so that the first reviews do not depend on how many follow. Zipf: the log of a rank is uniform.
    choice, word = np.moveaxis(rng.random_sample((*x.shape, 2)), -1, 0)
    drawn = text.FIRST_RANK + np.floor((vocabulary_size - text.FIRST_RANK) ** word)
    return np.where((choice < share) & (x > text.START), drawn, x)


# Strengths of images: Hendrycks & Dietterich 2019, arXiv 1903.12261, their make_cifar_c.py.
IMAGE_CORRUPTIONS: dict[str, tuple[Callable[..., Images], tuple[float, ...]]] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "gaussian_blur": (_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "brightness": (_brightness, (0.05, 0.10, 0.15, 0.20, 0.30)),
    "contrast": (_contrast, (0.75, 0.50, 0.40, 0.30, 0.15)),
    "pixelate": (_pixelate, (0.95, 0.90, 0.85, 0.75, 0.65)),
}
TOKEN_CORRUPTIONS: dict[str, tuple[Callable[..., Tokens], tuple[float, ...]]] = {
    "word_dropout": (_word_dropout, SHARES),
    "word_replacement": (_word_replacement, SHARES),
}
CORRUPTIONS = {
    "gaussian_noise": "normal noise on every channel",
    "shot_noise": "Poisson noise, as of few photons",
    "impulse_noise": "channels of single pixels black or white",
    "gaussian_blur": "a normal kernel of up to a pixel",
    "brightness": "a rise of the brightest channel, hue and saturation kept",
    "contrast": "less distance from the mean of the image",
    "pixelate": "fewer pixels, enlarged again",
    "word_dropout": "words become the token of words outside the vocabulary",
    "word_replacement": "words become others, by Zipf's law",
}


def corruptions_of(dataset: Dataset) -> tuple[str, ...]:
    """Return the names of the corruptions that suit the inputs of a data set; none for features, which have gap splits."""
    return tuple({"images": IMAGE_CORRUPTIONS, "tokens": TOKEN_CORRUPTIONS, "features": {}}[dataset.inputs])


def corrupt(dataset: Dataset, name: str, intensity: int, *, seed: int = 0) -> np.ndarray:
    """Corrupt the test inputs of a data set.

    Images are corrupted in original units, after any resizing, and then standardised by the statistics of training, as the clean
    ones are: noise of the published strengths is stronger relative to a smaller image's detail.

    Args:
        dataset: Images with intensities from 0 to 1, or tokens.
        name: A key of `CORRUPTIONS` that suits its inputs.
        intensity: 1 (mild) to 5.
        seed: Of the noise.

    Returns:
        [point, ...] standardised inputs, to take the place of `dataset.x_test`.

    Raises:
        ValueError: A corruption that does not suit the inputs, an intensity outside 1 to 5, or images outside 0 to 1.
    """
    if name not in corruptions_of(dataset):
        suits = f"known for {dataset.inputs} are {', '.join(corruptions_of(dataset)) or 'none: use gap splits'}"
        raise ValueError(f"{name!r} is no corruption of {dataset.inputs}; {suits}")
    if dataset.vocabulary_size is not None:
        return corrupt_tokens(dataset.x_test, name, intensity, vocabulary_size=dataset.vocabulary_size, seed=seed)
    return dataset.standardise(corrupt_images(dataset.original_inputs(dataset.x_test), name, intensity, seed=seed))


def corrupt_images(x: Images, name: str, intensity: int, *, seed: int = 0) -> Images:
    """Corrupt raw images.

    Strengths are those of CIFAR-10-C. Departures from its code: results are not rounded to 8 bits, and `pixelate` averages over
    areas where Pillow's box filter averages whole pixels; below 20 pixels, its neighbouring intensities may be the same.

    Args:
        x: Intensities from 0 to 1.
        name: One of the image corruptions of `CORRUPTIONS`.
        intensity: 1 (mild) to 5.
        seed: Of the noise.

    Returns:
        Intensities from 0 to 1, float32.

    Raises:
        ValueError: An unknown corruption or intensity, values outside 0 to 1, or images that are not square.

    References:
        Hendrycks & Dietterich 2019, arXiv 1903.12261.
    """
    apply = _corruption(IMAGE_CORRUPTIONS, name, intensity, seed)
    # Standardised and brought back, black and white are off by rounding of float32.
    if not (x.min() >= -1e-5 and x.max() <= 1 + 1e-5):
        raise ValueError(f"images must have intensities from 0 to 1, got {x.min():g} to {x.max():g}; divide by their white")
    if x.ndim != 4 or x.shape[1] != x.shape[2]:
        raise ValueError(f"images have shape {x.shape}, expected (n, size, size, channels)")
    return np.clip(apply(np.clip(x, 0, 1)), 0, 1).astype(np.float32)


def corrupt_tokens(x: Tokens, name: str, intensity: int, *, vocabulary_size: int, seed: int = 0) -> Tokens:
    """Corrupt reviews: every word is changed with probability 0.1 to 0.5, whatever the others are; padding and start stay.

    Args:
        x: Token ids, see `bayesnn.data.text`.
        name: `word_dropout` or `word_replacement`.
        intensity: 1 (mild) to 5.
        vocabulary_size: Replacements are below it.
        seed: Of the choice.

    Raises:
        ValueError: An unknown corruption or intensity.
    """
    return _corruption(TOKEN_CORRUPTIONS, name, intensity, seed)(x, vocabulary_size).astype(np.int32)


def _corruption(known: dict[str, Any], name: str, intensity: int, seed: int) -> Callable[..., Any]:
    if name not in known:
        raise ValueError(f"unknown corruption {name!r}{did_you_mean(name, known)}")
    if intensity not in INTENSITIES:
        raise ValueError(f"intensity must be from 1 (mild) to 5, got {intensity!r}")
    function, strengths = known[name]
    # RandomState, since NumPy promises that its stream never changes; seeded by all that decides the result.
    digest = hashlib.sha256(f"{seed} {name} {intensity}".encode()).digest()
    rng = np.random.RandomState(np.frombuffer(digest, "<u4"))
    return lambda x, *sizes: function(x, strengths[intensity - 1], rng, *sizes)
