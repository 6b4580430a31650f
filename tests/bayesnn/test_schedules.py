"""Schedules and control variates of stochastic gradients as settings: what kernels follow, what runs keep, what is refused."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

import samplers
from bayesnn.build import build_method, build_problem
from bayesnn.config import SGHMC, SGLD, SGNHT, WarmUp
from bayesnn.errors import UsageError
from bayesnn.experiments import load_experiment
from bayesnn.load import load_run
from bayesnn.plan import make_plan
from bayesnn.run_folder import RunFolder
from tests.bayesnn.conftest import interrupt_in
from tests.bayesnn.experiments import SHORT
from tests.bayesnn.test_execute import trees_are_equal

STEP_SIZE, STEPS = 1e-4, 20
SLOW = pytest.mark.slow
BATCH, EXAMPLES = 32, 142  # of wine


def moved(sampler, *, thin=1):
    """Return how far a chain moves in each step, [step], from settings or a kernel."""
    config = SHORT.model_copy(update={"sampler": sampler, "thin": thin, "warmup": WarmUp(steps=0)})
    problem = build_problem(config)
    kernel = build_method(config, problem).kernel
    key, positions = jax.random.key(1), problem.init(jax.random.key(0), 1, "prior")
    draws = samplers.sample(key, kernel, positions, problem.batch, num_steps=STEPS).draws
    flat = np.concatenate([np.asarray(x).reshape(STEPS, -1) for x in jax.tree.leaves(draws)], axis=1)
    return np.linalg.norm(np.diff(flat, axis=0), axis=1)


@pytest.mark.slow
def test_a_decaying_step_size():
    """Noise of sqrt(step size) is nearly all of a small step, so steps shrink as (1 + t / 1)^(-1/2) for power 1."""
    decaying = moved(SGLD(step_size=1e-8, decay_offset=1.0, decay_power=1.0))
    constant = moved(SGLD(step_size=1e-8))
    # The same keys give the same noise; the drift, epsilon / 2 times a gradient of order 1000, is 5 % of it.
    np.testing.assert_allclose(decaying / constant, (1 + np.arange(1, STEPS)) ** -0.5, rtol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SGHMC, pytest.param(SGNHT, marks=SLOW)])
def test_a_decaying_step_size_with_momentum(kind):
    """Momenta change little in 20 steps of 1e-5, friction and noise by 1 %, so that steps shrink as the step size does."""
    settings = {"step_size": 1e-5, "friction": 1.0}
    decaying, constant = moved(kind(**settings, decay_offset=1.0, decay_power=1.0)), moved(kind(**settings))
    np.testing.assert_allclose(decaying / constant, 1 / (1 + np.arange(1, STEPS)), rtol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [SGLD(step_size=STEP_SIZE, cycle_length=10), SGHMC(step_size=1e-3, cycle_length=10)])
def test_a_cycle_ends_with_small_steps(sampler):
    steps = moved(sampler, thin=10)
    assert steps[9 - 1] < 0.3 * steps[6 - 1]  # step 9 of 10: (1 + cos(0.9 pi)) / 2 = 0.024, step 6: 0.35


def test_the_built_in_cycles_end_at_the_temperature_of_the_posterior():
    """By the rule of docs/methods.md: critical damping of the prior's directions, and time enough to warm them up again."""
    config = load_experiment("digits-csghmc")
    sampler, scale = config.sampler, config.prior.scale
    assert sampler.friction == pytest.approx(2 / scale, rel=0.01)
    assert sampler.cycle_length * sampler.step_size >= 46 * scale
    assert config.thin == sampler.cycle_length  # earlier draws are colder


CYCLE = ["--sampler.cycle-length", "20", "--thin", "5", "--warmup.steps", "20"]
CONTROLLED = ["--sampler.control-variates", "--start", "map"]


def words(own, path, sampler, *more):
    small = ["--sampler.batch-size", BATCH, "--sampler.step-size", "1e-4", "--draws", "8"]
    return ["run", own("wine"), "--runs", path, "--sampler", sampler, *small, *more]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["sghmc", *(pytest.param(kind, marks=SLOW) for kind in ("sgld", "sgnht"))])
def test_a_cyclical_run_keeps_draws_of_cold_halves_and_pays_for_all_steps(sampler, own, cli, tmp_path):
    assert cli(*words(own, tmp_path, sampler, *CYCLE)).status == 0
    status = json.loads((tmp_path / "wine/status.json").read_text())
    # Draws of 10 cold steps, two of each of four cycles of 20 steps; two chains. Sums of float32 numbers, dozens of them.
    assert status["gradients"] == pytest.approx(2 * 4 * 20 * BATCH / EXAMPLES, rel=1e-5)
    assert status["warmup_gradients"] == pytest.approx(2 * 20 * BATCH / EXAMPLES, rel=1e-5)
    config = RunFolder(tmp_path / "wine").config
    assert make_plan(config, "h100").gradients == pytest.approx(status["gradients"] + status["warmup_gradients"], rel=1e-5)
    attributes = load_run(tmp_path / "wine").tree.attrs
    assert (attributes["sampler"], attributes["kind"]) == (f"cyclical {sampler}", "sgmcmc")
    assert cli("audit", tmp_path / "wine").status == 1  # so few draws
    assert cli("report", tmp_path / "wine").status == 0


@SLOW
@pytest.mark.parametrize("settings", [CYCLE, CONTROLLED, [*CYCLE, *CONTROLLED]], ids=["cycle", "control variates", "both"])
def test_schedules_and_control_variates_resume_bit_for_bit(settings, own, cli, tmp_path, monkeypatch):
    assert cli(*words(own, tmp_path, "sghmc", *settings, "--name", "whole")).status == 0
    for phase in ("warm-up", "sampling"):
        with monkeypatch.context() as patch:
            interrupt_in(patch, phase, 3)
            assert cli(*words(own, tmp_path, "sghmc", *settings, "--name", phase)).status == 130
        assert cli("resume", tmp_path / phase).status == 0
        assert trees_are_equal(tmp_path / "whole", tmp_path / phase)


@pytest.mark.slow
def test_control_variates_cost_twice(own, cli, tmp_path):
    assert cli(*words(own, tmp_path, "sgld", *CONTROLLED, "--warmup.steps", "0")).status == 0
    status = json.loads((tmp_path / "wine/status.json").read_text())
    assert status["gradients"] == pytest.approx(2 * 2 * 8 * BATCH / EXAMPLES, rel=1e-5)  # two chains of eight steps
    assert load_run(tmp_path / "wine").tree.attrs["sampler"] == "sgld with control variates"


@pytest.mark.parametrize(
    ("words_of_sampler", "message"),
    [
        (
            ["--sampler.cycle-length", "20", "--thin", "3", "--warmup.steps", "0"],
            "or divide the 10 steps of a cycle's second half",
        ),
        (["--sampler.cycle-length", "20", "--thin", "20", "--warmup.steps", "15"], "warmup.steps must be a multiple"),
        (["--sampler.cycle-length", "20", "--sampler.decay-offset", "1"], "two schedules: choose one"),
        (["--sampler.cycle-length", "1"], "sampler.cycle_length: Input should be greater than or equal to 2 (got 1)"),
        (["--sampler.control-variates"], "got the start prior: begin at a mode, by --start map"),
        (["--sampler.control-variates", "--sampler.batch-size", "None"], "there are none: set sampler.batch_size"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
@pytest.mark.parametrize("sampler", ["sgld", "sgnht"])
def test_settings_that_do_not_fit_are_refused(sampler, words_of_sampler, message, own, refused, tmp_path):
    assert message in refused(*words(own, tmp_path, sampler), *words_of_sampler)
    assert not any(tmp_path.iterdir())


def test_a_density_has_no_examples_to_control():
    config = SHORT.model_copy(update={"sampler": SGLD(control_variates=True), "start": "map"})
    problem = build_problem(config)
    density = dataclasses.replace(problem, target=problem.target._replace(num_data=0))
    with pytest.raises(UsageError, match="a density has none: leave it out"):
        build_method(config, density)
