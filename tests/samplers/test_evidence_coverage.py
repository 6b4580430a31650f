"""How often intervals of 95 % cover an evidence that is known: 200 repeats of every method on every such problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp

from diagnostics.oracles import linearised
from samplers import (
    Batch,
    Save,
    Target,
    hmc,
    mala,
    mean_evidence,
    nested_evidence,
    nested_sampling,
    parallel_tempering,
    sample,
    stepping_stone,
    tempered_smc,
    thermodynamic_integration,
)
from tests.samplers import known_evidence as known
from tests.samplers.analytic import PRIOR_SCALE

pytestmark = pytest.mark.slow

NUM_REPEATS = 200
NORMAL = scipy.stats.norm.ppf(0.975)


class Problem(NamedTuple):
    """A posterior of at most ten dimensions whose evidence is known.

    Attributes:
        draw_prior: (key, number) -> positions.
        curvature: Largest second derivative of minus the log posterior where it has its mass; that of the prior is about 1.
        betas: Of ladders.
        num_moves: Of nested sampling: slices from a copy of a live point to a new one.
    """

    target: Target
    batch: Batch
    log_evidence: float
    draw_prior: Callable[[Any, int], Any]
    curvature: float
    betas: np.ndarray = np.linspace(0, 1, 16) ** 4
    num_moves: int = 10

    def positions(self, *shape: int) -> Any:
        draws = self.draw_prior(jax.random.key(3), int(np.prod(shape)))
        return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), draws)


def regression() -> Problem:
    return Problem(
        known.TARGET,
        known.BATCH,
        known.LOG_EVIDENCE,
        lambda key, num: PRIOR_SCALE * jax.random.normal(key, (num, known.DIMENSION)),
        curvature=1 / np.linalg.eigvalsh(known.COVARIANCE).min(),
    )


def linearised_network() -> Problem:
    """Two inputs, two tanh units and one output, linear about random weights."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(20, 2))
    anchor = {"kernel": rng.normal(size=(2, 2)), "bias": rng.normal(size=2), "out": rng.normal(size=2)}
    anchor = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), anchor)
    targets = np.sin(2 * x[:, 0]) + 0.3 * rng.normal(size=20)

    def network(weights: Any, x: Any) -> Any:
        return jnp.tanh(x @ weights["kernel"] + weights["bias"]) @ weights["out"]

    oracle = linearised(network, anchor, x, targets, noise_scale=0.3, prior_scale=1.0)
    target = Target(lambda w, _: oracle.log_prior(w), lambda w, data, _: oracle.log_likelihood(w, data), 20)
    flat, unravel = ravel_pytree(anchor)
    hessian = jax.hessian(lambda w: -oracle.log_likelihood(unravel(w), oracle.data).sum())(flat)
    curvature = float(np.linalg.eigvalsh(hessian).max())
    return Problem(target, Batch(oracle.data, jnp.ones(20)), oracle.log_evidence, oracle.draw_prior, curvature, num_moves=20)


def crossing() -> Problem:
    return Problem(
        known.CROSSING,
        known.CROSSING_BATCH,
        known.CROSSING_LOG_EVIDENCE,
        lambda key, num: jax.random.normal(key, (num, 2)),
        curvature=known.CROSSING_SIZE,  # across an axis, far out on it
        betas=np.linspace(0, 1, 25) ** 8,  # trapezoids must follow the mean log likelihood, which begins at -5,000
    )


PROBLEMS = {"regression": regression, "linearised network": linearised_network, "crossing": crossing}


@pytest.fixture(scope="module", params=PROBLEMS.values(), ids=PROBLEMS.keys())
def problem(request):
    return request.param()


def assert_covers(problem, estimates, quantile):
    """And not by long intervals: the median error is below 0.3 nats."""
    known.assert_covers(estimates, quantile, problem.log_evidence)
    assert np.median(np.asarray(estimates)[:, 1]) < 0.3


def run_until_done(kernel, problem, positions, save):
    result = sample(
        jax.random.key(0),
        kernel,
        positions,
        problem.batch,
        num_steps=400,
        until=lambda run: bool(run.state.done.all()),
        chunk_draws=10,
        save=Save(save),
    )
    assert result.run.state.done.all()
    return result


NUM_SYSTEMS, NUM_PARTICLES = 8, 200
STUDENT = scipy.stats.t.ppf(0.975, NUM_SYSTEMS - 1)


@pytest.fixture(scope="module")
def particles(problem):
    """Systems of tempered SMC, eight a repeat: their evidences, temperatures and log likelihoods."""
    kernel = tempered_smc(
        mala(problem.target, step_size=0.9), problem.target, num_moves=5, particle_block=NUM_PARTICLES, target_acceptance_rate=0.6
    )
    positions = problem.positions(NUM_REPEATS * NUM_SYSTEMS, NUM_PARTICLES)
    return run_until_done(
        kernel, problem, positions, lambda state, arrays: (state.log_evidence, state.beta, state.log_likelihood)
    ).draws


def by_repeat(systems):
    return [mean_evidence(x) for x in systems.reshape(NUM_REPEATS, NUM_SYSTEMS)]


def test_tempered_smc_covers(problem, particles):
    assert_covers(problem, by_repeat(particles[0][:, -1]), STUDENT)


def test_tempered_smc_without_the_weights_does_not(problem, particles):
    """As though each stage set out from equal weights."""
    _, betas, log_likelihood = particles
    increments = logsumexp(np.diff(betas, axis=1)[..., None] * log_likelihood[:, :-1], axis=2) - np.log(NUM_PARTICLES)
    with pytest.raises(AssertionError, match="coverage"):
        known.assert_covers(by_repeat(increments.sum(axis=1)), STUDENT, problem.log_evidence)


NUM_POINTS, NUM_DEATHS = 200, 20


@pytest.fixture(scope="module")
def deaths(problem):
    """Runs of nested sampling, one a repeat: log likelihoods of the dead, numbers alive, log likelihoods of those left."""
    kernel = nested_sampling(problem.target, num_moves=problem.num_moves, num_deaths=NUM_DEATHS, point_block=NUM_DEATHS)
    result = run_until_done(
        kernel,
        problem,
        problem.positions(NUM_REPEATS, NUM_POINTS),
        lambda state, arrays: (state.dead.log_likelihood, state.num_live),
    )
    return *result.draws, result.run.state.log_likelihood


def evidences(deaths):
    return [nested_evidence(*x)[:2] for x in zip(*deaths, strict=True)]


def test_nested_sampling_covers(problem, deaths):
    assert_covers(problem, evidences(deaths), NORMAL)


def test_nested_sampling_at_a_wrong_rate_of_shrinkage_does_not(problem, deaths):
    """As though twenty deaths at a time left as many points alive as one."""
    log_likelihood, num_live, left = deaths
    with pytest.raises(AssertionError, match="coverage"):
        known.assert_covers(
            evidences((log_likelihood, np.where(num_live > 0, NUM_POINTS, 0), left)), NORMAL, problem.log_evidence
        )


LADDERS, BURN_IN, DRAWS = 2, 100, 300
ESTIMATORS = {"thermodynamic": thermodynamic_integration, "stepping stone": stepping_stone}
every_estimator = pytest.mark.parametrize("estimate", ESTIMATORS.values(), ids=ESTIMATORS.keys())


@pytest.fixture(scope="module")
def ladders(problem):
    """Log likelihoods [repeat, ladder, draw, rung] of parallel tempering; a rung's steps have the scale of its posterior."""
    kernel = parallel_tempering(
        hmc(problem.target, step_size=1.0, trajectory_length=1.5), problem.target, problem.betas, rung_block=problem.betas.size
    )
    sizes = jnp.asarray(1 / np.sqrt(1 + problem.curvature * problem.betas), jnp.float32)
    tuning = kernel.initial_tuning._replace(step_size=sizes, trajectory_length=4 * sizes)
    save = Save(lambda state, arrays: state.log_likelihood)
    positions = problem.positions(NUM_REPEATS * LADDERS)
    result = sample(jax.random.key(5), kernel, positions, problem.batch, num_steps=BURN_IN + DRAWS, tuning=tuning, save=save)
    assert result.info.acceptance_rate.mean() > 0.5
    return result.draws[:, BURN_IN:].reshape(NUM_REPEATS, LADDERS, DRAWS, problem.betas.size)


@every_estimator
def test_ladders_cover(estimate, problem, ladders):
    assert_covers(problem, [estimate(problem.betas, values) for values in ladders], NORMAL)


@every_estimator
def test_ladders_with_the_wrong_rungs_do_not(estimate, problem, ladders):
    """As though every draw came from one rung below."""
    with pytest.raises(AssertionError, match="coverage"):
        known.assert_covers([estimate(problem.betas[1:], values[..., :-1]) for values in ladders], NORMAL, problem.log_evidence)


def test_trapezoids_over_few_rungs_do_not_but_say_how_far_off_they_may_be(problem, ladders):
    """Every third rung of the same ladders."""
    assert problem.betas[::3][-1] == 1
    few = [thermodynamic_integration(problem.betas[::3], values[..., ::3]) for values in ladders]
    with pytest.raises(AssertionError, match="coverage"):
        known.assert_covers(few, NORMAL, problem.log_evidence)
    value, error, discretisation = np.array(few).T
    assert np.mean(np.abs(value - problem.log_evidence) < NORMAL * error + discretisation) > 0.90
