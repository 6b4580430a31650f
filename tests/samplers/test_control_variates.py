"""Kernels whose minibatch gradients are quiet near where their chains began."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import control_from_start, control_variates, from_logdensity, sample, sgld
from tests.samplers.analytic import flat, regression

KEY = jax.random.key(8)
OPTIONS = {"step_size": 2e-3, "batch_size": 2}  # of 40 examples: loud gradients
make = functools.partial(sgld, **OPTIONS)


@pytest.mark.slow
def test_a_chain_is_the_one_whose_reference_is_its_start():
    """The same target, data and keys, so the same draws up to float32 rounding, which a stable chain does not amplify."""
    known = regression()
    starts = jnp.asarray(known.mean + np.array([[0.0, 0.1, -0.2], [0.3, 0.0, 0.1]]), jnp.float32)
    together = sample(KEY, control_from_start(make, known.target), starts, known.batch, num_steps=50)
    for chain in range(2):
        target, batch = control_variates(known.target, known.batch, starts[chain])
        alone = sample(KEY, make(target), starts[chain : chain + 1], batch, num_steps=50, first_chain=chain)
        np.testing.assert_allclose(together.draws[chain], alone.draws[0], rtol=1e-4, atol=1e-5)
    # Those at the reference count, too.
    np.testing.assert_allclose(alone.info.num_gradients, together.info.num_gradients[1:] / 2)


def test_references_stay_where_chains_began():
    known = regression()
    starts = jnp.asarray(np.tile(known.mean, (2, 1)), jnp.float32)
    state = sample(KEY, control_from_start(make, known.target), starts, known.batch, num_steps=50).run.state
    np.testing.assert_array_equal(state.beginning, starts)
    assert (np.asarray(state.position) != starts).all()


def test_a_density_has_no_examples_to_correct():
    target, batch = from_logdensity(lambda x: -0.5 * jnp.sum(x**2))
    with pytest.raises(ValueError, match="a density has none"):
        control_variates(target, batch, jnp.zeros(3))
    with pytest.raises(ValueError, match="a density has none"):
        control_from_start(functools.partial(sgld, step_size=0.1), target)


@pytest.mark.slow
def test_a_chain_does_not_depend_on_those_beside_it():
    known = regression()
    kernel, starts = control_from_start(make, known.target), known.positions(3)
    three = sample(KEY, kernel, starts, known.batch, num_steps=20).draws
    last = sample(KEY, kernel, starts[2:], known.batch, num_steps=20, first_chain=2).draws
    np.testing.assert_array_equal(three[2], last[0])


def spread(kernel, known):
    """Return the mean of (theta - mean)^2 over the exact variance: 1 for the posterior."""
    starts = jnp.asarray(np.tile(known.mean, (8, 1)), jnp.float32)
    draws = sample(KEY, kernel, starts, known.batch, num_steps=20_000, thin=4).draws
    return float(((flat(draws) - known.mean) ** 2 / np.diag(known.covariance)).mean())


@pytest.mark.slow
def test_gradients_are_quieter_than_without():
    """What gradient noise adds to the variance falls by more than three quarters, the rest being the step size's."""
    known = regression()
    quiet, noisy = (spread(kernel, known) for kernel in (control_from_start(make, known.target), make(known.target)))
    exact = spread(sgld(known.target, step_size=OPTIONS["step_size"]), known)
    assert noisy - exact > 0.1
    assert abs(quiet - exact) < (noisy - exact) / 4
