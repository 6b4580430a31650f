"""Tempered SMC: its stages, its weights, its evidence, and how often the interval of the evidence covers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from samplers import (
    Batch,
    Target,
    Tempering,
    hmc,
    mala,
    mean_evidence,
    sample,
    sghmc,
    sgld,
    tempered_smc,
)
from samplers.tempered_smc import ParticleState, _variances_of_other_half, next_beta
from tests.samplers.analytic import NOISE, PRIOR_SCALE
from tests.samplers.known_evidence import BATCH, COVARIANCE, LOG_EVIDENCE, MEAN, TARGET, prior_draws

pytestmark = pytest.mark.slow

NUM_PARTICLES, NUM_SYSTEMS = 200, 8
MALA = mala(TARGET, step_size=0.9)
SMC = tempered_smc(MALA, TARGET, particle_block=NUM_PARTICLES, target_acceptance_rate=0.6)


def is_done(run):
    return bool(run.state.done.all())


def run_systems(kernel=SMC, num_systems=NUM_SYSTEMS, num_steps=60, positions=None, target_batch=BATCH, **options):
    positions = prior_draws(0, num_systems, NUM_PARTICLES) if positions is None else positions
    options = {"until": is_done, "chunk_draws": 5, "save": None, **options}
    return sample(jax.random.key(0), kernel, positions, target_batch, num_steps=num_steps, **options)


@pytest.fixture(scope="module")
def finished():
    run = run_systems().run
    assert is_done(run)
    return run


def assert_mean(by_system, expected):
    """Independent systems: the mean is within five standard errors."""
    by_system = np.asarray(by_system, np.float64)
    error = by_system.std(axis=0, ddof=1) / np.sqrt(len(by_system))
    assert (np.abs(by_system.mean(axis=0) - expected) < 5 * error).all(), (by_system.mean(axis=0) - expected) / error


def test_estimates_the_evidence(finished):
    estimate = mean_evidence(finished.state.log_evidence)
    assert estimate.standard_error < 0.15
    assert abs(estimate.log_evidence - LOG_EVIDENCE) < 5 * estimate.standard_error


def test_weighted_particles_have_the_posterior_moments(finished):
    weights = np.exp(np.asarray(finished.state.log_weights, np.float64))
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)  # NUM_PARTICLES roundings
    positions = np.asarray(finished.state.position, np.float64)
    assert_mean(np.einsum("sp,spd->sd", weights, positions), MEAN)
    centred = positions - MEAN
    assert_mean(np.einsum("sp,spd,spe->sde", weights, centred, centred), COVARIANCE)


def test_at_a_temperature_particles_start_from_the_prior_tempered():
    """At T = 2 a normal prior, and so the posterior, has twice its variance; from the prior itself the evidence is wrong."""
    tuning = SMC.initial_tuning._replace(tempering=Tempering.at(2.0))
    right, wrong = (
        run_systems(positions=scale * prior_draws(0, NUM_SYSTEMS, NUM_PARTICLES), tuning=tuning).run.state
        for scale in (np.sqrt(2), 1)
    )
    # The square root of a normal density is one of twice the variance, but for its constant.
    x, y, noise = np.asarray(BATCH.data["x"], float), np.asarray(BATCH.data["y"], float), 2 * NOISE**2
    covariance = noise * np.eye(len(y)) + 2 * PRIOR_SCALE**2 * x @ x.T
    constant = len(y) / 2 * np.log(2 * np.pi * noise) - len(y) / 4 * np.log(2 * np.pi * NOISE**2)
    exact = constant + scipy.stats.multivariate_normal(np.zeros(len(y)), covariance).logpdf(y)
    estimate, other = mean_evidence(right.log_evidence), mean_evidence(wrong.log_evidence)
    assert abs(estimate.log_evidence - exact) < 5 * estimate.standard_error
    assert abs(other.log_evidence - exact) > 5 * other.standard_error
    weights, centred = np.exp(np.asarray(right.log_weights, np.float64)), np.asarray(right.position, np.float64) - MEAN
    assert_mean(np.einsum("sp,spd,spe->sde", weights, centred, centred), 2 * COVARIANCE)


def test_finds_the_weights_of_modes():
    """Two modes 12 standard deviations apart, in 3 dimensions, which the kernel never crosses."""
    weight, centre = 0.7, 6.0 * jnp.ones((1, 3)) / jnp.sqrt(3.0)

    def log_likelihood(position, centre, constants):
        left, right = (-0.5 * jnp.sum((position - sign * centre) ** 2, axis=-1) for sign in (-1, 1))
        return jnp.logaddexp(jnp.log(1 - weight) + left, jnp.log(weight) + right)

    target = Target(lambda position, constants: -0.5 * jnp.sum((position / 6) ** 2), log_likelihood, num_data=1)
    kernel = hmc(target, step_size=0.5, trajectory_length=1.5)
    positions = 6 * jax.random.normal(jax.random.key(2), (16, 400, 3))
    smc = tempered_smc(kernel, target, particle_block=400)
    state = run_systems(smc, positions=positions, target_batch=Batch(centre, jnp.ones(1))).run.state
    in_right = jnp.sum(jnp.exp(state.log_weights) * (state.position.sum(axis=-1) > 0), axis=1)
    assert_mean(in_right, weight)
    assert in_right.std() < 0.1
    # N(centre; 0, 37 I) in units of the normal density's constant: the likelihood is not normalised.
    exact = 1.5 * np.log(2 * np.pi) + scipy.stats.multivariate_normal(np.zeros(3), 37 * np.eye(3)).logpdf(np.asarray(centre[0]))
    estimate = mean_evidence(state.log_evidence)
    assert abs(estimate.log_evidence - exact) < 5 * estimate.standard_error


def test_next_beta_keeps_the_share():
    log_likelihood = -30 * jax.random.normal(jax.random.key(0), (1000,)) ** 2
    log_weights = jax.nn.log_softmax(jax.random.normal(jax.random.key(1), (1000,)))
    beta = next_beta(log_likelihood, log_weights, jnp.float32(0.1), 0.9)
    increments = np.exp(np.float64(beta - 0.1) * np.asarray(log_likelihood, np.float64))
    weights = np.exp(np.asarray(log_weights, np.float64))
    share = np.sum(weights * increments) ** 2 / np.sum(weights * increments**2)
    # beta is rounded to 1e-8, and the share falls by about 30 for each unit of it; logsumexp rounds at 1e-6.
    np.testing.assert_allclose(share, 0.9, atol=1e-5)


def test_a_flat_likelihood_needs_one_stage():
    beta = next_beta(jnp.ones(10), jnp.full(10, -jnp.log(10.0)), jnp.float32(0), 0.9)
    assert beta == 1


def test_metric_of_a_particle_is_that_of_the_other_half():
    positions = jnp.array([[0.0, 1.0], [2.0, 1.0], [0.0, 5.0], [4.0, 9.0]])
    log_weights = jnp.log(jnp.array([0.1, 0.3, 0.3, 0.3]))
    state = ParticleState(positions, jnp.zeros(4), log_weights, jnp.float32(1), jnp.float32(0), jnp.float32(1), jnp.bool(True))
    # Of weights 1/4 and 3/4 at a distance of 2, or of halves at a distance of 4.
    expected = [[4.0, 4.0], [4.0, 4.0], [0.75, 0.0], [0.75, 0.0]]
    np.testing.assert_allclose(_variances_of_other_half(state), expected, atol=1e-6)  # some roundings of numbers of order 1


def test_once_done_a_step_changes_nothing(finished):
    after = run_systems(num_steps=3, run=finished, until=None)
    for x, y in zip(jax.tree.leaves(after.run.state), jax.tree.leaves(finished.state), strict=True):
        np.testing.assert_array_equal(x, y)
    assert after.info.num_gradients.sum() == 0
    assert not after.run.health.num_nonfinite.any()


def test_a_stage_counts_its_gradients():
    info = run_systems(num_systems=1, num_steps=2).info
    # 5 moves of 1 gradient, and 1 to start, of each particle.
    np.testing.assert_array_equal(info.num_gradients, [[6 * NUM_PARTICLES] * 2])


def test_resamples_where_weights_are_uneven_and_only_there():
    def log_weights(resample_below):
        kernel = tempered_smc(MALA, TARGET, particle_block=NUM_PARTICLES, conditional_ess=0.5, resample_below=resample_below)
        return np.asarray(run_systems(kernel, num_systems=2, num_steps=1).run.state.log_weights)

    assert np.ptp(log_weights(1.0)) == 0
    assert np.ptp(log_weights(0.1), axis=1).min() > 1


@pytest.mark.parametrize("step_size", [0.05, 8.0])
def test_step_size_follows_the_acceptance_rate(step_size):
    """From one that is far too small or too large; the last stage moves at what the stages before have found."""
    kernel = mala(TARGET, step_size=step_size)
    smc = tempered_smc(kernel, TARGET, num_moves=10, particle_block=NUM_PARTICLES, target_acceptance_rate=0.6)
    rates = run_systems(smc, num_systems=4).info.acceptance_rate
    last = [rate[np.isfinite(rate)][-1] for rate in rates]
    # A binomial share of 10 moves of 200 particles of 4 systems has a standard error of 0.006; the law changes between stages.
    np.testing.assert_allclose(np.mean(last), 0.6, atol=0.1)


@pytest.mark.parametrize("bad", [{"conditional_ess": 1.0}, {"conditional_ess": 0.0}, {"num_moves": 0}, {"resample_below": 2.0}])
def test_refuses_arguments_outside_their_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        tempered_smc(MALA, TARGET, **bad)


def test_refuses_kernels_and_particles_that_do_not_fit():
    with pytest.raises(TypeError, match="inverse_mass_matrix"):
        tempered_smc(sgld(TARGET, step_size=0.1), TARGET)
    with pytest.raises(ValueError, match="a kernel with friction has no accept step"):
        tempered_smc(sghmc(TARGET, step_size=0.1, friction=1.0), TARGET)
    with pytest.raises(ValueError, match="even"):
        run_systems(positions=prior_draws(0, 1, 7))
