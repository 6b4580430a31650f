"""Warnings at the end of a run: raised by what an audit fails, and by nothing else."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnn
from bayesnn.alarms import alarm
from bayesnn.config import HMC, MALA
from diagnostics.standard import HEALTH
from diagnostics.trees import make_tree

CHAINS, DRAWS, PLAIN = 6, 200, MALA()


def stats(*, diverged=0, acceptance=0.8, chains=slice(None)):
    """Statistics of sound draws, but for some chains: so many that diverged, and that acceptance rate."""
    diverging, rate = np.zeros((CHAINS, DRAWS), bool), np.full((CHAINS, DRAWS), 0.8)
    diverging[chains, :diverged], rate[chains] = True, acceptance
    return {"diverging": diverging, "acceptance_rate": rate}


def raised(found, lost=(), first_chain=0, has_warmup=False, sampler=PLAIN):
    num_nonfinite = [int(chain in lost) for chain in range(CHAINS)]
    return alarm(found, num_nonfinite, first_chain, sampler=sampler, has_warmup=has_warmup)


@pytest.mark.parametrize("found", [stats(), stats(diverged=2), stats(acceptance=0.21), stats(acceptance=np.nan)])
def test_sound_draws_raise_none(found):
    assert raised(found) is None


@pytest.mark.parametrize(
    ("found", "lost", "words"),
    [
        (stats(diverged=4, chains=3), (), "chain 13 diverged on the way to 2% of the draws. Do not use"),
        (stats(diverged=DRAWS, acceptance=0.0), (), "6 of 6 chains diverged on the way to 100% of the draws, 6 of 6 chains"),
        (stats(acceptance=0.1, chains=[0, 2]), (), "chains 10, 12 accepted 10% of the proposals."),
        (stats(), (1,), "chain 11 left the finite numbers."),
    ],
)
def test_chains_that_went_wrong_are_named(found, lost, words):
    told = raised(found, lost, first_chain=10)
    assert words in told
    assert "lower the step size or the learning rate" in told


def test_a_step_size_that_a_warm_up_found_is_not_to_be_lowered_by_hand():
    assert "lengthen the warm-up (--warmup.steps)" in raised(stats(acceptance=0.1), has_warmup=True)
    assert "lower the step size" in raised(stats(acceptance=0.1), lost=(1,), has_warmup=True)


@pytest.mark.parametrize(
    ("sampler", "is_told"), [(HMC(), True), (HMC(delayed_rejection=True), False), (MALA(), False)], ids=["hmc", "on", "mala"]
)
def test_delayed_rejection_is_told_of_where_it_is_to_be_had(sampler, is_told):
    told = raised(stats(diverged=4), has_warmup=True, sampler=sampler)
    assert ("try failed trajectories again (--sampler.delayed-rejection)" in told) == is_told


@pytest.mark.parametrize(
    "found", [stats(), stats(diverged=2), stats(diverged=3, chains=0), stats(acceptance=0.21), stats(acceptance=0.19, chains=5)]
)
def test_an_audit_agrees(found):
    """Of energies that say nothing themselves."""
    energy = np.random.default_rng(0).normal(size=(CHAINS, DRAWS))
    tree = make_tree(attrs={"kind": "mcmc", "task": "density"}, posterior={"w": energy}, sample_stats={**found, "energy": energy})
    assert (HEALTH["energy"]({"run": tree}).verdict == "fail") == (raised(found) is not None)


def test_sampling_in_memory_warns():
    problem = bayesnn.density_problem(lambda x: -0.5 * jnp.sum(x**2), jnp.zeros(2))
    far = HMC(step_size=2.5, trajectory_length=50.0)  # steps beyond 2 are not stable
    with pytest.warns(UserWarning, match=r"accepted \d% of the proposals.* lower the step size .* \(start=\"map\"\)"):
        bayesnn.sample(jax.random.key(0), problem, far, chains=2, draws=20, warmup=0)
