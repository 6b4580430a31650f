"""Estimates from exact draws of singular posteriors, held against their values at this n, not against the limit."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from diagnostics import learning, oracles
from diagnostics.learning import LossDraws

NUM_DATA = 1000
BETA = 1 / math.log(NUM_DATA)
CHAINS, DRAWS = 4, 5000
# Of the project: estimates lie within so many standard errors; by chance one in 370 does not.
STANDARD_ERRORS = 3.0


def crossing(orders, beta=BETA):
    return oracles.normal_crossing(orders, NUM_DATA * beta)


def exact_losses(orders, beta=BETA, seed=0):
    """Losses of independent draws: K itself, since the loss at the crossing is 0."""
    oracle = crossing(orders, beta)
    draws = np.asarray(oracle.draw(jax.random.key(seed), CHAINS * DRAWS), np.float64)
    return np.prod(draws ** (2 * np.asarray(orders)), axis=-1).reshape(CHAINS, DRAWS)


def deviation(estimate, truth):
    return (estimate.value - truth) / estimate.standard_error


@pytest.mark.parametrize("orders", [(1, 0), (1, 1), (2, 1)], ids=str)
def test_forms_find_the_value_at_this_n(orders):
    losses = exact_losses(orders)
    truth = crossing(orders).excess_loss
    found = learning.mean_form(losses, num_data=NUM_DATA, inverse_temperature=BETA, baseline=0.0)
    assert abs(deviation(found, truth)) < STANDARD_ERRORS
    # t^2 Var[K] = -t^2 dE[K] / dt, by a central difference whose own error is of order 1e-4 of it.
    below, above = (crossing(orders, BETA * scale).excess_loss / scale for scale in (0.99, 1.01))
    found = learning.variance_form(losses, num_data=NUM_DATA, inverse_temperature=BETA)
    assert abs(deviation(found, (below - above) / 0.02)) < STANDARD_ERRORS


def test_the_limit_is_not_the_value_at_this_n():
    found = learning.mean_form(exact_losses((1, 1)), num_data=NUM_DATA, inverse_temperature=BETA, baseline=0.0)
    assert crossing((1, 1)).llc == 0.5
    assert deviation(found, 0.5) < -5 * STANDARD_ERRORS


def test_several_temperatures_need_no_baseline():
    betas = (BETA, 1.5 * BETA, 3 * BETA)
    losses = np.stack([exact_losses((1, 1), beta, seed) for seed, beta in enumerate(betas)]) + 7.0  # nats that the truth costs
    means = [crossing((1, 1), beta).excess_loss / beta for beta in betas]
    truth = (means[0] - means[1]) / (1 / betas[0] - 1 / betas[1])
    found = learning.two_temperature_form(losses[:2], num_data=NUM_DATA, inverse_temperatures=betas[:2])
    assert abs(deviation(found, truth)) < STANDARD_ERRORS
    slope = learning.slope_form(losses, num_data=NUM_DATA, inverse_temperatures=betas)
    # A line through the exact means, weighted as the estimate is.
    errors = [learning.mean_form(x, num_data=NUM_DATA, inverse_temperature=1, baseline=0).standard_error for x in losses]
    truth, intercept = np.polyfit(1 / np.array(betas), means, 1, w=1 / np.array(errors))
    assert abs(deviation(slope.llc, truth)) < STANDARD_ERRORS
    assert abs(deviation(slope.baseline, 7.0 + intercept / NUM_DATA)) < STANDARD_ERRORS
    assert slope.degrees == 1


def test_wbic_is_of_its_own_temperature():
    losses = exact_losses((1, 1)) + 2.0
    found = learning.wbic(losses, num_data=NUM_DATA, inverse_temperature=BETA)
    assert abs(deviation(found, NUM_DATA * 2.0 + crossing((1, 1)).excess_loss / BETA)) < STANDARD_ERRORS
    with pytest.raises(ValueError, match="sample at that temperature"):  # n is of the data: not 1 / log of a batch size
        learning.wbic(losses, num_data=NUM_DATA, inverse_temperature=1 / math.log(32))


def test_the_error_is_that_of_correlated_draws():
    """Over 200 repetitions the spread of the estimates is their standard error; that of chain means alone would do too."""
    rng, correlation, length = np.random.default_rng(0), 0.95, 2000
    values = np.empty((200, 2, length))
    values[..., 0] = rng.normal(size=(200, 2))
    noise = math.sqrt(1 - correlation**2) * rng.normal(size=values.shape)
    for draw in range(1, length):
        values[..., draw] = correlation * values[..., draw - 1] + noise[..., draw]
    found = [learning.mean_form(x, num_data=10, inverse_temperature=0.5, baseline=0.0) for x in values]
    spread = np.std([one.value for one in found])
    stated = np.mean([one.standard_error for one in found])
    # 200 values have a standard deviation known to 1 / sqrt(400) = 5 %; the ESS of 51 draws is low by another 10 %.
    assert abs(stated / spread - 1) < 0.25
    naive = 10 * 0.5 * values[0].std() / math.sqrt(values[0].size)
    assert naive < spread / 4


def test_the_error_of_a_baseline_is_common_to_all_chains():
    losses = exact_losses((1, 0))
    exact, noisy = (
        learning.mean_form(losses, num_data=NUM_DATA, inverse_temperature=BETA, baseline=0.0, baseline_error=error)
        for error in (0.0, 1e-3)
    )
    assert noisy.standard_error == pytest.approx(math.hypot(exact.standard_error, NUM_DATA * BETA * 1e-3))


def test_sensitivity_to_the_localiser_is_the_derivative():
    rng, h, gamma, t = np.random.default_rng(1), np.array([3.0, 0.05, 0.0]), 2.0, 100.0
    w = rng.normal(size=(CHAINS, DRAWS, 3)) / np.sqrt(t * h + gamma)
    found = learning.localiser_sensitivity(
        (h * w**2).sum(-1) / 2, (w**2).sum(-1), num_data=100, inverse_temperature=1.0, localisation=gamma
    )
    assert abs(deviation(found, np.sum(t * h * gamma / 2 / (t * h + gamma) ** 2))) < STANDARD_ERRORS


def test_fluctuation_of_a_linear_model():
    """Posterior N(m, S) of a regression with unit noise: Var[log p(y | x, w)] = (S_x^2 / 2) + r^2 S_x with S_x = x' S x."""
    rng, num_data, d = np.random.default_rng(2), 60, 3
    x = rng.normal(size=(num_data, d))
    y = x @ np.ones(d) + rng.normal(size=num_data)
    beta = 0.5
    covariance = np.linalg.inv(beta * x.T @ x)
    mean = np.linalg.solve(x.T @ x, x.T @ y)
    w = rng.multivariate_normal(mean, covariance, (CHAINS, 2000))
    values = -0.5 * (y - w @ x.T) ** 2 - 0.5 * math.log(2 * math.pi)
    found = learning.fluctuation(values, inverse_temperature=beta)
    spread = np.einsum("ni,ij,nj->n", x, covariance, x)
    truth = np.sum(spread**2 / 2 + (y - x @ mean) ** 2 * spread)
    assert abs(found.singular_fluctuation - beta * truth / 2) < STANDARD_ERRORS * found.singular_fluctuation_error
    assert found.functional_variance == pytest.approx(2 * found.singular_fluctuation / beta)
    assert found.waic == pytest.approx(found.training_loss + beta * found.functional_variance / num_data)
    # Regular: nu tends to d / 2 times the noise about the fit; WAIC tells new data within its error.
    new = rng.normal(size=(2000, d))
    density = np.exp(-0.5 * (new @ np.ones(d) + rng.normal(size=2000) - w.reshape(-1, d)[::20] @ new.T) ** 2)
    loss = -np.mean(np.log(density.mean(0) / math.sqrt(2 * math.pi)))
    assert abs(found.waic - loss) < STANDARD_ERRORS * found.waic_error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: learning.mean_form(x[0], num_data=9, inverse_temperature=1, baseline=0), "must be \\[chain, draw\\]"),
        (
            lambda x: learning.mean_form(x / 0.0, num_data=9, inverse_temperature=1, baseline=0),
            "chains \\[0, 1\\] are not finite",
        ),
        (lambda x: learning.two_temperature_form([x], num_data=9, inverse_temperatures=(1,)), "at least 2 different"),
        (lambda x: learning.two_temperature_form([x, x], num_data=9, inverse_temperatures=(1, 1)), "at least 2 different"),
        (lambda x: learning.slope_form([x, x], num_data=9, inverse_temperatures=(1, 2)), "at least 3 different"),
        (lambda x: learning.slope_form([x] * 3, num_data=9, inverse_temperatures=(1, 2, 3)), "never change"),
        (lambda x: learning.fluctuation(x), "must be \\[chain, draw, example\\]"),
        (lambda x: LossDraws(x, x, 9, (1.0,), 1.0, 0.0), "must be \\[temperature, chain, draw\\]"),
        (lambda x: LossDraws(x[None], x[None], 9, (1.0,), -1.0, 0.0), "the localisation not negative"),
        (lambda x: LossDraws(x[None], x[None], 9, (1.0,), 1.0, math.nan), "choose another centre"),
    ],
    ids=range(10),
)
def test_what_does_not_fit_is_refused(call, message):
    with np.errstate(invalid="ignore", divide="ignore"), pytest.raises(ValueError, match=message):
        call(np.zeros((2, 10)) if "finite" not in message else np.ones((2, 10)))
