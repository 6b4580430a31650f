"""Convergence along directions, and draws that must be prior draws."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from diagnostics import directions
from diagnostics.convergence import rhat
from diagnostics.summary import TOTAL
from diagnostics.trees import make_tree

ATTRS = {"kind": "mcmc", "task": "density"}


def tree_of(draws):
    return make_tree(attrs=ATTRS, posterior={"layer_0.kernel": draws[..., :40], "layer_0.bias": draws[..., 40:]})


def test_leading_directions_are_found_whichever_matrix_is_smaller():
    rng = np.random.default_rng(0)
    scales = np.array([5.0, 3.0, *np.full(298, 0.1)])
    basis = np.linalg.qr(rng.normal(size=(300, 300)))[0]
    draws = (rng.normal(size=(2, 400, 300)) * scales) @ basis
    for some in (draws, draws[:, :50]):  # more draws than scalars, and fewer
        found = directions.leading_directions(some, 2)
        np.testing.assert_allclose(found.T @ found, np.eye(2), atol=1e-10)  # rounding of a product of 300 terms
        # The two mix by the noise of 100 draws, 0.1 (5 x 3) / (25 - 9) = 0.09; 298 small ones take 298 / 100 (0.1 / 3)^2 = 0.003.
        assert (np.sum(found.T * basis[:2], 1) ** 2 > 1 - (4 * 0.09) ** 2).all()
    assert directions.leading_directions(draws[:1, :4], 10).shape == (300, 3)


@pytest.mark.parametrize("num_chains", [3, 4, 5])
def test_a_displacement_that_no_coordinate_shows_is_seen_along_directions(simulate, num_chains):
    """A displacement by 5 standard deviations along one direction of 50 weights is one of 0.7 in each of them."""
    stationary = simulate.autoregressive(np.random.default_rng(1), np.full(50, 0.3), num_chains, 400)
    moved = stationary.copy()
    moved[::4] += 5 / np.sqrt(50)
    moved[1::4] -= 5 / np.sqrt(50)
    clean, found = (directions.along_leading(tree_of(draws), 5).sel(threshold=1.1, layer=TOTAL) for draws in (stationary, moved))
    assert found.sizes["tested"] == 2
    assert (clean["share"] == 0).all()
    assert float(found["share"].max()) == pytest.approx(0.2)  # one direction of five


def test_directions_chosen_on_the_tested_draws_would_raise_false_alarms(simulate):
    """The negative control: leading directions of few draws of many weights look bad on the same chains, and not on others."""
    draws = simulate.autoregressive(np.random.default_rng(2), np.full(400, 0.9), 4, 200)
    same = np.median(rhat(draws @ directions.leading_directions(draws, 5)))
    held_out = np.median(rhat(draws[1::2] @ directions.leading_directions(draws[::2], 5)))
    assert same > held_out + 0.1


def test_runs_that_cannot_be_split_are_refused():
    rng = np.random.default_rng(3)
    with pytest.raises(ValueError, match="2 chains"):
        directions.along_leading(tree_of(rng.normal(size=(1, 100, 50))))
    with pytest.raises(ValueError, match="8 draws"):
        directions.along_leading(tree_of(rng.normal(size=(2, 7, 50))))
    with pytest.raises(ValueError, match="layer_0 are not finite"):
        directions.along_leading(tree_of(np.full((2, 20, 50), np.nan)))


def test_null_directions_of_digits_are_its_dark_pixels():
    found = directions.null_directions(load_digits().data.astype(np.float32))
    assert found.shape == (64, 3)
    np.testing.assert_allclose(np.square(found[[0, 32, 39]]).sum(1), 1, atol=1e-6)  # rounding of float32


def test_null_directions_of_small_matrices():
    assert directions.null_directions(np.ones((10, 1))).shape == (1, 0)  # constant, and yet it moves the outputs
    assert directions.null_directions(np.ones((10, 2))).shape == (2, 1)
    assert directions.null_directions(np.random.default_rng(0).normal(size=(3, 5))).shape == (5, 2)
    with pytest.raises(ValueError, match="finite matrix"):
        directions.null_directions(np.full((3, 2), np.nan))


def test_rotated_null_directions_do_not_move_the_outputs():
    rng = np.random.default_rng(4)
    inputs = (rng.normal(size=(100, 6)) @ rng.normal(size=(6, 9))).astype(np.float32)
    found = directions.null_directions(inputs)
    assert found.shape == (9, 3)
    assert np.abs(inputs @ found).max() < 1e-5  # rounding of float32 inputs of size 3, in sums of 9


@pytest.mark.parametrize(("stride", "padding"), [((1, 1), "SAME"), ((2, 2), "SAME"), ((1, 1), "VALID")])
def test_null_directions_of_patches_do_not_move_a_convolution(stride, padding):
    rng = np.random.default_rng(5)
    images = rng.normal(size=(4, 6, 7, 3)).astype(np.float32)
    images[..., 2] = images[..., 0] - images[..., 1]  # of 3 x 2 x 3 directions a third are null
    found = directions.null_directions(directions.image_patches(images, (3, 2)))
    assert found.shape == (18, 6)
    kernel = rng.normal(size=(3, 2, 3, 5)).astype(np.float32)
    moved = kernel + (found @ rng.normal(size=(6, 5))).reshape(kernel.shape).astype(np.float32)

    def convolve(kernel):
        return jax.lax.conv_general_dilated(images, kernel, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    np.testing.assert_allclose(convolve(moved), convolve(kernel), atol=1e-4)  # sums of 18 float32 products of order 3
    assert np.abs(convolve(moved[::-1]) - convolve(kernel)).max() > 0.1


def posterior_kernel(rng, inputs, prior_scale, temperature, num_draws=500):
    """Exact draws of Bayesian linear regression with noise 1, (4, draw, feature, 2), at a temperature."""
    precision = inputs.T @ inputs + np.eye(inputs.shape[1]) / prior_scale**2
    factor = np.linalg.cholesky(np.linalg.inv(precision) * temperature)
    return factor @ rng.normal(size=(4, num_draws, inputs.shape[1], 2))


@pytest.mark.parametrize("prior_scale", [0.3, 2.0])
def test_exact_draws_pass_and_hot_and_cold_ones_fail(prior_scale):
    rng = np.random.default_rng(6)
    inputs = rng.normal(size=(30, 4)) @ rng.normal(size=(4, 8))
    null = directions.null_directions(inputs)
    verdicts = {}
    for temperature in (1.0, 1.1, 0.9):
        kernel = posterior_kernel(rng, inputs, prior_scale, temperature)
        verdicts[temperature] = directions.null_finding(directions.null_spread(kernel, null, prior_scale), None).verdict
    assert verdicts == {1.0: "pass", 1.1: "fail", 0.9: "fail"}
    tempered = directions.null_spread(posterior_kernel(rng, inputs, prior_scale, 0.1), null, prior_scale)
    assert directions.null_finding(tempered, None, 0.1).verdict == "pass"
    assert directions.null_finding(tempered, None).verdict == "fail"


def test_null_directions_without_a_verdict():
    rng = np.random.default_rng(7)
    inputs = rng.normal(size=(30, 4)) @ rng.normal(size=(4, 8))
    null = directions.null_directions(inputs)
    kernel = posterior_kernel(rng, inputs, 1.0, 1.0, 6)
    few = directions.null_spread(kernel, null, 1.0)
    assert directions.null_finding(few, None).verdict == "inconclusive"
    other = directions.null_finding(few, "StudentT")
    assert (other.verdict, other.value) == ("not applicable", few.spread.value)
    none = directions.null_spread(kernel, directions.null_directions(np.eye(8)), 1.0)
    assert directions.null_finding(none, None).verdict == "not applicable"
    with pytest.raises(ValueError, match="8 features"):
        directions.null_spread(kernel, np.zeros((5, 1)), 1.0)


def test_false_alarms_along_null_directions_are_rare():
    """Exact draws, just enough for a verdict; intervals of 95 % would have failed one run in fifty."""
    rng, verdicts = np.random.default_rng(8), []
    for _ in range(500):
        kernel = rng.normal(size=(4, 55, 2, 2))
        verdicts.append(directions.null_finding(directions.null_spread(kernel, np.eye(2), 1.0), None).verdict)
    assert verdicts.count("fail") <= 4  # of 500 at 0.001; more have a probability below 0.001
    assert verdicts.count("pass") > 200
