"""Predicted biases against the recursion of the variance, iterated step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diagnostics.learning import Spectrum, predict_bias, step_size_for

H = np.array([1.0, 0.1, 0.01, 0.0])
SETTING = {"n_beta": 100.0, "localisation": 1.0}


def spectrum(h=H):
    return Spectrum(np.asarray(h, float), np.ones(len(h)))


def iterated(h, *, n_beta, localisation, step_size, burn_in, num_draws, thin, noise=0.0):
    """Mean form at the draws, averaged, of chains that start at the centre."""
    a, variance, found = n_beta * h + localisation, np.zeros(len(h)), []
    for step in range(1, burn_in + num_draws * thin + 1):
        variance = (1 - step_size * a / 2) ** 2 * variance + step_size + step_size**2 / 4 * n_beta**2 * noise
        if step > burn_in and (step - burn_in) % thin == 0:
            found.append(n_beta * np.sum(h * variance) / 2)
    return float(np.mean(found))


def test_a_localiser_leaves_half_the_effective_number_of_directions():
    assert predict_bias(spectrum(), **SETTING).exact == pytest.approx(0.5 * (100 / 101 + 10 / 11 + 1 / 2))
    assert predict_bias(spectrum(), n_beta=1e9, localisation=1e-9).exact == pytest.approx(1.5)
    assert predict_bias(spectrum([0.0, 0.0]), n_beta=10.0, localisation=0.0).exact == 0  # flat, and no localiser: no energy


def test_the_localisers_part_is_the_derivative():
    weaker, stronger = (predict_bias(spectrum(), n_beta=100.0, localisation=math.exp(-x)).exact for x in (1e-4, -1e-4))
    # A central difference of 1e-4 has an error of 1e-8.
    assert predict_bias(spectrum(), **SETTING).localiser == pytest.approx((weaker - stronger) / 2e-4, rel=1e-6)
    assert predict_bias(spectrum(), n_beta=100.0, localisation=0.0).localiser == 0


def test_the_table_of_single_directions():
    """Values of an independent simulation, to its four digits: n beta 100, localiser 1, step 0.005."""
    simulated = (0.5665, 0.4612, 0.2511, 0.0)
    for h, value in zip(H, simulated, strict=True):
        predicted = predict_bias(spectrum([h]), **SETTING, step_size=0.005).expected
        assert predicted == pytest.approx(value, abs=1e-3)  # 3 of its standard errors


@pytest.mark.parametrize(("burn_in", "num_draws", "thin"), [(0, 1, 1), (7, 20, 3), (300, 50, 1)])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_prediction_is_the_recursion(burn_in, num_draws, thin, noise):
    lengths = {"burn_in": burn_in, "num_draws": num_draws, "thin": thin}
    batch_noise = Spectrum(H, noise * np.ones(4)) if noise else None
    found = predict_bias(spectrum(), **SETTING, step_size=0.02, batch_noise=batch_noise, **lengths)
    assert found.expected == pytest.approx(iterated(H, **SETTING, step_size=0.02, noise=noise, **lengths), rel=1e-9)
    assert found.step > 0 > found.burn_in
    assert (found.batch > 0) == bool(noise)


def test_equilibrium_is_a_long_burn_in():
    settled = predict_bias(spectrum(), **SETTING, step_size=0.02)
    assert settled.burn_in == 0
    late = predict_bias(spectrum(), **SETTING, step_size=0.02, burn_in=10_000, num_draws=5)
    assert late.expected == pytest.approx(settled.expected)


def test_a_step_beyond_stability_is_infinitely_biased():
    assert predict_bias(spectrum(), **SETTING, step_size=4 / 101).step == math.inf
    assert math.isfinite(predict_bias(spectrum(), **SETTING, step_size=3.9 / 101).step)


def test_a_centre_that_is_no_minimum_lowers_the_estimate():
    """Displaced by s from the minimum of one direction, loss above the displaced centre: exact for a Gaussian."""
    h, gamma, t, s = 0.5, 2.0, 100.0, 0.3
    a = t * h + gamma
    mean = -t * h * s / a  # of w - w*, with the minimum at -s
    truth = t * h / 2 * (1 / a + (mean + s) ** 2 - s**2)
    gradient = Spectrum(np.array([h]), np.array([(h * s) ** 2]))
    found = predict_bias(spectrum([h]), n_beta=t, localisation=gamma, gradient=gradient)
    assert found.expected == pytest.approx(truth)
    assert found.centre < 0


def test_the_default_step_adds_what_it_should():
    step = step_size_for(spectrum(), **SETTING, relative_bias=0.02)
    found = predict_bias(spectrum(), **SETTING, step_size=step)
    assert found.step == pytest.approx(0.02 * found.exact, rel=1e-4)
    assert step_size_for(spectrum(), **SETTING, relative_bias=10.0) == pytest.approx(1 / 101)
    with pytest.raises(ValueError, match="give a step_size"):
        step_size_for(spectrum([0.0]), n_beta=1.0, localisation=0.0, relative_bias=0.02)


def simulated(rng, *, step_size, batch=0.0, displacement=0.0, burn_in, num_draws, num_chains=10_000):
    """Mean form of SGLD on the quadratic loss of curvatures H, from a centre displaced from its minimum, with its error."""
    n_beta, localisation = SETTING["n_beta"], SETTING["localisation"]
    w, chains = np.zeros((num_chains, len(H))), np.zeros(num_chains)
    for step in range(burn_in + num_draws):
        gradient = n_beta * H * (w + displacement) + localisation * w
        if batch:
            gradient += n_beta * math.sqrt(batch) * rng.normal(size=w.shape)
        w = w - step_size / 2 * gradient + math.sqrt(step_size) * rng.normal(size=w.shape)
        if step >= burn_in:
            chains += n_beta / 2 * (H * ((w + displacement) ** 2 - displacement**2)).sum(1) / num_draws
    return chains.mean(), chains.std() / math.sqrt(num_chains)


@pytest.mark.parametrize(
    ("left_out", "setting"),
    [
        ("localiser", {"step_size": 0.004, "burn_in": 1000, "num_draws": 1}),
        ("step", {"step_size": 0.02, "burn_in": 400, "num_draws": 5}),
        ("batch", {"step_size": 0.01, "burn_in": 800, "num_draws": 5, "batch": 0.3}),
        ("burn_in", {"step_size": 0.005, "burn_in": 5, "num_draws": 20}),
        ("centre", {"step_size": 0.004, "burn_in": 1000, "num_draws": 1, "displacement": 0.05}),
    ],
)
def test_each_bias_matches_a_simulation_within_five_percent(left_out, setting):
    """And without the bias in question, which alone is large here, the prediction is further off."""
    value, error = simulated(np.random.default_rng(0), **setting)
    batch, displacement = setting.get("batch", 0.0), setting.get("displacement", 0.0)
    lengths = {name: setting[name] for name in ("step_size", "burn_in", "num_draws")}
    found = predict_bias(
        spectrum(),
        **SETTING,
        **lengths,
        batch_noise=Spectrum(H, np.full(4, batch)) if batch else None,
        gradient=Spectrum(H, (H * displacement) ** 2),
    )
    assert error < 0.01 * value
    assert abs(value / found.expected - 1) < 0.05
    without = found.expected - getattr(found, left_out) if left_out != "localiser" else np.sum(H > 0) / 2
    assert abs(value / without - 1) > 0.05
