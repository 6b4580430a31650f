"""Each hypothesis in a planted world where it holds, in one where it does not, and where nobody can tell."""

import numpy as np
import pytest
import xarray as xr

from bayesnn.izmailov2021 import c1_beats_sgd, c2_one_long_chain, c3_cold_posterior, c4_priors, c5_shift, c6_fidelity, f2_rhat
from bayesnn.izmailov2021.suite import SCALES, suite
from diagnostics.hypotheses import paired_gain
from tests.bayesnn.planted import NUM_POINTS, predictions

GOOD, SAME, BAD = 2.5, 2.0, 1.5  # log odds: log scores then differ by about 0.05 nats a point


def verdicts(judge, worlds):
    return [judge(world).finding.verdict for world in worlds]


def test_c1():
    judge = c1_beats_sgd.judge("w", ["w"])
    worlds = [
        {"w-hmc": predictions(skill), "w-sgd": predictions(SAME, chains=10, draws=1, seed=3)} for skill in (GOOD, BAD, SAME)
    ]
    assert verdicts(judge, worlds) == ["supported", "contradicted", "inconclusive"]


def test_c1_needs_to_beat_the_ensemble_too():
    """Members that are each noisy are beaten one by one; their mixture is not."""
    noisy = predictions(SAME, chains=40, draws=1, noise=1.5)
    judge = c1_beats_sgd.judge("w", ["w"])
    finding = judge({"w-hmc": predictions(SAME - 0.5), "w-sgd": noisy}).finding
    assert finding.verdict != "supported"
    assert "over the ensemble" in finding.note


def test_c2():
    worlds = [{"long": predictions(skill, chains=1, draws=80, seed=5), "several": predictions(SAME)} for skill in (SAME, BAD)]
    assert verdicts(c2_one_long_chain.judge, worlds) == ["supported", "contradicted"]
    few = {"long": predictions(SAME, chains=1, draws=1, noise=1.0, seed=5), "several": predictions(SAME)}
    assert c2_one_long_chain.judge(few).finding.verdict != "supported"


def test_c3_without_augmentation():
    temperatures = (0.1, 1.0, 3.0)

    def world(cold, warm):
        return {"T=0.1": predictions(cold), "T=1": predictions(SAME), "T=3": predictions(warm)}

    def judge(trees):
        return c3_cold_posterior.judge(trees, temperatures=temperatures)

    assert verdicts(judge, [world(BAD, BAD), world(GOOD, BAD), world(BAD, GOOD)]) == ["supported", "contradicted", "inconclusive"]
    note = judge(world(BAD, BAD)).finding.note
    assert "T = 1 (100 %)" in note


def test_c4():
    names = ("a", "b")

    def judge(trees):
        return c4_priors.judge(trees, claim="C4 scale", names=names)

    def world(skill):
        return {"reference": predictions(SAME), "a": predictions(SAME, seed=7), "b": predictions(skill, seed=8)}

    assert verdicts(judge, [world(SAME), world(BAD)]) == ["supported", "contradicted"]


def shifted(gain: float, noise: float = 0.0, seed: int = 0) -> xr.DataTree:
    """Return a run with the measure `shift`, whose score on corrupted points has a gain that differs by corruption."""
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(1).normal(size=(4, 5, NUM_POINTS))
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
    return predictions(SAME).assign({"shift": xr.DataTree(shift)})


def test_c5():
    worlds = [{"hmc": shifted(gain), "sgd": shifted(0.0), "empcov": shifted(0.0)} for gain in (-0.5, 0.5)]
    worlds.append({"hmc": shifted(0.01, noise=1.0), "sgd": shifted(0.0, noise=1.0, seed=1), "empcov": shifted(0.0)})
    assert verdicts(c5_shift.judge_shift, worlds) == ["supported", "contradicted", "inconclusive"]
    assert verdicts(c5_shift.judge_mechanism, worlds[:2]) == ["supported", "contradicted"]


def fidelity_world(**skills: float) -> dict[str, xr.DataTree]:
    """Return HMC at skill 2 and baselines at theirs; the wording of a prediction moves with its skill."""
    world = {"HMC": predictions(SAME, draws=50)}
    return world | {name: predictions(skill, chains=2, draws=50, seed=9) for name, skill in skills.items()}


def test_c6_differ():
    names = ("ensemble", "SGLD", "SGHMC")
    far, near = ({**dict.fromkeys(names, skill)} for skill in (GOOD, SAME))
    assert c6_fidelity.judge_differ(fidelity_world(**far)).finding.verdict == "supported"
    assert c6_fidelity.judge_differ(fidelity_world(**near)).finding.verdict != "supported"
    one_near = {**far, "SGLD": SAME}
    assert c6_fidelity.judge_differ(fidelity_world(**one_near)).finding.verdict != "supported"


def test_c6_differ_is_contradicted_by_something_closer_than_the_floor():
    """Something with more draws of the same posterior than the floor has is closer to HMC than half of it."""
    world = {"HMC": predictions(SAME, draws=2, noise=1.0)}
    exact = {name: predictions(SAME, chains=4, draws=400, noise=1.0, seed=9) for name in ("ensemble", "SGLD", "SGHMC")}
    assert c6_fidelity.judge_differ(world | exact).finding.verdict == "contradicted"


def test_c6_well():
    worlds = [fidelity_world(ensemble=skill, SGLD=SAME, SGHMC=SAME) for skill in (SAME, BAD)]
    assert verdicts(c6_fidelity.judge_well, worlds) == ["supported", "contradicted"]


def test_c6_order():
    worlds = [
        fidelity_world(**{"ensemble": 2.2, "SGLD": langevin, "mean-field VI": variational})
        for langevin, variational in ((2.2, 3.0), (3.0, 3.5), (2.2, 2.1))
    ]
    assert verdicts(c6_fidelity.judge_order, worlds) == ["supported", "contradicted", "contradicted"]


def test_a_held_out_chain_is_within_the_floor_and_a_cold_one_is_not():
    hmc, cold = predictions(SAME, draws=50), predictions(SAME + 0.3, chains=1, draws=50, seed=4)
    held_out = predictions(SAME, chains=1, draws=50, seed=5)
    for other, is_within in ((held_out, True), (cold, False)):
        distances = c6_fidelity.distances_to(hmc, other)
        excess = paired_gain(distances.method[None], distances.thinned_floor[None])
        assert (excess.lower <= 0) == is_within


def test_c6_ranks_all_by_closeness_beside_the_band_of_the_chains_of_hmc():
    world = fidelity_world(ensemble=GOOD, SGLD=2.3, SGHMC=BAD)
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


@pytest.mark.parametrize("scale", list(SCALES))
def test_every_scale_is_a_suite_that_validates(scale):
    whole = suite(scale)
    assert whole.planned()
    assert all(hypothesis.claims and hypothesis.protocol for hypothesis in whole.hypotheses)


def test_c3_with_augmentation():
    temperatures = (0.1, 1.0)

    def judge(trees):
        return c3_cold_posterior.judge_augmented(trees, temperatures=temperatures)

    worlds = [{"augmented T=0.1": predictions(skill), "augmented T=1": predictions(SAME)} for skill in (GOOD, BAD)]
    assert verdicts(judge, worlds) == ["supported", "contradicted"]


def test_c1_says_nothing_of_chains_that_disagree():
    good = mixing(0.0, 3.0)
    good["functions"] = (
        good["functions"].to_dataset().assign(log_likelihood=predictions(GOOD, draws=200)["functions"]["log_likelihood"])
    )
    finding = c1_beats_sgd.judge("w", ["w"])({"w-hmc": good, "w-sgd": predictions(SAME, chains=10, draws=1, seed=3)}).finding
    assert finding.verdict == "inconclusive"
    assert "do not agree" in finding.note
