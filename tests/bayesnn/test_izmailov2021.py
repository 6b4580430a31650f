"""Each hypothesis in a planted world where it holds, in one where it does not, and where nobody can tell."""

import dataclasses
import functools
import os
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

import samplers
from bayesnn import models
from bayesnn.build import build_method, build_problem
from bayesnn.config import SGHMC, SGLD, ResNet
from bayesnn.data.sources import gap_rows
from bayesnn.izmailov2021 import (
    c1_beats_sgd,
    c2_one_long_chain,
    c3_cold_posterior,
    c4_priors,
    c5_gaps,
    c5_shift,
    c6_fidelity,
    f2_rhat,
)
from bayesnn.izmailov2021.baselines import baselines
from bayesnn.izmailov2021.distances import less
from bayesnn.izmailov2021.suite import SCALES, suite
from bayesnn.suite.results import MissingRunError
from diagnostics.claims import Finding
from diagnostics.estimates import Estimate
from diagnostics.hypotheses import detectable, simultaneous_level
from tests.bayesnn.planted import NUM_POINTS, predictions

ROOT = Path(__file__).parents[2]
GOOD, SAME, BAD = 2.5, 2.0, 1.5  # log odds: log scores then differ by about 0.05 nats a point


def unclear(skill: float = SAME) -> xr.DataTree:
    """Return one noisy network, whose noise costs about 0.012 nats a point, give or take 0.009: the margin lies between."""
    return predictions(skill, chains=1, draws=1, noise=0.5, seed=5)


def verdicts(judge, worlds):
    return [judge(world).finding.verdict for world in worlds]


def test_c1():
    judge = c1_beats_sgd.judge("w", ["w"])
    sgd = predictions(SAME, chains=10, draws=1, seed=3)
    worlds = [{"w-hmc": predictions(skill, draws=200), "w-sgd": sgd} for skill in (GOOD, BAD, SAME)]
    assert verdicts(judge, worlds) == ["supported", "contradicted", "inconclusive"]


def test_c1_can_be_supported_by_short_chains_and_not_contradicted():
    judge = c1_beats_sgd.judge("w", ["w"])
    sgd = predictions(SAME, chains=10, draws=1, seed=3)
    good, bad = (judge({"w-hmc": predictions(skill, draws=20), "w-sgd": sgd}).finding for skill in (GOOD, BAD))
    assert (good.verdict, bad.verdict) == ("supported", "inconclusive")
    assert "are not known to agree" in bad.note


def test_errors_of_seeds_of_which_one_is_far_off():
    """Its interval, as wide as Student's t asks for, reaches below 0, where no error is."""
    scores = np.full((10, 50), -1.0)
    scores[0] = -1e4
    found = c1_beats_sgd.level_of([{"squared_error": scores}], "squared_error", 0.0)
    assert (found.lower, found.value) == (0.0, np.sqrt(1000.9))
    assert found.upper > found.value


def test_c1_takes_nothing_from_chains_that_have_hardly_moved():
    """Three draws a chain, whatever they predict: better, as MAP estimates do where they beat their posterior, or worse."""
    judge = c1_beats_sgd.judge("w", ["w"])
    sgd = predictions(SAME, chains=10, draws=1, seed=3)
    for skill in (GOOD, BAD):
        found = judge({"w-hmc": predictions(skill, draws=4), "w-sgd": sgd}).finding
        assert found.verdict == "inconclusive"
        assert "have hardly left where they began (1 of 1 runs)" in found.note


def test_c1_compares_nothing_where_nothing_was_learnt():
    """HMC is better than SGD, and not better than the shares of the classes."""
    judgement = c1_beats_sgd.judge("w", ["w"])(
        {"w-hmc": predictions(-0.6, draws=200), "w-sgd": predictions(-1.1, chains=10, draws=1, seed=3)}
    )
    assert judgement.exhibits[0].rows["SGD"].lower > 0
    assert judgement.finding.verdict == "inconclusive"
    assert judgement.finding.note.endswith("But none of the methods is shown to predict better than a constant does.")
    assert judgement.exhibits[2].rows["constant"].value == pytest.approx(-np.log(2))


def test_c1_counts_solutions_that_a_constant_beats():
    """So that a rival which failed to train is seen to be one; here it makes three of thirteen solutions."""
    sgd = xr.concat(
        [predictions(skill, chains=n, draws=1)["functions"].to_dataset() for skill, n in ((SAME, 10), (-2.0, 3))], "chain"
    )
    trees = {"w-hmc": predictions(GOOD, draws=200), "w-sgd": predictions(SAME, chains=10, draws=1, seed=3)}
    assert "worse than a constant" not in c1_beats_sgd.judge("w", ["w"])(trees).finding.note
    trees["w-sgd"]["functions"] = xr.DataTree(sgd)
    note = c1_beats_sgd.judge("w", ["w"])(trees).finding.note
    assert "By accuracy 3 of 13 solutions of SGD are worse than a constant." in note


def test_c1_over_splits_knows_that_they_share_examples():
    labels = ["w-0", "w-1", "w-2"]
    trees = {f"w-{split}-hmc": predictions(GOOD + 0.1 * split, draws=200) for split in range(3)}
    trees |= {f"w-{split}-sgd": predictions(SAME, chains=10, draws=1, seed=3) for split in range(3)}
    wide = c1_beats_sgd.judge("w", labels)(trees).finding.interval
    for tree in trees.values():
        tree.attrs["num_data"] = 10**9
    narrow = c1_beats_sgd.judge("w", labels)(trees).finding.interval
    # Four training examples for each test example, three splits: 1 / 3 + 1 / 4 instead of 1 / 3.
    assert (wide[1] - wide[0]) / (narrow[1] - narrow[0]) == pytest.approx(np.sqrt(1 + 3 / 4))


def test_c1_needs_to_beat_the_ensemble_too():
    """Members that are each noisy are beaten one by one; their mixture is not."""
    noisy = predictions(SAME, chains=40, draws=1, noise=1.5)
    judge = c1_beats_sgd.judge("w", ["w"])
    finding = judge({"w-hmc": predictions(SAME - 0.5), "w-sgd": noisy}).finding
    assert finding.verdict != "supported"
    assert "over the ensemble" in finding.note


def gap_world(*skills, draws=200):
    """HMC of these skills in as many gaps, and SGD of one."""
    trees = {f"w-{gap}-hmc": predictions(skill, draws=draws) for gap, skill in enumerate(skills)}
    trees |= {f"w-{gap}-sgd": predictions(SAME, chains=10, draws=1, seed=3) for gap in range(len(skills))}
    return trees


def test_c5_in_gaps():
    judge = c5_gaps.judge("w", ["w-0", "w-1", "w-2"])
    worlds = [gap_world(BAD, BAD, GOOD), gap_world(GOOD, GOOD, BAD), gap_world(GOOD, SAME, BAD)]
    assert verdicts(judge, worlds) == ["supported", "contradicted", "inconclusive"]
    # Fewer draws predict worse: they may gain all the same, and lose for want of draws.
    worlds = [gap_world(BAD, BAD, BAD, draws=20), gap_world(GOOD, GOOD, GOOD, draws=20)]
    assert verdicts(judge, worlds) == ["inconclusive", "contradicted"]
    assert "HMC gains over SGD in 3 of 3 gaps and loses in 0" in judge(worlds[1]).finding.note
    for draws in (20, 200):
        note = judge(gap_world(BAD, BAD, BAD, draws=draws)).finding.note
        assert ("could not have been supported" in note) == (draws == 20)


def test_share_of_gaps_in_which_hmc_loses():
    gains = [Estimate(-1.0, -2.0, -0.1), Estimate(-1.0, -2.0, 0.1), Estimate(1.0, -0.1, 2.0), Estimate(1.0, 0.1, 2.0)]
    assert c5_gaps.share_lost(gains) == Estimate(0.5, 0.25, 0.75)


def test_runs_of_c5_in_gaps():
    """Each table's gaps, one a feature; random splits have none."""
    hypotheses = {one.name: one for one in suite("laptop-full").hypotheses}
    gaps = {name: run.config.data for name, run in hypotheses["C5"].runs.items()}
    assert {name.rsplit("-", 1)[1] for name in gaps} == {"hmc", "sgd"}
    assert len(gaps) == 2 * (3 + 6 + 11 + 3)
    for name, data in gaps.items():
        table, _, feature, _ = name.split("-")
        assert (data.name, data.split, data.gap) == (f"uci_{table}", int(feature), True)
    assert not any(run.config.data.gap for run in hypotheses["C1"].runs.values())


def test_every_gap_is_one():
    """By the rule of the protocol, on the data themselves."""
    uci = Path(os.environ.get("BAYESNN_DATA", ROOT.parent / "shared" / "data")) / "uci"
    if not uci.is_dir():
        pytest.skip(f"no UCI files in {uci}; set BAYESNN_DATA to a directory that has uci/<name>.npz")
    for name, world in SCALES["laptop-full"][0]().worlds.items():
        x = np.load(uci / f"{name}.npz")["X"]
        gaps = {}
        for feature in range(x.shape[1]):
            train, test = gap_rows(x, feature)
            if np.isin(x[test, feature], x[train, feature]).mean() < 0.5:
                gaps.setdefault(frozenset(test.tolist()), feature)
        assert world.gaps == (() if name == "naval" else tuple(gaps.values()))


def test_c2():
    long = [*(predictions(skill, chains=1, draws=80, seed=5) for skill in (SAME, BAD)), unclear()]
    worlds = [{"long": one, "several": predictions(SAME)} for one in long]
    assert verdicts(c2_one_long_chain.judge, worlds) == ["supported", "contradicted", "inconclusive"]
    for name, gradients in (("long", 101_352), ("several", 84_336.0)):
        worlds[0][name].attrs["gradients"] = gradients
    note = c2_one_long_chain.judge(worlds[0]).finding.note
    assert "Its draws took 101,352 gradients, theirs 84,336 and their warm-ups more." in note


def test_c3_without_augmentation():
    temperatures = (0.1, 1.0, 3.0)

    def world(cold, warm, draws=200):
        return {"T=0.1": predictions(cold), "T=1": predictions(SAME, draws=draws), "T=3": predictions(warm)}

    def judge(trees):
        return c3_cold_posterior.judge(trees, temperatures=temperatures)

    assert verdicts(judge, [world(BAD, BAD), world(GOOD, BAD), world(BAD, GOOD)]) == ["supported", "contradicted", "inconclusive"]
    assert "Of those tried the best is T = 1 (100 % of resamples)." in judge(world(BAD, BAD)).finding.note
    # Short chains at T = 1 make others look good: they can support the statement, and not contradict it.
    assert verdicts(judge, [world(BAD, BAD, draws=20), world(GOOD, BAD, draws=20)]) == ["supported", "inconclusive"]


def test_c3_says_between_which_temperatures_the_best_lies():
    shares = {0.03: 0.02, 0.1: 0.5, 0.3: 0.46, 1.0: 0.02, 3.0: 0.0}
    assert c3_cold_posterior.best_interval(shares) == "T = 0.1 to 0.3 (95 % of resamples)"
    assert c3_cold_posterior.best_interval({0.1: 0.01, 1.0: 0.98, 3.0: 0.01}) == "T = 1 (98 % of resamples)"


def test_c4():
    names = ("a", "b")

    def judge(trees):
        return c4_priors.judge(trees, claim="C4 scale", names=names)

    def world(other):
        return {"reference": predictions(SAME), "a": predictions(SAME, seed=7), "b": other}

    worlds = [world(one) for one in (predictions(SAME, seed=8), predictions(BAD, seed=8), unclear())]
    assert verdicts(judge, worlds) == ["supported", "contradicted", "inconclusive"]


def test_intervals_that_hold_together_say_what_they_could_have_found():
    trees = {"reference": predictions(SAME), "a": predictions(SAME, seed=7), "b": unclear()}
    finding = c4_priors.judge(trees, claim="C4 scale", names=("a", "b")).finding
    gain = Estimate(finding.value, *finding.interval)
    assert f"differences from {detectable(gain, simultaneous_level(2)):.2g} on" in finding.note
    temperatures = {"T=0.1": unclear(), "T=1": agreed(200), "T=3": predictions(SAME, seed=7)}
    finding = c3_cold_posterior.judge(temperatures, temperatures=(0.1, 1.0, 3.0)).finding
    gain = Estimate(finding.value, *finding.interval)
    assert f"differences from {detectable(gain, simultaneous_level(2)):.2g} on" in finding.note
    assert f"{detectable(gain):.2g}" != f"{detectable(gain, simultaneous_level(2)):.2g}"  # of one interval it would be another


def shifted(gain: float, noise: float = 0.0, seed: int = 0, draws: int = 200, clean: float = 0.0) -> xr.DataTree:
    """Return a run with the measure `shift`, whose score on corrupted points has a gain that differs by corruption."""
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(1).normal(size=(4, 5, NUM_POINTS)) + clean
    drift = gain * np.array([0, 0.8, 1.0, 1.2])[:, None, None] * np.arange(1, 6)[:, None] / 5
    scores = base + drift + noise * rng.normal(size=base.shape)
    dims = ("corruption", "intensity", "point")
    shift = xr.Dataset(
        {
            "log_score": (dims, scores),
            "chain_log_score": ((*dims[:2], "chain", "point"), np.repeat(scores[:, :, None], 6, axis=2)),
        },
        {"corruption": ["clean", "noise", "blur", "contrast"], "intensity": [1, 2, 3, 4, 5]},
    )
    return agreed(draws).assign({"shift": xr.DataTree(shift)})


@functools.cache
def agreed(draws: int) -> xr.DataTree:
    """Return chains that agree, or are too short to tell; not to be changed."""
    return predictions(SAME, draws=draws)


@pytest.mark.slow
def test_c5():
    worlds = [{"hmc": shifted(gain), "sgd": shifted(0.0), "empcov": shifted(0.0)} for gain in (-0.5, 0.5)]
    worlds.append({"hmc": shifted(0.01, noise=1.0), "sgd": shifted(0.0, noise=1.0, seed=1), "empcov": shifted(0.0)})
    assert verdicts(c5_shift.judge_shift, worlds) == ["supported", "contradicted", "inconclusive"]
    assert verdicts(c5_shift.judge_mechanism, worlds) == ["supported", "contradicted", "inconclusive"]
    assert "On clean inputs: 0.0" in c5_shift.judge_shift(worlds[0]).finding.note  # shift alone is planted


def test_c5_does_not_take_a_loss_on_all_inputs_for_one_of_shift():
    """HMC is worse by as much on clean inputs: it predicts badly, and shift adds nothing."""
    world = {"hmc": shifted(0.0, noise=0.1, clean=-0.5), "sgd": shifted(0.0, noise=0.1, seed=1)}
    judgement = c5_shift.judge_shift(world)
    assert judgement.exhibits[0].rows["intensity 5"].upper < 0
    assert judgement.finding.verdict == "inconclusive"
    assert "Beyond that on clean inputs" in judgement.finding.note


def test_c5_waits_for_the_chains_of_hmc():
    def judged(judge, gain, **changed):
        world = {"hmc": shifted(gain), "sgd": shifted(0.0), "empcov": shifted(0.0)}
        for name, tree in changed.items():
            world[name] = tree.assign({"shift": xr.DataTree(world[name]["shift"].to_dataset())})
        return judge(world).finding

    disagreeing = apart(SAME)
    rests_on = ((c5_shift.judge_shift, "hmc"), (c5_shift.judge_mechanism, "hmc"), (c5_shift.judge_mechanism, "empcov"))
    for judge, name in rests_on:
        found = judged(judge, -0.5, **{name: disagreeing})
        assert found.verdict == "inconclusive"
        assert "do not agree" in found.note
    assert judged(c5_shift.judge_shift, -0.5, hmc=agreed(20)).verdict == "inconclusive"
    assert judged(c5_shift.judge_shift, 0.5, hmc=agreed(20)).verdict == "contradicted"


def test_c5_null():
    def world(verdict):
        tree = predictions(SAME).assign({"directions": xr.DataTree()})
        tree["directions"].attrs["findings"] = [Finding("null-directions", "health", verdict, 1.0, (0.9, 1.1), 1.2).to_dict()]
        return {"hmc": tree}

    worlds = [world(verdict) for verdict in ("pass", "fail", "inconclusive")]
    assert verdicts(c5_shift.judge_null, worlds) == ["supported", "contradicted", "inconclusive"]
    assert c5_shift.judge_null(worlds[0]).exhibits[0].rows["mean square over the prior's variance"] == (1.0, 0.9, 1.1)


def fidelity_world(**skills: float) -> dict[str, xr.DataTree]:
    """Return HMC at skill 2 and baselines at theirs; the wording of a prediction moves with its skill."""
    world = {"HMC": predictions(SAME, draws=200)}
    return world | {name: predictions(skill, chains=2, draws=50, seed=9) for name, skill in skills.items()}


@pytest.mark.slow
def test_c6_differ():
    names = ("ensemble", "SGLD", "SGHMC")
    far, near = ({**dict.fromkeys(names, skill)} for skill in (GOOD, SAME))
    assert c6_fidelity.judge_differ(fidelity_world(**far)).finding.verdict == "supported"
    assert c6_fidelity.judge_differ(fidelity_world(**near)).finding.verdict == "inconclusive"
    one_near = {**far, "SGLD": SAME}
    assert c6_fidelity.judge_differ(fidelity_world(**one_near)).finding.verdict != "supported"


def slow(draws: int = 50) -> xr.DataTree:
    """Return chains of the very posterior of HMC at skill 2, of which one draw in nineteen is effective."""
    tree = predictions(SAME, draws=draws, noise=1.0, seed=9)
    functions = tree["functions"].to_dataset()
    odds = np.log(functions["probability"] / (1 - functions["probability"]))
    mean, moved = predictions(SAME, chains=1, draws=1, noise=0.0)["functions"]["probability"].values[0, 0], odds.values.copy()
    centre = np.log(mean / (1 - mean))
    for draw in range(1, draws):
        fresh = odds.values[:, draw] - centre
        moved[:, draw] = centre + 0.9 * (moved[:, draw - 1] - centre) + np.sqrt(1 - 0.9**2) * fresh
    tree["functions"] = functions.assign(probability=(functions["probability"].dims, 1 / (1 + np.exp(-moved))))
    return tree


def test_c6_does_not_take_few_effective_draws_for_a_difference():
    world = {"HMC": predictions(SAME, draws=200, noise=1.0)} | dict.fromkeys(("ensemble", "SGLD", "SGHMC"), slow())
    judgement = c6_fidelity.judge_differ(world)
    assert judgement.exhibits[-2].rows["SGLD"].lower > 0  # farther than all draws of HMC are
    assert judgement.finding.verdict == "inconclusive"
    assert 8 <= c6_fidelity.effective_draws(slow()) <= 40  # of 200
    ensemble = slow()
    ensemble.attrs["kind"] = "ensemble"
    assert c6_fidelity.effective_draws(ensemble) == 200


@pytest.mark.slow
def test_c6_differ_is_contradicted_by_something_closer_than_the_floor():
    """Something with more draws of the same posterior than the floor has is closer to HMC than half of it."""
    exact = dict.fromkeys(("ensemble", "SGLD", "SGHMC"), predictions(SAME, chains=4, draws=800, noise=1.0, seed=9))
    assert c6_fidelity.judge_differ({"HMC": predictions(SAME, draws=160, noise=1.0)} | exact).finding.verdict == "contradicted"
    # Of two draws a chain, anything that differs less than they do would be as close.
    assert c6_fidelity.judge_differ({"HMC": predictions(SAME, draws=2, noise=1.0)} | exact).finding.verdict == "inconclusive"


def test_c6_well():
    worlds = [fidelity_world(ensemble=skill, SGLD=SAME, SGHMC=SAME) for skill in (SAME, BAD)]
    worlds.append(worlds[0] | {"ensemble": unclear()})
    assert verdicts(c6_fidelity.judge_well, worlds) == ["supported", "contradicted", "inconclusive"]


@pytest.mark.parametrize(
    ("judge", "skill"), [(c6_fidelity.judge_well, BAD), (c6_fidelity.judge_differ, GOOD), (c6_fidelity.judge_order, GOOD)]
)
def test_c6_says_nothing_where_the_chains_of_hmc_disagree(judge, skill):
    world = fidelity_world(**dict.fromkeys(("ensemble", "SGLD", "SGHMC", "mean-field VI"), skill))
    finding = judge(world | {"HMC": apart(SAME)}).finding
    assert finding.verdict == "inconclusive"
    assert "But the chains of HMC do not agree (1 of 1 runs)" in finding.note


@pytest.mark.slow
def test_c6_takes_no_verdict_that_short_chains_favour():
    short = {"HMC": predictions(SAME, draws=20)}

    def verdict(judge, **skills):
        return [judge(fidelity_world(**skills) | reference).finding.verdict for reference in ({}, short)]

    equal, worse = ({"ensemble": skill, "SGLD": SAME, "SGHMC": SAME} for skill in (SAME, BAD))
    assert verdict(c6_fidelity.judge_well, **equal) == ["supported", "inconclusive"]
    assert verdict(c6_fidelity.judge_well, **worse) == ["contradicted", "contradicted"]
    far = dict.fromkeys(("ensemble", "SGLD", "SGHMC"), GOOD)
    assert verdict(c6_fidelity.judge_differ, **far) == ["supported", "supported"]
    ranked = {"ensemble": 2.2, "SGLD": 2.2, "mean-field VI": 3.0}
    assert verdict(c6_fidelity.judge_order, **ranked) == ["supported", "inconclusive"]


def test_c6_says_which_of_the_named_failed_and_goes_on_without_others():
    class Trees(dict):
        """Runs of which some failed: these are not among the names, and say why when they are asked for."""

        def __missing__(self, name):
            raise MissingRunError(f"the run {name} failed: no memory")

    trees = Trees(fidelity_world(ensemble=GOOD, SGHMC=BAD, SWAG=SAME))
    for judge in (c6_fidelity.judge_well, c6_fidelity.judge_differ):
        with pytest.raises(MissingRunError, match="the run SGLD failed: no memory"):
            judge(trees)
    trees["SGLD"] = trees.pop("SWAG")
    assert c6_fidelity.judge_well(trees).exhibits[0].rows.keys() == {"ensemble", "SGLD", "SGHMC"}


def test_c6_order():
    worlds = [
        fidelity_world(**{"ensemble": 2.2, "SGLD": langevin, "mean-field VI": variational})
        for langevin, variational in ((2.2, 3.0), (3.0, 3.5), (2.2, 2.1), (2.2, 2.2))
    ]
    assert verdicts(c6_fidelity.judge_order, worlds) == ["supported", "contradicted", "contradicted", "inconclusive"]


def test_a_held_out_chain_is_within_the_floor_and_a_cold_one_is_not():
    hmc, cold = predictions(SAME, draws=50), predictions(SAME + 0.3, chains=1, draws=50, seed=4)
    held_out = predictions(SAME, chains=1, draws=50, seed=5)
    for other, is_within in ((held_out, True), (cold, False)):
        distances = c6_fidelity.distances_to(hmc, other)
        excess = less(distances.method, distances.thinned_floor).estimate()
        assert (excess.lower <= 0) == is_within


def test_c6_ranks_all_by_closeness_beside_the_band_of_the_chains_of_hmc():
    world = fidelity_world(ensemble=GOOD, SGLD=2.3, SGHMC=BAD) | {"HMC": predictions(SAME, draws=50)}
    world[c6_fidelity.AGAIN] = predictions(SAME, chains=1, draws=50, seed=5)
    world[c6_fidelity.COLD] = predictions(SAME + 0.3, chains=1, draws=50, seed=4)
    distance, agreement = c6_fidelity.closeness_exhibits(world)
    assert next(iter(distance.rows)) == c6_fidelity.AGAIN
    values = [estimate.value for estimate in distance.rows.values()]
    assert values == sorted(values)
    assert distance.band[0] < distance.rows[c6_fidelity.AGAIN].value < distance.band[1] < distance.rows[c6_fidelity.COLD].value
    assert distance.caption.endswith("Another HMC chain: inside. HMC chain at T = 0.5: outside.")
    shares = [estimate.value for estimate in agreement.rows.values()]
    assert shares == sorted(shares, reverse=True)
    # As many draws at a temperature of 1 are not told apart: the control can fail.
    world[c6_fidelity.COLD] = predictions(SAME, chains=1, draws=50, seed=6)
    assert c6_fidelity.closeness_exhibits(world)[0].caption.endswith("HMC chain at T = 0.5: inside.")
    assert c6_fidelity.COLD not in c6_fidelity.methods(world)


def at_temperature(tree: xr.DataTree, temperature: float, num_params: int = 400) -> xr.DataTree:
    """Return a run that sampled a Gaussian of so many dimensions at a temperature, its virials among its statistics."""
    shape = tree["posterior"].sizes["chain"], tree["posterior"].sizes["draw"]
    virial = temperature * np.random.default_rng(3).chisquare(num_params, (*shape, 1))
    return tree.assign(
        {
            "sample_stats": xr.DataTree(xr.Dataset({"virial": (("chain", "draw", "layer"), virial)})),
            "constant_data": xr.DataTree(xr.Dataset({"layer_size": ("layer", [num_params])}, {"layer": ["all"]})),
        }
    )


def test_c6_says_at_which_temperature_its_baselines_sampled():
    world = fidelity_world(ensemble=GOOD, SGLD=GOOD, SGHMC=BAD)
    world |= {"SGLD": at_temperature(world["SGLD"], 1.0), "SGHMC": at_temperature(world["SGHMC"], 0.2)}
    world["ensemble"] = at_temperature(world["ensemble"], 0.2)
    world["ensemble"].attrs["kind"] = "ensemble"  # which samples at no temperature
    judgement = c6_fidelity.judge_differ(world)
    assert judgement.finding.note.endswith("Not at the posterior's temperature, by their audits: SGHMC.")
    rows = judgement.exhibits[-1].rows
    assert rows.keys() == {"SGLD", "SGHMC"}
    assert rows["SGLD"].lower < 1 < rows["SGLD"].upper


def temperature_after_cycles(sampler: SGLD | SGHMC, curvature: float, cycles: int = 5) -> float:
    """Compute the temperature of a Gaussian direction of this curvature at the end of a cycle, exactly, with exact gradients."""
    schedule = samplers.cyclical(sampler.cycle_length)
    multipliers, noisy = (np.asarray(of(np.arange(sampler.cycle_length)), float) for of in schedule)
    covariance = np.zeros((2, 2))  # of position and momentum
    for multiplier, is_noisy in [*zip(multipliers, noisy, strict=True)] * cycles:
        step = sampler.step_size * multiplier
        if isinstance(sampler, SGLD):
            move, noise = np.diag([1 - step * curvature / 2, 0.0]), np.diag([step, 0.0])
        else:
            kick, drift = np.array([[1, 0], [-step * curvature, 1]]), np.array([[1, step / 2], [0, 1]])
            kept = np.exp(-sampler.friction * step)
            move = drift @ np.diag([1, kept]) @ drift @ kick
            noise = drift @ np.diag([0, 1 - kept**2]) @ drift.T
        covariance = move @ covariance @ move.T + is_noisy * noise
    return float(curvature * covariance[0, 0])


CYCLICAL = ("cyclical SGLD", "cyclical SGHMC")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", CYCLICAL)
def test_cycles_are_long_enough_to_warm_the_weights_up(name, scale):
    """In the slowest directions, those that only the prior holds, to 99 %.

    Longer cycles are taken as 4,000 steps of the same length in all, which leave sums within 0.2 % of integrals.
    """
    world = SCALES[scale][0]().main
    sampler, curvature = baselines(world, 1)[name].sampler, world.prior_scale**-2
    length = min(sampler.cycle_length, 4000)
    coarse = {"cycle_length": length, "step_size": sampler.step_size * sampler.cycle_length / length}
    assert temperature_after_cycles(sampler.model_copy(update=coarse), curvature, cycles=2) > 0.99 - 0.002
    # The negative control: cycles of 100 steps.
    assert temperature_after_cycles(sampler.model_copy(update={"cycle_length": 100}), curvature, cycles=100) < 0.5


@pytest.mark.parametrize("length", [100, 1000, 4000])
def test_the_temperature_after_cycles_is_as_the_baselines_say(length):
    """The closed form leaves out terms of the order of step size times curvature, 5e-3 at most, and takes sums for integrals."""
    sampler, curvature = SGLD(step_size=1e-3, cycle_length=length), 5.0
    warmed, whole = (share * length * sampler.step_size * curvature for share in (1 / 4 - 1 / (2 * np.pi), 1 / 2))
    cycles = 5 + 20_000 // length  # the first ones come from zero
    expected = np.expm1(-warmed) / np.expm1(-whole)
    assert temperature_after_cycles(sampler, curvature, cycles) == pytest.approx(expected, rel=0.01 + 2 / length)


def test_rules_for_the_length_of_cycles():
    """Those of docs/methods.md: 99 % at the edge of the rule, to the rounding of its factors, and far less at half of it."""
    sd, length = 0.3, 4000
    langevin = SGLD(step_size=51 * sd**2 / length, cycle_length=length)
    momentum = SGHMC(step_size=46 * sd / length, friction=2 / sd, cycle_length=length)
    for sampler in (langevin, momentum):
        assert temperature_after_cycles(sampler, sd**-2, cycles=2) == pytest.approx(0.99, abs=0.002)
        half = sampler.model_copy(update={"step_size": sampler.step_size / 2})
        assert temperature_after_cycles(half, sd**-2, cycles=2) < 0.91


@pytest.mark.parametrize("name", CYCLICAL)
def test_cyclical_baselines_cost_what_the_others_do(name):
    for make, _ in SCALES.values():
        world = make().main
        run, plain = (baselines(world, 1)[one] for one in (name, "SGLD"))
        steps, expected = (one.chains * (one.warmup.steps + one.draws * one.thin) for one in (run, plain))
        assert steps == expected
        assert run.draws >= 4  # fewer have no temperature that an audit could tell


def test_c6_says_when_hmc_has_too_few_chains_for_a_band():
    world = {"HMC": predictions(SAME, chains=2, draws=50), "ensemble": predictions(GOOD, chains=2, draws=50)}
    for exhibit in c6_fidelity.closeness_exhibits(world):
        assert exhibit.band is None
        assert "3 chains of HMC would have a floor" in exhibit.caption


def mixing(weight_offset: float, function_offset: float, draws: int = 200) -> xr.DataTree:
    """Return four chains of independent draws, their weights and predictions shifted apart."""
    offsets = np.array([-1.5, -0.5, 0.5, 1.5])
    tree = predictions(SAME, draws=draws, noise=0.5)
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(4, draws, 200)) + weight_offset * offsets[:, None, None]
    tree["posterior"] = tree["posterior"].to_dataset()[[]].assign({"layer_0.kernel": (("chain", "draw", "weight"), weights)})
    functions = tree["functions"].to_dataset()
    right = functions["probability"].values
    moved = right ** np.exp(function_offset * offsets)[:, None, None, None]
    tree["functions"] = functions.assign(probability=(functions["probability"].dims, moved / moved.sum(-1, keepdims=True)))
    return tree


def test_f2():
    def judge(tree):
        return f2_rhat.judge({"r": tree}, claim="F2 w", labels=["r"], kind="jittered").finding

    assert judge(mixing(1.0, 0.0)).verdict == "supported"
    assert judge(mixing(0.0, 0.0)).verdict == "contradicted"  # nothing is wrong in weight space
    assert judge(mixing(1.0, 0.5)).verdict == "contradicted"  # the predictions disagree, too
    assert judge(mixing(1.0, 0.0, draws=40)).verdict == "inconclusive"  # too few draws
    assert "By the classic R-hat" in judge(mixing(1.0, 0.0)).note
    assert "show at most 0 % and 0 %" in judge(mixing(0.0, 0.0)).note


def test_f2_does_not_call_weights_bad_for_a_few_of_them():
    tree, few = mixing(0.0, 0.0), 2
    kernel = tree["posterior"]["layer_0.kernel"]
    moved = np.array(kernel.values)
    moved[0, :, :few] += 3.0
    tree["posterior"] = tree["posterior"].to_dataset().assign({"layer_0.kernel": (kernel.dims, moved)})
    judgement = f2_rhat.judge({"r": tree}, claim="F2 w", labels=["r"], kind="jittered")
    assert judgement.exhibits[0].rows["weights"].value == 100 * few / kernel.sizes["weight"]  # stationary chains show none
    assert judgement.finding.verdict == "contradicted"


def test_f2_knows_no_good_mixing_of_predictions_by_too_few_of_them():
    apart, unclear = (f2_rhat.Share(Estimate(*share), largest=0.0) for share in ((0.4, 0.3, 0.5), (0.03, 0.01, 0.08)))
    assert f2_rhat.decide(unclear, apart, effective=200) == "inconclusive"
    assert f2_rhat.decide(unclear._replace(estimate=Estimate(0.03, 0.02, 0.045)), apart, effective=200) == "supported"


def test_f2_does_not_call_slow_weights_good_ones():
    """Stationary chains, so slow that most of their R-hats are above 1.1: they are not apart, and do not mix well either."""
    tree = mixing(0.0, 0.0)
    fresh = tree["posterior"]["layer_0.kernel"]
    slow = np.array(fresh.values)
    for draw in range(1, slow.shape[1]):  # an autoregression that begins at its stationary distribution
        slow[:, draw] = 0.98 * slow[:, draw - 1] + np.sqrt(1 - 0.98**2) * slow[:, draw]
    tree["posterior"] = tree["posterior"].to_dataset().assign({"layer_0.kernel": (fresh.dims, slow)})
    judgement = f2_rhat.judge({"r": tree}, claim="F2 w", labels=["r"], kind="jittered")
    assert judgement.exhibits[0].rows["weights"].value > 50
    assert judgement.finding.verdict == "inconclusive"


def test_dropout_knows_where_units_of_a_residual_network_are():
    world = SCALES["paper"][0]().main
    model = models.resnet(num_outputs=10, **world.posterior.model.model_dump(exclude={"kind"}))
    params = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    chosen = baselines(world, 1)["MC dropout"].sampler.kernels
    assert len(chosen) == 9
    assert chosen == tuple(name for name in models.named(params) if name.endswith("second.conv.kernel"))
    assert baselines(SCALES["laptop"][0]().main, 1)["MC dropout"].sampler.kernels == ()


@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.slow
def test_every_baseline_suits_a_residual_network():
    digits = SCALES["laptop"][0]().main
    world = dataclasses.replace(digits, posterior=digits.vary(model=ResNet(depth=8, width=4)))
    problem = build_problem(world.posterior)
    for name, config in baselines(world, seeds=2).items():
        assert build_method(config, problem).kernel, name


@pytest.mark.parametrize("scale", list(SCALES))
def test_every_scale_is_a_suite_that_validates(scale):
    whole = suite(scale)
    assert whole.planned()
    assert all(hypothesis.claims and hypothesis.protocol for hypothesis in whole.hypotheses)


def test_c3_with_augmentation():
    temperatures = (0.1, 1.0)

    def judge(trees):
        return c3_cold_posterior.judge_augmented(trees, temperatures=temperatures)

    cold = (predictions(GOOD), predictions(BAD), unclear(SAME + 0.2))
    worlds = [{"augmented T=0.1": one, "augmented T=1": agreed(200)} for one in cold]
    assert verdicts(judge, worlds) == ["supported", "contradicted", "inconclusive"]
    short = [world | {"augmented T=1": agreed(20)} for world in worlds]
    assert verdicts(judge, short) == ["inconclusive", "contradicted", "inconclusive"]
    assert "are not known to agree" in judge(short[0]).finding.note


def test_t_1_has_as_many_draws_as_any_temperature_with_augmentation():
    """Fewer draws predict worse, and what others gain over it would be due to that."""
    for make, _ in SCALES.values():
        runs = c3_cold_posterior.plan(make()).runs
        augmented = {name: one.config for name, one in runs.items() if name.startswith("augmented")}
        reference = augmented["augmented T=1"]
        assert all(one.draws <= reference.draws and one.warmup == reference.warmup for one in augmented.values())


def apart(skill: float) -> xr.DataTree:
    """Return chains that disagree, with the scores of ones that do not."""
    tree = mixing(0.0, 3.0)
    scores = predictions(skill, draws=200)["functions"]["log_likelihood"]
    tree["functions"] = tree["functions"].to_dataset().assign(log_likelihood=scores)
    return tree


@pytest.mark.slow
def test_c3_takes_nothing_from_temperatures_at_which_chains_disagree():
    def judge(name, **trees):
        decide = {"T": c3_cold_posterior.judge, "augmented T": c3_cold_posterior.judge_augmented}[name]
        return decide(
            {f"{name}={t[1:].replace('_', '.')}": tree for t, tree in trees.items()}, temperatures=(0.03, 0.1, 1.0)
        ).finding

    agreed = predictions(SAME, draws=200)
    for name, verdict, good in (("T", "contradicted", GOOD), ("augmented T", "supported", GOOD)):
        assert judge(name, t0_03=agreed, t0_1=predictions(good), t1=agreed).verdict == verdict
        assert judge(name, t0_03=apart(BAD), t0_1=predictions(good), t1=agreed).verdict == verdict  # decided by another
        found = judge(name, t0_03=agreed, t0_1=apart(good), t1=agreed)
        assert found.verdict == "inconclusive"
        assert found.note.endswith("The chains disagree at T = 0.1.")
        assert judge(name, t0_03=agreed, t0_1=predictions(good), t1=apart(SAME)).verdict == "inconclusive"


def test_c4_takes_nothing_from_priors_under_which_chains_disagree():
    def judge(**trees):
        return c4_priors.judge(trees, claim="C4 scale", names=("a", "b")).finding

    agreed = predictions(SAME)
    assert judge(reference=agreed, a=agreed, b=apart(BAD)).verdict == "inconclusive"
    assert judge(reference=agreed, a=predictions(BAD), b=apart(SAME)).verdict == "contradicted"
    assert judge(reference=apart(SAME), a=agreed, b=agreed).verdict == "inconclusive"
    assert judge(reference=agreed, a=agreed, b=apart(SAME)).note.endswith("The chains disagree under b.")
    found = judge(reference=agreed, a=apart(0.5), b=predictions(BAD))  # the farthest decides nothing
    assert found.verdict == "contradicted"
    assert "the farthest from the reference is b:" in found.note


def test_c1_says_nothing_of_chains_that_disagree():
    good = apart(GOOD)
    finding = c1_beats_sgd.judge("w", ["w"])({"w-hmc": good, "w-sgd": predictions(SAME, chains=10, draws=1, seed=3)}).finding
    assert finding.verdict == "inconclusive"
    assert "do not agree" in finding.note
