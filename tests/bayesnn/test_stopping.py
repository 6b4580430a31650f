"""Runs that end when they have enough: at the draw where the target is reached, and at the same one after a kill."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnn
from bayesnn.load import load_run
from bayesnn.run_folder import RunFolder
from bayesnn.shard import Commit
from bayesnn.stopping import _is_time_to_look, reason_to_stop
from diagnostics.convergence import ess_bulk, rhat
from tests.bayesnn.conftest import EXPERIMENTS, command, interrupt_in

WINE = f"{EXPERIMENTS}:wine"


def words_of(path, *more):
    return ["run", WINE, "--name", path.name, "--runs", str(path.parent), "--draws", "400", *map(str, more)]


def functions(path):
    probability = load_run(path).tree["functions"]["probability"].values
    return probability.reshape(*probability.shape[:2], -1).astype(float)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run until 95 % of the probabilities have 60 effective draws and an R-hat below 1.1."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    assert command(*words_of(path, "--stop.ess", 60, "--stop.rhat", 1.1)) == 0
    return path


def test_it_ends_when_the_target_is_reached_and_not_before(stopped):
    values = functions(stopped)
    assert values.shape[1] < 400
    assert np.quantile(ess_bulk(values), 0.05) >= 60
    assert np.quantile(rhat(values), 0.95) <= 1.1
    looks = [draws for draws in range(4, values.shape[1], 4) if _is_time_to_look(draws, 4)]
    for draws in looks:
        early = values[:, :draws]
        assert np.quantile(ess_bulk(early), 0.05) < 60 or np.quantile(rhat(early), 0.95) > 1.1
    assert RunFolder(stopped).status["state"] == "complete"


@pytest.mark.slow
def test_its_draws_begin_the_longer_run(stopped, tmp_path, cli):
    assert cli(*words_of(tmp_path / "run", "--draws", 100)).status == 0
    short, full = functions(stopped), functions(tmp_path / "run")
    length = min(short.shape[1], full.shape[1])
    np.testing.assert_array_equal(short[:, :length], full[:, :length])


def test_it_ends_at_the_same_draw_after_an_interrupt(stopped, tmp_path, cli):
    path = tmp_path / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        interrupt_in(monkeypatch, "sampling", 9)
        assert cli(*words_of(path, "--stop.ess", 60, "--stop.rhat", 1.1)).status == 130
    assert cli("resume", path).status == 0
    np.testing.assert_array_equal(functions(path), functions(stopped))
    assert f"is complete: {functions(stopped).shape[1]} draws of 2 chains" in cli("resume", path).out


def test_a_budget_of_gradients(tmp_path, cli):
    path = tmp_path / "run"
    status, out, _ = cli(*words_of(path, "--stop.gradients", 5000))
    assert status == 0
    assert "gradients are spent, of 5,000" in out
    gradients = load_run(path).tree["sample_stats"]["num_gradients"].values.sum(0).cumsum()
    assert gradients[-1] >= 5000 > gradients[-5]  # at the end of the block of four draws in which it is passed


def test_a_budget_goes_on_after_an_interrupt(tmp_path, cli):
    """What was spent before counts, gradients and seconds alike."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert cli(*words_of(whole, "--stop.gradients", 5000)).status == 0
    with pytest.MonkeyPatch.context() as monkeypatch:
        interrupt_in(monkeypatch, "sampling", 9)
        assert cli(*words_of(parts, "--stop.gradients", 5000)).status == 130
    (shard,) = RunFolder(parts).shards()
    before = shard.read_commit()
    assert cli("resume", parts).status == 0
    after = shard.read_commit()
    assert after.draws == RunFolder(whole).shards()[0].read_commit().draws > before.draws
    assert after.seconds > before.seconds > 0


def test_a_budget_of_time(tmp_path, cli):
    status, out, _ = cli(*words_of(tmp_path / "run", "--stop.seconds", 1e-3))
    assert status == 0
    assert "complete with 4 of 400 draws" in out


@pytest.mark.parametrize("setting", ["ess", "gradients", "seconds", "rhat"])
def test_bad_settings(setting, tmp_path, refused):
    assert f"stop.{setting}" in refused(*words_of(tmp_path / "run", f"--stop.{setting}", "-1"))


@pytest.mark.parametrize(
    ("chosen", "is_enough"),
    [
        ((), False),
        (("probability",), False),
        (("log_likelihood",), True),
        (("out",), True),
        (("out.kernel",), True),
        (("layer",), False),
        (("log_likelihood", "layer.bias"), False),
    ],
)
def test_what_is_chosen_decides(chosen, is_enough):
    """Chains that stay apart in some of their values, and are independent draws in the others."""
    rng = np.random.default_rng(0)
    apart = ("functions/probability", "posterior/layer.bias", "sample_stats/lp")
    mixed = ("functions/log_likelihood", "posterior/layer.kernel", "posterior/out.kernel")
    arrays = {name: rng.normal(size=(4, 100, 3)) for name in (*apart, *mixed)}
    for name in apart:
        arrays[name] += 5 * np.arange(4)[:, None, None]
    stop = bayesnn.Stop(ess=100, rhat=1.1, functions=chosen)
    reason = reason_to_stop(stop, Commit(draws=100), 50, arrays, arrays.__getitem__)
    assert (reason is not None) == is_enough
    assert reason is None or f"of 3 values of {chosen[0]} have" in reason


def test_a_run_ends_when_chosen_functions_have_enough(tmp_path, cli):
    words = words_of(tmp_path / "run", "--stop.ess", 60, "--stop.functions", "log_likelihood")
    assert "values of log_likelihood have" in cli(*words).out
    values = load_run(tmp_path / "run").tree["functions"]["log_likelihood"].values.astype(float)
    assert values.shape[1] < 400
    assert np.quantile(ess_bulk(values), 0.05) >= 60


def test_functions_that_are_not_there_are_refused_before_anything_runs(tmp_path, refused):
    message = refused(*words_of(tmp_path / "run", "--stop.ess", 60, "--stop.functions", "probability", "accuracy"))
    assert "nothing of a draw is called accuracy; there are log_likelihood, probability, layer_0.bias, layer_0.kernel," in message
    assert not list(tmp_path.iterdir())


def test_functions_without_a_target_are_refused(tmp_path, refused):
    assert "neither is given" in refused(*words_of(tmp_path / "run", "--stop.functions", "probability"))


def test_in_memory():
    """A Gaussian's draws begin those of the whole run, and end where the chosen weights, or the gradients, are enough."""
    problem = bayesnn.density_problem(lambda x: -0.5 * jnp.sum(x["a"] ** 2) - 0.5 * jnp.sum(x["b"] ** 2), {"a": 0.0, "b": 0.0})

    def draws(**stop):
        hmc = bayesnn.HMC(step_size=0.5, trajectory_length=1.5)
        sampled = bayesnn.sample(jax.random.key(0), problem, hmc, draws=400, warmup=0, stop=bayesnn.Stop(**stop))
        return sampled.tree["posterior"]["a"].values, sampled.tree.attrs["gradients"]

    (whole, _), (enough, _), (_, spent) = draws(), draws(ess=200, functions=("a",)), draws(gradients=1000)
    assert 4 < enough.shape[1] < 400
    assert ess_bulk(enough[..., None].astype(float)) >= 200
    np.testing.assert_array_equal(enough, whole[:, : enough.shape[1]])
    assert 1000 <= spent < 2000
    with pytest.raises(bayesnn.UsageError, match=r"nothing of a draw is called c; there are a, b$"):
        draws(ess=200, functions=("c",))
