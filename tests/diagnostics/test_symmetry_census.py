"""The census of symmetric copies: right samplers pass, biased ones fail, and those that hardly move get no verdict."""

import numpy as np
import pytest

import diagnostics
from diagnostics.copies import Count, count_visits
from diagnostics.units import copy_units, to_json

ARCHITECTURE = diagnostics.mlp_symmetries(["layer_0", "layer_1"], "tanh")
BASE = {
    "layer_0.kernel": np.array([[1.0, -0.5]]),
    "layer_0.bias": np.array([0.4, 0.8]),
    "layer_1.kernel": np.array([[2.0], [1.0]]),
    "layer_1.bias": np.array([0.1]),
}


def walk(rng, num_chains, num_draws, stay, accept):
    """Copies of a two-unit tanh network: with probability 1 - stay a chain tries to exchange its units or to turn one of them.

    `accept` gives the probability of a move by the number of negative units that it leads to: all ones are right.
    """
    order, signs = np.tile([0, 1], (num_chains, num_draws, 1)), np.ones((num_chains, num_draws, 1, 2), np.int8)
    for chain in range(num_chains):
        places, turned = np.array([0, 1]), np.ones(2, np.int8)
        for draw in range(num_draws):
            kind = rng.integers(3)
            new = places[::-1].copy() if kind == 0 else places
            other = turned * np.where(np.arange(2) == kind - 1, -1, 1).astype(np.int8)
            if rng.random() > stay and rng.random() < accept[np.sum(other < 0)]:
                places, turned = new, other
            order[chain, draw], signs[chain, draw, 0] = places, turned
    draws = {name: np.broadcast_to(array, (num_chains, num_draws, *array.shape)) for name, array in BASE.items()}
    draws = copy_units(draws, ARCHITECTURE[0], order, signs)
    return {name: array + 0.01 * rng.normal(size=array.shape) for name, array in draws.items()}


@pytest.mark.parametrize("stay", [0.0, 0.8])
def test_a_right_sampler_passes_and_a_biased_one_fails(stay):
    rng = np.random.default_rng(0)
    right = diagnostics.census(walk(rng, 4, 1500, stay, [1, 1, 1]), ARCHITECTURE)
    assert right.verdict == "pass", right.note
    assert "8 of 8 copies seen" in right.note
    # Enters copies with two negative units half as often as it should: their shares are about 0.6 of the others'.
    biased = diagnostics.census(walk(rng, 4, 1500, stay, [1, 1, 0.5]), ARCHITECTURE)
    assert biased.verdict == "fail", biased.note
    assert biased.value < 0.001


def test_chains_that_stay_in_their_copies_get_no_verdict():
    rng = np.random.default_rng(1)
    for num_chains in (1, 8):
        draws = walk(rng, num_chains, 400, 0.0, [1, 1, 1])
        stuck = {name: np.repeat(array[:, -1:], 400, 1) for name, array in draws.items()}
        assert diagnostics.census(stuck, ARCHITECTURE).verdict == "inconclusive"
    slow = diagnostics.census(walk(rng, 4, 400, 0.99, [1, 1, 1]), ARCHITECTURE)
    assert slow.verdict == "inconclusive"
    assert "parallel tempering" in slow.note


def test_layers_with_more_copies_than_draws_get_no_verdict():
    rng = np.random.default_rng(2)
    shapes = {"layer_0.kernel": (3, 50), "layer_0.bias": (50,), "layer_1.kernel": (50, 1), "layer_1.bias": (1,)}
    wide = {name: rng.normal(size=(4, 20, *shape)) for name, shape in shapes.items()}
    finding = diagnostics.census(wide, ARCHITECTURE)
    assert finding.verdict == "inconclusive"
    assert "copies: more than 80 draws can fill" in finding.note
    with pytest.raises(ValueError, match="give the architecture"):
        diagnostics.census(wide)


@pytest.mark.parametrize("stay", [0.0, 0.9])
def test_false_alarms_are_as_rare_as_stated(stay):
    """Lazy walks on a cycle of 8 copies, whose slowest mode takes 7 times as long as the fastest."""
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(400):
        steps = np.where(rng.random((4, 8000)) < stay, 0, rng.choice([-1, 1, 4], (4, 8000)))
        p_values.append(count_visits("cycle", (rng.integers(8, size=(4, 1)) + steps.cumsum(1)) % 8, 8).p_value)
    p_values = np.array(p_values)
    assert np.isfinite(p_values).all()
    # Of 400, at 0.001 and 0.05: expected 0.4 and 20. Poisson: more than 4 and 38 have probabilities below 0.001.
    assert (p_values < 0.001).sum() <= 4
    assert (p_values < 0.05).sum() <= 38
    assert (p_values > 0.5).sum() >= 100  # nor is the test useless


def test_a_copy_that_was_never_visited_counts():
    """Seven of eight copies, equally often: a chi-square of 9 for those and of 60 for the eighth, with 7 degrees of freedom."""
    rng = np.random.default_rng(6)
    labels = rng.permuted(np.tile(np.arange(7), 69)[:480]).reshape(4, 120)
    assert count_visits("layer", labels, 8).p_value < 1e-6
    assert count_visits("layer", labels, 7).p_value > 0.5


def test_groups_share_the_false_alarms(monkeypatch):
    """One group with a p-value of 0.0008, which alone would fail, and one with 0.5."""
    p_values = {"layer_0": 0.0008, "layer_1": 0.5}
    monkeypatch.setattr(
        "diagnostics.copies.count_visits", lambda name, labels, copies: Count(name, copies, 8, 400.0, p_values[name])
    )
    shapes = {"layer_0.kernel": (1, 2), "layer_0.bias": (2,), "layer_1.kernel": (2, 2), "layer_1.bias": (2,)}
    shapes |= {"layer_2.kernel": (2, 1), "layer_2.bias": (1,)}
    draws = {name: np.random.default_rng(7).normal(size=(4, 100, *shape)) for name, shape in shapes.items()}
    finding = diagnostics.census(draws, diagnostics.mlp_symmetries(["layer_0", "layer_1", "layer_2"], "tanh"))
    assert finding.value == pytest.approx(0.0016)
    assert finding.verdict == "pass"


def test_few_units_under_a_prior_that_tells_them_apart_are_found_out():
    rng = np.random.default_rng(4)
    labels = rng.choice(2, (4, 1000), p=[0.44, 0.56])
    assert count_visits("pair", labels, 2).p_value < 0.001
    assert count_visits("pair", rng.integers(2, size=(4, 1000)), 2).p_value > 0.001


@pytest.mark.parametrize(("num_chains", "num_draws"), [(40, 100), (100, 60)])
def test_many_short_chains_are_counted_whole(num_chains, num_draws):
    labels = np.random.default_rng(5).integers(2, size=(num_chains, num_draws))
    count = count_visits("pair", labels, 2)
    assert count.p_value > 0.001
    # Independent draws are worth their number; batch means know it to sqrt(2 / 60), twice.
    assert count.effective == pytest.approx(labels.size, rel=2 * np.sqrt(2 / 60))


def run_of(draws, **attrs):
    attrs = {"kind": "mcmc", "task": "regression", "architecture": to_json(ARCHITECTURE)} | attrs
    return diagnostics.make_tree(attrs=attrs, posterior=draws)


def test_the_census_is_one_of_the_verdicts():
    """A right sampler passes, a biased one fails, and neither decides whether an audit succeeds."""
    rng, claim = np.random.default_rng(0), diagnostics.HEALTH["copies-visited-equally"]
    assert not claim.required
    for accept, verdict in (([1, 1, 1], "pass"), ([1, 1, 0.5], "fail")):
        run = run_of(walk(rng, 4, 1500, 0.0, accept))
        assert claim({"run": run}).verdict == verdict
    assert "copies-visited-equally" in [finding.claim for finding in diagnostics.audit(run)]
    assert claim({"run": run_of(walk(rng, 2, 40, 0.0, [1, 1, 1]), architecture="")}).verdict == "not applicable"
    broken = walk(rng, 2, 40, 0.0, [1, 1, 1])
    broken["layer_0.bias"][0, 3] = np.nan
    assert claim({"run": run_of(broken)}).verdict == "inconclusive"
