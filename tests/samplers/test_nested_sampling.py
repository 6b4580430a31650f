"""Nested sampling: its slices, its volumes, its evidence, and how often the interval of the evidence covers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import logsumexp

from samplers import (
    Batch,
    Save,
    Target,
    Tempering,
    log_density_terms,
    nested_evidence,
    nested_sampling,
    sample,
)
from samplers.nested_sampling import Points, _slice
from tests.samplers.known_evidence import BATCH, COVARIANCE, LOG_EVIDENCE, MEAN, TARGET, prior_draws

pytestmark = pytest.mark.slow

NUM_POINTS, NUM_DEATHS = 200, 20
NESTED = nested_sampling(TARGET, num_moves=10, num_deaths=NUM_DEATHS, point_block=NUM_DEATHS)
ONE_BY_ONE = nested_sampling(TARGET, num_moves=2)
KEEP = Save(lambda state, arrays: (state.dead, state.num_live))


def is_done(run):
    return bool(run.state.done.all())


def run_nested(kernel=NESTED, num_runs=8, *, positions=None, batch=BATCH, num_steps=400, **options):
    positions = prior_draws(7, num_runs, NUM_POINTS) if positions is None else positions
    options = {"until": is_done, "chunk_draws": 20, "save": KEEP, **options}
    return sample(jax.random.key(0), kernel, positions, batch, num_steps=num_steps, **options)


def evidences(log_likelihood, num_live, run):
    return [nested_evidence(*x) for x in zip(log_likelihood, num_live, run.state.log_likelihood, strict=True)]


@pytest.fixture(scope="module")
def finished():
    result = run_nested()
    assert is_done(result.run)
    return result


@pytest.fixture(scope="module")
def found(finished):
    dead, num_live = finished.draws
    return evidences(dead.log_likelihood, num_live, finished.run)


def assert_mean(by_run, expected):
    """Independent runs: the mean is within five standard errors."""
    by_run = np.asarray(by_run, np.float64)
    error = by_run.std(axis=0, ddof=1) / np.sqrt(len(by_run))
    assert (np.abs(by_run.mean(axis=0) - expected) < 5 * error).all(), (by_run.mean(axis=0) - expected) / error


def test_estimates_the_evidence(finished, found):
    errors = np.array([x.standard_error for x in found])
    mean = np.mean([x.log_evidence for x in found])
    assert abs(mean - LOG_EVIDENCE) < 5 * errors.mean() / np.sqrt(len(found))
    # Of the dead alone, at expected volumes: what is left is below exp(-3) of it.
    assert abs(finished.run.state.log_evidence.mean() - mean) < np.exp(-3) + 5 * errors.mean() / np.sqrt(len(found))


def test_error_is_that_of_the_information(found):
    # The Kullback-Leibler divergence of one normal from another.
    prior_variance = 1.5**2
    shape = np.trace(COVARIANCE) / prior_variance + MEAN @ MEAN / prior_variance - len(MEAN)
    exact = 0.5 * (shape + len(MEAN) * np.log(prior_variance) - np.linalg.slogdet(COVARIANCE)[1])
    assert_mean([x.information for x in found], exact)
    # 200 simulations give a standard deviation to 5 %, the mean of 8 to 2 %; sqrt(H / n) is itself approximate, and deaths of 20
    # at a time make n 190 on average: 15 % in all.
    expected = np.sqrt(exact / NUM_POINTS)
    np.testing.assert_allclose(np.mean([x.standard_error for x in found]), expected, rtol=0.15)


def test_weighted_points_have_the_posterior_moments(finished, found):
    dead, _ = finished.draws
    live = np.asarray(finished.run.state.position)
    means, squares = [], []
    for i, estimate in enumerate(found):
        points = np.concatenate([dead.position[i].reshape(-1, live.shape[-1]), live[i]]).astype(np.float64)
        weights = np.exp(estimate.log_weights)
        np.testing.assert_allclose(weights.sum(), 1, rtol=1e-9)
        means.append(weights @ points)
        squares.append(np.einsum("p,pd,pe->de", weights, points - MEAN, points - MEAN))
    assert_mean(means, MEAN)
    assert_mean(squares, COVARIANCE)


def test_finds_the_weights_of_modes():
    """Two modes 12 standard deviations apart; slices cross between them only while both are below the threshold."""
    weight, centre = 0.7, 6.0 * jnp.ones((1, 3)) / jnp.sqrt(3.0)

    def log_likelihood(position, centre, constants):
        left, right = (-0.5 * jnp.sum((position - sign * centre) ** 2, axis=-1) for sign in (-1, 1))
        return jnp.logaddexp(jnp.log(1 - weight) + left, jnp.log(weight) + right)

    target = Target(lambda position, constants: -0.5 * jnp.sum((position / 6) ** 2), log_likelihood, num_data=1)
    kernel = nested_sampling(target, num_moves=10, num_deaths=50, point_block=50)
    positions = 6 * jax.random.normal(jax.random.key(2), (8, 500, 3))
    result = run_nested(kernel, positions=positions, batch=Batch(centre, jnp.ones(1)))
    dead, num_live = result.draws
    found = evidences(dead.log_likelihood, num_live, result.run)
    live = np.asarray(result.run.state.position)
    in_right = [
        np.exp(e.log_weights) @ (np.concatenate([dead.position[i].reshape(-1, 3), live[i]]).sum(axis=1) > 0)
        for i, e in enumerate(found)
    ]
    assert_mean(in_right, weight)
    assert np.std(in_right) < 0.15
    exact = 1.5 * np.log(2 * np.pi) + scipy.stats.multivariate_normal(np.zeros(3), 37 * np.eye(3)).logpdf(np.asarray(centre[0]))
    assert_mean([e.log_evidence for e in found], exact)


def test_slices_sample_the_prior_above_the_threshold():
    """A standard normal cut to x > 1/2: a truncated normal."""

    def at(start, place):
        x = start.position + 2 * place
        return Points(x, -0.5 * x**2, x)

    def move(point, key):
        moved, _ = _slice(key, point, jnp.float32(0.5), lambda place: at(point, place))
        return moved, moved.position

    x = jnp.float32(1)
    keys = jax.random.split(jax.random.key(0), 20_000)
    draws = np.asarray(jax.lax.scan(move, Points(x, -0.5 * x**2, x), keys)[1], np.float64)
    assert draws.min() > 0.5
    law = scipy.stats.truncnorm(0.5, np.inf)
    # Batches of 100 moves, each of which forgets most of its start.
    for values, expected in ((draws, law.mean()), ((draws - law.mean()) ** 2, law.var()), (draws < law.median(), 0.5)):
        batches = values.reshape(200, 100).mean(axis=1)
        assert abs(batches.mean() - expected) < 5 * batches.std(ddof=1) / np.sqrt(200)


def test_evidence_of_known_volumes():
    """Points whose volumes are drawn from their law, L = -X / 0.01: the integral is 0.01 (1 - exp(-100))."""
    rng = np.random.default_rng(0)

    def one():
        volumes = np.sort(rng.uniform(size=100))
        dead = []
        for _ in range(600):
            dead.append(volumes[-1])
            volumes = np.sort(np.append(volumes[:-1], dead[-1] * rng.uniform()))
        dead, live = -np.array(dead)[:, None] / 0.01, -volumes / 0.01
        return nested_evidence(dead, np.full_like(dead, 100, dtype=int), live)

    found = [one() for _ in range(40)]
    assert_mean([x.log_evidence for x in found], np.log(0.01))
    pulls = [(x.log_evidence - np.log(0.01)) / x.standard_error for x in found]
    # A standard deviation of 40 has a relative error of 11 %: four of them.
    assert abs(np.std(pulls) - 1) < 0.45


def test_volumes_and_evidence_of_the_first_step_by_hand():
    """Of twelve points the two lowest die: the first beside eleven others, the second beside ten."""
    kernel, positions = nested_sampling(TARGET, num_moves=2, num_deaths=2), prior_draws(1, 1, 12)
    begun = run_nested(kernel, positions=positions, num_steps=1, until=None)
    state = jax.tree.map(lambda x: np.asarray(x[0], np.float64), begun.run.state)
    lowest = np.sort([float(log_density_terms(TARGET, x, BATCH)[1]) for x in positions[0]])[:2]
    volumes = np.exp(-np.cumsum([0, 1 / 12, 1 / 11]))
    np.testing.assert_array_equal(state.num_live, [12, 11])
    # Some float32 roundings, of log likelihoods of the order of 100.
    np.testing.assert_allclose(state.dead.log_likelihood, lowest, rtol=1e-5)
    np.testing.assert_allclose(state.log_volume, np.log(volumes[-1]), rtol=1e-5)
    np.testing.assert_allclose(state.log_evidence, logsumexp(lowest, b=-np.diff(volumes)), rtol=1e-5)


def test_once_done_nobody_dies(finished):
    after = run_nested(num_steps=3, run=finished.run, until=None)
    assert after.draws[1].sum() == 0
    assert after.info.num_gradients.sum() == 0
    expected = finished.run.state._replace(num_live=np.zeros_like(finished.run.state.num_live))
    for x, y in zip(jax.tree.leaves(after.run.state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


def test_temperatures_multiply_the_densities():
    kernel = nested_sampling(TARGET, num_moves=2, tempering=Tempering.at(2.0, 4.0))
    plain, tempered = (k.init(jax.random.key(0), prior_draws(1, 8), BATCH, k.initial_tuning) for k in (ONE_BY_ONE, kernel))
    np.testing.assert_array_equal(tempered.log_prior, plain.log_prior / 2)
    np.testing.assert_array_equal(tempered.log_likelihood, plain.log_likelihood / 8)


@pytest.mark.parametrize("bad", [{"num_moves": 0}, {"num_deaths": 0}, {"point_block": 2}, {"log_remainder": 1.0}])
def test_refuses_arguments_outside_their_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        nested_sampling(TARGET, **{"num_moves": 2, "num_deaths": 3, **bad})


def test_refuses_too_few_points_and_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="too few"):
        run_nested(ONE_BY_ONE, positions=prior_draws(0, 1, 6))
    with pytest.raises(ValueError, match="expected"):
        nested_evidence(np.zeros((3, 1)), np.zeros((2, 1)), np.zeros(4))
