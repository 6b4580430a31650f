"""Laplace's method at a network's minima, against the integral itself, and where it does not apply."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import bayesnn
from bayesnn import data, likelihoods, models, priors
from bayesnn.measure.classify import by_minima
from bayesnn.measure.laplace import laplace_masses

NOISE, SCALE = 0.5, 1.0
SPACING = 0.04  # of the grid, of which a posterior's standard deviation holds several
KEY = jax.random.key(0)


def network(x, y, units=1, noise=NOISE, scale=SCALE):
    dataset = data.from_arrays(x[:, None], y, x[:, None], y, name="bump")
    return bayesnn.posterior(models.mlp([units], 1, "tanh"), priors.gaussian(scale), likelihoods.gaussian(noise), dataset)


@pytest.fixture(scope="module")
def bump():
    """A step up and one down, which weigh about the same, and one unit: it fits either, with 60 nats between the two."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-5, 5, size=160)
    y = np.tanh(x + 2) - 0.955 * np.tanh(x - 2) + 0.2 * rng.normal(size=160)
    return network(x, y)


def exact_log_masses(posterior):
    """Log masses of the networks that step up on the left and of those that step down on the right, of both signs.

    The outer weight and bias integrate out; what is left is an integral over the inner ones, by a grid that reaches 6 standard
    deviations of the prior.
    """
    x, y = posterior.dataset.x_train[:, 0].astype(float), posterior.dataset.y_train.astype(float)
    grid = np.arange(-6 * SCALE, 6 * SCALE, SPACING)
    logs = np.full((2, len(grid), len(grid)), -np.inf)
    for row, weight in enumerate(grid):
        design = np.tanh(weight * x + grid[:, None])  # [bias, example]
        features = np.stack([design, np.ones_like(design)], 1)
        precision = features @ features.swapaxes(1, 2) / NOISE**2 + np.eye(2) / SCALE**2
        shift = features @ y / NOISE**2
        fit = np.einsum("bi,bij,bj->b", shift, np.linalg.inv(precision), shift)
        value = 0.5 * (fit - y @ y / NOISE**2 - np.linalg.slogdet(precision)[1]) - 2 * math.log(SCALE)
        value -= len(y) * math.log(NOISE * math.sqrt(2 * math.pi)) + (weight**2 + grid**2) / (2 * SCALE**2)
        value += 2 * math.log(SPACING) - math.log(2 * math.pi * SCALE**2)
        is_left = -grid / weight < 0 if weight else grid < 0
        logs[0, row], logs[1, row] = np.where(is_left, value, -np.inf), np.where(is_left, -np.inf, value)
    return logsumexp(logs, axis=(1, 2))


def reference_of(posterior, num_starts=24, system=None):
    rng = np.random.default_rng(1)
    starts = []
    for place in range(num_starts):  # on the left and on the right, of either sign
        weight, centre, sign = 2 + 0.2 * rng.normal(), (-0.7, 0.7)[place % 2], (-1, 1)[place // 2 % 2]
        starts.append([weight * sign, -weight * centre * sign, sign * (1 - 2 * (place % 2)), 0.1 * rng.normal()])
    w, b, v, c = np.array(starts).T
    return by_minima(
        posterior,
        {
            "layer_0": {"kernel": jnp.asarray(w[:, None, None], float), "bias": jnp.asarray(b[:, None], float)},
            "layer_1": {"kernel": jnp.asarray(v[:, None, None], float), "bias": jnp.asarray(c[:, None], float)},
        },
        np.arange(num_starts) * 4 // num_starts if system is None else system,
    )


def test_masses_of_basins_are_those_of_the_integral(bump):
    classifier, reference, _ = reference_of(bump)
    assert classifier.num_regions == 2
    assert reference.unseen == 0
    found = laplace_masses(KEY, bump, reference)
    assert found.reason == ""
    kernel = reference.minima.position["layer_0"]
    centres = -kernel["bias"][:, 0] / kernel["kernel"][:, 0, 0]
    order = np.argsort(centres)  # left, right
    assert centres[order[0]] < 0 < centres[order[1]]
    exact = exact_log_masses(bump)
    error = found.minima["reference_log_mass_error"].values[order]
    assert (error < 0.1).all()
    # The error is what the ratios say that the Gaussian misses: two of them hold the truth.
    assert (np.abs(found.minima["reference_log_mass"].values[order] - exact) < 2 * error).all()
    np.testing.assert_allclose(found.minima["reference_log_copies"], math.log(2))  # both signs of the unit
    share = found.masses.share[reference.number[order]]
    assert np.abs(share - np.exp(exact - logsumexp(exact))).max() < 2 * found.masses.standard_error.max()
    assert not found.masses.is_exact


def test_without_the_copies_it_would_be_wrong(bump):
    found = laplace_masses(KEY, bump, reference_of(bump)[1]).minima
    total = logsumexp(exact_log_masses(bump))
    assert abs(logsumexp(found["reference_log_mass"]) - total) < 0.3
    assert abs(logsumexp(found["reference_log_mass"] - found["reference_log_copies"]) - total) > 0.3


def test_it_does_not_apply_where_the_posterior_is_not_gaussian_or_minima_are_unseen(bump):
    _, reference, _ = reference_of(bump)
    wide = reference._replace(minima=reference.minima._replace(hessian=100 * reference.minima.hessian))
    found = laplace_masses(KEY, bump, wide)  # a posterior ten times as wide as the Gaussian
    assert found.masses is None
    assert "not nearly Gaussian" in found.reason
    alone = laplace_masses(KEY, bump, reference._replace(unseen=0.25))
    assert alone.masses is None
    assert "25% of the posterior" in alone.reason
    flat = reference._replace(minima=reference.minima._replace(hessian=np.zeros_like(reference.minima.hessian)))
    assert "flat" in laplace_masses(KEY, bump, flat).reason


def test_draws_that_are_alone_over_their_minimum_count_as_unseen(bump):
    assert reference_of(bump, 3)[1].unseen == pytest.approx(1 / 3)


def test_draws_of_one_system_see_a_minimum_once(bump):
    """Twelve draws over either minimum, all of one system, as where they have one ancestor: that tells of no other system."""
    reference = reference_of(bump, system=np.arange(24) % 2)[1]
    assert reference.unseen == 1
    assert sorted(reference.found.tolist()) == [[False, True], [True, False]]
    assert laplace_masses(KEY, bump, reference).masses is None


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_copies_of_networks_with_dead_and_like_units_are_fewer(dead):
    """Three units: 48 copies; of those that do nothing signs make no copy, nor does their order."""
    from bayesnn.measure.gradient_flow import Minima
    from bayesnn.measure.laplace import _log_copies

    posterior = network(np.linspace(-1, 1, 20), np.arange(20.0), units=3)
    w, b, v = np.array([1.0, 2.0, 3.0]), np.array([0.3, -0.2, 0.1]), np.array([1.0, -1.0, 0.5])
    for array in (w, b, v):
        array[:dead] = 0
    position = {"layer_0": {"kernel": w[None], "bias": b}, "layer_1": {"kernel": v[:, None], "bias": np.zeros(1)}}
    copies = set()
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            moved = [np.array(signs) * array[list(order)] for array in (w, b, v)]
            copies.add(tuple(np.concatenate(moved) + 0.0))  # no negative zeros
    minimum = Minima(position, np.float64(0), np.eye(10), np.bool_(True))
    assert _log_copies(posterior, minimum) == pytest.approx(math.log(len(copies)))


@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.slow
def test_the_command_weighs_regions_of_minima_by_three_methods(cli, tmp_path):
    from bayesnn.measure.store import read_measure
    from bayesnn.run_folder import RunFolder

    experiment = tmp_path / "bump.py"
    experiment.write_text(BUMP)
    assert cli("run", f"{experiment}:experiment", "--name", "bump", "--runs", tmp_path).status == 0
    small = ("--systems", 8, "--particles", 64, "--rungs", 12, "--ladder-warmup", 200, "--ladder-draws", 200, "--minima", 16)
    outcome = cli("measure", tmp_path / "bump", "basins", "--regions", "minima", "--labelled", 16, *small)
    assert outcome.status in (0, 1), outcome.err
    found = read_measure(RunFolder.open(tmp_path / "bump"), "basins")
    assert found.tree.attrs["laplace"] == "", found.tree.attrs["laplace"]
    table = found.tree["regions"].to_dataset()
    assert table["estimator"].values.tolist() == ["tempered SMC", "parallel tempering", "Laplace"]
    # Intervals of independent methods overlap, widened by a half for three comparisons in two regions.
    lower, upper = table["mass_lower"].values, table["mass_upper"].values
    reach = 0.75 * (upper - lower)
    for one, other in itertools.combinations(range(3), 2):
        assert (np.abs(table["mass"].values[one] - table["mass"].values[other]) < np.hypot(reach[one], reach[other])).all()


BUMP = """
import numpy as np
from bayesnn import data
from bayesnn.config import HMC, MLP, Data, GaussianNoise, GaussianPrior, RunConfig, WarmUp

def bump():
    rng = np.random.default_rng(0)
    x = rng.uniform(-5, 5, size=160)
    y = np.tanh(x + 2) - 0.955 * np.tanh(x - 2) + 0.2 * rng.normal(size=160)
    return data.from_arrays(x[:, None], y, x[:, None], y, name="bump")

def experiment():
    return RunConfig(
        data=Data(name=__file__ + ":bump"), model=MLP(widths=(1,), activation="tanh"), prior=GaussianPrior(scale=1.0),
        likelihood=GaussianNoise(noise=0.5), sampler=HMC(step_size=0.05), warmup=WarmUp(steps=100), chains=8, draws=60,
    )
"""
