"""Energies and temperatures, against ArviZ and against processes of known temperature."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from arviz_stats.base import array_stats

from diagnostics import energy
from diagnostics.convergence import ess_mean, mcse_mean


def test_bfmi_equals_arviz():
    values = np.random.default_rng(0).normal(size=(3, 100)).cumsum(1)
    np.testing.assert_allclose(energy.bfmi(values), array_stats.bfmi(values, chain_axis=0, draw_axis=1), rtol=1e-12)


def test_bfmi_of_what_has_none():
    assert np.isnan(energy.bfmi(np.ones((1, 50)))).all()
    assert np.isnan(energy.bfmi(np.random.default_rng(0).normal(size=(2, 3)))).all()
    assert np.isnan(energy.bfmi(np.full((1, 50), np.nan))).all()


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_bfmi_error_is_the_spread_over_repetitions(simulate, phi):
    values = simulate.autoregressive(np.random.default_rng(1), np.full(2000, phi), 1, 400)[0].T
    fractions = energy.bfmi(values)
    predicted = energy.bfmi_error(np.array([2 * (1 - phi)]), 400)[0]
    # Relative error of a standard deviation of 2,000: 1.6 %, three times; of the large-sample formula at 400 draws and phi = 0.9
    # (38 effective draws): 10 %.
    assert abs(fractions.std() / predicted - 1) < 0.05 + 0.1 * phi


def test_summary_of_what_a_sampler_does_not_report_is_nan():
    summary = energy.energy_summary(xr.Dataset({"acceptance_rate": (("chain", "draw"), np.full((2, 10), 0.5))}))
    np.testing.assert_array_equal(summary.acceptance, [0.5, 0.5])
    for name in ("bfmi", "divergent", "error_sd", "error_largest"):
        assert np.isnan(getattr(summary, name)).all()


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("actual", [1.0, 1.3])
def test_temperature_of_gaussian_draws(simulate, temperature, actual):
    """Draws of exp(-U), U = x^2 / (2 T), with variance `actual` T have the virial x^2 / T and the temperature `actual` T."""
    draws = np.sqrt(actual * temperature) * simulate.autoregressive(np.random.default_rng(2), np.full(60, 0.5), 4, 300)
    squares = draws**2 / temperature
    virial = np.stack([squares[..., :50].sum(-1), squares[..., 50:].sum(-1)], -1)
    total, layers = energy.configurational_temperature(virial, np.array([50, 10]), temperature)
    # x^2 of an AR(0.5) has the coefficient 0.25 and the integrated time 5/3; its relative variance is 2.
    error = np.sqrt(2 / 60 * (5 / 3) / 1200) * actual * temperature
    assert abs(total.value - actual * temperature) < 4 * error
    assert (total.upper - total.lower) / 2 == pytest.approx(1.96 * error, rel=0.3)
    for layer in layers:
        assert layer.lower < actual * temperature < layer.upper


def test_intervals_hold_the_truth_as_often_as_they_say(simulate):
    draws = simulate.autoregressive(np.random.default_rng(3), np.full(300, 0.5), 4, 200)
    estimates = [energy.mean_estimate(draws[..., index]) for index in range(300)]
    hits = np.mean([one.lower < 0 < one.upper for one in estimates])
    # 95 % of 300, four binomial standard errors of 1.3 %.
    assert 0.90 < hits <= 1.0


def test_non_finite_draws_have_no_temperature():
    virial = np.ones((2, 20, 1))
    virial[0, 3] = np.nan
    total, layers = energy.configurational_temperature(virial, np.array([1]), 1.0)
    assert np.isnan(total).all()
    assert np.isnan(layers[0]).all()


def test_intervals_of_few_draws_are_students():
    draws = np.random.default_rng(8).normal(size=(2, 6))
    value, lower, upper = energy.mean_estimate(draws)
    reach = float(mcse_mean(draws)) * scipy.stats.t.ppf(0.975, float(ess_mean(draws)) - 1)
    assert (lower, upper) == (pytest.approx(value - reach), pytest.approx(value + reach))
    assert upper - value > 1.1 * 1.96 * float(mcse_mean(draws))  # a normal one would be too short


def test_intervals_of_all_layers_hold_at_once():
    """Ten layers at the right temperature, in 100 repeats: 5 miss with a standard deviation of 2.2, and 40 would one by one."""
    rng, sizes = np.random.default_rng(9), np.full(10, 20)
    missed = 0
    for _ in range(100):
        _, layers = energy.configurational_temperature(rng.chisquare(20, (4, 100, 10)), sizes, 1.0)
        missed += not all(layer.lower <= 1 <= layer.upper for layer in layers)
    assert missed <= 5 + 3 * 2.2
