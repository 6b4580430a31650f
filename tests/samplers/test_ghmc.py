"""Generalised HMC: how slowly momentum and uniform number move, and what a step that explodes leaves behind."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from samplers import Save, ghmc, make_mesh, sample
from tests.samplers.analytic import assert_law, assert_means, isotropic

KNOWN, KEY, NUM_CHAINS = isotropic(), jax.random.key(2), 4
MESH = make_mesh(NUM_CHAINS, devices=jax.devices()[:1])
EXPLODING = 1e3  # a step after which the energy is off by some 1e12 nats, whose exponential is no float32


def test_momentum_and_uniform_number_move_slowly():
    """In steps too small to change the energy: alpha of the momentum's variance is new, and the number moves by alpha / 2."""
    kernel, save = ghmc(KNOWN.target, step_size=1e-3, refreshment=0.2), Save(lambda state, arrays: (state.momentum, state.slice))
    positions = KNOWN.positions(NUM_CHAINS)
    momentum, uniform = sample(KEY, kernel, positions, KNOWN.batch, num_steps=4000, save=save, mesh=MESH).draws
    momentum = momentum.astype(np.float64)
    assert_means(momentum[:, 1:] * momentum[:, :-1], np.sqrt(0.8))
    # Energy errors of 1e-6 a step, and roundings of 1e-7.
    np.testing.assert_allclose(np.diff(uniform, axis=1) % 2, 0.1, rtol=0, atol=1e-4)


def test_a_step_that_explodes_is_rejected_and_forgotten():
    """BlackJAX multiplies that infinity by a boolean, which JAX makes 0 and not NaN; as NaN the uniform number would stay so and
    reject for ever."""
    kernel, positions = ghmc(KNOWN.target, step_size=0.5), KNOWN.positions(NUM_CHAINS)
    exploding = kernel.initial_tuning._replace(step_size=jnp.float32(EXPLODING))
    begun = sample(KEY, kernel, positions, KNOWN.batch, num_steps=3, tuning=exploding, mesh=MESH)
    assert begun.info.is_divergent.all()
    np.testing.assert_array_equal(begun.run.state.position, positions)
    assert (np.abs(begun.run.state.slice) <= 1).all()
    mended = begun.run._replace(tuning=kernel.initial_tuning)
    assert_law(sample(KEY, kernel, positions, KNOWN.batch, num_steps=60_000, thin=10, run=mended, mesh=MESH).draws, KNOWN)
