"""The measures of convergence on runs: kinks and smooth potentials, reversibility, resonance, and null directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import samplers
from bayesnn.config import HMC, SGHMC, SGLD
from bayesnn.errors import UsageError
from bayesnn.load import load_run
from bayesnn.measure.acceptance import leapfrog_step
from bayesnn.measure.continued import positions_at
from bayesnn.measure.leapfrog import energy_errors, return_errors
from bayesnn.measure.problem import problem_of
from bayesnn.measure.store import read_measure
from diagnostics.step_error import energy_order
from samplers import Tempering

STARTS = 8


def paths_of(logdensity, scale=1.0):
    """What energy and return errors take, for a density of 3 scalars."""
    target, batch = samplers.from_logdensity(logdensity)
    positions = jnp.asarray(np.random.default_rng(0).normal(size=(STARTS, 3)), jnp.float32)
    return target, batch, Tempering.at(), positions, np.full((STARTS, 3), scale)


def gaussian(x):
    return -0.5 * jnp.sum(x**2)


def laplace(x):
    return -2 * jnp.sum(jnp.abs(x))


def chaotic(x):
    return -jnp.sum(x**4) - 20 * jnp.sum(jnp.sin(9 * x[1:]) * x[:-1] ** 2)


@pytest.mark.parametrize(("logdensity", "verdict"), [(gaussian, "smooth"), (laplace, "non-smooth")])
def test_energy_errors_of_known_order(logdensity, verdict):
    sizes = 0.1 * 0.5 ** np.arange(5)
    errors = [energy_errors(*paths_of(logdensity), step_size=np.full(STARTS, size), num_steps=round(8 / size)) for size in sizes]
    assert energy_order(sizes, np.array(errors)).verdict == verdict


def test_energy_error_of_an_oscillator_is_exact():
    """One leapfrog step of a unit oscillator: q' = (1 - h^2 / 2) q + h p, p' = (1 - h^2 / 2) p - (h - h^3 / 4) q."""
    h, what = 0.3, paths_of(gaussian)
    q = np.asarray(what[3], float)
    p = np.random.default_rng(5).normal(size=q.shape)
    new_q, new_p = (1 - h**2 / 2) * q + h * p, (1 - h**2 / 2) * p - (h - h**3 / 4) * q
    expected = 0.5 * (new_q**2 + new_p**2 - q**2 - p**2).sum(1)
    found = energy_errors(*what, step_size=np.full(STARTS, h), num_steps=1, seed=5)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)  # float64, cancelling four digits at most
    # The metric: with inverse mass m and step h / sqrt(m), the same path in units of sqrt(m).
    scaled = energy_errors(*paths_of(gaussian, 4.0), step_size=np.full(STARTS, h / 2), num_steps=1, seed=5)
    np.testing.assert_allclose(scaled, expected, rtol=1e-10, atol=1e-12)


def test_trajectories_return_to_rounding_and_chaotic_ones_do_not():
    options = {"step_size": np.full(STARTS, 0.1), "num_steps": 50}
    # Rounding of 100 steps: 1e-7 and 2e-16 each, of positions of order 1, added up linearly.
    assert return_errors(*paths_of(gaussian), precision="float64", **options).max() < 1e-13
    single = return_errors(*paths_of(gaussian), precision="float32", **options).max()
    assert 1e-9 < single < 1e-5
    lost = return_errors(*paths_of(chaotic), step_size=np.full(STARTS, 0.01), num_steps=2000, precision="float32")
    assert not lost.max() < 1e-3


def test_a_density_of_fixed_precision_is_refused():
    what = paths_of(lambda x: -0.5 * jnp.sum(x.astype(jnp.float32) ** 2).astype(jnp.float32))
    with pytest.raises(TypeError, match="float32, expected float64"):
        energy_errors(*what, step_size=np.full(STARTS, 0.1), num_steps=1)


def findings_of(run, name):
    return {finding.claim: finding for finding in read_measure(load_run(run).folder, name).findings}


@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.slow
def test_measures_of_a_run(finished_copy, cli):
    """A network of SiLU units is smooth; the draws stay as they are."""
    before = load_run(finished_copy).tree["posterior/layer_0.kernel"].values
    assert cli("measure", finished_copy, "energy-slope", "--starts", "8").status == 0
    found = findings_of(finished_copy, "energy-slope")
    assert found["smooth-potential"].verdict == "supported"
    assert found["reversible"].verdict == "pass"
    tree = read_measure(load_run(finished_copy).folder, "energy-slope").tree
    assert dict(tree.sizes) == {"step_size": 4, "start": 8, "precision": 2}
    assert not jax.config.jax_enable_x64
    assert cli("measure", finished_copy, "resonance", "--draws", "20", "--chains", "2").status == 0
    table = read_measure(load_run(finished_copy).folder, "resonance").tree
    assert table["direction"].values.tolist() == ["weights", "directions", "functions"]
    assert findings_of(finished_copy, "resonance")["resonance"].verdict == "inconclusive"  # 20 draws are too few
    assert cli("measure", finished_copy, "directions", "--directions", "3").status == 0
    groups = read_measure(load_run(finished_copy).folder, "directions").tree
    assert groups["leading"]["num_scalars"].sel(layer="(total)").values.tolist() == [6, 6]
    assert findings_of(finished_copy, "directions")["null-directions"].verdict == "not applicable"  # 13 features, all alive
    np.testing.assert_array_equal(load_run(finished_copy).tree["posterior/layer_0.kernel"].values, before)


@pytest.mark.slow
def test_a_relu_network_has_kinks(cli, own, tmp_path):
    words = ("--model.activation", "relu", "--warmup.steps", "50", "--chains", "4", "--draws", "20")
    assert cli("run", own("wine"), *words, "--runs", tmp_path, "--name", "relu").status == 0
    assert cli("measure", tmp_path / "relu", "energy-slope", "--halvings", "3").status == 0
    assert findings_of(tmp_path / "relu", "energy-slope")["smooth-potential"].verdict == "contradicted"


@pytest.mark.slow
def test_draws_along_null_directions_are_prior_draws(cli, own, tmp_path):
    """Two features of the data are copies of each other, so their difference is left to the prior."""
    assert cli("run", own("copied_feature"), "--runs", tmp_path, "--name", "run").status == 0
    run = tmp_path / "run"
    assert cli("measure", run, "directions").status in (0, 1)
    found = findings_of(run, "directions")["null-directions"]
    assert found.verdict == "pass"
    tree = read_measure(load_run(run).folder, "directions").tree
    assert tree["null"].attrs["num_directions"] == 1


@pytest.mark.slow
def test_resonance_of_a_gaussian_run_is_found(cli, own, tmp_path):
    assert cli("run", own("resonant"), "--runs", tmp_path, "--name", "run").status == 0
    assert cli("measure", tmp_path / "run", "resonance", "--draws", "200", "--directions", "40").status in (0, 1)
    found = findings_of(tmp_path / "run", "resonance")["resonance"]
    assert found.verdict == "supported"


@pytest.mark.slow
def test_minibatch_noise_and_what_a_measure_cannot_do(refused, own, cli, tmp_path):
    assert cli("run", own("regression"), "--draws", "10", "--runs", tmp_path, "--name", "sgld").status == 0
    assert "hmc" in refused("measure", tmp_path / "sgld", "resonance")
    assert "layer_0.kernel" in refused("measure", tmp_path / "sgld", "directions", "--kernel", "layer_0.kernle")
    assert "--batch-size" in refused("measure", tmp_path / "sgld", "gradient-noise", "--batch-size", "40")
    assert cli("measure", tmp_path / "sgld", "gradient-noise", "--minibatches", "100").status == 0
    tree = read_measure(load_run(tmp_path / "sgld").folder, "gradient-noise").tree
    assert tree.attrs["batch_size"] == 16
    assert (tree["hill"] > 2).all()  # sums of 16 of 40 bounded gradients: lighter than Gaussian


def test_leapfrogs_that_move_as_sgld_does():
    assert leapfrog_step(SGLD(step_size=0.04)) == pytest.approx(0.2)
    assert leapfrog_step(SGLD(step_size=0.04), 0.01) == pytest.approx(0.1)
    assert leapfrog_step(SGLD(cycle_length=50), 0.04) == pytest.approx(0.2)
    for sampler, message in (
        (HMC(), "this run is of hmc"),
        (SGHMC(), "this run is of sghmc"),
        (SGLD(preconditioner="rmsprop"), "preconditioner"),
        (SGLD(cycle_length=50), "--step-size"),
        (SGLD(decay_offset=50), "--step-size"),
    ):
        with pytest.raises(UsageError, match=message):
            leapfrog_step(sampler)


@pytest.mark.slow
def test_acceptance_is_that_of_mala(refused, own, cli, tmp_path):
    """Steps of `samplers.mala` from the same draws, which compute it in another precision and by another road."""
    path = tmp_path / "sgld"
    assert cli("run", own("regression"), "--draws", "16", "--runs", tmp_path, "--name", "sgld").status == 0
    assert "--draws" in refused("measure", path, "acceptance", "--draws", "17")
    assert cli("measure", path, "acceptance", "--momenta", "50").status == 0
    assert findings_of(path, "acceptance")["accept-step"].verdict == "pass"
    assert cli("measure", path, "acceptance", "--momenta", "200", "--step-size", "0.02").status == 1
    run = load_run(path)
    found = read_measure(run.folder, "acceptance").tree["acceptance_rate"]
    problem, num_keys = problem_of(run), 200
    chain, draw = (np.tile(index.ravel(), num_keys) for index in np.indices(found.shape))
    assert found["draw"].values.tolist() == list(range(16))
    kernel = samplers.mala(problem.target, step_size=0.02**0.5)
    result = samplers.sample(
        jax.random.key(1), kernel, positions_at(run, problem, chain, draw), problem.batch, num_steps=1, save=None
    )
    expected = np.asarray(result.info.acceptance_rate).reshape(num_keys, *found.shape)
    assert 0.2 < expected.mean() < 0.8
    # Both are means of as many independent momenta at each draw: the standard error of a difference, five times.
    error = expected.std(axis=0, ddof=1) * np.sqrt(2 / num_keys)
    assert (np.abs(expected.mean(axis=0) - found.values) < 5 * error).all()
