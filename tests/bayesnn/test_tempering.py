"""Parallel tempering as a sampler of runs: what is kept, what it costs, how it resumes, and that it crosses between modes."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

import bayesnn
from bayesnn import data, likelihoods, models, priors
from bayesnn.build import build_method, build_problem
from bayesnn.config import HMC, ParallelTempering, WarmUp
from bayesnn.load import load_run
from bayesnn.plan import make_plan
from bayesnn.run_folder import RunFolder
from diagnostics.chainwise import ess_indicator
from tests.bayesnn.conftest import EXPERIMENTS, command, interrupt_in
from tests.bayesnn.experiments import SHORT
from tests.bayesnn.test_execute import trees_are_equal

pytestmark = pytest.mark.slow

STATISTICS = ("round_trips", "lowest_swap_rate", "barrier")


def words(path, *more):
    small = ["--sampler.rungs", "4", "--sampler.step-size", "0.05", "--sampler.max-num-steps", "4", "--draws", "12"]
    tempering = ["--sampler", "parallel-tempering", *small, "--warmup.steps", "32"]
    return ["run", f"{EXPERIMENTS}:wine", "--runs", path, *tempering, *more]


@pytest.fixture(scope="module")
def tempered(tmp_path_factory):
    """Return the folder of a complete run; not to be changed but by an audit."""
    path = tmp_path_factory.mktemp("tempered")
    assert command(*words(path)) == 0
    return path / "wine"


def test_a_run_keeps_the_coldest_replica_and_says_how_replicas_travel(tempered, cli):
    tree = load_run(tempered).tree
    assert (tree.attrs["sampler"], tree.attrs["kind"]) == ("parallel-tempering", "mcmc")
    assert tree["posterior"].sizes["draw"] == 12
    assert tree["posterior/layer_0.kernel"].shape == (2, 12, 13, 4)  # no axis of rungs
    found = {name: tree[f"sample_stats/{name}"].values for name in STATISTICS}
    assert all(values.shape == (2, 12) for values in found.values())
    assert (np.diff(found["round_trips"]) >= 0).all()
    assert ((found["lowest_swap_rate"] >= 0) & (found["lowest_swap_rate"] <= 1)).all()
    assert (1 - found["lowest_swap_rate"] <= found["barrier"] + 1e-6).all()  # the largest rejection, in a sum of three
    audited = cli("audit", tempered)
    assert "temperature" in audited.out
    assert cli("report", tempered).status == 0
    assert "PARALLEL-TEMPERING" in (tempered / "report.html").read_text()


def test_the_end_of_a_run_tells_of_round_trips(cli, tmp_path):
    ended = cli(*words(tmp_path))
    assert "over chains, at the last draw: " in ended.out
    assert all(name in ended.out for name in STATISTICS)


def test_gradients_of_all_rungs_count(tempered):
    status = json.loads((tempered / "status.json").read_text())
    # Trajectories of at most 4 steps on each of 4 rungs, and one gradient a step for the hottest; two chains of 12 draws.
    most = 2 * 12 * (4 * 4 + 1)
    assert 2 * 12 * (4 + 1) <= status["gradients"] <= most
    assert make_plan(RunFolder(tempered).config, "h100").gradients == most / 12 * (12 + 32)


@pytest.mark.parametrize("phase", ["warm-up", "sampling"])
def test_a_tempered_run_resumes_bit_for_bit(phase, tempered, cli, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_in(patch, phase, 3)
        assert cli(*words(tmp_path)).status == 130
    assert cli("resume", tmp_path / "wine").status == 0
    assert trees_are_equal(tempered, tmp_path / "wine")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--warmup.steps", "5"], "the warm-up of a ladder needs at least 16 steps, got num_steps=5"),
        (["--warmup.metric", "diagonal"], "keeps the metric of the prior; got warmup.metric diagonal: leave it out"),
        (["--warmup.scheme", "cross-chain"], "cross-chain finds trajectory lengths, and parallel-tempering has none to find"),
        (["--sampler.rungs", "1"], "sampler.rungs: Input should be greater than or equal to 2 (got 1)"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_settings_that_do_not_fit_are_refused(more, message, refused, tmp_path):
    assert message in refused(*words(tmp_path, *more))


def test_a_density_has_no_prior_to_go_to(own, refused, tmp_path):
    message = refused(
        "run", own("gaussian"), "--runs", tmp_path, "--sampler", "parallel-tempering", "--sampler.trajectory-length", "1"
    )
    assert "does not say which part of it is the prior: give a network" in message


def test_no_warm_up_keeps_the_first_ladder():
    config = SHORT.model_copy(update={"sampler": ParallelTempering(rungs=3, trajectory_length=1.0), "warmup": WarmUp(steps=0)})
    method = build_method(config, build_problem(config))
    betas = 1 / np.asarray(method.kernel.initial_tuning.tempering.likelihood_temperature)
    np.testing.assert_allclose(betas, [0, 1 / 32, 1])
    assert method.warmup is None


def test_tempering_crosses_between_modes_where_hmc_does_not():
    """One hidden unit of tanh: the signs of all its weights may change at once, so that two modes have half of the mass each."""
    x = np.random.default_rng(0).normal(size=(64, 1))
    y = np.tanh(2 * x[:, 0])
    curve = data.from_arrays(x[:60], y[:60], x[60:], y[60:], name="curve")
    network = bayesnn.posterior(models.mlp([1], 1, "tanh"), priors.gaussian(1.0), likelihoods.gaussian(0.1), curve)

    def is_first_mode(sampler):
        sampled = bayesnn.sample(jax.random.key(1), network, sampler, chains=4, draws=500, warmup=300)
        return sampled.tree["posterior/layer_0.kernel"].values[..., 0, 0] > 0, sampled.tree["sample_stats"]

    stayed, _ = is_first_mode(HMC(max_num_steps=20))
    assert (stayed == stayed[:, :1]).all()  # the negative control
    crossed, stats = is_first_mode(ParallelTempering(rungs=10, max_num_steps=20))
    assert (stats["round_trips"][:, -1] > 0).all()
    assert (crossed.any(axis=1) & ~crossed.all(axis=1)).all()
    share = crossed.mean()
    # A share of the mean of autocorrelated indicators; five standard errors.
    assert abs(share - 0.5) < 5 * np.sqrt(share * (1 - share) / ess_indicator(crossed))
