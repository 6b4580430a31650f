"""Tempered SMC as a sampler of runs: the evidence and moments that it finds, what is kept, how it resumes, what is refused."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx

import bayesnn
import samplers
from bayesnn import likelihoods, priors
from bayesnn.config import TemperedSMC
from bayesnn.load import load_run
from bayesnn.methods.tempered_particles import WeightedParticles, tempered_particles
from tests.bayesnn.conftest import EXPERIMENTS, command, interrupt_in
from tests.bayesnn.test_execute import trees_are_equal
from tests.bayesnn.test_linear_network import NOISE, SCALE, closed_form, dataset

pytestmark = pytest.mark.slow

PARTICLES, CHAINS = 32, 2


def words(path, *more):
    small = ["--sampler.particles", PARTICLES, "--sampler.moves", "2", "--sampler.conditional-ess", "0.5"]
    smc = ["--sampler", "tempered-smc", *small, "--sampler.max-num-steps", "4", "--warmup.steps", "40", "--draws", "12"]
    return ["run", f"{EXPERIMENTS}:wine", "--runs", path, *smc, *more]


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    """Return the folder of a complete run; not to be changed but by an audit."""
    path = tmp_path_factory.mktemp("carried")
    assert command(*words(path)) == 0
    return path / "wine"


def test_a_run_keeps_particles_and_the_evidence_of_each_system(carried, cli):
    tree = load_run(carried).tree
    assert (tree.attrs["sampler"], tree.attrs["kind"]) == ("tempered-smc", "approximation")
    assert tree["posterior/layer_0.kernel"].shape == (CHAINS, 12, 13, 4)  # no axis of particles
    log_evidence = tree["sample_stats/log_evidence"].values
    assert (log_evidence == log_evidence[:, :1]).all()
    assert log_evidence[0, 0] != log_evidence[1, 0]
    status = json.loads((carried / "status.json").read_text())
    assert status["gradients"] == 0
    assert status["warmup_gradients"] > 2 * CHAINS * PARTICLES  # two moves of each particle in a stage, and more than one stage
    assert cli("audit", carried).status == 0  # all draws are finite; nothing else is claimed of them
    assert cli("report", carried).status == 0


@pytest.mark.parametrize("phase", ["warm-up", "sampling"])
def test_a_run_resumes_bit_for_bit(phase, carried, cli, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_in(patch, phase, 3)
        assert cli(*words(tmp_path)).status == 130
    ended = cli("resume", tmp_path / "wine")
    assert ended.status == 0
    assert "over chains, at the last draw: log_evidence" in ended.out
    assert trees_are_equal(carried, tmp_path / "wine")


def test_particles_that_have_not_arrived_are_no_draws(cli, tmp_path):
    ended = cli(*words(tmp_path, "--warmup.steps", "2"))
    assert ended.status == 2
    assert "2 of 2 systems of particles are still on their way to the posterior" in ended.err
    assert "give a new run more stages (--warmup.steps)" in ended.err
    assert json.loads((tmp_path / "wine/status.json").read_text())["state"] == "failed"
    assert cli("resume", tmp_path / "wine").status == 2


def test_a_plan_says_that_the_sampler_decides(cli, own):
    planned = cli("plan", own("wine"), "--sampler", "tempered-smc", "--hardware", "h100")
    assert planned.status == 0
    assert planned.out.count("the sampler decides") == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--start", "map"], "begins with draws of the prior, so start map would have no effect: leave it out"),
        (["--temperature", "0.5"], "which temperature 0.5 tempers, too: use temperature 1"),
        (["--warmup.steps", "0"], "warmup.steps, the most stages, must be at least 1"),
        (["--sampler.particles", "33"], "sampler.particles: Input should be a multiple of 2 (got 33)"),
        (["--sampler.conditional-ess", "1"], "sampler.conditional_ess: Input should be less than 1 (got 1.0)"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_settings_that_do_not_fit_are_refused(more, message, refused, tmp_path):
    assert message in refused(*words(tmp_path, *more))


def test_a_density_has_no_prior_to_draw_from(own, refused, tmp_path):
    message = refused("run", own("gaussian"), "--runs", tmp_path, "--sampler", "tempered-smc")
    assert "a density of your own has none: give a network" in message


def linear_posterior():
    return bayesnn.posterior(nnx.Linear(3, 1, rngs=nnx.Rngs(0)), priors.gaussian(SCALE), likelihoods.gaussian(NOISE), dataset())


def test_draws_come_by_weight():
    """Of two particles the second has three quarters of the weight."""
    kernel = tempered_particles(linear_posterior(), num_particles=2).kernel
    particles = jax.tree.map(lambda x: x.at[1].set(1.0), kernel.initial_tuning.position)
    tuning = WeightedParticles(particles, jnp.log(jnp.array([0.25, 0.75])), jnp.float32(0))
    starts = jax.tree.map(lambda x: x[:1], tuning.position)
    batch = samplers.Batch((), jnp.zeros(0))
    draws = samplers.sample(jax.random.key(2), kernel, starts, batch, num_steps=4_000, tuning=tuning).draws
    share = np.asarray(draws["bias"]).mean()
    assert abs(share - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 4_000)  # standard errors of independent draws


def test_evidence_and_moments_are_those_of_the_closed_form():
    """On a linear network, whose evidence is the density of a Gaussian: within five standard errors over systems."""
    systems, draws = 12, 200
    settings = TemperedSMC(particles=200, max_num_steps=10)
    run = bayesnn.sample(jax.random.key(5), linear_posterior(), settings, chains=systems, draws=draws, warmup=60)
    known = dataset()
    x = np.column_stack([np.ones(known.num_data), known.x_train.astype(np.float64)])
    law = scipy.stats.multivariate_normal(np.zeros(len(x)), NOISE**2 * np.eye(len(x)) + SCALE**2 * x @ x.T)
    found = samplers.mean_evidence(run.tree["sample_stats/log_evidence"].values[:, 0])
    # Adapting to the particles puts log evidences off by about 1/P = 0.005, far less than the error.
    assert abs(found.log_evidence - law.logpdf(known.y_train.astype(np.float64))) < 5 * found.standard_error
    assert found.standard_error < 0.2
    weights = run.tree["posterior"]
    theta = np.concatenate([weights["bias"].values, weights["kernel"].values[..., 0]], axis=2).astype(float)
    mean, covariance = closed_form(known, 1.0)
    for values, expected in ((theta, mean), ((theta - mean) ** 2, np.diag(covariance))):
        by_system = values.mean(axis=1)
        assert (abs(by_system.mean(0) - expected) < 5 * by_system.std(0, ddof=1) / np.sqrt(systems)).all()
