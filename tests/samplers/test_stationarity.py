"""Stationary laws: every exact sampler on every analytic target, SGLD against its own biased law, and runs that must fail."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from arviz_stats.base import array_stats

from samplers import Batch, Target, Tempering, control_variates, hmc, make_mesh, rmsprop, sample, sgld, start
from tests.samplers.analytic import (
    ANALYTIC,
    assert_covariance,
    assert_law,
    assert_means,
    flat,
    gaussian,
    isotropic,
    regression,
)
from tests.samplers.rows import ROWS

NUM_CHAINS = 4
EXACT = {name: row for name, row in ROWS.items() if row.is_exact}
QUICK = {("hmc", "student"), ("hmc", "correlated"), ("nuts", "student"), ("nuts", "correlated")}
TEMPERATURES = [(1.0, 1.0), (0.1, 1.0), (10.0, 1.0), (1.0, 0.5)]


def slow_unless(is_quick):
    return () if is_quick else pytest.mark.slow


def draws_of(kernel, known, *, num_steps, burn_in=0, thin=1, tuning=None):
    """Draws of chains that start with independent exact draws, after a burn-in for kernels of another stationary law."""
    mesh = make_mesh(NUM_CHAINS, devices=jax.devices()[:1])
    positions = known.positions(NUM_CHAINS)
    result = sample(jax.random.key(7), kernel, positions, known.batch, num_steps=num_steps, thin=thin, tuning=tuning, mesh=mesh)
    return jax.tree.map(lambda x: x[:, burn_in:], result.draws), result.info


def smallest_scale(known):
    return float(np.sqrt(np.linalg.eigvalsh(known.covariance)[0]))


@pytest.mark.parametrize(
    ("row", "make_known"),
    [
        pytest.param(row, make_known, id=f"{name}-{target}", marks=slow_unless((name, target) in QUICK))
        for name, row in EXACT.items()
        for target, make_known in ANALYTIC.items()
    ],
)
def test_exact_samplers_leave_the_target_invariant(row, make_known):
    known = make_known()
    kernel = row.kernel(known.target, step_size=row.step_size_at(smallest_scale(known)))
    draws, info = draws_of(kernel, known, num_steps=6000 * row.thin, thin=row.thin)
    assert_law(draws, known)
    if "kinetic_temperature" not in row.nan:
        assert_means(np.asarray(info.kinetic_temperature, float), 1.0)


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=name, marks=slow_unless(name in ("hmc", "nuts"))) for name, row in EXACT.items()]
)
def test_exact_samplers_recover_temperatures(row):
    """Bayesian linear regression, whose tempered posteriors are closed forms; one compiled program for all temperatures.

    The temperatures of a ladder's rungs are multiples of these."""
    for temperatures in TEMPERATURES:
        known = regression(*temperatures)
        kernel = row.kernel(known.target, row.step_size_at(smallest_scale(known)), Tempering.at(*temperatures))
        draws, _ = draws_of(kernel, known, num_steps=6000 * row.thin, thin=row.thin)
        assert_covariance(draws, known.mean, known.covariance)


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=name, marks=slow_unless(name in ("hmc", "nuts"))) for name, row in EXACT.items()]
)
def test_a_temperature_that_is_not_the_targets_fails(row):
    """The negative control of each exact kernel: a variance 1.3 times too large is many standard errors off."""
    known = isotropic()
    kernel = row.kernel(known.target, step_size=row.step_size_at(1.0), tempering=Tempering.at(1.3))
    draws, _ = draws_of(kernel, known, num_steps=4000 * row.thin, thin=row.thin)
    assert_covariance(draws, known.mean, 1.3 * known.covariance)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_covariance(draws, known.mean, known.covariance)


def langevin_covariance(precision, step_size):
    """Covariance of full-batch SGLD on a Gaussian (Vollmer et al. 2016)."""
    return np.linalg.inv(precision @ (np.eye(len(precision)) - step_size * precision / 4))


@pytest.mark.parametrize("temperatures", TEMPERATURES)
def test_sgld_has_its_biased_law_at_every_temperature(temperatures):
    known = regression(*temperatures)
    kernel = sgld(regression().target, step_size=1.0)
    step_size = smallest_scale(known) ** 2  # eps a = 1 in the stiffest direction: variance 4/3 of the exact one
    tuning = kernel.initial_tuning._replace(step_size=jnp.float32(step_size), tempering=Tempering.at(*temperatures))
    draws, _ = draws_of(kernel, known, num_steps=40_000, burn_in=200, tuning=tuning)
    assert_covariance(draws, known.mean, langevin_covariance(np.linalg.inv(known.covariance), step_size))
    with pytest.raises(AssertionError):
        assert_covariance(draws, known.mean, known.covariance)


def test_preconditioned_sgld_recovers_temperatures():
    """Its step is short enough that the bias, some 3 % of the variance, is at most two standard errors."""
    known = isotropic()
    kernel = sgld(known.target, step_size=1.0, preconditioner=rmsprop(0.0, 2.0))
    for temperature in (0.25, 4.0):
        root = np.sqrt(temperature)
        # G is 1 / (2 + |x| / T): a relaxation takes as many steps at every temperature if they have this length.
        tuning = kernel.initial_tuning._replace(
            step_size=jnp.float32(0.05 * root * (1 + 2 * root)), tempering=Tempering.at(temperature)
        )
        draws, _ = draws_of(kernel, known, num_steps=80_000, burn_in=400, thin=8, tuning=tuning)
        assert_covariance(draws, known.mean, temperature * known.covariance)
        with pytest.raises(AssertionError, match="standard errors"):
            assert_covariance(draws, known.mean, 1.3 * temperature * known.covariance)


def test_control_variates_recover_temperatures():
    """Loud minibatches, of 2 examples, made quiet: the law is that of full-batch SGLD, but for a few per cent of its variance."""
    for temperatures in TEMPERATURES:
        known = regression(*temperatures)
        target, batch = control_variates(known.target, known.batch, jnp.asarray(known.mean, jnp.float32))
        step_size = 2e-3 * np.prod(temperatures)
        kernel = sgld(target, step_size=step_size, batch_size=2, replacement=True, tempering=Tempering.at(*temperatures))
        draws, _ = draws_of(kernel, dataclasses.replace(known, batch=batch), num_steps=40_000, burn_in=400, thin=4)
        law = langevin_covariance(np.linalg.inv(known.covariance), step_size)
        assert_covariance(draws, known.mean, law)
        with pytest.raises(AssertionError, match="standard errors"):
            assert_covariance(draws, known.mean, 1.3 * law)


def test_bias_of_sgld_is_of_first_order_in_the_step_size():
    precision = np.array([1.0, 2.0, 4.0])
    known = gaussian(np.zeros(3), np.diag(1 / precision))
    kernel = sgld(known.target, step_size=1.0)
    for step_size in (0.4, 0.2, 0.1):
        draws, _ = draws_of(
            kernel, known, num_steps=60_000, burn_in=200, tuning=kernel.initial_tuning._replace(step_size=jnp.float32(step_size))
        )
        # (1 / (1 - eps a / 4) - 1) / eps, which tends to a / 4.
        assert_means((flat(draws) ** 2 * precision - 1) / step_size, precision / 4 / (1 - step_size * precision / 4))


def shuffled_variances(precision, noise_variance, num_batches, step_size):
    """Variance of SGLD after each step of an epoch, on a Gaussian whose gradient noise does not depend on the position.

    Batches without replacement: the noises of an epoch have variance `noise_variance` and sum to zero, hence are correlated by
    -1 / (num_batches - 1); those of different epochs are independent.
    """
    decay = 1 - step_size * precision / 2

    def after(num_steps, start_variance):
        weights = decay ** np.arange(num_steps)
        squares = np.sum(weights**2)
        gradient_noise = noise_variance * (squares - (np.sum(weights) ** 2 - squares) / (num_batches - 1))
        return decay ** (2 * num_steps) * start_variance + step_size * squares + step_size**2 / 4 * gradient_noise

    start_variance = after(num_batches, 0.0) / (1 - decay ** (2 * num_batches))
    return np.array([after(k, start_variance) for k in range(1, num_batches + 1)])


def _flat_log_prior(position, constants):
    return jnp.float32(0)


def _mean_log_likelihood(position, data, constants):
    return -0.5 * (data - position[0]) ** 2


def test_minibatches_without_replacement_give_sgld_the_noise_of_shuffling():
    num_data, batch_size, step_size = 40, 10, 0.02
    y = np.random.default_rng(8).normal(size=num_data) * 3
    known = gaussian(np.array([y.mean()]), np.array([[1 / num_data]]))
    target = Target(_flat_log_prior, _mean_log_likelihood, num_data)
    batch = Batch(jnp.asarray(y, jnp.float32), jnp.ones(num_data))
    mesh = make_mesh(NUM_CHAINS, devices=jax.devices()[:1])
    kernel = sgld(target, step_size=step_size, batch_size=batch_size)
    result = sample(jax.random.key(7), kernel, known.positions(NUM_CHAINS), batch, num_steps=40_000, mesh=mesh)
    num_batches = num_data // batch_size
    by_phase = flat(result.draws)[:, 400:, 0].reshape(NUM_CHAINS, -1, num_batches)
    # Of n times the mean of a batch drawn without replacement.
    noise_variance = num_data**2 * y.var(ddof=1) / batch_size * (1 - batch_size / num_data)
    expected = shuffled_variances(num_data, noise_variance, num_batches, step_size)
    assert_means(by_phase, y.mean())
    squares = (by_phase - y.mean()) ** 2
    assert_means(squares, expected)
    # With replacement, every step would have this variance.
    independent = (1 + step_size * noise_variance / 4) / (num_data * (1 - step_size * num_data / 4))
    with pytest.raises(AssertionError):
        assert_means(squares, independent)


def test_state_made_at_another_temperature_is_stuck():
    """A state caches densities: init anew samples the new law, a stale state accepts nothing."""
    cold = regression(temperature=0.1)
    kernel = hmc(regression().target, step_size=0.5 * smallest_scale(cold), trajectory_length=2 * smallest_scale(cold))
    colder = kernel.initial_tuning._replace(tempering=Tempering.at(0.1))
    mesh = make_mesh(NUM_CHAINS, devices=jax.devices()[:1])
    positions = cold.positions(NUM_CHAINS)
    stale = start(jax.random.key(0), kernel, positions, cold.batch, mesh=mesh)._replace(tuning=colder)
    stuck = sample(jax.random.key(0), kernel, positions, cold.batch, num_steps=100, run=stale, mesh=mesh)
    assert stuck.info.acceptance_rate.max() == 0
    draws, info = draws_of(kernel, cold, num_steps=6000, tuning=colder)
    assert info.acceptance_rate.mean() > 0.5
    assert_covariance(draws, cold.mean, cold.covariance)


def test_without_the_accept_step_moments_fail(monkeypatch):
    known = isotropic()
    # A threshold of its own, so that the kernel is traced anew. Leapfrog alone has variance 1 / (1 - eps^2 / 4) = 2.3.
    kernel = hmc(known.target, step_size=1.5, trajectory_length=3.0, divergence_threshold=999.0)
    monkeypatch.setattr(jax.random, "bernoulli", lambda key, p=0.5, shape=None: jnp.bool(True))
    draws, _ = draws_of(kernel, known, num_steps=4000)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_law(draws, known)


def test_with_the_accept_step_the_same_trajectories_pass():
    known = isotropic()
    draws, info = draws_of(hmc(known.target, step_size=1.5, trajectory_length=3.0), known, num_steps=8000)
    assert info.acceptance_rate.mean() < 0.9
    assert_law(draws, known)


def test_wrong_noise_in_sgld_fails(monkeypatch):
    precision, step_size = 1.0, 0.4
    known = gaussian(np.zeros(1), np.eye(1) / precision)
    kernel = sgld(Target(known.target.log_prior, lambda *_: jnp.zeros(0), 0), step_size=step_size)
    normal = jax.random.normal
    monkeypatch.setattr(jax.random, "normal", lambda *args, **options: 1.1 * normal(*args, **options))
    draws, _ = draws_of(kernel, known, num_steps=40_000, burn_in=200)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_covariance(draws, np.zeros(1), langevin_covariance(np.eye(1) * precision, step_size))


def test_trajectories_of_one_length_resonate():
    """A whole period of the oscillator brings every chain back to where it was; +-20 % of jitter does not."""
    known = isotropic()
    kernel = hmc(known.target, step_size=0.2, trajectory_length=2 * np.pi)

    def effective_draws(jitter):
        tuning = kernel.initial_tuning._replace(jitter=jnp.float32(jitter))
        draws, info = draws_of(kernel, known, num_steps=2000, tuning=tuning)
        assert info.acceptance_rate.mean() > 0.9
        return np.array([array_stats.ess(x, chain_axis=0, draw_axis=1) for x in np.moveaxis(flat(draws), 2, 0)])

    assert effective_draws(0.2).min() > 500
    # The trajectory misses the period by at most a step, 0.2: the chain keeps cos(0.2) = 0.98 of its place, hence at most
    # (1 - 0.98) / (1 + 0.98) = 1 % of 8000 draws.
    assert effective_draws(0.0).max() < 160


def test_the_check_itself_tells_a_variance_off_by_a_tenth():
    known = isotropic()
    draws = known.draw(np.random.default_rng(0), 20_000).reshape(4, 5000, 2)
    assert_law(draws, known)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_covariance(draws, known.mean, 1.1 * known.covariance)
    with pytest.raises(AssertionError):  # chains that do not move
        assert_means(np.repeat(scipy.stats.norm.rvs(size=(4, 1), random_state=0), 500, axis=1), 0.0)
