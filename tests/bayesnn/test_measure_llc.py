"""Learning coefficients of sampled targets, against their exact values at this scale, and what is known to go wrong elsewhere."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import samplers
from bayesnn.measure.descent import minimise_loss
from bayesnn.measure.learning import _kernel, _prepare, learning_coefficient
from bayesnn.measure.llc import LocalSampling
from bayesnn.measure.resample import bootstrap_data
from diagnostics.learning import Spectrum, predict_bias
from tests.bayesnn import loss_targets as t

STANDARD_ERRORS = 3.0
H = np.array([1.0, 0.1, 0.01, 0.0])
KEY = jax.random.key(0)


def deviation(estimate, truth):
    return (estimate.value - truth) / estimate.standard_error


def verdict(found, claim):
    return next(finding for finding in found.findings if finding.claim == claim)


def at_quadratic(h=H, *, key=KEY, mask=None, **settings):
    target, batch = t.quadratic(h)
    how = t.short(**{"inverse_temperatures": (1.0, 1.5)} | settings)
    return learning_coefficient(key, target, batch, jnp.zeros(len(h)), how, mask=mask)


# Predicted biases: each is there, and as large as predicted within 5 %, at Monte Carlo errors below 2 %.


@pytest.mark.slow
@pytest.mark.parametrize("step_size", [0.005, 0.02])
def test_step_bias_is_as_predicted(step_size):
    found = at_quadratic(step_size=step_size, chains=8, draws=2000, burn_in=2000, thin=10)
    estimate, bias = found.estimates["mean"], found.sampling.bias
    assert estimate.standard_error < 0.02 * estimate.value
    assert abs(estimate.value / bias.expected - 1) < 0.05
    assert abs(bias.burn_in) < 1e-3
    assert estimate.value - bias.exact > STANDARD_ERRORS * estimate.standard_error
    assert abs(deviation(found.estimates["corrected"], bias.exact)) < STANDARD_ERRORS
    assert verdict(found, "step").verdict == "fail"  # both add more than 5 %


def test_burn_in_bias_is_as_predicted():
    found = at_quadratic(step_size=0.005, chains=2000, draws=20, burn_in=5, thin=1)
    estimate, bias = found.estimates["mean"], found.sampling.bias
    chain_means = found.draws.losses[0].mean(-1) * 100
    assert chain_means.std() / math.sqrt(2000) < 0.02 * chain_means.mean()
    assert abs(estimate.value / bias.expected - 1) < 0.05
    assert bias.burn_in < -0.15 * bias.exact  # an uncorrected estimate so far off must not pass
    assert verdict(found, "convergence").note.startswith("Not converged")
    assert found.findings[0].verdict == "fail"


@pytest.mark.slow
def test_noise_of_minibatches_is_as_predicted():
    """Independent batches: the gradients of an order that is replayed every epoch would cancel, and add next to nothing."""
    target, batch, solution, _ = t.regression()
    how = t.short(inverse_temperatures=(0.1,), step_size=4e-3, batch_size=20, chains=8, draws=2000, thin=10, burn_in=1000)
    found = learning_coefficient(KEY, target, batch, solution, how)
    estimate, bias = found.estimates["mean"], found.sampling.bias
    assert bias.batch > 0.15 * bias.exact
    assert estimate.standard_error < 0.02 * estimate.value
    assert abs(estimate.value / bias.expected - 1) < 0.05


# Exactness.


@pytest.mark.parametrize(
    "sampler", ["sgld", "mala", pytest.param("hmc", marks=pytest.mark.slow), pytest.param("nuts", marks=pytest.mark.slow)]
)
def test_a_linear_model_has_its_effective_dimension(sampler):
    target, batch, solution, hessian = t.regression()
    how = t.short(sampler=sampler, localisation=2.0, draws=1000, burn_in=400, thin=4)
    found = learning_coefficient(KEY, target, batch, solution, how)
    n_beta = 1000 / math.log(1000)
    truth = t.effective(hessian, n_beta, 2.0)
    assert found.attrs["n_beta"][0] == pytest.approx(n_beta)
    assert found.sampling.bias.exact == pytest.approx(truth, rel=1e-4)
    assert abs(deviation(found.estimates["corrected"], truth)) < STANDARD_ERRORS
    # E[n L] changes with 1 / beta by what the localiser leaves at both temperatures, and by no baseline.
    first, second = (t.effective(hessian, n_beta * scale, 2.0) / scale for scale in (1.0, 1.5))
    assert abs(deviation(found.estimates["two_temperature"], (first - second) / (1 - 1 / 1.5))) < STANDARD_ERRORS
    assert all(verdict(found, claim).verdict == "pass" for claim in ("chains", "minimum", "convergence", "step"))


@pytest.mark.slow
def test_a_crossing_has_its_value_at_this_scale():
    target, batch = t.crossing()
    how = t.short(draws=2000, burn_in=2000, thin=20, inverse_temperatures=(0.02, 0.03), localisation=4.0)
    found = learning_coefficient(KEY, target, batch, jnp.zeros(2), how)
    estimate, truth = found.estimates["mean"], t.crossing_truth(20.0, 4.0)
    # SGLD at the step that it found adds up to what its verdict says; the rest is Monte Carlo error.
    added = verdict(found, "step").value * truth
    assert added < 0.06 * truth
    assert -STANDARD_ERRORS * estimate.standard_error < estimate.value - truth < added + STANDARD_ERRORS * estimate.standard_error
    assert abs(deviation(estimate, 0.5)) > STANDARD_ERRORS  # the limit is elsewhere
    assert found.sampling.bias.exact == pytest.approx(0, abs=1e-6)  # nothing at the centre is quadratic


@pytest.mark.slow
def test_a_crossing_by_an_exact_sampler():
    target, batch = t.crossing()
    how = t.short(sampler="nuts", draws=3000, burn_in=1000, thin=1, inverse_temperatures=(0.02, 0.03), localisation=4.0)
    found = learning_coefficient(KEY, target, batch, jnp.zeros(2), how)
    assert abs(deviation(found.estimates["mean"], t.crossing_truth(20.0, 4.0))) < STANDARD_ERRORS


@pytest.mark.slow
@pytest.mark.parametrize("widths", [(3, 2, 3), (7, 2, 8)], ids=["12 parameters", "30 parameters"])
def test_reduced_rank_regression_at_its_most_singular_point(widths):
    from diagnostics.oracles import deep_linear

    inputs, hidden, outputs = widths
    layers = [jnp.zeros((hidden, inputs)), jnp.zeros((outputs, hidden))]
    target, batch = t.linear_network(layers, 1000)
    how = t.short(sampler="nuts", draws=1500, burn_in=500, thin=1, inverse_temperatures=(0.2, 0.3))
    found = learning_coefficient(KEY, target, batch, layers, how)
    truth = deep_linear(widths, 200.0).excess_loss  # its prior of scale 1 is the localiser
    assert abs(deviation(found.estimates["mean"], truth)) < STANDARD_ERRORS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["6", "5+", "5-"])
def test_polygons_of_superposition(name):
    """Eighteen parameters: 17 are held by the data, and 14 where a feature is free to move, which the localiser then holds."""
    from diagnostics.oracles import polygons

    kind = next(kind for kind in polygons(6) if kind.name == name)
    target, batch, centre, hessian = t.polygon(kind, 10**6)
    how = t.short(sampler="nuts", draws=1500, burn_in=300, thin=1, inverse_temperatures=(1.0, 1.5), localisation=400.0)
    found = learning_coefficient(KEY, target, batch, centre, how)
    truth = t.effective(hessian, 1e6, 400.0)
    assert kind.llc - 1 < truth < kind.llc
    assert abs(deviation(found.estimates["mean"], truth)) < STANDARD_ERRORS
    assert all(verdict(found, claim).verdict == "pass" for claim in ("chains", "minimum", "convergence"))
    # The negative control: one direction more or less would be seen.
    assert abs(deviation(found.estimates["mean"], truth + 0.5)) > STANDARD_ERRORS


@pytest.mark.slow
def test_a_deep_linear_network_at_a_true_one():
    """Orthogonal layers with a narrow middle: 10,000 steps at t = 1e6 find Aoyagi's value within 5 %."""
    from diagnostics.oracles import deep_linear_coefficient

    widths = (16, 16, 8, 16, 24)
    layers = t.orthogonal_layers(jax.random.key(1), widths)
    target, batch = t.linear_network(layers, 10**6)
    truth = float(deep_linear_coefficient(widths, 8).llc)
    how = t.short(draws=400, burn_in=2000, thin=20, inverse_temperatures=(1.0, 1.5), chains=2, localisation=100.0)
    found = learning_coefficient(KEY, target, batch, layers, how)
    assert samplers.num_params(layers) == 896
    assert abs(found.estimates["mean"].value / truth - 1) < 0.05
    assert found.findings[0].verdict == "pass"
    # After a hundredth of the steps it is far off, and says so.
    soon = learning_coefficient(KEY, target, batch, layers, how.model_copy(update={"burn_in": 0, "draws": 20, "thin": 1}))
    assert soon.estimates["mean"].value < 0.85 * truth
    assert verdict(soon, "convergence").note.startswith("Not converged")


def test_steps_are_as_coarse_at_every_temperature():
    """Step times precision is that of the first temperature, as far as the localiser is small: so are the biases."""
    target, batch = t.quadratic(H)
    how = t.short(inverse_temperatures=(1.0, 1.5, 4.0), step_size=0.006, chains=2)
    steps = np.asarray(_kernel(_prepare(KEY, target, batch, jnp.zeros(4), how, None), how)[1].tuning.step_size)
    np.testing.assert_allclose(steps, np.repeat([0.006, 0.004, 0.0015], 2), rtol=1e-6)  # rounding of float32


# What is known to go wrong elsewhere.


@pytest.mark.slow
def test_the_temperature_is_of_the_data_and_not_of_the_batches():
    target, batch, solution, _ = t.regression()
    found = [
        learning_coefficient(KEY, target, batch, solution, t.short(batch_size=size, draws=20, burn_in=1)).attrs
        for size in (None, 10)
    ]
    assert {one["inverse_temperatures"][0] for one in found} == {1 / math.log(1000)}
    assert [(one["num_data"], one["batch_size"]) for one in found] == [(1000, 1000), (1000, 10)]


def test_the_burn_in_is_in_no_estimate():
    found = at_quadratic(burn_in=400, draws=100, thin=2)
    assert found.draws.losses.shape == (2, 4, 100)
    again = at_quadratic(burn_in=0, draws=300, thin=2)  # the same chains from the start, if nothing else differs
    kept = again.draws.losses[:, :, 200:]
    np.testing.assert_allclose(found.draws.losses, kept, rtol=1e-4)


def test_a_hot_step_loses_chains_and_says_so():
    found = at_quadratic(step_size=0.2, draws=200)  # at 4 / 101 the variance is infinite
    assert found.draws.is_lost.any()
    assert found.findings[0].verdict == "fail"
    assert verdict(found, "chains").note.startswith("Chain lost")
    assert found.estimates == {} or verdict(found, "step").note.startswith("Step too hot")


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_one_temperature_rules_sampler_and_estimate(beta):
    """Given twice they may differ; the value then depends on the temperature, even where the loss is quadratic."""
    found = at_quadratic(np.array([2.0, 1.0, 1.0, 0.5]), inverse_temperatures=(beta,), localisation=0.01, thin=10)
    assert (
        abs(deviation(found.estimates["corrected"], 2.0)) < STANDARD_ERRORS + 0.01 * 2.0 / found.estimates["mean"].standard_error
    )


def test_no_metric_depends_on_the_position():
    """SGLD in a metric without its divergence is biased, so it has none; those of exact samplers are fixed by the warm-up."""
    assert not {"preconditioner", "rmsprop"} & set(LocalSampling.model_fields)


def test_the_loss_of_the_centre_is_that_of_all_examples():
    target, batch, solution, _ = t.regression()
    x, y = (np.asarray(part, np.float64) for part in batch.data)
    truth = 0.5 * np.mean((y - x @ solution) ** 2)
    for seed, size in enumerate((None, 10)):
        found = learning_coefficient(jax.random.key(seed), target, batch, solution, t.short(batch_size=size, draws=20, burn_in=1))
        assert found.draws.baseline == pytest.approx(truth, rel=1e-6)  # float32, summed over 1000 examples
        assert found.draws.baseline_error == 0


def test_the_same_key_gives_the_same_losses():
    """Nothing else is random: no dropout, no batches of the baseline, no order of the data."""
    one, two = (at_quadratic(draws=20) for _ in range(2))
    np.testing.assert_array_equal(one.draws.losses, two.draws.losses)
    other = at_quadratic(draws=20, key=jax.random.key(1))
    assert not np.array_equal(one.draws.losses, other.draws.losses)


# Centres, masks, data.


@pytest.mark.slow
def test_a_minimum_of_the_posterior_is_not_one_of_the_loss():
    target, batch, solution, hessian = t.regression(num_data=100, scale=0.5)
    posterior_mode = np.linalg.solve(100 * hessian + np.eye(3), 100 * hessian @ solution)
    how = t.short(inverse_temperatures=(1.0, 1.5), thin=10)
    found = learning_coefficient(KEY, target, batch, posterior_mode, how)
    assert verdict(found, "minimum").note.startswith("Not a minimum")
    lowest = minimise_loss(target, batch, jnp.asarray(posterior_mode), num_steps=100)
    np.testing.assert_allclose(lowest.position, solution, atol=1e-3)  # gradient 1e-6 over the smallest curvature, 0.01
    assert lowest.decrease > 0
    assert verdict(learning_coefficient(KEY, target, batch, lowest.position, how), "minimum").verdict == "pass"


@pytest.mark.slow
def test_blocks_of_parameters_add_up():
    h = np.array([3.0, 1.0, 0.5, 0.1])
    parts = [at_quadratic(h, mask=np.arange(4) < 2, thin=10), at_quadratic(h, mask=np.arange(4) >= 2, thin=10)]
    whole = at_quadratic(h, mask=np.full(4, True), thin=10)
    free = at_quadratic(h, thin=10)
    assert [one.attrs["num_params"] for one in (*parts, whole)] == [2, 2, 4]
    assert sum(one.sampling.bias.exact for one in parts) == pytest.approx(free.sampling.bias.exact, rel=1e-5)
    estimates = [one.estimates["corrected"] for one in parts]
    total = math.hypot(*(one.standard_error for one in estimates), free.estimates["mean"].standard_error)
    assert abs(sum(one.value for one in estimates) - free.estimates["corrected"].value) < STANDARD_ERRORS * total
    assert abs(deviation(whole.estimates["corrected"], free.sampling.bias.exact)) < STANDARD_ERRORS


@pytest.mark.slow
def test_another_distribution_of_data_has_its_own_coefficient():
    """Inputs of a tenth of the scale: directions that the localiser then holds."""
    target, batch, solution, hessian = t.regression(scale=0.1, num_data=500)
    assert target.num_data == 500
    found = learning_coefficient(KEY, target, batch, solution, t.short(inverse_temperatures=(0.2, 0.3), thin=10))
    assert abs(deviation(found.estimates["corrected"], t.effective(hessian, 100.0, 1.0))) < STANDARD_ERRORS


@pytest.mark.slow
def test_data_drawn_again_have_minima_of_their_own():
    """With its own baseline a regular model's estimate hardly depends on the data; with the old one, by a chi-squared."""
    target, batch, solution, hessian = t.regression(num_data=200)
    how = t.short(inverse_temperatures=(0.5, 1.0), thin=4, draws=200)
    found = bootstrap_data(KEY, target, batch, jnp.asarray(solution), how, num_resamples=3)
    truth = t.effective(hessian, 100.0, 1.0)
    assert {"mean", "two_temperature"} <= set(found)
    assert found["mean"].shape == (3,)
    # Its own Monte Carlo error is near 0.1; the old baseline would lower the values by 0.75 on average, beta d / 2.
    assert np.abs(found["mean"].mean() - truth) < 0.3
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap_data(KEY, target, batch, jnp.asarray(solution), how, num_resamples=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: learning_coefficient(KEY, *_no_data(), jnp.zeros(2)), "a target without data has no loss"),
        (lambda: learning_coefficient(KEY, *t.quadratic(H, num_data=2), jnp.zeros(4)), "give inverse_temperatures"),
        (lambda: learning_coefficient(KEY, *t.quadratic(H), jnp.full(4, jnp.inf)), "choose another centre"),
        (lambda: learning_coefficient(KEY, *t.quadratic(H * 0), jnp.zeros(4), t.short(localisation=0.0)), "give a step_size"),
        (lambda: minimise_loss(*_no_data(), jnp.zeros(2), num_steps=1), "a target without data has no loss"),
        (lambda: t.short(inverse_temperatures=(1.0, 1.0)), "must differ"),
        (lambda: t.short(sampler="nuts", batch_size=3), "settings of sgld"),
        (lambda: t.short(sampler="mala", burn_in=3), "at least 20"),
    ],
    ids=range(8),
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _no_data():
    return samplers.from_logdensity(lambda x: -jnp.sum(x**2))


def test_predictions_at_the_centre_are_of_its_own_spectrum():
    found = at_quadratic(draws=20, burn_in=0)
    np.testing.assert_allclose(found.spectra.hessian.nodes, np.sort(H), atol=1e-6)
    table = Spectrum(H, np.ones(4))
    assert predict_bias(table, n_beta=100.0, localisation=1.0).exact == pytest.approx(found.sampling.bias.exact, rel=1e-5)
    tree = found.tree
    assert set(tree.children) == {"draws", "estimates", "spectrum", "predicted"}
    assert tree["draws/loss"].dims == ("temperature", "chain", "draw")
    assert float(tree["estimates"].to_dataset()["value"].sel(form="mean")) == found.estimates["mean"].value
