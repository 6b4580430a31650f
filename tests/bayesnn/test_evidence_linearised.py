"""Evidence of a linearised network, which is known in closed form, by every method that `measure evidence` has."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import samplers
from bayesnn.measure.nested import run_nested
from bayesnn.measure.tempered import evidence_of_ladders, evidence_of_particles, run_ladders, run_particles
from diagnostics.oracles import linearised
from samplers import Batch, Target

SYSTEMS, NUM_DATA = 8, 20
KEY = jax.random.key(4)


def network(weights, x):
    return jnp.tanh(x @ weights["kernel"] + weights["bias"]) @ weights["out"]


@pytest.fixture(scope="module")
def oracle():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(NUM_DATA, 2))
    anchor = {"kernel": rng.normal(size=(2, 3)), "bias": rng.normal(size=3), "out": rng.normal(size=3)}  # 12 weights
    anchor = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), anchor)
    return linearised(network, anchor, x, np.sin(2 * x[:, 0]) + 0.3 * rng.normal(size=NUM_DATA), noise_scale=0.3, prior_scale=1.0)


@pytest.fixture(scope="module")
def target(oracle):
    likelihood = Target(lambda w, _: oracle.log_prior(w), lambda w, data, _: oracle.log_likelihood(w, data), NUM_DATA)
    return likelihood, Batch(oracle.data, jnp.ones(NUM_DATA))


def prior_draws(oracle, num_draws):
    draws = oracle.draw_prior(KEY, SYSTEMS * num_draws)
    return jax.tree.map(lambda x: x.reshape(SYSTEMS, num_draws, *x.shape[1:]), draws)


def by_particles(oracle, target, batch):
    kernel = samplers.hmc(target, step_size=0.1, trajectory_length=0.6, max_num_steps=16)
    return evidence_of_particles(run_particles(KEY, kernel, target, batch, prior_draws(oracle, 256), num_moves=5))


def by_ladders(oracle, target, batch):
    kernel = samplers.hmc(target, step_size=0.1, trajectory_length=0.6, max_num_steps=16)
    starts = oracle.draw_prior(KEY, SYSTEMS)
    found = run_ladders(KEY, kernel, target, batch, starts, num_rungs=12, num_warmup=400, num_draws=600)
    return evidence_of_ladders(found)["stepping stone"]


def by_nested_sampling(oracle, target, batch):
    draws = prior_draws(oracle, 256)
    found = run_nested(KEY, target, batch, draws, tempering=samplers.Tempering.at(), num_draws=64)
    return samplers.mean_log_evidence(found.log_evidence)


@pytest.mark.slow
@pytest.mark.parametrize("find", [by_particles, by_ladders, by_nested_sampling])
def test_evidence_is_the_exact_one(find, oracle, target):
    """And not that of data whose targets lie one unit higher: 4.8 errors of eight systems have probability 0.002."""
    found = find(oracle, *target)
    assert abs(found.log_evidence - oracle.log_evidence) < 4.8 * found.standard_error
    assert found.standard_error < 0.3
    likelihood, batch = target
    higher = find(oracle, likelihood, batch._replace(data={**batch.data, "y": batch.data["y"] + 1}))
    assert abs(higher.log_evidence - oracle.log_evidence) > 4.8 * higher.standard_error
