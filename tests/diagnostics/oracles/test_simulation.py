"""Simulation-based tests: exact samplers pass, wrong temperatures and scales fail, stuck chains fail from a teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diagnostics.oracles import joint_test, simulation_based_calibration, teacher_start

# Regression with a Gaussian prior: posteriors in closed form.
X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 2)), jnp.float32)
NOISE = 0.7


def draw_prior(key, num_draws):
    return jax.random.normal(key, (num_draws, 2))


def simulate(key, position):
    return X @ position + NOISE * jax.random.normal(key, (8,))


def log_likelihood(position, data, noise=NOISE):
    return jnp.sum(jax.scipy.stats.norm.logpdf(data, X @ position, noise))


QUANTITIES = {"prediction": lambda w, data: X[0] @ w, "norm": lambda w, data: jnp.sum(w**2), "log likelihood": log_likelihood}


def exact(temperature=1.0, noise=NOISE, num_draws=31):
    covariance = jnp.linalg.inv(jnp.eye(2) + X.T @ X / noise**2)
    factor = jnp.linalg.cholesky(temperature * covariance)

    @jax.jit
    def sample(key, data):
        return covariance @ X.T @ data / noise**2 + jax.random.normal(key, (num_draws, 2)) @ factor.T

    return sample


def verdicts(findings):
    return {name: finding.verdict for name, finding in findings.items()}


def calibrate(sample, seed=0):
    return simulation_based_calibration(jax.random.key(seed), draw_prior, jax.jit(simulate), sample, QUANTITIES)


def test_exact_draws_are_calibrated():
    found = calibrate(exact())
    assert set(verdicts(found.findings).values()) == {"pass"}
    assert found.num_draws == 31
    assert found.ranks["norm"].shape == (200,)
    # An independent look at the same ranks: chi-square over 8 bins of 4 ranks each.
    counts = np.bincount(found.ranks["norm"] // 4, minlength=8)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(
    "wrong", [exact(temperature=0.5), exact(temperature=2.0), exact(noise=NOISE * 2)], ids=["cold", "hot", "likelihood scale"]
)
def test_wrong_samplers_are_not(wrong):
    assert "fail" in verdicts(calibrate(wrong).findings).values()


def test_draws_of_the_prior_fail_on_the_log_likelihood_alone():
    found = calibrate(lambda key, data: draw_prior(key, 31)).findings
    assert verdicts(found) == {"prediction": "pass", "norm": "pass", "log likelihood": "fail"}


def test_false_alarms_are_as_rare_as_stated():
    # One in a hundred: of 20 tests four or more with probability 4e-5.
    failed = sum("fail" in verdicts(fast_ranks(seed)).values() for seed in range(20))
    assert failed < 4


def fast_ranks(seed):
    """The verdict on a quantity that is uniform whatever the data."""
    uniform = jax.jit(lambda key, num_draws: jax.random.uniform(key, (num_draws,)), static_argnums=1)
    return simulation_based_calibration(
        jax.random.key(seed),
        uniform,
        lambda key, w: 0.0,
        lambda key, data: uniform(key, 7),
        {"value": lambda w, data: w},
        num_simulations=40,
    ).findings


def metropolis(temperature=1.0, noise=NOISE, prior_scale=1.0):
    def log_density(position, data):
        return (log_likelihood(position, data, noise) - 0.5 * jnp.sum((position / prior_scale) ** 2)) / temperature

    def transition(key, position, data):
        def step(position, key):
            key_move, key_accept = jax.random.split(key)
            proposal = position + 0.5 * jax.random.normal(key_move, (2,))
            ratio = log_density(proposal, data) - log_density(position, data)
            return jnp.where(jnp.log(jax.random.uniform(key_accept)) < ratio, proposal, position), None

        return jax.lax.scan(step, position, jax.random.split(key, 10))[0]

    return transition


def joint(transition):
    return joint_test(jax.random.key(3), draw_prior, simulate, transition, QUANTITIES, num_draws=1000)


@pytest.mark.slow
def test_an_exact_kernel_passes_the_joint_test():
    found = joint(metropolis())
    assert set(verdicts(found).values()) == {"pass"}
    assert len(found) == 6


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.7}, {"noise": 1.3 * NOISE}, {"prior_scale": 1.3}], ids=["cold", "likelihood scale", "prior"]
)
def test_wrong_kernels_fail_the_joint_test(settings):
    assert "fail" in verdicts(joint(metropolis(**settings))).values()


def two_modes(key, draw_start, moves_between_modes):
    """y = w^2 + noise has two modes, and the sign of w is not identified."""

    def sample(key, data, start):
        def step(w, key):
            key_move, key_accept, key_sign = jax.random.split(key, 3)
            sign = jnp.where(moves_between_modes, jax.random.rademacher(key_sign, (), jnp.float32), 1.0)
            proposal = sign * w + 0.02 * jax.random.normal(key_move)
            density = lambda w: -0.5 * w**2 - 0.5 * ((data - w**2) / 0.05) ** 2  # noqa: E731
            return jnp.where(jnp.log(jax.random.uniform(key_accept)) < density(proposal) - density(w), proposal, w), w

        return jax.lax.scan(step, start, jax.random.split(key, 4000))[1][2000:]

    return teacher_start(
        key,
        draw_start,
        lambda key, w: w**2 + 0.05 * jax.random.normal(key),
        jax.jit(sample),
        {"weight": lambda w, data: w, "prediction": lambda w, data: w**2},
    )


def either_sign(key, num_draws):
    """A prior around +-1, whose draws have both signs, in turn."""
    return (1 + 0.1 * jax.random.normal(key, (num_draws,))) * jnp.where(jnp.arange(num_draws) % 2 == 0, 1.0, -1.0)


def test_chains_that_change_modes_agree_with_the_teacher():
    assert set(verdicts(two_modes(jax.random.key(1), either_sign, True)).values()) == {"pass"}


def test_chains_that_are_stuck_disagree_with_the_teacher_on_what_symmetry_changes():
    def other_sign(key, num_draws):
        return jnp.abs(either_sign(key, num_draws)) * jnp.where(jnp.arange(num_draws) == 0, 1.0, -1.0)

    found = verdicts(two_modes(jax.random.key(0), other_sign, False))
    assert found["weight"] == "fail"
    assert found["prediction"] == "pass"


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        simulation_based_calibration(
            jax.random.key(0), draw_prior, simulate, exact(), {"log": lambda w, data: jnp.log(w[0])}, num_simulations=20
        )
