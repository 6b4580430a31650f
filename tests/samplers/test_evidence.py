"""Estimates of the evidence from ladders, against closed forms, and how often their intervals cover."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from samplers import (
    Save,
    hmc,
    mean_evidence,
    mean_log_evidence,
    parallel_tempering,
    sample,
    stepping_stone,
    thermodynamic_integration,
)
from tests.samplers.known_evidence import (
    BATCH,
    LOG_EVIDENCE,
    TARGET,
    assert_covers,
    prior_draws,
)

pytestmark = pytest.mark.slow

NORMAL = scipy.stats.norm.ppf(0.975)
BETAS = np.linspace(0, 1, 16) ** 4
ESTIMATORS = {"thermodynamic": thermodynamic_integration, "stepping stone": stepping_stone}
every_estimator = pytest.mark.parametrize("estimate", ESTIMATORS.values(), ids=ESTIMATORS.keys())
KEEP = Save(lambda state, arrays: state.log_likelihood)
NUM_REPEATS = 30


def ladders(num_chains, num_draws, seed=0):
    """Log likelihoods [chain, draw, rung] of independent ladders, their burn-in dropped."""
    # The posterior's smallest scale is a tenth of the prior's: a rung at beta has about the step size of its own scale.
    scale = 1 / np.sqrt(1 + 100 * BETAS)
    kernel = parallel_tempering(hmc(TARGET, step_size=1.0, trajectory_length=1.5), TARGET, BETAS, rung_block=BETAS.size)
    sizes = jnp.asarray(scale, jnp.float32)
    tuning = kernel.initial_tuning._replace(step_size=sizes, trajectory_length=4 * sizes)
    result = sample(
        jax.random.key(seed),
        kernel,
        prior_draws(seed, num_chains),
        BATCH,
        num_steps=num_draws + 100,
        tuning=tuning,
        save=KEEP,
    )
    assert result.info.acceptance_rate.mean() > 0.5
    return result.draws[:, 100:]


@pytest.fixture(scope="module")
def values():
    return ladders(4, 1000)


@every_estimator
def test_agrees_with_the_closed_form(estimate, values):
    found = estimate(BETAS, values)
    assert found.standard_error < 0.15
    # The trapezoids' own error, after its correction, is below 0.01 on this ladder.
    assert abs(found.log_evidence - LOG_EVIDENCE) < 4 * found.standard_error + 0.01


@every_estimator
def test_of_independent_draws_the_error_is_the_spread(estimate):
    """A likelihood of known law at each temperature: L = -x^2 / 2 with x normal of variance 1 / (1/9 + beta)."""
    rng = np.random.default_rng(3)
    variance = 1 / (1 / 9 + BETAS)

    def repeat():
        return estimate(BETAS, -0.5 * variance * rng.normal(size=(2, 500, BETAS.size)) ** 2)

    found = np.array([repeat() for _ in range(60)])
    exact = -0.5 * np.log(10)
    spread = found[:, 0].std(ddof=1)
    assert abs(found[:, 0].mean() - exact) < 5 * spread / np.sqrt(60) + 1e-3
    # A standard deviation of 60 repeats has a relative error of 9 %: four of them.
    assert abs(found[:, 1].mean() / spread - 1) < 0.36


def smooth(beta):
    """A normal likelihood of mean zero under a prior three times as wide: the evidence is 1 / sqrt(10)."""
    return lambda rng, size: -0.5 * rng.normal(size=size) ** 2 / (1 / 9 + beta)


def jumping(beta):
    """A share of 1e-4 of the prior whose likelihood is exp(20) times that of the rest: the mean jumps at a beta of 0.46."""
    odds = 1e-4 * np.exp(20 * beta)
    return lambda rng, size: 20.0 * (rng.uniform(size=size) < odds / (1 + odds))


@pytest.mark.parametrize(
    ("law", "log_evidence", "betas"),
    [
        (smooth, -0.5 * np.log(10), np.linspace(0, 1, 4)),
        (smooth, -0.5 * np.log(10), np.linspace(0, 1, 40) ** 2),
        (jumping, np.log1p(1e-4 * np.expm1(20)), np.array([0, 0.2, 0.9, 1])),  # where no variance tells of it
    ],
    ids=["few rungs", "many rungs", "a jump between rungs"],
)
def test_integration_covers_the_evidence_with_its_discretisation_only(law, log_evidence, betas):
    rng = np.random.default_rng(6)
    laws = [law(beta) for beta in betas]
    found = [
        thermodynamic_integration(betas, np.stack([draw(rng, (2, 500)) for draw in laws], axis=-1)) for _ in range(NUM_REPEATS)
    ]
    value, error, discretisation = np.array(found).T
    off, spread = abs(value - log_evidence), NORMAL * error
    assert (off < spread + discretisation).all()
    # Of 30 intervals that cover with 95 %, 22 or fewer do with a probability of 1e-5.
    assert (np.sum(off < spread) > 22) == (betas.size > 10)


def test_correction_of_the_trapezoids():
    """Moments that grow as a polynomial: L of mean beta^3 and variance 3 beta^2 on a coarse ladder, integral 1/4."""
    betas, signs = np.linspace(0, 1, 6), np.tile([-1.0, 1.0], 50)
    values = betas**3 + np.sqrt(3) * betas * signs[None, :, None]
    # To fourth order: exact for a cubic.
    found = thermodynamic_integration(betas, values)
    np.testing.assert_allclose(found.log_evidence, 0.25, rtol=1e-12)
    assert abs(np.trapezoid(values.mean(axis=(0, 1)), betas) - 0.25) > 0.009
    # Equal steps: half the distance of the sums of right and left ends is half a step, the correction a twelfth of its square.
    np.testing.assert_allclose(found.discretisation, 0.2 / 2 + 0.2**2 / 12 * 3, rtol=1e-12)


def test_autocorrelated_draws_have_a_larger_error():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4, 4000, 2))
    for t in range(1, 4000):
        noise[:, t] = 0.9 * noise[:, t - 1] + np.sqrt(1 - 0.9**2) * noise[:, t]
    found = thermodynamic_integration([0.0, 1.0], noise).standard_error
    independent = thermodynamic_integration([0.0, 1.0], rng.permuted(noise, axis=1)).standard_error
    # (1 + 0.9) / (1 - 0.9) = 19 times fewer draws, estimated to about a tenth.
    np.testing.assert_allclose(found / independent, np.sqrt(19), rtol=0.25)


def test_mean_of_systems():
    found = mean_evidence(np.log([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(found, [np.log(2), 1 / 2 / np.sqrt(3), 0])
    np.testing.assert_allclose(mean_log_evidence(np.array([1.0, 2.0, 3.0])), [2, 1 / np.sqrt(3), 0])


def test_intervals_of_nested_runs_cover():
    """200 repeats of 8 runs whose logarithms are normal about the truth; the mean evidence would be high by about 1 nat."""
    runs = LOG_EVIDENCE + 1.5 * np.random.default_rng(2).normal(size=(200, 8))
    assert_covers([mean_log_evidence(x) for x in runs], scipy.stats.t.ppf(0.975, 7))
    with pytest.raises(AssertionError, match="coverage"):
        assert_covers([mean_evidence(x) for x in runs], scipy.stats.t.ppf(0.975, 7))


@every_estimator
def test_refuses_what_does_not_fit(estimate):
    for betas, values, message in [
        ([0.0, 1.0], np.zeros((2, 10, 3)), "shape"),
        ([1.0, 0.0], np.zeros((2, 10, 2)), "increase"),
        ([0.0, 1.0], np.full((2, 10, 2), -np.inf), "finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            estimate(betas, values)
    for mean in (mean_evidence, mean_log_evidence):
        with pytest.raises(ValueError, match="two independent"):
            mean([1.0])
