"""B1 to B4 and R1 in planted worlds: regions whose masses, visits and predictions are known."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import xarray as xr

from bayesnn.config import MLP, Data, GaussianPrior, RunConfig
from bayesnn.errors import UsageError
from bayesnn.izmailov2021 import (
    b1_region_weights,
    b2_light_regions,
    b3_right_weights,
    b4_sgd_prefers,
    oracle,
    r1_published,
)
from bayesnn.izmailov2021.scales import laptop
from bayesnn.load import load_run
from bayesnn.measure.basins import Basins
from bayesnn.measure.classify import label_run
from bayesnn.measure.store import read_measure
from bayesnn.reference import Bundle
from diagnostics import regions
from diagnostics.floor import Prefixes
from diagnostics.hypotheses import paired_gain
from diagnostics.trees import make_tree
from tests.bayesnn.planted import NUM_POINTS, predictions

GOOD, SAME, BAD = 2.5, 2.0, 1.5  # log odds, see `planted.predictions`
CHAINS, DRAWS = 10, 200
NUM_REGIONS, LADDERS, NUM_DATA = 6, 8, 300


def verdicts(judge, worlds):
    return [judge(world).finding.verdict for world in worlds]


def visits(share, *, stuck=False, seed=0):
    """Return labels of chains: independent draws, or each chain for ever where it started, in these shares."""
    rng = np.random.default_rng(seed)
    if stuck:
        starts = np.repeat(np.arange(len(share)), np.round(np.array(share) * CHAINS).astype(int))
        return np.repeat(starts[:, None], DRAWS, 1)
    return rng.choice(len(share), (CHAINS, DRAWS), p=share)


def with_basins(tree, findings=(), **groups):
    basins = xr.DataTree.from_dict(groups)
    basins.attrs["findings"] = [finding.to_dict() for finding in findings]
    tree["basins"] = basins
    return tree


def weighed(labels, masses, *, noise=0.5):
    """Return a run whose predictions mix, with what the measure finds of its visits."""
    visited = regions.regions_visited_by_mass(labels, masses)
    found = [visited, regions.light_regions_over_visited(labels, *masses)]
    found.append(dataclasses.replace(visited, claim="weights-visited-by-mass"))
    return with_basins(predictions(SAME, chains=CHAINS, draws=DRAWS, noise=noise), found)


def two_methods(*shares):
    """Return masses by two methods, known to about 1 % each."""
    return [regions.masses_from_logs(name, np.log(share), 0.01) for name, share in zip("ab", shares, strict=True)]


def test_b1_possible():
    def world(region, function_shift=0.0):
        functions = np.random.default_rng(0).normal(size=(*region.shape, oracle.NUM_FUNCTIONS))
        functions += function_shift * np.arange(len(region))[:, None, None]
        places = np.array(oracle.PLACES)[region][..., None]
        posterior = {"function": functions, "region": places}
        return {"oracle": make_tree(attrs={"kind": "mcmc", "task": "density"}, posterior=posterior)}

    wrong, right = visits((0.1, 0.9), stuck=True), visits(oracle.MASSES)
    worlds = [world(wrong), world(right), world(wrong, function_shift=1.0)]
    assert verdicts(b1_region_weights.judge_possible, worlds) == ["supported", "contradicted", "inconclusive"]


def test_b1_here():
    fair = two_methods((0.9, 0.1), (0.9, 0.1))
    wrong, right = visits((0.1, 0.9), stuck=True), visits((0.9, 0.1))
    worlds = [{"network": weighed(wrong, fair)}, {"network": weighed(right, fair)}]
    for judge in (b1_region_weights.judge_here, b1_region_weights.judge_weights):
        assert verdicts(judge, worlds) == ["supported", "contradicted"]


def test_b1_tells_predictions_from_weights():
    """Visits that are right in clusters of predictions and wrong in clusters of weights."""
    world = weighed(visits((0.9, 0.1)), two_methods((0.9, 0.1), (0.9, 0.1)))
    wrong = weighed(visits((0.1, 0.9), stuck=True), two_methods((0.9, 0.1), (0.9, 0.1)))
    by_predictions, by_weights = world["basins"].attrs["findings"], wrong["basins"].attrs["findings"]
    world["basins"].attrs["findings"] = [*by_predictions[:2], by_weights[2]]
    assert b1_region_weights.judge_here({"network": world}).finding.verdict == "contradicted"
    assert b1_region_weights.judge_weights({"network": world}).finding.verdict == "supported"


def test_b1_here_needs_masses_that_agree_and_predictions_that_mix():
    wrong = visits((0.1, 0.9), stuck=True)
    quarrel = {"network": weighed(wrong, two_methods((0.9, 0.1), (0.8, 0.2)))}
    apart = {"network": weighed(wrong, two_methods((0.9, 0.1), (0.9, 0.1)))}
    functions = apart["network"]["functions"].to_dataset()
    moved = functions["probability"] ** xr.DataArray(np.linspace(0.5, 1.5, CHAINS), dims="chain")
    apart["network"]["functions"] = functions.assign(probability=moved / moved.sum("class"))
    assert verdicts(b1_region_weights.judge_here, [quarrel, apart]) == ["inconclusive", "inconclusive"]
    assert "disagree" in b1_region_weights.judge_here(quarrel).finding.note


def test_b2():
    mass = np.array([0.5, 0.3, 0.15, 0.05])
    light, heavy = ((tilted := mass**power) / tilted.sum() for power in (0.5, 1.3))
    worlds = [{"network": weighed(visits(share), two_methods(mass, mass))} for share in (light, heavy)]
    worlds.append({"network": weighed(visits((0.5, 0.3, 0.2), stuck=True), two_methods((0.5, 0.3, 0.2), (0.5, 0.3, 0.2)))})
    assert verdicts(b2_light_regions.judge, worlds) == ["supported", "contradicted", "inconclusive"]


def systems(found, places, by_system=None, log_likelihood=None):
    """Return what two methods found, by their labels: eight systems of particles of equal weights, and eight ladders."""
    particles = {"label": found, "log_weight": np.full(found.shape, -np.log(found.shape[1]))}
    replicas = {"label": places, "log_likelihood": np.zeros(places.shape) if log_likelihood is None else log_likelihood}
    return {
        "particles": xr.Dataset({name: (("system", "particle"), values) for name, values in particles.items()}),
        "replicas": xr.Dataset({name: (("ladder", "replica"), values) for name, values in replicas.items()}),
        "evidence": xr.Dataset(
            {
                "by_system": ("system", np.zeros(len(found)) if by_system is None else by_system),
                "gradients": ("road", [1e6, 2e6]),
            }
        ),
    }


def by_mass(*skills, mass, noise=0.0, found=None, places=None):  # noise is of the points, and 0 on average
    """Return HMC at equal skill to SGD, whose regions predict with skills of their own and are weighed without any error."""
    right = [predictions(skill)["functions"]["log_likelihood"].values.mean((0, 1)) for skill in skills]
    of_points = np.random.default_rng(3).normal(size=NUM_POINTS)
    log_predictive = np.array(right) + noise * (of_points - of_points.mean())
    exact = np.tile(np.repeat(np.arange(len(mass)), np.round(10 * np.array(mass)).astype(int)), (LADDERS, 1))
    return with_basins(
        predictions(SAME),
        regions=xr.Dataset(coords={"region": np.arange(len(mass))}),
        predictions=xr.Dataset({"log_predictive": (("region", "point"), log_predictive)}),
        **systems(exact if found is None else found, exact if places is None else places),
    )


def test_b1_s_oracle_starts_each_job_s_chains_half_in_either_region():
    """So that it runs: as the suite has it, and with chains added to it."""
    init = oracle.two_regions().init
    first, added = init(jax.random.key(0), 6, "prior"), init(jax.random.key(0), 2, "prior", 4)
    np.testing.assert_array_equal(first["region"].ravel(), np.repeat(oracle.PLACES, 3))
    np.testing.assert_array_equal(added["region"].ravel(), oracle.PLACES)
    np.testing.assert_array_equal(added["function"], first["function"][4:])


def test_b3():
    sgd = predictions(SAME, chains=10, draws=1, seed=3)
    worlds = [by_mass(skill, skill, mass=(0.9, 0.1)) for skill in (GOOD, BAD)]
    worlds.append(by_mass(SAME, SAME, mass=(0.9, 0.1), noise=0.5))  # its mean has an error of 0.02 nats, twice the margin
    worlds = [{"network": world, "sgd": sgd, "sgd-long": sgd} for world in worlds]
    assert verdicts(b3_right_weights.judge, worlds) == ["supported", "contradicted", "inconclusive"]
    for name, gradients in (("sgd", 240_000.0), ("network", 600_000.0)):
        worlds[0][name].attrs["gradients"] = gradients
    judgement = b3_right_weights.judge(worlds[0])
    assert "by mass, over as visited" in judgement.exhibits[0].rows
    spent = "HMC's draws took 600,000 gradients, the solutions of SGD 240,000 and 240,000, weighing regions 3,000,000."
    assert spent in judgement.finding.note


def test_b3_holds_for_sgd_of_either_budget():
    network = by_mass(SAME, SAME, mass=(0.9, 0.1))
    sgd = {skill: predictions(skill, chains=10, draws=1, seed=3) for skill in (BAD, GOOD)}
    for short, long in ((GOOD, BAD), (BAD, GOOD)):
        finding = b3_right_weights.judge({"network": network, "sgd": sgd[short], "sgd-long": sgd[long]}).finding
        assert finding.verdict == "contradicted"
        assert finding.value < 0  # the number is that of the one that decides


def test_b3_leaves_out_solutions_that_left_the_finite_numbers():
    sgd, long = (predictions(SAME, chains=10, draws=1, seed=3) for _ in range(2))
    network = by_mass(GOOD, GOOD, mass=(0.9, 0.1))
    whole = b3_right_weights.judge({"network": network, "sgd": sgd, "sgd-long": sgd}).finding
    long["functions"]["log_likelihood"][4] = np.nan
    finding = b3_right_weights.judge({"network": network, "sgd": sgd, "sgd-long": long}).finding
    assert finding.verdict == whole.verdict == "supported"
    assert "1 of 10 solutions of SGD of equal budget left the finite numbers and are left out." in finding.note
    assert "left out" not in whole.note


def test_b3_gives_sgd_as_many_gradients_as_hmc_has_draws_of():
    """An epoch is a gradient of all data: 353 patients, in minibatches of 32, 200 solutions."""
    scale = laptop()
    short, long = (b3_right_weights.plan(scale).runs[name].config for name in ("sgd", "sgd-long"))
    assert long.thin == 9 * short.thin
    assert long.thin * 32 / 353 * 200 == pytest.approx(663_422, rel=0.05)  # of HMC's draws at this scale


def test_b3_weighs_regions_by_their_mass_and_leaves_out_those_without_draws():
    world = by_mass(GOOD, BAD, GOOD, mass=(0.2, 0.6, 0.2))
    log_predictive = world["basins"]["predictions"]["log_predictive"].values
    log_predictive[2] = np.nan
    expected = np.log(0.25 * np.exp(log_predictive[0]) + 0.75 * np.exp(log_predictive[1]))
    scores = b3_right_weights.mixture_by_mass(world)
    np.testing.assert_allclose(scores, np.broadcast_to(expected, scores.shape), rtol=1e-12)


def test_b3_knows_the_errors_of_the_masses():
    """Two regions that predict 0.9 and 0.3 at every point, weighed by systems of forty draws: points add no error."""
    mass, predicted, points, repeats = (0.8, 0.2), np.array([0.9, 0.3]), 3, 200
    truth, nothing = np.log(mass @ predicted), np.zeros((1, points))
    held, ignorant = [], []
    for seed in range(repeats):
        found, places = np.random.default_rng(seed).choice(2, (2, LADDERS, 40), p=mass)
        table = xr.Dataset({"log_predictive": (("region", "point"), np.log(predicted)[:, None].repeat(points, 1))})
        regions_known = xr.Dataset(coords={"region": [0, 1]})
        world = with_basins(xr.DataTree(), regions=regions_known, predictions=table, **systems(found, places))
        scores = b3_right_weights.mixture_by_mass(world)
        for known, members in ((held, scores), (ignorant, scores.mean(0, keepdims=True))):
            gain = paired_gain(members, nothing)
            known.append(gain.lower <= truth <= gain.upper)
    assert np.mean(held) >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / repeats)
    assert np.mean(ignorant) < 0.1  # as if the masses were known


def test_b3_needs_masses_that_agree():
    rng = np.random.default_rng(0)
    found, places = (rng.choice(2, (LADDERS, 200), p=mass) for mass in ((0.9, 0.1), (0.5, 0.5)))
    sgd = predictions(SAME, chains=10, draws=1, seed=3)
    for ladders, verdict in ((found, "supported"), (places, "inconclusive")):
        world = by_mass(GOOD, GOOD, mass=(0.9, 0.1), found=found, places=ladders)
        finding = b3_right_weights.judge({"network": world, "sgd": sgd, "sgd-long": sgd}).finding
        assert finding.verdict == verdict
        assert ("disagree about the masses" in finding.note) == (verdict == "inconclusive")


COEFFICIENTS = np.array([10.0, 14.0, 11.0, 16.0, 13.0, 18.0])
MASS = np.array([0.25, 0.2, 0.15, 0.15, 0.15, 0.1])


def preference(by_coefficient, losses=None, by_loss=0.0, seed=0):
    """Return a world in which SGD's log odds against the mass have these slopes on learning coefficient and loss."""
    rng = np.random.default_rng(seed)
    losses = 0.1 * np.array([1, -1, -1, 1, 1, -1]) if losses is None else losses
    share = MASS * np.exp(by_coefficient * COEFFICIENTS + by_loss * losses)
    solutions = rng.choice(NUM_REGIONS, b3_right_weights.SOLUTIONS, p=share / share.sum())
    centre = 5 * np.eye(NUM_REGIONS)
    mean = centre[solutions] + 0.1 * rng.normal(size=(len(solutions), NUM_REGIONS))
    loss = losses[solutions] + 0.01 * rng.normal(size=len(solutions))
    sgd = make_tree(
        attrs={"kind": "ensemble", "task": "regression", "num_data": NUM_DATA},
        posterior={"layer_0.kernel": rng.normal(size=(len(solutions), 1, 2))},
        functions={"mean": mean[:, None], "scale": np.ones((len(solutions), 1, NUM_REGIONS))},
        sample_stats={"log_likelihood": -NUM_DATA * loss[:, None]},
    )
    places = rng.choice(NUM_REGIONS, (LADDERS, 2000), p=MASS)
    total = (NUM_DATA * losses + COEFFICIENTS)[places] + 4 * rng.normal(size=places.shape)
    found = rng.choice(NUM_REGIONS, (LADDERS, 500), p=MASS)
    network = with_basins(
        predictions(SAME),
        regions=xr.Dataset(coords={"region": np.arange(NUM_REGIONS)}),
        classifier=xr.Dataset({"mean": ("feature", np.zeros(6)), "scale": 1.0, "centre": (("region", "feature"), centre)}),
        **systems(found, places, 0.1 * rng.normal(size=LADDERS), -total),
    )
    return {"network": network, "sgd": sgd}


def test_b4():
    worlds = [preference(slope) for slope in (-0.25, 0.25, 0.0)]
    assert verdicts(b4_sgd_prefers.judge, worlds) == ["supported", "contradicted", "inconclusive"]
    found, exhibits = b4_sgd_prefers.judge(worlds[0])
    assert found.interval[0] < -0.25 < found.interval[1]
    spread = np.std([row.value for row in exhibits[1].rows.values()], ddof=1)
    assert f"Learning coefficients of the regions have a standard deviation of {spread:.2g} and errors of" in found.note


def test_b4_measures_what_is_planted():
    found = b4_sgd_prefers.compared(**dict(zip(("network", "sgd"), preference(0.0).values(), strict=True)))
    error = found.coefficient[1:].std(0)
    # SGD's losses scatter by 0.01 * 300 nats, and 8 solutions or more are in each region; the ladders' errors are 0.2 at most.
    assert (error < 3 / np.sqrt(8) + 0.2).all()
    assert (np.abs(found.coefficient[0] - COEFFICIENTS) < 4 * error).all()
    assert found.solutions[0].sum() == b3_right_weights.SOLUTIONS
    assert (np.abs(found.mass[0] - MASS) < 4 * found.mass[1:].std(0)).all()


def test_b4_is_not_taken_in_by_regions_of_lower_loss():
    """SGD goes where the loss is low, which here is where the coefficient is low, as far as one tells the other."""
    losses = 0.02 * (COEFFICIENTS - COEFFICIENTS.mean()) + 0.02 * np.array([1, -1, -1, 1, 1, -1])
    judgement = b4_sgd_prefers.judge(preference(0.0, losses, by_loss=-10.0))
    rows = judgement.exhibits[0].rows
    assert rows["whatever the loss"].upper < 0
    assert judgement.finding.verdict == "inconclusive"


def test_b4_widens_where_regions_scatter():
    """Preferences that have nothing to do with the coefficient, larger than the errors, are no slope."""
    scatter = np.array([1.0, -1.0, -1.0, 1.0, -1.0, 1.0])
    crude = b4_sgd_prefers.judge(preference(-0.1, scatter, by_loss=1.0)).exhibits[0].rows["whatever the loss"]
    straight = b4_sgd_prefers.judge(preference(-0.1)).exhibits[0].rows["whatever the loss"]
    assert crude.upper - crude.lower > 2 * (straight.upper - straight.lower)


def test_b4_needs_three_regions_in_common():
    judgement = b4_sgd_prefers.judge(preference(-8.0))  # all solutions lie in the two lowest
    assert judgement.finding.verdict == "inconclusive"
    assert "regions in common" in judgement.finding.note


def test_b4_needs_masses_that_agree():
    world = preference(-0.25)
    replicas = world["network"]["basins"]["replicas"].to_dataset()
    world["network"]["basins"]["replicas"] = replicas.assign(label=(replicas["label"] + 1) % NUM_REGIONS)
    finding = b4_sgd_prefers.judge(world).finding
    assert finding.verdict == "inconclusive"
    assert "disagree about the masses" in finding.note


def test_regions_that_are_no_clusters_of_functions_label_no_other_run():
    world = preference(0.0)
    basins = world["network"]["basins"]
    short = world["sgd"].isel(point=slice(4), missing_dims="ignore")
    with pytest.raises(ValueError, match="know 6 predicted numbers, the run keeps 4"):
        label_run(basins, short)
    del basins["classifier"]
    with pytest.raises(ValueError, match="only clusters of functions"):
        label_run(basins, world["sgd"])


@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.slow
def test_what_is_measured_is_what_the_claims_read(cli, finished_copy):
    """The clusters label a run by its predictions as the measure does by its weights, and nothing that is read is missing."""
    settings = {"systems": 4, "particles": 32, "rungs": 6, "ladder-warmup": 50, "ladder-draws": 100, "minima": 2}
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    assert cli("measure", finished_copy, "basins", *words, "--num-regions", 3).status in (0, 1)
    run = load_run(finished_copy)
    basins = read_measure(run.folder, "basins").tree
    np.testing.assert_array_equal(label_run(basins, run.tree), basins["labels"]["run"].values)
    network, table = run.tree, basins["regions"].to_dataset()
    network["basins"] = basins
    found = b4_sgd_prefers.compared(network, run.tree)
    np.testing.assert_allclose(found.mass[0], table["mass"].sel(estimator="tempered SMC"), rtol=1e-12)
    sizes = network["posterior"].sizes
    assert found.solutions[0].sum() == sizes["chain"] * sizes["draw"]
    mass, log_predictive = table["mass"].mean("estimator"), basins["predictions"]["log_predictive"]
    assert np.isfinite(log_predictive.values[mass.values > 0]).all()
    expected = np.log((mass * np.exp(log_predictive.fillna(0))).sum("region"))
    # Logarithms of sums near 1 have the rounding of these sums.
    np.testing.assert_allclose(b3_right_weights.mixture_by_mass(network).mean(0), expected, rtol=1e-12, atol=1e-15)


def test_clusters_need_particles():
    assert Basins(num_regions=8, particles=80).num_regions == 8
    assert Basins(num_regions=8, particles=16, regions="minima").num_regions == 8
    with pytest.raises(ValueError, match="8 clusters of functions need 80 particles or more, got 64"):
        Basins(num_regions=8, particles=64)


def test_r1_sets_side_by_side_and_decides_nothing(monkeypatch):
    config = RunConfig(data=Data(name="imdb"), model=MLP(), prior=GaussianPrior(scale=1.0))
    tree, other = predictions(SAME), predictions(GOOD, chains=1, draws=1)
    tree.attrs["num_data"] = 200
    right = (tree["functions"]["probability"].values.mean((0, 1)).argmax(1) == np.arange(NUM_POINTS) % 2).mean()
    y = np.concatenate([np.arange(NUM_POINTS) % 2, [0, 1]])  # it has more test points than the run keeps
    published = other["functions"]["probability"].values
    prefixes = Prefixes((1,), (np.concatenate([published, published[:, :, :2]], 2),), np.nan, np.nan)
    facts = {"model": {"kind": "cnn-lstm"}, "prior": {"kind": "gaussian", "scale": 0.5}, "num_data": 20_000}
    bundle = Bundle("bdl-imdb", "classification", facts, {}, prefixes, y)
    monkeypatch.setattr(r1_published, "published", lambda name: bundle)
    judgement = r1_published.judge({"imdb": tree}, reference="bdl-imdb", config=config)
    assert judgement.finding.verdict == "inconclusive"
    assert "other models" in judgement.finding.note
    assert "num_data: 200 and 20,000" in judgement.finding.note
    accuracy, log_score, close = (exhibit.rows for exhibit in judgement.exhibits)
    assert accuracy["published"].value >= accuracy["mlp of this scale"].value
    assert log_score["published"].value == pytest.approx(other["functions"]["log_likelihood"].values.mean(), rel=1e-12)
    assert 0 < close["total variation"].value < 0.2
    assert f"{100 * right:.3g} % here; the most frequent class alone is right at 50 %." in judgement.finding.note
    reordered = Bundle("bdl-imdb", "classification", facts, {}, prefixes, y[::-1])
    monkeypatch.setattr(r1_published, "published", lambda name: reordered)
    with pytest.raises(ValueError, match="another order"):
        r1_published.judge({"imdb": tree}, reference="bdl-imdb", config=config)


def test_r1_shares_the_runs_on_the_same_data():
    scale = laptop()
    runs = r1_published.plan(scale).runs
    assert runs["imdb"].config == scale.worlds["reviews"].posterior
    images = scale.worlds["images"].posterior
    assert (runs["cifar10"].config.model, runs["cifar10"].config.data.name) == (images.model, "cifar10")
    assert runs["cifar10"].config.draws < images.draws


def test_r1_says_what_is_missing(monkeypatch):
    def missing(name):
        raise UsageError("no file there")

    monkeypatch.setattr(r1_published, "published", missing)
    config = RunConfig(data=Data(name="imdb"))
    finding = r1_published.judge({"imdb": predictions(SAME)}, reference="bdl-imdb", config=config).finding
    assert (finding.verdict, finding.note) == ("not applicable", "Not compared: no file there.")
