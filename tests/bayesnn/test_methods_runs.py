"""Approximations in run folders: resumed bit for bit, counted in gradients, audited, refused where they make no sense."""

from __future__ import annotations

import json
import re

import jax
import numpy as np
import pytest

import bayesnn
import samplers
from bayesnn import config as c
from bayesnn import data, likelihoods, models, priors
from bayesnn.build import build_method
from bayesnn.load import load_run
from bayesnn.problem import network_problem
from tests.bayesnn.conftest import EXPERIMENTS, command, interrupt_in
from tests.bayesnn.test_execute import trees_are_equal

pytestmark = pytest.mark.slow

# Settings, and full-data gradients of a fit of 12 steps of two chains, with minibatches of 32 of 142 wines.
METHODS = {
    "swag": (["--sampler.rank", "2", "--sampler.period", "3"], 2 * 12 * 32 / 142),
    "mean-field-vi": (["--sampler.samples", "2"], 2 * 12 * 2 * 32 / 142),
    "laplace": (["--sampler.linearised", "--precision", "float64"], 2 * (12 * 32 / 142 + 3)),
    "mc-dropout": (["--sampler.rate", "0.3"], 2 * 12 * 32 / 142),
}


def words(own, path, sampler, *more):
    settings = [*METHODS[sampler][0], "--sampler.batch-size", "32", "--warmup.steps", "12", "--draws", "8"]
    return ["run", own("wine"), "--runs", path, "--sampler", sampler, *settings, *more]


@pytest.fixture(scope="module")
def approximated(tmp_path_factory):
    """Return the folder of a complete run by name of the method; each is run once, and not to be changed but by an audit."""
    path = tmp_path_factory.mktemp("approximated")

    def run(sampler):
        if not (path / sampler).exists():
            assert command(*words(lambda name: f"{EXPERIMENTS}:{name}", path, sampler, "--name", sampler)) == 0
        return path / sampler

    return run


@pytest.mark.parametrize("phase", ["warm-up", "sampling"])
@pytest.mark.parametrize("sampler", METHODS)
def test_every_approximation_resumes_bit_for_bit(sampler, phase, approximated, tmp_path, own, cli, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_in(patch, phase, 3)
        assert cli(*words(own, tmp_path, sampler, "--name", "parts")).status == 130
    assert cli("resume", tmp_path / "parts").status == 0
    assert trees_are_equal(approximated(sampler), tmp_path / "parts")


@pytest.mark.parametrize("sampler", METHODS)
def test_a_run_counts_its_gradients_and_is_audited_as_an_approximation(sampler, approximated, cli):
    status = json.loads((approximated(sampler) / "status.json").read_text())
    assert status["gradients"] == 0
    # Sums of float32 numbers, two dozen of them.
    assert status["warmup_gradients"] == pytest.approx(METHODS[sampler][1], rel=1e-5)
    tree = load_run(approximated(sampler)).tree
    assert tree.attrs["kind"] == "approximation"
    assert np.isfinite(tree["functions/probability"]).all()
    audited = cli("audit", approximated(sampler))
    assert audited.out.count("not applicable") >= 5
    assert audited.status == 0  # all draws are finite; nothing else is claimed of them


SETTINGS = (
    c.SWAG(rank=2, period=3, batch_size=32),
    c.MeanFieldVI(batch_size=32),
    c.Laplace(structure="kronecker", batch_size=32),
    c.Laplace(structure="full", batch_size=32),
    c.MCDropout(batch_size=32),
)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.kind)
def test_draws_of_a_chain_have_the_same_bits_on_any_number_of_devices(settings):
    what = bayesnn.posterior(models.mlp([4], 3), priors.gaussian(), likelihoods.categorical(), data.load("wine"))
    problem = network_problem(what)
    method = build_method(c.RunConfig(sampler=settings, warmup=c.WarmUp(steps=12)), problem)
    key, positions = jax.random.key(1), what.init(jax.random.key(0), 3)

    def draws(num_devices):
        mesh = samplers.make_mesh(3, devices=jax.devices()[:num_devices])
        fit = samplers.sample(key, method.first_kernel, positions, problem.batch, num_steps=12, save=None, mesh=mesh)
        run = samplers.finish(method.warmup, fit.run)
        return samplers.sample(key, method.kernel, positions, problem.batch, num_steps=5, run=run, mesh=mesh).draws

    jax.tree.map(np.testing.assert_array_equal, draws(1), draws(3))


def test_linearised_draws_predict_nothing_new(approximated, tmp_path, refused):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 13)))
    assert "linearised" in refused("predict", approximated("laplace"), tmp_path / "x.npz")


def test_draws_have_the_asked_precision(approximated):
    for sampler, precision in (("laplace", np.float64), ("swag", np.float32)):
        assert load_run(approximated(sampler)).tree["posterior/layer_0.kernel"].dtype == precision


def test_several_chains_are_fits_of_their_own_and_a_notebook_has_them_too():
    what = bayesnn.posterior(models.mlp([3], 3), priors.gaussian(), likelihoods.categorical(), data.load("wine"))
    settings = c.Laplace(structure="diagonal", linearised=True)
    run = bayesnn.sample(jax.random.key(0), what, settings, chains=3, draws=4, warmup=5)
    spread = run.tree["posterior/layer_0.bias"].mean("draw").std("chain")
    assert (spread > run.tree["posterior/layer_0.bias"].std("draw").min() / 10).all()
    assert run.tree.attrs["kind"] == "approximation"
    with pytest.raises(ValueError, match="linearised"):
        run.predict(np.zeros((2, 13)))


@pytest.mark.parametrize(
    ("experiment", "settings", "message"),
    [
        ("wine", ["laplace", "--warmup.steps", "0"], "laplace is fitted in the warm-up"),
        ("wine", ["swag", "--warmup.steps", "20"], "gathers 5 positions.*needs 20"),
        ("wine", ["mc-dropout", "--sampler.rate", "1"], "less than 1"),
        ("wine", ["mc-dropout", "--sampler.kernels", "layer_3.kernel"], "no layer_3.kernel"),
        ("wine", ["mean-field-vi", "--sampler.batch-size", "1000"], "batch_size must be from 1 to"),
        ("own_parts", ["mc-dropout"], "must know which kernels.*out.kernel"),
        ("gaussian", ["laplace", "--sampler.batch-size", "None"], "laplace needs a network"),
        ("gaussian", ["mc-dropout", "--sampler.batch-size", "None"], "mc-dropout needs a network"),
    ],
)
def test_what_makes_no_sense_is_refused(experiment, settings, message, tmp_path, own, refused):
    told = refused("run", own(experiment), "--runs", tmp_path, "--sampler", *settings)
    assert re.search(message, told), told


def test_a_density_is_approximated(tmp_path, own, cli):
    """Of a standard normal: the optimum of the variational fit is the density itself."""
    settings = ["--sampler.batch-size", "None", "--sampler.learning-rate", "0.05", "--warmup.steps", "1500", "--draws", "500"]
    words = ["run", own("gaussian"), "--runs", tmp_path, "--name", "run", "--sampler", "mean-field-vi", *settings]
    assert cli(*words).status == 0
    x = load_run(tmp_path / "run").tree["posterior/x"].values
    # 1000 draws, and a fit whose gradient has no noise at this optimum: five standard errors.
    assert np.abs(x.mean(axis=(0, 1))).max() < 5 / np.sqrt(1000)
    assert np.abs(x.var(axis=(0, 1)) - 1).max() < 5 * np.sqrt(2 / 1000)
