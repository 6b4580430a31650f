"""Closeness of runs: exact values, symmetry, and a noise floor that separates equal runs from different ones."""

import numpy as np
import pytest
from scipy.stats import norm

from diagnostics import fidelity
from diagnostics.trees import make_tree


def test_gaussian_total_variation_against_quadrature():
    rng = np.random.default_rng(0)
    for ratio in (1.0, 1 + 1e-6, 1.01, 0.2, 3.0, 50.0):
        mean, other = rng.normal(size=2)
        sd = np.exp(rng.normal())
        grid = np.linspace(-60, 60, 600_001) * max(sd, sd * ratio)
        numeric = np.trapezoid(np.abs(norm.pdf(grid, mean, sd) - norm.pdf(grid, other, sd * ratio)), grid) / 2
        exact = fidelity.gaussian_total_variation(*np.array([mean, sd, other, sd * ratio]))
        # Trapezoids of width 2e-4 sd are off by their kinks: width^2 times slopes of at most ratio.
        assert exact == pytest.approx(numeric, abs=1e-6)
        assert exact == pytest.approx(
            float(fidelity.gaussian_total_variation(*np.array([other, sd * ratio, mean, sd]))), abs=1e-12
        )


def test_gaussian_total_variation_of_equal_distributions_is_zero():
    assert fidelity.gaussian_total_variation(*np.array([1.3, 0.7, 1.3, 0.7])) == pytest.approx(0, abs=1e-15)


def test_classification_closeness_by_hand():
    one, other = (np.array([[0.7, 0.3], [0.4, 0.6]]),), (np.array([[0.6, 0.4], [0.9, 0.1]]),)
    measured = fidelity.closeness(one, other, one)
    np.testing.assert_allclose(measured["agreement"], [1, 0])
    np.testing.assert_allclose(measured["total_variation"], [0.1, 0.5])


def test_pooling_chains_is_the_mixture_of_all_draws():
    rng = np.random.default_rng(1)
    mean, scale = rng.normal(450, 4, size=(4, 30, 6)), rng.uniform(1, 2, size=(4, 30, 6))
    tree = make_tree(
        attrs={"kind": "mcmc", "task": "regression"}, posterior={"w": np.zeros((4, 30))}, functions={"mean": mean, "scale": scale}
    )
    pooled = fidelity.pooled(fidelity.chain_predictions(tree))
    np.testing.assert_allclose(pooled[0], mean.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(pooled[1], np.sqrt((scale**2).mean((0, 1)) + mean.var((0, 1))), rtol=1e-10)


@pytest.mark.parametrize(("num_chains", "number"), [(1, 0), (2, 1), (3, 3), (4, 3), (8, 35), (20, 35)])
def test_halves_are_disjoint_and_cover_all_chains(num_chains, number):
    halves = fidelity.chain_halves(num_chains)
    assert len(halves) == number
    assert len({tuple(sorted(first)) for first, _ in halves}) == number
    for first, second in halves:
        assert sorted(first + second) == list(range(num_chains))
        assert len(second) - len(first) in (0, 1)


def test_a_run_with_itself(simulate):
    tree = simulate.healthy_tree()
    result = fidelity.compare({"a": tree, "b": tree})
    assert result.reference == "a"
    assert result.closeness["b"]["agreement"] == (1, 1, 1)
    assert result.closeness["b"]["total_variation"] == (0, 0, 0)
    assert all(estimate == (0, 0, 0) for estimate in result.differences["b"].values())
    assert result.noise_floor["total_variation"].lower > 0


def with_probability(arrays, probability):
    y = arrays["observed_data"]["y_test"]
    log_likelihood = np.log(np.take_along_axis(probability, y[None, None, :, None], -1)[..., 0])
    return arrays | {"functions": {"probability": probability, "log_likelihood": log_likelihood}}


def test_noise_floor_separates_a_replicate_from_a_sharper_run(simulate):
    """A replicate is the same process with other noise: here, other chains of one long simulation."""
    arrays = simulate.healthy_arrays(num_chains=8, num_points=60)
    probability = arrays["functions"]["probability"]
    short = {key: {name: value[:4] for name, value in arrays[key].items()} for key in ("posterior", "sample_stats")}
    first = make_tree(**with_probability(arrays | short, probability[:4]))
    second = make_tree(**with_probability(arrays | short, probability[4:]))
    sharp = probability[4:] ** 3
    sharper = make_tree(**with_probability(arrays | short, sharp / sharp.sum(-1, keepdims=True)))
    result = fidelity.compare({"first": first, "second": second, "sharper": sharper})
    floor = result.noise_floor["total_variation"]
    assert result.closeness["second"]["total_variation"].value < floor.upper
    assert result.closeness["sharper"]["total_variation"].lower > 2 * floor.upper
    assert (
        result.differences["second"]["negative_log_likelihood"].lower
        < 0
        < result.differences["second"]["negative_log_likelihood"].upper
    )
    assert result.differences["sharper"]["entropy"].upper < 0


def test_regression_runs(simulate):
    rng = np.random.default_rng(2)
    y = rng.normal(size=50)

    def tree(shift):
        mean = y + 0.1 * rng.normal(size=(4, 40, 50)) + shift
        return make_tree(
            attrs={"kind": "mcmc", "task": "regression"},
            posterior={"w": np.zeros((4, 40))},
            functions={"mean": mean, "scale": np.ones_like(mean)},
            observed_data={"y_test": y},
        )

    result = fidelity.compare({"a": tree(0.0), "b": tree(0.5)})
    # A shift of 0.5 in units of sqrt(1 + 0.01); total variation of normals apart by d: 2 Phi(d / 2) - 1; noise of a mean 0.008.
    distance = 0.5 / np.sqrt(1.01)
    assert result.closeness["b"]["mean_difference"].value == pytest.approx(distance, abs=0.02)
    assert result.closeness["b"]["gaussian_total_variation"].value == pytest.approx(2 * norm.cdf(distance / 2) - 1, abs=0.01)
    assert result.noise_floor["mean_difference"].upper < 0.03
    assert result.differences["b"]["rmse"].lower > 0


def test_runs_that_cannot_be_compared(simulate):
    tree = simulate.healthy_tree(0)
    with pytest.raises(ValueError, match="at least one run"):
        fidelity.compare({})
    with pytest.raises(ValueError, match="runs b and a were tested on different points"):
        fidelity.compare({"a": tree, "b": simulate.healthy_tree(1)})
    with pytest.raises(ValueError, match="run b has no predictions"):
        fidelity.compare(
            {"a": tree, "b": make_tree(attrs={"kind": "mcmc", "task": "density"}, posterior={"w": np.zeros((1, 5))})}
        )
    other = make_tree(
        attrs={"kind": "mcmc", "task": "regression"},
        posterior={"w": np.zeros((1, 5))},
        functions={"mean": np.zeros((1, 5, 20)), "scale": np.ones((1, 5, 20))},
        observed_data={"y_test": np.zeros(20)},
    )
    with pytest.raises(ValueError, match="must be of one task"):
        fidelity.compare({"a": tree, "b": other})
