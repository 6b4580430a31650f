"""Each hypothesis in a planted world where it holds, in one where it does not, and where nobody can tell."""

import numpy as np
import xarray as xr

from bayesnn.izmailov2021 import c1_beats_sgd, c2_one_long_chain, c3_cold_posterior, c4_priors, c5_shift
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
