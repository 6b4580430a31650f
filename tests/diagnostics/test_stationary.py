"""The stationary null: simulated processes of other lengths and shapes show the shares that it promises."""

import numpy as np
import pytest

from diagnostics import convergence, stationary
from diagnostics.summary import TOTAL, Part, layer_table


def table_of(draws):
    return layer_table({"f": Part.of(draws)}, draws.shape[1]).sel(layer=TOTAL)


@pytest.mark.parametrize(("phi", "share"), [(0.0, 0.01), (0.8, 0.92)])
def test_known_shares_at_three_chains_of_240(simulate, phi, share):
    """Independent draws pass 1.01 in 1 % of scalars, a stationary AR(0.8) in 92 % (measured with ArviZ's formulas)."""
    rng = np.random.default_rng(0)
    draws = simulate.autoregressive(rng, np.full(2000, phi), 3, 240)
    result = table_of(draws)
    # Standard error of a share of 2,000 and of one of 1,456 repetitions, the time read off by chain: within four of them and 1 %.
    error = np.sqrt(share * (1 - share) * (1 / 2000 + 1 / 1456))
    assert abs(float(result["share"][0]) - share) < 4 * error + 0.01
    assert abs(float(result["share_expected"][0]) - share) < 4 * error + 0.01


@pytest.mark.parametrize("time", [1.5, 3.2, 6.6, 14.0, 30.0])
@pytest.mark.parametrize("threshold", [0, 1])
def test_interpolation_between_simulated_times(simulate, time, threshold):
    phi = (time - 1) / (time + 1)
    result = table_of(simulate.autoregressive(np.random.default_rng(1), np.full(1500, phi), 4, 300))
    share, expected = float(result["share"][threshold]), float(result["share_expected"][threshold])
    # Both are binomial, of 1,500 and of 873 repetitions; interpolation and the noise of measured times add up to 0.03 (measured).
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) * (1 / 1500 + 1 / 873)) + 0.03


def test_long_chains_are_simulated_shorter_at_the_same_number_of_effective_draws(simulate):
    num_draws, time = 4000, 60.0
    draws = simulate.autoregressive(np.random.default_rng(2), np.full(300, (time - 1) / (time + 1)), 4, num_draws)
    result = table_of(draws)
    share, expected = float(result["share"][0]), float(result["share_expected"][0])
    assert 0.2 < expected < 0.9
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) * (1 / 300 + 1 / 262)) + 0.03


def test_a_displaced_chain_does_not_excuse_itself(simulate):
    rng = np.random.default_rng(3)
    draws = simulate.autoregressive(rng, np.full(200, 0.3), 4, 300)
    before = table_of(draws)
    draws[2] += 3
    after = table_of(draws)
    assert float(after["share_expected"][1]) < 1e-3  # would be near 1 if the pooled effective sample size were used
    assert abs(float(after["share_expected"][0]) - float(before["share_expected"][0])) < 0.01
    assert float(after["share"][1]) == 1
    assert float(after["num_effective"]) > 50  # a common displacement is not a correlation


def test_a_drifting_chain_hardly_excuses_itself(simulate):
    rng = np.random.default_rng(4)
    draws = simulate.autoregressive(rng, np.full(200, 0.3), 4, 300)
    draws[2] += np.linspace(0, 8, 300)[:, None]
    result = table_of(draws)
    assert float(result["share_expected"][1]) < 1e-3
    assert float(result["share"][1]) > 0.99


@pytest.mark.parametrize("num_factors", [1, 5, 20, 200])
def test_effective_number_of_scalars(simulate, num_factors):
    """Equal independent factors mixed into many scalars are worth about as many scalars as there are factors."""
    rng = np.random.default_rng(5)
    draws = simulate.autoregressive(rng, np.full(num_factors, 0.4), 4, 400) @ rng.normal(size=(num_factors, 500))
    correlation, count = stationary.batch_correlation(draws)
    effective = stationary.num_effective_scalars(correlation, count, 4)
    # E sum rho^2 = 500 + 500 * 499 / factors; relative error of the estimator with 36 degrees of freedom: 2 / 36 and
    # sqrt(8 / (36 factors)), taken four times.
    expected = 500**2 / (500 + 500 * 499 / num_factors)
    assert abs(np.log(effective / expected)) < 4 * np.hypot(2 / 36, np.sqrt(8 / 36 / num_factors))


def test_blocks_of_scalars_add_up(simulate):
    draws = simulate.correlated(np.random.default_rng(6), 30, 5, 3, 100)
    whole, count = stationary.batch_correlation(draws)
    parts = [stationary.batch_correlation(draws[..., part]) for part in (slice(0, 10), slice(10, 30))]
    np.testing.assert_allclose(whole, parts[0][0] + parts[1][0], rtol=1e-9, atol=1e-9)  # sums of 30 products in another order
    assert count == parts[0][1] + parts[1][1] == 30


def test_constant_and_non_finite_scalars_stay_out_of_the_correlation():
    draws = np.random.default_rng(7).normal(size=(2, 40, 5))
    draws[..., 1] = 1.0
    draws[0, 3, 2] = np.nan
    assert stationary.batch_correlation(draws)[1] == 3


def test_largest_share():
    expected = np.array([0.0, 1e-6, 0.05, 0.5, 1.0])
    few, many = stationary.largest_share(expected, 3.0), stationary.largest_share(expected, 300.0)
    assert np.all(np.isfinite(few))
    assert np.all(np.isfinite(many))
    assert np.all(many[1:4] > expected[1:4] * (1 - 1e-9) - 1e-6)
    assert np.all(few[2:4] > many[2:4])
    assert few[0] == pytest.approx(0, abs=1e-9)
    # Binomial of 300 scalars at 0.05: its 99.9 % quantile is 0.093; a beta with the same two moments comes within 0.01.
    assert many[2] == pytest.approx(0.093, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("num_chains", "num_draws"), [(2, 20), (2, 50), (4, 50), (8, 50)])
def test_gross_disagreement_is_rarer_than_promised(simulate, num_chains, num_draws):
    for time in (1.0, 5.0, 20.0, float(num_draws)):
        phi = (time - 1) / (time + 1)
        draws = simulate.autoregressive(np.random.default_rng(8), np.full(40_000, phi), num_chains, num_draws)
        block = np.ascontiguousarray(np.moveaxis(draws, -1, 0))
        ess = convergence.block_ess(convergence.halves_by_chain(block)).reshape(-1, num_chains)
        values = stationary.disagreement(block, ess)
        beyond = np.mean(values > stationary.GROSS * np.quantile(values, stationary.CRITICAL))
        # Three standard errors of a share of 40,000 above the promise.
        assert beyond < stationary.GROSS_SHARE + 3 * np.sqrt(stationary.GROSS_SHARE / 40_000)


def test_chains_that_barely_move_are_not_called_grossly_apart():
    null = stationary.stationary_null(4, 50)
    assert np.isinf(null.gross_disagreement(np.array([np.inf, 10.0]))).all()
    assert np.allclose(null.exceedance(np.array([np.inf])), 1)
