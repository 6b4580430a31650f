"""Intervals of what mixtures of few draws predict: what another run would have given lies in them."""

import numpy as np
import pytest
import xarray as xr
from scipy.special import expit

from bayesnn.izmailov2021 import c2_one_long_chain
from bayesnn.izmailov2021.distances import Mixture, less, mixture, parts_of_run, total_variation
from bayesnn.izmailov2021.mixtures import members, mixture_scores, parts_of
from diagnostics.hypotheses import paired_gain, point_scores
from diagnostics.trees import make_tree
from tests.bayesnn.planted import predictions

pytestmark = pytest.mark.slow

NUM_POINTS, SKILL, SPREAD, PERSISTENCE = 150, 1.0, 0.7, 0.9
REPEATS, SD = 200, 0.015  # of the share of intervals that hold the truth, where it is 95 %: sqrt(0.95 * 0.05 / 200)


def short_chains(rng: np.random.Generator, difficulty: np.ndarray, chains: int, draws: int) -> xr.DataTree:
    """Return a classifier whose posterior is one number, the log odds that all points share, sampled by slow chains.

    An autoregression that begins at its stationary distribution, with an effective draw in 19.
    """
    shared = rng.normal(size=(chains, draws))
    for draw in range(1, draws):
        shared[:, draw] = PERSISTENCE * shared[:, draw - 1] + np.sqrt(1 - PERSISTENCE**2) * shared[:, draw]
    right = expit(SKILL + difficulty + SPREAD * shared[..., None])
    return make_tree(
        attrs={"kind": "mcmc", "task": "classification"},
        posterior={"shared": shared},
        functions={"probability": np.stack([right, 1 - right], -1), "log_likelihood": np.log(right)},
        observed_data={"y_test": np.zeros(NUM_POINTS, int)},
    )


def mean_over_normal(function):
    """Return the mean of a function of a standard normal, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    return np.tensordot(weights / weights.sum(), function(nodes), 1)


def posterior_score(difficulty: np.ndarray) -> np.ndarray:
    """Return the log score of the posterior itself at points of these difficulties."""
    return np.log(mean_over_normal(lambda shared: expit(SKILL + difficulty + SPREAD * shared[:, None])))


def coverage(chains: int, draws: int, scores) -> float:
    """Return how often the interval of the gain over a fixed network holds the gain of the posterior on all points."""
    truth = mean_over_normal(posterior_score) - mean_over_normal(lambda difficulty: np.log(expit(SKILL + difficulty)))
    held = []
    for seed in range(REPEATS):
        rng = np.random.default_rng(seed)
        difficulty = rng.normal(size=NUM_POINTS)
        tree = short_chains(rng, difficulty, chains, draws)
        gain = paired_gain(scores(tree)["log_score"], np.log(expit(SKILL + difficulty))[None])
        held.append(gain.lower <= truth <= gain.upper)
    return float(np.mean(held))


@pytest.mark.parametrize(("chains", "draws"), [(4, 60), (3, 250), (1, 750)])
def test_intervals_hold_the_posterior_s_gain_where_chains_are_short(chains, draws):
    """Blocks of 83 draws, four autocorrelation times, make errors 6 % too small, which costs less than 2 % of coverage."""
    assert coverage(chains, draws, mixture_scores) >= 0.95 - 0.02 - 4 * SD


def test_intervals_over_test_points_alone_would_be_too_short():
    assert coverage(4, 60, point_scores) < 0.7


def test_parts_are_chains_or_blocks_of_all_draws():
    assert [part.chain for part in parts_of(5, 7)] == [0, 1, 2, 3, 4]
    for chains, draws in ((1, 100), (2, 13), (3, 100)):
        parts = parts_of(chains, draws)
        assert len(parts) >= 8
        covered = np.zeros((chains, draws), int)
        for part in parts:
            covered[part.chain, part.draws] += 1
        assert (covered == 1).all()
    assert len(parts_of(1, 1)) == 1  # a single network has no other draws


@pytest.mark.parametrize("chains", [1, 3, 6])
def test_the_mean_over_parts_is_the_mixture(chains):
    """Also where blocks are of unequal lengths: to rounding of numbers of order 1."""
    tree = predictions(2.0, chains=chains, draws=29, noise=1.0)
    exact, parts = point_scores(tree), mixture_scores(tree)
    np.testing.assert_allclose(parts["log_score"].mean(0), exact["log_score"][0], atol=1e-12)
    assert parts["accuracy"].shape == (1, exact["accuracy"].shape[1])


def test_errors_of_squares_are_those_of_the_mean():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(3, 29, 5))
    tree = make_tree(
        attrs={"kind": "mcmc", "task": "regression"},
        posterior={"w": mean[..., 0]},
        functions={"mean": mean, "scale": np.ones_like(mean), "log_likelihood": -np.square(mean)},
        observed_data={"y_test": rng.normal(size=5)},
    )
    found = mixture_scores(tree)["squared_error"]
    np.testing.assert_allclose(found.mean(0), point_scores(tree)["squared_error"][0], atol=1e-12)
    # A network that is off by so much that its own noise hardly matters: the spread is that of twice the error times the mean's.
    error = mean.mean((0, 1)) - tree["observed_data"]["y_test"].values
    blocks = np.stack([mean[part.chain, part.draws].mean(0) for part in parts_of(3, 29)])
    expected = (2 * np.abs(error) * blocks.std(0)).mean()
    assert found.std(0).mean() == pytest.approx(expected, rel=0.1)  # blocks of nine and of ten draws: 10 %


def test_a_target_that_no_part_expects_has_no_score():
    assert members(np.array([[-np.inf, 0.0], [-np.inf, 0.0]])).tolist() == [[-np.inf, 0.0], [-np.inf, 0.0]]


def reweighted(one: Mixture, part: int, by: float) -> np.ndarray:
    """Return the probabilities of a mixture of equal parts, one of which has a larger weight."""
    num_parts = len(one.tilts)
    return one.probability + by * one.tilts[part] / num_parts


def test_distances_move_with_the_weights_of_chains_as_they_say():
    runs = predictions(2.0, noise=1.0), predictions(2.5, noise=1.0, seed=1)
    hmc, other = (parts_of_run(run) for run in runs)
    one, half, rest = mixture("other", other), mixture("HMC", hmc, [0, 1]), mixture("HMC", hmc, [2, 3])
    by = 1e-9  # so small that no difference of probabilities changes its sign
    for distance, pair in ((total_variation(one, half), (one, half)), (total_variation(rest, half), (rest, half))):
        for run in ("other", "HMC"):
            for part in range(4) if run in distance.moves else ():
                moved = [reweighted(m, part, by) if m.source == run else m.probability for m in pair]
                found = (np.abs(moved[0] - moved[1]).sum(-1) / 2 - distance.values) / by
                # Rounding of differences of numbers of order 1, over the change of the weight: 1e-16 / 1e-9.
                np.testing.assert_allclose(found, distance.moves[run][part] / 4, atol=2e-6)


def test_what_two_distances_share_cancels():
    hmc = parts_of_run(predictions(2.0, noise=1.0))
    one = total_variation(mixture("one", parts_of_run(predictions(2.5, seed=1))), mixture("HMC", hmc))
    same = less(one, one)
    assert same.estimate() == (0.0, 0.0, 0.0)
    assert all(not moves.any() for moves in same.moves.values())


def test_chains_that_are_apart_widen_the_interval_of_a_distance():
    """Each chain with a shift of its own, of which the mean over chains is 0."""

    def width(apart):
        tree = predictions(2.0, draws=20)
        functions = tree["functions"].to_dataset()
        shift = xr.DataArray(np.exp(apart * np.array([-1.5, -0.5, 0.5, 1.5])), dims="chain")
        moved = functions["probability"] ** shift
        tree["functions"] = functions.assign(probability=moved / moved.sum("class"))
        found = total_variation(
            mixture("other", parts_of_run(predictions(3.0, seed=1))), mixture("HMC", parts_of_run(tree))
        ).estimate()
        return found.upper - found.lower

    assert width(0.3) > 2 * width(0.0)


def test_distances_need_probabilities():
    tree = make_tree(attrs={"kind": "mcmc", "task": "density", "name": "d"}, posterior={"w": np.zeros((2, 3))})
    with pytest.raises(ValueError, match="class probabilities, and d predicts none"):
        parts_of_run(tree)


def test_c2_is_not_decided_by_a_long_chain_of_few_effective_draws():
    """On the same points both predict the same posterior; the interval of points alone would find a difference."""
    rng = np.random.default_rng(4)
    difficulty = rng.normal(size=NUM_POINTS)
    several, long = (short_chains(rng, difficulty, *shape) for shape in ((4, 400), (1, 400)))
    ignorant = paired_gain(point_scores(long)["log_score"], point_scores(several)["log_score"])
    assert min(abs(ignorant.lower), abs(ignorant.upper)) > 0.01
    assert np.sign(ignorant.lower) == np.sign(ignorant.upper)
    assert c2_one_long_chain.judge({"long": long, "several": several}).finding.verdict == "inconclusive"
