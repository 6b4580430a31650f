"""What all oracles share: rejection, masses, and being usable from outside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diagnostics.oracles import Regions, double_well, oracle, rejection_sampler


def uniform(key, num_draws):
    return jax.random.uniform(key, (num_draws,))


def test_rejection_draws_from_the_product(check):
    # Density 2 w on the unit interval: mean 2/3, mean square 1/2.
    draws = rejection_sampler(uniform, lambda w, data: jnp.log(w)[None], ())(jax.random.key(0), 40_000)
    assert draws.shape == (40_000,)
    check.assert_means(np.column_stack([draws, draws**2]), [2 / 3, 1 / 2])


def test_rejection_refuses_likelihoods_above_one():
    draw = rejection_sampler(uniform, lambda w, data: 1.0 - w[None], ())
    with pytest.raises(ValueError, match="subtract its maximum"):
        draw(jax.random.key(0), 10)


def test_rejection_gives_up_on_likelihoods_that_are_too_narrow(monkeypatch):
    monkeypatch.setattr(oracle, "MAX_PROPOSALS", 2 * oracle.NUM_PROPOSALS)
    draw = rejection_sampler(uniform, lambda w, data: -1e9 * w[None], ())
    with pytest.raises(RuntimeError, match="ask for fewer draws or fewer data"):
        draw(jax.random.key(0), 10)


def test_masses_of_empty_and_of_unknown_regions():
    regions = Regions(("a", "b"), lambda w: jnp.int32(0), np.array([-3.0, -np.inf]), np.zeros(2))
    np.testing.assert_array_equal(regions.masses, [1.0, 0.0])
    assert np.isnan(regions._replace(log_evidence=np.array([0.0, np.nan])).masses).all()


def test_densities_trace_and_have_gradients():
    well = double_well(10)
    gradient = jax.jit(jax.vmap(jax.grad(well.log_density)))(jnp.linspace(-1.9, 1.9, 5)[:, None])
    assert np.isfinite(gradient).all()
    assert float(well.log_density(jnp.array([2.5]))) == -np.inf
