"""Weights of regions in predictions, and regions made of minima and of functions."""

from __future__ import annotations

import numpy as np
import pytest

from diagnostics import regions

NUM_POINTS = 400


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def masses(rng, share):
    return [regions.masses_from_systems(name, rng.dirichlet(500 * np.asarray(share), 16)) for name in ("smc", "pt")]


def labels_of(rng, share, num_chains=8, num_draws=500):
    return rng.choice(len(share), p=share, size=(num_chains, num_draws))


def planted(rng, share):
    """Points drawn from the mixture of two normal predictions with these weights; log density of each by region."""
    centre = np.where(rng.random(NUM_POINTS) < share[0], -1.0, 1.0)
    points = centre + rng.normal(size=NUM_POINTS)
    return -0.5 * (np.log(2 * np.pi) + (points - np.array([[-1.0], [1.0]])) ** 2)


def test_log_predictive_of_regions_by_hand():
    log_likelihood = np.log(np.array([[[0.2], [0.4]], [[0.6], [0.8]]]))
    labels = np.array([[0, 0], [0, 2]])
    found = regions.region_log_predictive(log_likelihood, labels, 3)
    np.testing.assert_allclose(np.exp(found[[0, 2], 0]), [0.4, 0.8], rtol=1e-12)
    assert np.isnan(found[1]).all()
    weighted = regions.region_log_predictive(log_likelihood, labels, 3, np.log(np.array([[1.0, 1.0], [2.0, 1.0]])))
    assert np.exp(weighted[0, 0]) == pytest.approx((0.2 + 0.4 + 1.2) / 4, rel=1e-12)


def test_stacking_finds_the_weights_of_the_mixture(rng):
    weights = regions.stacking_weights(planted(rng, [0.8, 0.2]))
    # Information about the weight from a point is about 1.5 here: standard error 0.04 for 400 points.
    assert weights[0] == pytest.approx(0.8, abs=0.12)
    assert weights.sum() == pytest.approx(1, abs=1e-9)


def test_stacking_is_the_maximum_of_a_grid(rng):
    log_predictive = planted(rng, [0.6, 0.4])
    grid = np.linspace(0, 1, 2001)
    scores = np.log(np.exp(log_predictive).T @ np.stack([grid, 1 - grid])).mean(0)
    assert regions.stacking_weights(log_predictive)[0] == pytest.approx(grid[scores.argmax()], abs=2e-3)  # grid, and EM's end


def test_same_predictions_make_weights_irrelevant(rng):
    log_predictive = planted(rng, [0.5, 0.5])[[0, 0]] + 1e-4 * rng.normal(size=(2, NUM_POINTS))
    finding = regions.predictions_robust(log_predictive, labels_of(rng, [0.9, 0.1]), masses(rng, [0.4, 0.6]))
    assert finding.verdict == "supported"


def test_wrong_weights_are_seen_to_generalise_worse(rng):
    log_predictive = planted(rng, [0.2, 0.8])
    found = regions.weightings(log_predictive, labels_of(rng, [0.8, 0.2]), masses(rng, [0.2, 0.8])[0])
    assert found.gain["mass"].lower > 0
    # Stacked weights are within noise of the masses, which are the truth here: their gains agree to the noise of stacking.
    assert found.gain["stacking"].value == pytest.approx(found.gain["mass"].value, abs=0.02)
    finding = regions.predictions_robust(log_predictive, labels_of(rng, [0.8, 0.2]), masses(rng, [0.2, 0.8]))
    assert finding.verdict == "contradicted"
    assert "generalises better" in finding.note
    worse = regions.predictions_robust(log_predictive, labels_of(rng, [0.2, 0.8]), masses(rng, [0.8, 0.2]))
    assert "generalises worse" in worse.note


def test_few_points_leave_it_open(rng):
    few = regions.predictions_robust(planted(rng, [0.2, 0.8])[:, :8], labels_of(rng, [0.6, 0.4]), masses(rng, [0.4, 0.6]))
    assert few.verdict == "inconclusive"
    chains = regions.predictions_robust(planted(rng, [0.2, 0.8]), labels_of(rng, [0.8, 0.2])[:4], masses(rng, [0.2, 0.8]))
    assert chains.verdict == "inconclusive"


def test_one_region_leaves_nothing_to_weigh(rng):
    """All in one region: re-weighting cannot change a thing. With a thousandth elsewhere it could, and does."""
    log_predictive, labels = planted(rng, [0.5, 0.5]), np.zeros((8, 50), int)
    for share, verdict in (([0.999, 0.001], "contradicted"), ([1.0, 0.0], "inconclusive")):
        known = regions.masses_from_logs("exact", np.log(np.maximum(share, np.finfo(float).tiny)))
        finding = regions.predictions_robust(log_predictive, labels, [known._replace(share=np.array(share))])
        assert finding.verdict == verdict
        assert ("nothing to weigh" in finding.note) == (verdict == "inconclusive")


def test_masses_in_dispute_settle_nothing(rng):
    """Two methods that disagree, either of which alone would settle it."""
    log_predictive, labels = planted(rng, [0.2, 0.8]), labels_of(rng, [0.8, 0.2])
    disputed = [masses(rng, [0.2, 0.8])[0], masses(rng, [0.4, 0.6])[1]]
    assert [regions.predictions_robust(log_predictive, labels, [one]).verdict for one in disputed] == ["contradicted"] * 2
    finding = regions.predictions_robust(log_predictive, labels, disputed)
    assert finding.verdict == "inconclusive"
    assert "disagree" in finding.note


def test_a_region_with_mass_needs_predictions(rng):
    log_predictive = planted(rng, [0.5, 0.5])
    log_predictive[1] = np.nan
    labels = np.zeros((8, 50), int)
    with pytest.raises(ValueError, match=r"regions \[1\]"):
        regions.weightings(log_predictive, labels, masses(rng, [0.5, 0.5])[0])
    nowhere = regions.masses_from_logs("exact", [0.0, -np.inf])
    assert regions.weightings(log_predictive, labels, nowhere).gain["mass"].value == 0


def test_minima_are_told_apart_in_nats():
    hessian = np.array([np.diag([1e6, 1e-2])] * 5)
    position = np.array([[0.0, 0.0], [1e-5, 1.0], [1e-3, 0.0], [0.0, 0.0], [0.0, 0.5]])
    step = position[:, None] - position
    number = regions.same_minimum(step, np.array([0.0, 0.0, 0.0, 1.0, 0.005]), hessian)
    # The second is 0.005 nats from the first along the flat direction, the third 0.5 nats across; the fourth is deeper.
    np.testing.assert_array_equal(number, [0, 0, 1, 2, 0])


def test_minima_are_merged_across_low_barriers():
    barrier = np.array([[0, 1, 9, 20], [1, 0, 4, 20], [9, 4, 0, 20], [20, 20, 20, 0]], float)
    np.testing.assert_array_equal(regions.merge_minima(barrier), [0, 0, 0, 1])
    np.testing.assert_array_equal(regions.merge_minima(barrier, lowest=2.0), [0, 0, 1, 2])
    np.testing.assert_array_equal(regions.merge_minima(barrier, lowest=2.0, most=2), [0, 0, 0, 1])
    np.testing.assert_array_equal(regions.merge_minima(np.full((3, 3), 5.0) - 5 * np.eye(3)), [0, 1, 2])  # "below" 5 nats
    np.testing.assert_array_equal(regions.merge_minima(np.zeros((1, 1))), [0])
    with pytest.raises(ValueError, match="symmetric"):
        regions.merge_minima(np.triu(barrier))


def test_clusters_find_separate_clusters_and_stay_fixed(rng):
    centres = 5 * rng.normal(size=(3, 10))
    truth = rng.choice(3, size=300)
    features = centres[truth] + rng.normal(size=(300, 10))
    classifier = regions.find_clusters(features[:200], 3)
    found = classifier.label(features[200:].reshape(4, 25, 10))
    assert found.shape == (4, 25)
    table = np.zeros((3, 3))
    np.add.at(table, (truth[200:], found.ravel()), 1)
    assert (np.count_nonzero(table, axis=1) == 1).all()
    np.testing.assert_array_equal(classifier.label(features[200]), found[0, 0])
    with pytest.raises(ValueError, match="in no region"):
        classifier.label(np.where(np.arange(10) == 3, np.nan, features[200]))
    with pytest.raises(ValueError, match="10 draws"):
        regions.find_clusters(features[:20], 3)
    with pytest.raises(ValueError, match="differ"):
        regions.find_clusters(np.ones((50, 2)), 3)
