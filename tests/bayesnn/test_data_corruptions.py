"""Corruptions: deterministic, stronger with intensity, exact where a formula is known."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from bayesnn import data
from bayesnn.data import corruptions
from bayesnn.data.corruptions import IMAGE_CORRUPTIONS, INTENSITIES, TOKEN_CORRUPTIONS

RNG = np.random.default_rng(0)
# Smooth images of three channels, away from black and white, with structure at all scales.
WAVES = 0.5 + 0.3 * np.sin(
    RNG.uniform(0.2, 2.0, (64, 1, 1, 3)) * np.arange(24)[:, None, None] * (1 + np.arange(24)[:, None]) / 12
)
TOKENS = np.where(RNG.random((200, 100)) < 0.2, 0, RNG.integers(1, 20_000, (200, 100))).astype(np.int32)


def corrupted(name, intensity, seed=0, rows=slice(None)):
    if name in IMAGE_CORRUPTIONS:
        return corruptions.corrupt_images(WAVES[rows], name, intensity, seed=seed)
    return corruptions.corrupt_tokens(TOKENS[rows], name, intensity, vocabulary_size=20_000, seed=seed)


def test_every_corruption_is_described():
    assert set(corruptions.CORRUPTIONS) == IMAGE_CORRUPTIONS.keys() | TOKEN_CORRUPTIONS.keys()
    assert all(len(strengths) == len(INTENSITIES) for _, strengths in (IMAGE_CORRUPTIONS | TOKEN_CORRUPTIONS).values())


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_the_same_seed_gives_the_same_and_a_longer_set_begins_with_the_same(name):
    np.testing.assert_array_equal(corrupted(name, 3), corrupted(name, 3))
    np.testing.assert_array_equal(corrupted(name, 3)[:5], corrupted(name, 3, rows=slice(5)))
    is_random = name not in ("gaussian_blur", "brightness", "contrast", "pixelate")
    assert np.array_equal(corrupted(name, 3), corrupted(name, 3, seed=1)) != is_random


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_distance_from_the_clean_inputs_grows_with_intensity(name):
    clean = WAVES if name in IMAGE_CORRUPTIONS else TOKENS
    distances = [
        np.mean((corrupted(name, intensity) != clean) * np.abs(corrupted(name, intensity) - clean)) for intensity in INTENSITIES
    ]
    assert distances[0] > 0
    assert np.all(np.diff(distances) > 0)


def test_noise_has_the_stated_strength():
    flat = np.full((50, 20, 20, 3), 0.5)
    noisy = corruptions.corrupt_images(flat, "gaussian_noise", 5) - flat
    count = flat.size
    # Five standard errors of a mean and of a standard deviation; clipping at 0 and 1 is 5 sd away.
    assert abs(noisy.mean()) < 5 * 0.10 / np.sqrt(count)
    assert abs(noisy.std() - 0.10) < 5 * 0.10 / np.sqrt(2 * count)
    shot = corruptions.corrupt_images(flat, "shot_noise", 1) - flat
    assert abs(shot.var() - 0.5 / 500) < 5 * 0.001 * np.sqrt(2 / count)
    impulse = corruptions.corrupt_images(flat, "impulse_noise", 4)
    for extreme in (0, 1):
        assert abs((impulse == extreme).mean() - 0.025) < 5 * np.sqrt(0.025 / count)


def test_brightness_is_a_rise_of_the_value_in_hsv():
    pixels = np.concatenate([RNG.random((6, 3)), [[0, 0, 0], [1, 1, 1], [0.9, 0.2, 0.2]]])
    found = corruptions.corrupt_images(pixels.reshape(1, 3, 3, 3), "brightness", 4).reshape(-1, 3)
    for pixel, result in zip(pixels, found, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        # float32 rounding.
        np.testing.assert_allclose(result, colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1)), atol=1e-6)


def test_pixelation_leaves_as_few_values_as_pixels():
    for intensity, share in zip(INTENSITIES, (0.95, 0.90, 0.85, 0.75, 0.65), strict=True):
        coarse = corrupted("pixelate", intensity)
        assert len(np.unique(coarse[0, :, 0, 0])) == len(np.unique(coarse[0, 0, :, 0])) == int(24 * share)
    halves = np.repeat([0.2, 0.7], 12).reshape(1, 24, 1, 1) * np.ones((1, 24, 24, 3))
    # 18 pixels: the boundary falls between two of them, and nothing is mixed; rounding of float32.
    np.testing.assert_allclose(corruptions.corrupt_images(halves, "pixelate", 4), halves, atol=1e-6)


def test_contrast_keeps_the_mean_of_an_image():
    np.testing.assert_allclose(corrupted("contrast", 5).mean((1, 2)), WAVES.mean((1, 2)), atol=1e-5)  # float32 sums over 576
    np.testing.assert_allclose(corrupted("contrast", 5).std((1, 2)), 0.15 * WAVES.std((1, 2)), rtol=1e-5)


def test_words_are_changed_as_often_as_stated_and_nothing_else_is():
    is_word = TOKENS > 1
    for name in TOKEN_CORRUPTIONS:
        changed = corrupted(name, 4)
        assert np.array_equal(changed[~is_word], TOKENS[~is_word])
        share = (changed != TOKENS)[is_word].mean()
        # A replacement may be the word itself; with 20,000 words hardly. Five binomial standard errors.
        assert abs(share - 0.4) < 5 * np.sqrt(0.24 / is_word.sum())
        assert changed.dtype == np.int32
    replaced = corrupted("word_replacement", 5)
    assert replaced[is_word].min() >= 2
    assert replaced.max() < 20_000
    assert np.all(corrupted("word_dropout", 5)[(corrupted("word_dropout", 5) != TOKENS)] == 2)


def test_corrupted_test_inputs_are_standardised_by_training():
    digits = data.load("digits_images")
    bright = data.corrupt(digits, "brightness", 5)
    assert (bright.shape, bright.dtype) == (digits.x_test.shape, np.float32)
    raw = digits.original_inputs(digits.x_test)
    # Grey images: the intensity itself rises; float32 rounding of values up to 3, times the scale.
    np.testing.assert_allclose(digits.original_inputs(bright), np.minimum(raw + 0.3, 1), atol=1e-6)
    np.testing.assert_array_equal(digits.x_test, data.load("digits_images").x_test)
    assert set(data.corruptions_of(digits)) == set(IMAGE_CORRUPTIONS)


def test_reviews_are_corrupted_through_the_same_door():
    reviews = data.from_arrays(TOKENS, np.arange(200) % 2, TOKENS, np.arange(200) % 2, inputs="tokens", vocabulary_size=20_000)
    np.testing.assert_array_equal(data.corrupt(reviews, "word_dropout", 2), corrupted("word_dropout", 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.corrupt(data.load("wine"), "contrast", 1), "no corruption of features; .* none: use gap splits"),
        (lambda: data.corrupt(data.load("digits_images"), "word_dropout", 1), "no corruption of images; known .* gaussian_noise"),
        (lambda: corrupted("contrast", 6), "intensity must be from 1"),
        (lambda: corruptions.corrupt_images(WAVES, "contrst", 1), "did you mean 'contrast'"),
        (lambda: corruptions.corrupt_images(255 * WAVES, "contrast", 1), "intensities from 0 to 1"),
        (lambda: corruptions.corrupt_images(WAVES[:, :4], "pixelate", 1), "expected \\(n, size, size, channels\\)"),
    ],
)
def test_what_cannot_be_corrupted(call, message):
    with pytest.raises(ValueError, match=message):
        call()
