"""Planes through three draws: where the draws lie, what the density is there, and what alignment changes."""

import jax.numpy as jnp
import numpy as np
import pytest

import bayesnn
from bayesnn import data, likelihoods, models, priors
from bayesnn.report.surface import LIMITS, draw_surfaces, surface, surfaces
from diagnostics.trees import make_tree
from diagnostics.units import copy_units, mlp_symmetries, to_json

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 2))
CURVE = data.from_arrays(X, np.sin(X[:, 0]), X[:3], np.sin(X[:3, 0]), name="curve")
POSTERIOR = bayesnn.posterior(models.mlp([3], 1, "tanh"), priors.gaussian(), likelihoods.gaussian(), CURVE, temperature=0.5)
DRAWS = [
    {name: RNG.normal(size=leaf.shape).astype(np.float32) for name, leaf in models.named(POSTERIOR.like).items()} for _ in "abc"
]


def flat(weights):
    return np.concatenate([np.ravel(weights[name]) for name in sorted(weights)])


def test_the_plane_goes_through_the_draws_and_has_their_densities():
    found = surface(POSTERIOR, *DRAWS, size=11)  # a step of a quarter: 0 and 1 are among the places
    origin, second, third = map(flat, DRAWS)
    along = second - origin
    share = (third - origin) @ along / (along @ along)
    np.testing.assert_allclose(found.draws, [[0, 0], [1, 0], [share, 1]], atol=1e-6)
    assert (found.x[0], found.x[-1]) == LIMITS
    row, columns = np.argmin(np.abs(found.y)), [np.argmin(np.abs(found.x)), np.argmin(np.abs(found.x - 1))]
    for column, weights in zip(columns, DRAWS, strict=False):
        prior, likelihood = POSTERIOR.terms(models.nest({name: jnp.asarray(array) for name, array in weights.items()}))
        # Sums of 20 float32 terms.
        np.testing.assert_allclose(found.log_prior[row, column], prior, rtol=1e-5)
        np.testing.assert_allclose(found.log_likelihood[row, column], likelihood, rtol=1e-5)
        np.testing.assert_allclose(found.log_posterior[row, column], 2 * (prior + likelihood), rtol=1e-5)
    # The log prior of a Gaussian is minus half the squared distance to its centre: a parabola, in units of |v|.
    height = np.linalg.norm(third - origin - share * along)
    curvature = np.diff(found.log_prior[:, 0], 2) / 0.25**2
    np.testing.assert_allclose(curvature, -(height**2), rtol=1e-2)  # the noise's own prior has sd 1, too; float32 differences


def test_a_run_gives_planes_in_a_chain_and_across_chains_raw_and_aligned():
    """Three chains in copies of one another have one plane each, and after alignment hardly differ on it."""
    rng = np.random.default_rng(1)
    [group] = architecture = mlp_symmetries(["layer_0", "layer_1"], "tanh")
    noisy = {name: array + 0.01 * rng.normal(size=(3, 4, *array.shape)) for name, array in DRAWS[0].items()}
    order = np.broadcast_to(np.array([[0, 1, 2], [2, 0, 1], [1, 2, 0]])[:, None], (3, 4, 3))
    planted = copy_units(noisy, group, order, np.ones((3, 4, 1, 3), np.int8))
    attrs = {"kind": "mcmc", "task": "regression", "architecture": to_json(architecture)}
    tree = make_tree(attrs=attrs, posterior=planted)
    found = surfaces(POSTERIOR, tree, size=6)
    places = ("one chain", "three chains")
    assert list(found) == [f"{place}, {words}" for place in places for words in ("as drawn", "aligned")]
    ranges = {title: np.ptp(one.log_likelihood) for title, one in found.items()}
    assert ranges["three chains, aligned"] < 0.2 * ranges["three chains, as drawn"]
    assert ranges["one chain, aligned"] == pytest.approx(ranges["one chain, as drawn"], rel=1e-4)  # a chain stays in its copy
    figure = draw_surfaces(found)
    assert [axis.get_title() for axis in figure.axes[:4]] == list(found)
    assert [axis.get_ylabel() for axis in figure.axes[:12:4]] == ["log posterior", "log likelihood", "log prior"]
    figure.draw_without_rendering()
    with pytest.raises(ValueError, match="needs three draws, the run has 2"):
        surfaces(POSTERIOR, make_tree(attrs=attrs, posterior={name: array[:, :2] for name, array in planted.items()}))


def test_draws_on_a_line_have_no_plane():
    half = {name: (DRAWS[0][name] + DRAWS[1][name]) / 2 for name in DRAWS[0]}
    with pytest.raises(ValueError, match="lie on one line"):
        surface(POSTERIOR, DRAWS[0], DRAWS[1], half)
    with pytest.raises(ValueError, match="at least 2 places"):
        surface(POSTERIOR, *DRAWS, size=1)
