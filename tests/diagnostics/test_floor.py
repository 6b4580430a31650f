"""The floor: chains of one posterior lie in it, chains of another do not, at equal draws and at equal effective draws."""

import numpy as np
import pytest

from diagnostics.fidelity import closeness, pooled
from diagnostics.floor import fidelity_to, floor, prefixes
from diagnostics.trees import make_tree

NUM_POINTS, NUM_CLASSES = 60, 4
LOGITS = 1.5 * np.random.default_rng(7).normal(size=(NUM_POINTS, NUM_CLASSES))


def classification(simulate, seed, num_chains=1, num_draws=200, temperature=1.0, phi=0.5, kind="mcmc"):
    """Chains whose logits scatter around common ones, as of a posterior at this temperature."""
    rng = np.random.default_rng(seed)
    noise = simulate.autoregressive(rng, np.full(NUM_POINTS * NUM_CLASSES, phi), num_chains, num_draws)
    logits = LOGITS + 2.0 * np.sqrt(temperature) * noise.reshape(num_chains, num_draws, NUM_POINTS, NUM_CLASSES)
    probability = np.exp(logits)
    probability /= probability.sum(-1, keepdims=True)
    weights = {"w": np.zeros((num_chains, num_draws))}
    return make_tree(attrs={"kind": kind, "task": "classification"}, posterior=weights, functions={"probability": probability})


def regression(simulate, seed, num_chains=1, num_draws=200, temperature=1.0):
    rng = np.random.default_rng(seed)
    noise = simulate.autoregressive(rng, np.full(NUM_POINTS, 0.5), num_chains, num_draws)
    mean = 100 * LOGITS[:, 0] + 80 * np.sqrt(temperature) * noise
    functions = {"mean": mean, "scale": np.full_like(mean, 20.0)}
    weights = {"w": np.zeros((num_chains, num_draws))}
    return make_tree(attrs={"kind": "mcmc", "task": "regression"}, posterior=weights, functions=functions)


@pytest.mark.parametrize("make", [classification, regression])
def test_prefixes_are_what_the_first_draws_predict(simulate, make):
    tree = make(simulate, 0, num_chains=3, num_draws=50)
    found = prefixes(tree)
    assert found.counts == (1, 3, 6, 12, 25, 50)
    few = prefixes(tree.isel(draw=slice(12)))
    for part, expected in zip(found.at(3), few.at(-1), strict=True):
        # Differences of squares in float64, relative to values of a few hundred.
        np.testing.assert_allclose(part, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "measures"), [(classification, ["total_variation"]), (regression, ["wasserstein_1", "wasserstein_2"])]
)
def test_a_held_out_chain_is_inside_and_a_cold_one_outside(simulate, make, measures):
    reference = prefixes(make(simulate, 1, num_chains=6, num_draws=1000))
    inside = 0
    for seed in range(20):
        held_out = fidelity_to(prefixes(make(simulate, 100 + seed, num_draws=1000)), reference)
        inside += all(held_out.is_inside(held_out.equal_draws, measure) for measure in measures)
    assert inside >= 17  # 20 of 95 % bands, less two binomial standard errors
    cold = fidelity_to(prefixes(make(simulate, 200, num_draws=1000, temperature=0.5)), reference)
    for measure in measures:
        assert not cold.is_inside(cold.equal_draws, measure)
        assert not cold.is_inside(cold.equal_ess, measure)


def test_agreement_is_judged_from_below(simulate):
    reference = prefixes(classification(simulate, 1, num_chains=6))
    whole = classification(simulate, 1, num_chains=6)  # closer to itself than any chain is to the others: not outside
    wrong = prefixes(whole)._replace(parts=(reference.parts[0][..., ::-1],))
    assert fidelity_to(prefixes(whole), reference).is_inside(floor(reference, 200), "agreement")
    assert not fidelity_to(wrong, reference).is_inside(floor(reference, 200), "agreement")


def test_floors_have_as_many_draws_and_as_many_effective_draws(simulate):
    reference = prefixes(classification(simulate, 1, num_chains=4, phi=0.9))
    ensemble = prefixes(classification(simulate, 2, num_chains=12, num_draws=1, phi=0.0, kind="ensemble"))
    assert ensemble.ess == 12
    found = fidelity_to(ensemble, reference)
    assert (found.num_draws, found.equal_draws.num_draws) == (12, 12)
    # Draws of an AR(0.9) are worth a nineteenth of an independent one: 12 effective ones are all that a chain of 200 has.
    assert found.equal_ess.num_draws == 200
    assert found.equal_ess.bands["total_variation"].value < found.equal_draws.bands["total_variation"].value
    # Twelve slow draws are no match for twelve independent ones.
    assert found.measured["total_variation"].value < found.equal_draws.bands["total_variation"].lower


def test_runs_too_short_for_effective_draws_have_one_floor(simulate):
    short = fidelity_to(prefixes(classification(simulate, 2, num_draws=3)), prefixes(classification(simulate, 1, num_chains=4)))
    assert short.equal_ess is None
    assert short.equal_draws.num_draws == 3


def test_bands_end_where_the_measures_end(simulate):
    bands = floor(prefixes(classification(simulate, 1, num_chains=4, num_draws=3)), 1).bands
    assert all(0 <= band.lower <= band.value <= band.upper <= 1 for band in bands.values())


def test_values_are_the_published_definitions(simulate):
    one, two = (prefixes(classification(simulate, seed, num_chains=2)) for seed in (1, 2))
    p, q = (pooled(one.at(-1))[0], pooled(two.at(-1))[0])
    found = fidelity_to(one, two)
    assert found.measured["agreement"].value == pytest.approx(np.mean(p.argmax(1) == q.argmax(1)))
    assert found.measured["total_variation"].value == pytest.approx(np.mean(np.abs(p - q).sum(1) / 2))
    assert found.equal_draws is None  # two chains have no scatter


def test_pooled_quantiles_are_those_of_all_chains_together(simulate):
    tree = regression(simulate, 3, num_chains=4)
    parts = prefixes(tree).at(-1)
    mean, sd, quantile = pooled(parts)
    np.testing.assert_allclose(quantile.mean(-1), mean, atol=0.02 * sd.max())  # a hundredth of the mass at either end
    assert closeness(pooled(parts), pooled(parts), pooled(parts))["wasserstein_2"].max() == 0


def test_what_cannot_be_compared(simulate):
    runs = [prefixes(make(simulate, 0, num_chains=3, num_draws=20)) for make in (classification, regression)]
    with pytest.raises(ValueError, match="cannot be compared"):
        fidelity_to(*runs)
    with pytest.raises(ValueError, match="at least 3 chains, the reference has 2"):
        floor(prefixes(classification(simulate, 0, num_chains=2)), 10)
    with pytest.raises(ValueError, match="predicts nothing"):
        prefixes(make_tree(attrs={"kind": "mcmc", "task": "density"}, posterior={"w": np.zeros((1, 5))}))
