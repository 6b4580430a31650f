"""Kernels on a cyclical schedule whose steps that explore are skipped: which steps are taken, by which keys, at which cost."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import Batch, Kernel, Save, cyclical, sample, sgld, skip_exploration
from samplers.stochastic import stochastic_info
from tests.samplers.analytic import assert_means, flat, isotropic

KEY = jax.random.key(3)
BATCH = Batch((), jnp.zeros(0))


class Log(NamedTuple):
    """State of a kernel that keeps the number of its last step, the steps it took, and the sum of what it drew by their keys."""

    position: jax.Array
    last: jax.Array
    count: jax.Array
    bits: jax.Array


def step(key, state, batch, tuning, step):
    info = stochastic_info(state.position)
    drawn = jax.random.bits(key, (), jnp.uint32)
    return Log(state.position, step, state.count + 1, drawn), info._replace(is_divergent=step == 7)


LOGGING = Kernel(lambda key, position, batch, tuning: Log(position, jnp.int32(-1), jnp.int32(0), jnp.uint32(0)), step, ())
ALL = Save(lambda state, arrays: state._replace(position=()))


def logged(kernel, num_steps, thin, run=None):
    return sample(KEY, kernel, jnp.zeros((2, 1)), BATCH, num_steps=num_steps, thin=thin, save=ALL, run=run, throw=False)


@pytest.mark.parametrize(
    ("cycle_length", "exploration", "thin"), [(20, 0.5, 5), (20, 0.5, 1), (7, 0.5, 3), (10, 0.8, 2), (100, 0.55, 9)]
)
def test_draws_are_those_that_the_schedule_masks_in(cycle_length, exploration, thin):
    kernel = skip_exploration(LOGGING, cycle_length, exploration=exploration)
    sampling = np.flatnonzero(cyclical(cycle_length, exploration).is_sampling(np.arange(cycle_length)))
    draws = logged(kernel, 3 * sampling.size, thin).draws
    wanted = (cycle_length * np.arange(3)[:, None] + sampling).ravel()[thin - 1 :: thin]
    np.testing.assert_array_equal(draws.last, np.stack([wanted, wanted]))
    np.testing.assert_array_equal(draws.count, draws.last + 1)  # no step is left out or taken twice
    unskipped = logged(LOGGING, 3 * cycle_length, thin=1).draws.last[0]
    assert set(unskipped) > set(draws.last[0])  # some of which explore


def test_a_burn_in_of_the_kernel_itself_comes_first():
    burnt_in = logged(LOGGING, 30, 30).run
    draws = logged(skip_exploration(LOGGING, 10, first_step=30), 10, 1, burnt_in).draws
    np.testing.assert_array_equal(draws.last[0], [35, 36, 37, 38, 39, 45, 46, 47, 48, 49])
    np.testing.assert_array_equal(draws.count[0], draws.last[0] + 1)


def test_every_step_has_a_key_of_its_own_and_is_counted():
    result = logged(skip_exploration(LOGGING, 10), 10, 1)
    assert np.unique(result.draws.bits).size == 20  # of two chains
    np.testing.assert_array_equal(result.info.num_gradients[0], [6, 1, 1, 1, 1] * 2)
    np.testing.assert_array_equal(result.info.is_divergent[0], [0, 0, 1, 0, 0, 0, 0, 0, 0, 0])


def test_what_no_step_of_a_cycle_samples_is_refused():
    with pytest.raises(ValueError, match="no step of a cycle samples: got cycle_length=1"):
        skip_exploration(LOGGING, 1)
    with pytest.raises(ValueError, match="first_step must be a multiple of cycle_length 10, where a cycle begins; got 15"):
        skip_exploration(LOGGING, 10, first_step=15)


def variances(step_sizes, is_noisy):
    """Variance after each step of a cycle of SGLD on a standard Gaussian: the one that a whole cycle returns to where it was."""
    kept, added = (1 - step_sizes / 2) ** 2, np.where(is_noisy, step_sizes, 0.0)

    def after_each(variance):
        return np.array(list(itertools.accumulate(zip(kept, added, strict=True), lambda v, s: s[0] * v + s[1], initial=variance)))

    return after_each(after_each(0.0)[-1] / (1 - np.prod(kept)))[1:]


def test_draws_of_a_gaussian_have_the_law_of_their_place_in_the_cycle():
    """The noiseless half of a cycle draws chains to the mode, the other half lets them out again, step by step."""
    cycle_length, step_size, known = 20, 0.3, isotropic()
    steps, schedule = np.arange(cycle_length), cyclical(cycle_length)
    is_noisy = np.asarray(schedule.is_sampling(steps))
    expected = variances(step_size * np.asarray(schedule.multiplier(steps), float), is_noisy)[is_noisy]
    kernel = skip_exploration(sgld(known.target, step_size=step_size, schedule=schedule), cycle_length)
    draws = flat(sample(KEY, kernel, known.positions(8), known.batch, num_steps=20_000).draws)[:, 1000:]
    squares = draws.reshape(8, -1, expected.size, 2) ** 2
    assert_means(squares, expected[:, None])
    with pytest.raises(AssertionError, match="standard errors"):  # where draws are of the next step each
        assert_means(squares, np.roll(expected, -1)[:, None])
