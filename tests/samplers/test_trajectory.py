"""Trajectories: how long they are, and what a step says of its energy and momentum."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.mcmc.integrators import new_integrator_state, velocity_verlet

from samplers import Save, Tempering, adjusted_mclmc, dynamic_hmc, ghmc, hmc, log_density, make_mesh, mala, nuts, sample
from samplers.trajectory import gaussian_metric, leapfrogs, spread
from tests.samplers.analytic import anisotropic, assert_means, isotropic

KEY, NUM_CHAINS = jax.random.key(6), 4
MESH = make_mesh(NUM_CHAINS, devices=jax.devices()[:1])


def test_lengths_of_hmc_are_spread_evenly_about_their_mean():
    lengths = np.sort(spread(jnp.float32(2), jnp.float32(0.25), jnp.arange(1000)))
    # Multiples of the golden ratio leave no gap wider than 3 / n of the interval (Knuth, TAOCP 3, 6.4, theorem S).
    np.testing.assert_allclose(lengths, np.linspace(1.5, 2.5, 1000), rtol=0, atol=0.005)


@pytest.mark.parametrize("most", [1000, 7])
@pytest.mark.parametrize(("make", "gradients"), [(hmc, 1), (adjusted_mclmc, 2)])
def test_a_step_has_the_gradients_of_its_length(make, gradients, most):
    """As many integrator steps as fit into the length of that step, up to the bound; the same in all chains."""
    known = anisotropic()
    kernel = make(known.target, step_size=0.1, trajectory_length=0.75, jitter=0.3, max_num_steps=most)
    info = sample(KEY, kernel, known.positions(NUM_CHAINS), known.batch, num_steps=50, save=None, mesh=MESH).info
    lengths = spread(jnp.float32(0.75), jnp.float32(0.3), jnp.arange(50))
    steps = np.minimum(np.ceil(lengths / np.float32(0.1)), most)
    assert len(np.unique(steps)) == (2 if most == 7 else 5)
    np.testing.assert_array_equal(info.num_gradients, np.tile(gradients * steps, (NUM_CHAINS, 1)))


def test_a_tree_ends_at_its_doublings():
    """Of steps so short that no trajectory turns: 1 + 2 + 4 leaves in three doublings."""
    known = anisotropic()
    kernel = nuts(known.target, step_size=1e-3, max_num_doublings=3)
    info = sample(KEY, kernel, known.positions(NUM_CHAINS), known.batch, num_steps=20, save=None, mesh=MESH).info
    np.testing.assert_array_equal(info.num_gradients, 7)


def test_lengths_of_dynamic_hmc_are_exponential():
    """Rounded up to whole steps of 0.05: more than k of them with the probability exp(-0.05 k)."""
    known = isotropic()
    kernel = dynamic_hmc(known.target, step_size=0.05, trajectory_length=1.0)
    info = sample(KEY, kernel, known.positions(NUM_CHAINS), known.batch, num_steps=1500, save=None, mesh=MESH).info
    for k in (2, 20, 60):
        assert_means((info.num_gradients > k).astype(float), np.exp(-0.05 * k), min_effective_draws=1000)
    assert len(np.unique(info.num_gradients[:, 0])) > 1  # each chain has its own
    bounded = kernel.initial_tuning._replace(max_num_steps=jnp.int32(3))
    info = sample(KEY, kernel, known.positions(NUM_CHAINS), known.batch, num_steps=100, save=None, mesh=MESH, tuning=bounded).info
    assert info.num_gradients.max() == 3


MAKERS = {
    "hmc": functools.partial(hmc, step_size=0.3, trajectory_length=1.5),
    "dynamic hmc": functools.partial(dynamic_hmc, step_size=0.3, trajectory_length=1.5),
    "mala": functools.partial(mala, step_size=0.3),
    "ghmc": functools.partial(ghmc, step_size=0.3),
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


@every_maker
def test_divergences_are_energy_errors_above_the_threshold(make):
    known = anisotropic()
    kernel = make(known.target, divergence_threshold=0.01)
    info = sample(KEY, kernel, known.positions(NUM_CHAINS), known.batch, num_steps=200, save=None, mesh=MESH).info
    # But for errors within a rounding of the threshold, which is of the order of 1e-6: energies are computed twice.
    is_clear = np.abs(info.energy_error - 0.01) > 1e-4
    np.testing.assert_array_equal(info.is_divergent[is_clear], info.energy_error[is_clear] > 0.01)
    assert 0.05 < info.is_divergent.mean() < 0.95


@every_maker
def test_energy_and_momentum_are_those_with_which_a_step_ends(make):
    """The energy is kinetic energy, d / 2 times the kinetic temperature, minus the log density: after rejections, too."""
    known = anisotropic()
    save = Save(lambda state, arrays: state.logdensity)
    result = sample(KEY, make(known.target), known.positions(NUM_CHAINS), known.batch, num_steps=200, save=save, mesh=MESH)
    was_rejected = np.diff(result.draws, axis=1) == 0
    assert 0.05 < was_rejected.mean() < 0.95
    # A few roundings of sums of ten numbers of the order of 10.
    expected = known.mean.size / 2 * result.info.kinetic_temperature - result.draws
    np.testing.assert_allclose(result.info.energy, expected, rtol=0, atol=100 * np.finfo(np.float32).eps * 10)


@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_merged_kicks_are_velocity_verlet(num_steps):
    """Half a kick at both ends and whole ones between: BlackJAX's integrator, step by step, but for rounding."""
    known, metric = anisotropic(), gaussian_metric(jnp.array(0.5))
    density = log_density(known.target, known.batch, Tempering.at())
    position = known.positions(1)[0]
    start = new_integrator_state(density, position, jnp.cos(jnp.arange(position.size, dtype=position.dtype)))
    in_two = start._replace(position=(position[:1], position[1:]))
    trajectory = leapfrogs(num_steps)(lambda parts: density(jnp.concatenate(parts)), metric.kinetic_energy)
    merged = trajectory(in_two, jnp.float32(0.1))
    merged = merged._replace(position=jnp.concatenate(merged.position))
    verlet = velocity_verlet(density, metric.kinetic_energy)
    expected = start
    for _ in range(num_steps):
        expected = verlet(expected, 0.1)
    # A few roundings a step, of numbers up to about 10, which the dynamics makes grow by less than 10.
    for got, wanted in zip(merged, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=num_steps * 100 * np.finfo(np.float32).eps * 10)
    assert not np.allclose(merged.momentum, start.momentum, atol=0.01)


@pytest.mark.parametrize("inverse_mass", [4.0, [4.0], [1.0, 2.0, 3.0]])
def test_kinetic_energy_and_its_gradient_are_those_of_the_metric(inverse_mass):
    """A wrong gradient would leave the law right, and trajectories that lead nowhere."""
    momentum = jnp.array([0.5, -1.0, 2.0])
    energy, velocity = jax.value_and_grad(gaussian_metric(jnp.array(inverse_mass)).kinetic_energy)(momentum)
    scaled = np.array(inverse_mass) * np.array(momentum)
    np.testing.assert_allclose(energy, 0.5 * scaled @ np.array(momentum), rtol=3 * 1.2e-7)
    np.testing.assert_allclose(velocity, scaled, rtol=2 * 1.2e-7)
