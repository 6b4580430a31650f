"""Gradient flow, barriers and classifiers on potentials that can be drawn, and the two commands on a small run."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from scipy.integrate import solve_ivp

import bayesnn
import samplers
from bayesnn import data, likelihoods, models, priors
from bayesnn.measure.barriers import barriers, respaced
from bayesnn.measure.classify import by_functions, by_minima, by_own, by_weights, copies_near, find_minima
from bayesnn.measure.gradient_flow import flow_to_minima
from bayesnn.measure.region_figure import region_figure
from bayesnn.measure.visits import _count_minima, _minima_line
from diagnostics import regions
from samplers import Tempering

TEMPERING = Tempering.at()
SMALL = ["--systems", 8, "--particles", 32, "--moves", 2, "--rungs", 6, "--ladder-warmup", 64, "--ladder-draws", 100]


def valley(x):
    """Two minima at (1, 0) and (-1, 0), in a curved valley a hundred times as stiff across as along."""
    along, across = x[0], x[1] - 0.5 * jnp.sin(2 * x[0])
    return 2 * (along**2 - 1) ** 2 + 0.2 * along + 100 * across**2


def ring(x):
    """Minima at both ends of a diameter of the unit circle; along it the barrier is 3 nats, across the middle 50."""
    radius = jnp.sqrt(jnp.sum(x**2) + 1e-12)
    return 50 * (radius - 1) ** 2 + 3 * (x[1] / radius) ** 2


def target_of(potential):
    return samplers.from_logdensity(lambda x: -potential(x))


@pytest.fixture(scope="module")
def curve():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 1))
    y = np.sin(2 * x[:, 0]) + 0.3 * rng.normal(size=80)
    dataset = data.from_arrays(x[:40], y[:40], x[40:], y[40:], name="sine")
    return bayesnn.posterior(models.mlp([3], 1, "tanh"), priors.gaussian(1.0), likelihoods.gaussian(0.4), dataset)


@pytest.fixture(scope="module")
def bump():
    """A step up on the left and one down on the right: one unit fits either, with 60 nats between the two minima."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-5, 5, size=(160, 1))
    y = np.tanh(x[:, 0] + 2) - 0.955 * np.tanh(x[:, 0] - 2) + 0.2 * rng.normal(size=160)
    dataset = data.from_arrays(x, y, x, y, name="bump")
    return bayesnn.posterior(models.mlp([1], 1, "tanh"), priors.gaussian(1.0), likelihoods.gaussian(0.5), dataset)


def steps(side, sign):
    """Networks of one unit with a step on a side (-1 or 1), and either sign of the unit."""
    side, sign = np.asarray(side, float), np.asarray(sign, float)
    return {
        "layer_0": {"kernel": jnp.asarray(2 * sign)[:, None, None], "bias": jnp.asarray(-1.4 * side * sign)[:, None]},
        "layer_1": {"kernel": jnp.asarray(-side * sign)[:, None, None], "bias": jnp.zeros((len(side), 1))},
    }


@pytest.mark.slow
@pytest.mark.parametrize("potential", [valley])
def test_the_flow_ends_in_the_basin_of_the_exact_flow(potential):
    starts = jax.random.normal(jax.random.key(0), (60, 2))
    target, batch = target_of(potential)
    found = flow_to_minima(target, batch, TEMPERING, starts)
    slope = jax.jit(jax.grad(potential))
    exact = [
        solve_ivp(lambda _, x: -np.asarray(slope(x), float), (0, 20), start, method="LSODA", rtol=1e-5, atol=1e-7).y[:, -1]
        for start in np.asarray(starts, float)
    ]
    assert found.is_minimum.all()
    assert {True, False} == set(found.position[:, 0] > 0)
    # To the width of the minimum at 1e-4 nats: sqrt(2e-4 / 16) along the valley.
    np.testing.assert_allclose(found.position, exact, atol=0.01)


def test_the_flow_ends_in_a_minimum_with_its_hessian():
    precision = np.array([[1e4, 3.0], [3.0, 0.1]])
    target, batch = target_of(lambda x: 0.5 * x @ jnp.asarray(precision, jnp.float32) @ x + 7.0)
    found = flow_to_minima(target, batch, TEMPERING, jnp.array([[1.0, 20.0], [0.0, 0.0]]))
    np.testing.assert_allclose(found.log_density, -7.0, atol=1e-4)  # nats: where flows end
    np.testing.assert_allclose(found.hessian, [precision, precision], rtol=1e-3, atol=1e-2)
    assert found.is_minimum.all()
    with pytest.raises(ValueError, match="at most 1000 weights"):
        flow_to_minima(target, batch, TEMPERING, jnp.zeros((1, 1001)))


def test_the_flow_says_where_it_found_no_minimum():
    target, batch = target_of(lambda x: -jnp.sum(x))  # falls for ever
    assert not flow_to_minima(target, batch, TEMPERING, jnp.zeros((1, 2))).is_minimum.any()


def test_a_path_goes_round_the_hill():
    target, batch = target_of(ring)
    ends = np.array([[1.0, 0.0], [-1.0, 0.02]])
    minima = flow_to_minima(target, batch, TEMPERING, jnp.asarray(ends, jnp.float32))
    start = np.repeat(np.asarray(minima.position, float)[:, None], 2, 1)
    height = barriers(target, batch, TEMPERING, jnp.zeros(2), start, minima.log_density, minima.hessian)
    # The straight way costs 50 nats, the one round the ring 3; chords between points of a path cut inwards by 0.001 of that.
    assert height[0, 1] == pytest.approx(3.0, abs=0.05)
    np.testing.assert_array_equal(height, height.T)
    np.testing.assert_array_equal(np.diag(height), 0)


@pytest.mark.slow
def test_a_barrier_is_above_the_higher_minimum():
    """In a curved valley whose two ends differ by 0.4 nats."""
    target, batch = target_of(valley)
    minima = flow_to_minima(target, batch, TEMPERING, jnp.array([[1.0, 0.4], [-1.0, -0.4]]))
    start = np.repeat(np.asarray(minima.position, float)[:, None], 2, 1)
    height = barriers(target, batch, TEMPERING, jnp.zeros(2), start, minima.log_density, minima.hessian)[0, 1]
    along = np.linspace(-1.2, 1.2, 2401)
    floor = 2 * (along**2 - 1) ** 2 + 0.2 * along
    expected = floor[np.abs(along) < 0.5].max() - floor[along > 0].min()
    # Chords between 17 points of the path leave the floor by 1e-3, which costs 100 times the square of that and less.
    assert height == pytest.approx(expected, abs=0.05)


def test_points_are_spaced_evenly():
    path = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]])
    np.testing.assert_allclose(respaced(path, 5), [[0, 0], [1, 0], [1, 1], [1, 2], [1, 3]], atol=1e-6)  # rounding in float32


@pytest.mark.slow
def test_copies_of_a_minimum_are_one(curve):
    """Exchanged units and turned signs: two flows apart in weights, and one minimum; another network is another."""
    one = curve.init(jax.random.key(0), 1, "prior")
    order, sign = jnp.array([2, 0, 1]), jnp.array([1.0, -1.0, -1.0])
    copy = {
        "layer_0": {"kernel": (one["layer_0"]["kernel"] * sign)[..., order], "bias": (one["layer_0"]["bias"] * sign)[..., order]},
        "layer_1": {"kernel": (one["layer_1"]["kernel"] * sign[:, None])[:, order], "bias": one["layer_1"]["bias"]},
    }
    both = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), one, copy)
    found = find_minima(curve, both, np.arange(2))
    np.testing.assert_array_equal(found.number, [0, 0])
    assert np.abs(found.minima.position["layer_0"]["bias"][0] - found.minima.position["layer_0"]["bias"][1]).max() > 0.1
    near = copies_near(curve, found.minima.position, jax.tree.map(lambda x: x[0], found.minima.position))
    np.testing.assert_allclose(near[0], near[1], atol=0.05)  # flows stop within 1e-4 nats


def test_other_minima_are_others_whatever_their_signs(bump):
    found = find_minima(bump, steps([-1, 1, -1, 1], [1, 1, -1, -1]), np.arange(4))
    np.testing.assert_array_equal(found.number, [0, 1, 0, 1])


def test_a_density_with_kinks_has_no_minima_to_count(monkeypatch):
    """Flows of ReLU networks do not come to an end: that is said, and regions of functions are measured all the same."""
    x = np.linspace(-1, 1, 20)[:, None]
    dataset = data.from_arrays(x, np.abs(x[:, 0]), x, np.abs(x[:, 0]), name="kink")
    posterior = bayesnn.posterior(models.mlp([3], 1, "relu"), priors.gaussian(1.0), likelihoods.gaussian(0.1), dataset)
    monkeypatch.setattr("bayesnn.measure.gradient_flow.MAX_STEPS", 3)
    draws = {name: np.asarray(x)[None] for name, x in models.named(posterior.init(jax.random.key(0), 2, "prior")).items()}
    counted = _count_minima(posterior, draws, 2)
    assert np.isnan(counted.attrs["per_100_draws"])
    assert "not smooth" in _minima_line(counted)
    with pytest.raises(bayesnn.UsageError, match="--regions functions"):
        by_minima(posterior, posterior.init(jax.random.key(0), 2, "prior"), np.arange(2))


def test_minima_classify_draws_and_their_copies_alike(bump):
    side, sign = np.tile([-1, 1], 6), np.repeat([1, -1], 6)
    classifier, _, heights = by_minima(bump, steps(side, sign), np.arange(12) % 4)
    assert classifier.num_regions == 2
    assert heights.shape == (2, 2)
    assert heights[0, 1] > regions.LOWEST_BARRIER
    labels = classifier.label(steps(side, sign))
    np.testing.assert_array_equal(labels == labels[0], side == side[0])
    np.testing.assert_array_equal(classifier.label(steps(side, -sign)), labels)


def test_functions_classify_copies_alike(curve):
    pilot = curve.init(jax.random.key(2), 64, "prior")
    classifier = by_functions(curve, pilot, 3, seed=0)
    order = jnp.array([1, 2, 0])
    moved = {
        "layer_0": jax.tree.map(lambda x: x[..., order], pilot["layer_0"]),
        "layer_1": {"kernel": pilot["layer_1"]["kernel"][:, order], "bias": pilot["layer_1"]["bias"]},
    }
    np.testing.assert_array_equal(classifier.label(moved), classifier.label(pilot))
    assert set(classifier.label(pilot)) == set(range(classifier.num_regions))


def test_a_classifier_of_ones_own_is_checked(curve, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "def sign(weights):\n    return (weights['layer_1.bias'][:, 0] > 0).astype(int)\n\ndef wrong(weights):\n    return [1]\n"
    )
    positions = curve.init(jax.random.key(0), 20, "prior")
    labels = by_own(f"{own}:sign", 2).label(positions)
    np.testing.assert_array_equal(labels, np.asarray(positions["layer_1"]["bias"])[:, 0] > 0)
    with pytest.raises(bayesnn.UsageError, match="integers from 0 to 1"):
        by_own(f"{own}:wrong", 2).label(positions)


def test_the_figure_shows_what_the_table_holds():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, p=[0.6, 0.3, 0.1], size=(8, 200))
    masses = [regions.masses_from_systems(name, rng.dirichlet([60, 30, 10], 8)) for name in ("smc", "pt")]
    table = regions.regions_table(labels, masses, prior_volume=np.full(3, 1 / 3))
    shares, transitions, lengths = region_figure(table, "A run").axes
    bars = [bar.get_height() for container in shares.containers for bar in getattr(container, "patches", ())]
    np.testing.assert_array_equal(bars, [*table["visit_share"].values, *table["mass"].values.ravel()])
    np.testing.assert_array_equal(transitions.images[0].get_array(), table["transition"])
    curves = [line.get_ydata() for line in lengths.lines if len(line.get_ydata()) == table.sizes["length"]]
    np.testing.assert_array_equal(curves[-1], table["share_by_length"].isel(region=0).mean("chain"))
    assert all(axes.get_title(loc="left") for axes in (shares, transitions, lengths))


@pytest.mark.parametrize("measure", ["basins", "evidence"])
def test_runs_without_a_prior_are_refused(refused, own, cli, tmp_path, measure):
    assert cli("run", own("gaussian"), "--name", "g", "--runs", tmp_path).status == 0
    assert "density" in refused("measure", tmp_path / "g", measure)


def test_cold_runs_and_wrong_settings_are_refused(refused, own, cli, tmp_path, finished):
    assert cli("run", own("wine"), "--name", "cold", "--runs", tmp_path, "--temperature", 0.5).status == 0
    assert "temperature 0.5" in refused("measure", tmp_path / "cold", "basins")
    assert "functions, minima" in refused("measure", finished, "basins", "--regions", "modes")


@pytest.fixture(scope="module")
def step_up():
    """A network of one tanh unit on data that leave its weights no choice but their sign; and draws of 24 chains at one sign."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, size=(80, 1))
    dataset = data.from_arrays(x, (y := np.tanh(2 * x[:, 0]) + 0.05 * rng.normal(size=80)), x, y, name="step up")
    posterior = bayesnn.posterior(models.mlp([1], 1, "tanh"), priors.gaussian(1.0), likelihoods.gaussian(0.2), dataset)
    kernel = samplers.hmc(posterior.target, step_size=0.02, trajectory_length=0.5)
    starts = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], 24, 0), posterior.unflatten({
        "layer_0.kernel": jnp.full((1, 1), 1.5), "layer_0.bias": jnp.zeros(1),
        "layer_1.kernel": jnp.full((1, 1), 1.5), "layer_1.bias": jnp.zeros(1),
    }))  # fmt: skip
    draws = samplers.sample(jax.random.key(0), kernel, starts, posterior.batch, num_steps=400).draws
    return posterior, jax.tree.map(lambda leaf: leaf[:, 100:], draws)


def some_chains(tree, first, signs=None):
    """Eight chains from `first` on; some of their draws at the other sign of the unit."""
    picked = jax.tree.map(lambda leaf: leaf[first : first + 8], tree)
    if signs is not None:
        of_unit = {"layer_0": ("kernel", "bias"), "layer_1": ("kernel",)}
        for layer, names in of_unit.items():
            turned = {name: picked[layer][name] * signs.reshape(8, -1, *[1] * (picked[layer][name].ndim - 2)) for name in names}
            picked[layer] = picked[layer] | turned
    return picked


@pytest.mark.parametrize("declared", [True, False])
def test_clusters_of_weights_see_what_predictions_do_not_and_no_symmetric_copies(step_up, declared, monkeypatch):
    """Chains that stay at one sign miss half of the mass, unless the two signs are known to be one network."""
    posterior, draws = step_up
    if not declared:
        model = posterior.model._replace(symmetries=lambda params: ())
        posterior = dataclasses.replace(posterior, model=model)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (2, 8, 300))
    others = [some_chains(draws, first, sign) for first, sign in zip((0, 8), signs, strict=True)]
    pilot = jax.tree.map(lambda leaf: leaf[:, ::3].reshape(-1, *leaf.shape[2:]), others[0])

    def verdict(classifier):
        def labels(chains):
            return classifier.label(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), chains)).reshape(8, -1)

        masses = [
            regions.masses_from_systems(name, regions.visit_shares(labels(chains), 2))
            for name, chains in zip("ab", others, strict=True)
        ]
        return regions.regions_visited_by_mass(labels(some_chains(draws, 16)), masses).verdict

    assert verdict(by_functions(posterior, pilot, 2, 0)) == "pass"
    monkeypatch.setattr("bayesnn.measure.classify.ALIGNED", 1000)  # blocks of 250 draws of four weights
    classifier = by_weights(posterior, pilot, 2, 0)
    np.testing.assert_array_equal(
        classifier.label(pilot)[300:400], classifier.label(jax.tree.map(lambda leaf: leaf[300:400], pilot))
    )
    assert verdict(by_weights(posterior, pilot, 2, 0)) == ("pass" if declared else "fail")


def test_draws_that_are_not_finite_are_in_no_region(finished):
    from bayesnn.load import load_run
    from bayesnn.measure.basins import Basins
    from bayesnn.measure.visits import measure

    run = load_run(finished)
    run.tree["posterior"]["layer_0.bias"].values[1, 3] = np.nan
    with pytest.raises(bayesnn.UsageError, match=r"chains \[1\] are not finite"):
        measure(run, Basins(), Console(quiet=True))


@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.slow
def test_basins_of_a_small_run(cli, own, finished_copy):
    from bayesnn.measure.store import read_measure
    from bayesnn.run_folder import RunFolder

    outcome = cli("measure", finished_copy, "basins", *SMALL, "--minima", 4, "--num-regions", 3)
    assert outcome.status in (0, 1), outcome.err
    assert "Minima: " in outcome.out
    found = read_measure(RunFolder.open(finished_copy), "basins")
    claims = ["regions-mix", "regions-visited-by-mass", "light-regions-over-visited", "predictions-robust-to-region-weights"]
    assert [finding.claim for finding in found.findings] == [*claims, "weights-visited-by-mass", "evidence-methods-agree"]
    table = found.tree["regions"].to_dataset()
    for name in ("visit_share", "mass", "prior_volume"):
        np.testing.assert_allclose(table[name].sum("region"), 1, rtol=1e-9)
    weights = found.tree["weights"].to_dataset()
    shares = regions.visit_shares(weights["label"].values, weights.sizes["region"]).mean(0)
    np.testing.assert_allclose(weights["visit_share"], shares, rtol=1e-12)
    assert not np.array_equal(weights["label"], found.tree["labels"]["run"])
    # Two chains: shares of visits have no error that could be believed.
    assert {finding.verdict for finding in found.findings if finding.claim == "regions-visited-by-mass"} == {"inconclusive"}


@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.slow
def test_evidence_of_a_linear_model_is_that_of_its_closed_form(cli, tmp_path):
    """A linear model with known noise; 7 degrees of freedom: 4.8 standard errors have probability 0.002."""
    experiment = tmp_path / "linear.py"
    experiment.write_text(LINEAR)
    assert cli("run", f"{experiment}:experiment", "--name", "linear", "--runs", tmp_path).status == 0
    too_few = cli("measure", tmp_path / "linear", "evidence", *SMALL, "--live-points", 3)
    assert too_few.status == 2
    assert "--live-points: 3 live points" in too_few.err
    assert cli("measure", tmp_path / "linear", "evidence", *SMALL, "--live-points", 60).status in (0, 1)
    from bayesnn.measure.store import read_measure
    from bayesnn.run_folder import RunFolder

    table = read_measure(RunFolder.open(tmp_path / "linear"), "evidence").tree["evidence"].to_dataset()
    x = np.random.default_rng(0).normal(size=(40, 2))
    y = x @ [1.0, -1.0] + 0.5 * np.random.default_rng(1).normal(size=40)
    known = data.from_arrays(x[:30], y[:30], x[30:], y[30:], name="plane")
    design = np.column_stack([np.ones(30), known.x_train.astype(float)])
    covariance = 0.25 * np.eye(30) + design @ design.T
    residual = known.y_train.astype(float)
    exact = -0.5 * (residual @ np.linalg.solve(covariance, residual) + np.linalg.slogdet(2 * np.pi * covariance)[1])
    for estimator in ("tempered SMC", "stepping stone", "nested sampling"):
        row = table.sel({"estimator": estimator})
        assert abs(float(row["log_evidence"]) - exact) < 4.8 * float(row["standard_error"]), estimator


LINEAR = """
import numpy as np
from bayesnn import data
from bayesnn.config import HMC, MLP, Data, GaussianNoise, GaussianPrior, RunConfig, WarmUp

def plane():
    x = np.random.default_rng(0).normal(size=(40, 2))
    y = x @ [1.0, -1.0] + 0.5 * np.random.default_rng(1).normal(size=40)
    return data.from_arrays(x[:30], y[:30], x[30:], y[30:], name="plane")

def experiment():
    return RunConfig(
        data=Data(name=__file__ + ":plane"), model=MLP(widths=()), prior=GaussianPrior(scale=1.0),
        likelihood=GaussianNoise(noise=0.5), sampler=HMC(step_size=0.1), warmup=WarmUp(steps=10), chains=2, draws=10,
    )
"""
