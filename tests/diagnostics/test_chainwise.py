"""Statistics inside chains, of superchains, of draws that were not kept, and of selected chains."""

import numpy as np
import pytest
from arviz_stats.base import array_stats

from diagnostics import chainwise, convergence
from diagnostics.nested import rhat_nested
from diagnostics.selected import selected_summary
from diagnostics.streaming import streaming_statistics
from diagnostics.summary import TOTAL

ROUNDING = 1e-10  # relative; both sides work in float64


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_chainwise_rhat_is_that_of_blocks_of_rank_scores():
    draws = np.random.default_rng(0).normal(size=(3, 80, 5)).cumsum(1)
    found = chainwise.rhat_chainwise(draws)
    assert found.shape == (3, 5)
    for chain in range(3):
        for scalar in range(5):
            scores = convergence.rank_scores(draws[chain, :, scalar].reshape(1, 4, 20))
            expected = array_stats.rhat(scores[0], chain_axis=0, draw_axis=1, method="identity")
            assert found[chain, scalar] == pytest.approx(float(expected), rel=ROUNDING)


def test_a_drifting_chain_shows_inside_and_a_displaced_one_between(simulate):
    draws = simulate.autoregressive(np.random.default_rng(1), np.full(50, 0.3), 4, 400)
    drifting, displaced = draws.copy(), draws.copy()
    drifting[2] += np.linspace(0, 6, 400)[:, None]
    displaced[2] += 3
    inside = [np.median(chainwise.rhat_chainwise(x), 1) for x in (draws, drifting, displaced)]
    # A stationary AR(0.3) has 54 effective draws in a block of 100; R-hat of 4 blocks is then 1 + about 1/108 of a chi-square's
    # mean, whose median over 50 scalars stays below 1.03.
    assert (inside[0] < 1.03).all()
    assert inside[1][2] > 1.5
    assert (inside[2] < 1.03).all()
    classic = convergence.rhat_classic(displaced)
    assert np.median(chainwise.rhat_between(classic, chainwise.rhat_chainwise(displaced))) > 1.3
    assert np.median(chainwise.rhat_between(convergence.rhat_classic(draws), chainwise.rhat_chainwise(draws))) < 1.03


def test_blocks_of_a_chain_are_refused_where_they_have_no_variance():
    for num_blocks in (1, 6):
        with pytest.raises(ValueError, match="num_blocks"):
            chainwise.rhat_chainwise(np.zeros((2, 10)), num_blocks)
    assert np.isnan(chainwise.rhat_chainwise(np.full((2, 40), np.nan))).all()


def test_variances_are_those_of_rhat():
    draws = np.random.default_rng(2).normal(size=(4, 60, 3)) + np.arange(4)[:, None, None]
    within, between = chainwise.chain_variances(draws)
    expected = np.sqrt(59 / 60 + between / within)
    np.testing.assert_allclose(convergence.rhat_classic(draws), expected, rtol=ROUNDING)
    assert np.isnan(chainwise.chain_variances(draws[:1]).between).all()


@pytest.mark.parametrize(("enter", "leave"), [(0.1, 0.3), (0.4, 0.6), (0.7, 0.9)])
def test_ess_of_an_event_is_that_of_a_two_state_chain(enter, leave):
    """Autocorrelation of a two-state chain decays as (1 - enter - leave)^lag."""
    rng = np.random.default_rng(3)
    state = np.zeros((4, 20_000), bool)
    state[:, 0] = rng.random(4) < enter / (enter + leave)
    uniform = rng.random(state.shape)
    for draw in range(1, state.shape[1]):
        state[:, draw] = np.where(state[:, draw - 1], uniform[:, draw] >= leave, uniform[:, draw] < enter)
    rate = 1 - enter - leave
    expected = state.size * (1 - rate) / (1 + rate)
    # Relative error of the sum of autocorrelations: sqrt(2 (2 W + 1) / N) with a window W of 10 lags, 80,000 draws: 2.3 %.
    assert chainwise.ess_indicator(state) == pytest.approx(expected, rel=4 * 0.023)


def test_chains_that_each_keep_to_their_side_have_hardly_an_effective_draw():
    sides = np.repeat(np.array([True, False, True, False])[:, None], 500, 1)
    assert chainwise.ess_indicator(sides) < 8
    assert np.isnan(chainwise.ess_indicator(np.ones((4, 500), bool)))
    assert np.isnan(chainwise.ess_indicator(np.zeros((4, 500), bool)))
    with pytest.raises(TypeError, match="truth values"):
        chainwise.ess_indicator(np.zeros((4, 500)))


@pytest.mark.parametrize(("num_chains", "num_draws"), [(12, 20), (12, 21), (6, 100), (8, 5)])
@pytest.mark.parametrize("order", ["together", "interleaved"])
def test_nested_rhat_equals_arviz(num_chains, num_draws, order):
    rng = np.random.default_rng(4)
    draws = rng.normal(size=(num_chains, num_draws, 4)) + rng.normal(size=(num_chains, 1, 4))
    draws[..., 1] = rng.integers(0, 3, draws.shape[:2])  # ties
    names = np.repeat([0, 1], num_chains // 2) if order == "together" else np.arange(num_chains) % 2
    expected = array_stats.rhat_nested(draws, superchain_ids=names, chain_axis=0, draw_axis=1, method="rank")
    np.testing.assert_allclose(rhat_nested(draws, names), expected, rtol=ROUNDING)


def test_nested_rhat_sees_starts_that_are_remembered_where_rhat_sees_short_chains():
    rng = np.random.default_rng(5)
    names = np.repeat(np.arange(4), 64)
    forgotten = rng.normal(size=(256, 1, 200))
    remembered = forgotten + rng.normal(size=(4, 200))[names][:, None]
    # Independent single draws: sqrt(1 + 1 / 64) = 1.008; its spread over scalars is sqrt(2 / 3) / 128 = 0.006.
    assert np.median(rhat_nested(forgotten, names)) == pytest.approx(np.sqrt(1 + 1 / 64), abs=0.006)
    assert np.median(rhat_nested(remembered, names)) > 1.2


@pytest.mark.parametrize("names", [np.zeros(4, int), [0, 0, 0, 1], [0, 1]])
def test_superchains_that_cannot_be_compared_are_refused(names):
    with pytest.raises(ValueError, match="superchain"):
        rhat_nested(np.random.default_rng(0).normal(size=(4, 10)), names)


def batches_of(draws, num_batches):
    cut = draws.reshape(draws.shape[0], num_batches, -1, *draws.shape[2:])
    return cut.mean(2), cut.var(2) * cut.shape[2], cut.shape[2]


def test_streaming_rhat_is_that_of_the_draws():
    draws = np.random.default_rng(6).normal(size=(3, 200, 2, 5)).cumsum(1)
    found = streaming_statistics(*batches_of(draws, 10))
    np.testing.assert_allclose(found.rhat_split, convergence.rhat_split(draws), rtol=ROUNDING)
    np.testing.assert_allclose(found.rhat_classic, convergence.rhat_classic(draws), rtol=ROUNDING)
    np.testing.assert_allclose(found.mean, draws.mean((0, 1)), rtol=ROUNDING)
    assert np.isnan(streaming_statistics(*batches_of(draws[:1], 10)).rhat_split).all()


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_streaming_ess_of_a_known_process(simulate, phi):
    draws = simulate.autoregressive(np.random.default_rng(7), np.full(200, phi), 4, 8000)
    found = streaming_statistics(*batches_of(draws, 20))
    expected = 4 * 8000 * (1 - phi) / (1 + phi)
    # 79 degrees of freedom: 16 % each, 1.2 % for the mean over 200; a mean of inverses is 2 / 79 too large, and batches of 400
    # are 2 phi / (1 - phi^2) / 400 < 2.4 % too certain.
    assert found.ess_mean.mean() == pytest.approx(expected * (1 + 2 / 79), rel=4 * 0.012 + 0.024)
    displaced = draws.copy()
    displaced[0] += 5
    assert (streaming_statistics(*batches_of(displaced, 20)).ess_mean < 8).all()  # one or two a chain


def test_streaming_input_that_does_not_fit_is_refused():
    for shape in ((2, 3), (2, 5), (2, 2)):
        with pytest.raises(ValueError, match="even number"):
            streaming_statistics(np.zeros(shape), np.zeros(shape), 10)
    with pytest.raises(ValueError, match="same shape"):
        streaming_statistics(np.zeros((2, 4)), np.zeros((2, 6)), 10)


def test_chains_left_out_are_counted_and_shown_beside_all(simulate):
    arrays = simulate.healthy_arrays(0, num_draws=100)
    for name in arrays["posterior"]:
        arrays["posterior"][name][3] += 4
    from diagnostics.trees import make_tree

    tree = make_tree(**arrays)
    summary = selected_summary(tree, [True, True, True, False], "energy never fell")
    table = summary["posterior_layers"].to_dataset().sel(layer=TOTAL)
    all_of_them, kept = (float(table["rhat_median"].sel(chains=name)) for name in ("all", "kept"))
    assert all_of_them > 1.5 > 1.1 > kept
    assert (summary.attrs["num_chains"], summary.attrs["num_dropped"], summary.attrs["dropped"]) == (4, 1, [3])
    for keep, reason, message in (
        ([True] * 3, "why", "truth value"),
        ([False] * 4, "why", "no chain"),
        ([1, 1, 1, 0], "why", "truth value"),
        ([True] * 4, " ", "reason"),
    ):
        with pytest.raises(ValueError, match=message):
            selected_summary(tree, keep, reason)
