"""Both sides of the comparison with bde sample one posterior, and a time is that of a mean over seeds."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import samplers
from benchmarks import bde_mile, peers


def by_hand(position, inputs, targets):
    """The peer's log posterior, as its `ProbabilisticModel` writes it; and what our floor of the noise may change of it."""
    hidden = inputs
    for layer in ("layer_0", "layer_1"):
        hidden = jax.nn.relu(hidden @ position[layer]["kernel"] + position[layer]["bias"])
    outputs = hidden @ position["layer_2"]["kernel"] + position["layer_2"]["bias"]
    scale = jax.nn.softplus(outputs[:, 1]) + 1e-6
    log_prior = sum(jnp.sum(jax.scipy.stats.norm.logpdf(leaf)) for leaf in jax.tree.leaves(position))
    log_likelihood = jnp.sum(jax.scipy.stats.norm.logpdf(targets, outputs[:, 0], scale))
    # |d log p / d scale| <= residual^2 / scale^3 + 1 / scale, times the difference of the floors, at the lower one.
    slope = (targets - outputs[:, 0]) ** 2 / scale**3 + 1 / scale
    return log_prior + log_likelihood, 1e-3 * jnp.sum(slope)


@pytest.mark.slow
def test_the_posterior_is_the_peers_but_for_the_floor_of_the_noise():
    if not peers.has_data(bde_mile.SET):
        pytest.skip(f"no data set {bde_mile.SET}: set BAYESNN_DATA")
    posterior = bde_mile.concrete()
    density = samplers.log_density(posterior.target, posterior.batch, posterior.tempering)
    members = posterior.init(jax.random.key(0), 1, "model")
    position = jax.tree.map(lambda leaf: leaf[0], members)
    inputs, targets = (jnp.asarray(a, jnp.float32) for a in (posterior.dataset.x_train, posterior.dataset.y_train))
    expected, bound = by_hand(position, inputs, targets)
    # Totals of a thousand terms, added in another order: a thousand roundings of 6e-8 at most.
    rounding = 6e-5 * abs(expected)
    assert abs(density(position) - expected) < bound + rounding
    other = samplers.log_density(posterior.target, posterior.batch, samplers.Tempering.at(likelihood_temperature=1.1))
    assert abs(other(position) - expected) > bound + rounding  # the control: a slightly other posterior is found out


@pytest.mark.slow
def test_our_side_runs_to_its_end(monkeypatch):
    if not peers.has_data(bde_mile.SET):
        pytest.skip(f"no data set {bde_mile.SET}: set BAYESNN_DATA")
    for name, value in {"MEMBERS": 2, "EPOCHS": 20, "WARMUP": 50, "STEPS": 20}.items():
        monkeypatch.setattr(bde_mile, name, value)
    curve, log_posterior = bde_mile.here(0)
    seconds, values = np.transpose(curve)
    assert np.all(np.diff(seconds) > 0)
    assert np.all(np.isfinite(values))
    assert np.isfinite(log_posterior)


def test_time_is_that_at_which_the_mean_of_seeds_gets_there():
    curves = [[(1.0, 0.0), (4.0, 2.0)], [(2.0, 1.0), (3.0, 2.0)]]
    assert bde_mile.time_to(0.5, curves) == 2.0  # the mean begins with the later curve
    assert bde_mile.time_to(1.0, curves) == 3.0
    assert bde_mile.time_to(2.0, curves) == 4.0
    assert bde_mile.time_to(2.1, curves) is None


def test_difference_has_welchs_interval():
    # Means 2 and 1, standard errors 0.5 each: sqrt(1/2), t of two degrees of freedom 4.303 at 97.5 %.
    half = 4.3027 * np.sqrt(0.5)
    assert bde_mile.difference([1.5, 2.5], [0.5, 1.5]) == f"+1.000 ({1 - half:+.3f} to {1 + half:+.3f})"
