"""The likelihood that averages over copies of images is that average, and only training sees it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import samplers
from bayesnn import data, likelihoods, models, priors
from bayesnn.augmentation import flips, shifts
from bayesnn.posteriors import posterior

IMAGES = jnp.arange(2 * 3 * 3, dtype=jnp.float32).reshape(2, 3, 3, 1)


def test_copies():
    moved = shifts(IMAGES)[:, 0, :, :, 0]
    np.testing.assert_array_equal(moved[0], IMAGES[0, :, :, 0])
    np.testing.assert_array_equal(moved[1], [[0, 1, 2], [0, 1, 2], [3, 4, 5]])  # down: the upper edge is repeated
    np.testing.assert_array_equal(moved[4], [[1, 2, 2], [4, 5, 5], [7, 8, 8]])  # left
    np.testing.assert_array_equal(flips(IMAGES)[1, 0, :, :, 0], [[2, 1, 0], [5, 4, 3], [8, 7, 6]])


@pytest.mark.parametrize("augmentation", ["shifts", "flips"])
def test_the_log_likelihood_is_the_mean_over_copies(augmentation):
    digits = data.load("digits_images")
    make = {"shifts": shifts, "flips": flips}[augmentation]
    augmented, plain = (
        posterior(models.mlp([5], 10), priors.gaussian(0.3), likelihood, digits)
        for likelihood in (likelihoods.augmented(augmentation), likelihoods.categorical())
    )
    position = jax.tree.map(lambda x: x[0], plain.init(jax.random.key(0), 1))
    copies = make(jnp.asarray(digits.x_train))
    by_copy = [
        samplers.log_density_terms(plain.target, position, plain.batch._replace(data=(copy, plain.batch.data[1])))[1]
        for copy in copies
    ]
    # Float32 sums over 1,437 examples of some nats: relative rounding of 1e-6.
    assert float(augmented.terms(position)[1]) == pytest.approx(float(np.mean(by_copy)), rel=1e-5)
    assert float(augmented.terms(position)[0]) == float(plain.terms(position)[0])
    x, y = jnp.asarray(digits.x_test), jnp.asarray(digits.y_test)
    np.testing.assert_array_equal(augmented.test_log_likelihood(position, x, y), plain.test_log_likelihood(position, x, y))


def test_augmentation_needs_images():
    with pytest.raises(ValueError, match="is for images; digits has features"):
        posterior(models.mlp([5], 10), priors.gaussian(0.3), likelihoods.augmented("flips"), data.load("digits"))
    with pytest.raises(ValueError, match="did you mean 'flips'"):
        likelihoods.augmented("flip")
