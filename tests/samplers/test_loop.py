"""The loop: what it keeps, when it stops, and what it says of chains that die and of arguments that are wrong."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from samplers import (
    Info,
    Kernel,
    PerChain,
    SamplingError,
    Save,
    from_logdensity,
    hmc,
    make_mesh,
    moments,
    processes,
    sample,
    sgld,
    window_adaptation,
)
from samplers.pace import Pace
from tests.samplers.analytic import isotropic

KNOWN = isotropic()
KERNEL = hmc(KNOWN.target, step_size=0.5, trajectory_length=1.5)
KEY = jax.random.key(0)
MESH = make_mesh(3, devices=jax.devices()[:1])


def run(num_steps=40, kernel=KERNEL, **options):
    return sample(KEY, kernel, KNOWN.positions(3), KNOWN.batch, num_steps=num_steps, **{"mesh": MESH} | options)


def test_thinning_keeps_every_fourth_draw_and_accounts_for_all_steps():
    every, thinned = run(), run(thin=4)
    np.testing.assert_array_equal(thinned.draws, every.draws[:, 3::4])
    steps = jax.tree.map(lambda x: x.reshape(3, 10, 4), every.info)
    np.testing.assert_array_equal(thinned.info.num_gradients, steps.num_gradients.sum(axis=2))
    # Sums of four, in one order or another.
    np.testing.assert_allclose(thinned.info.acceptance_rate, steps.acceptance_rate.mean(axis=2), rtol=4 * 1.2e-7)
    np.testing.assert_allclose(thinned.info.kinetic_temperature, steps.kinetic_temperature.mean(axis=2), rtol=4 * 1.2e-7)
    np.testing.assert_array_equal(thinned.info.energy, steps.energy[..., 3])
    largest = np.take_along_axis(steps.energy_error, np.abs(steps.energy_error).argmax(axis=2, keepdims=True), axis=2)[..., 0]
    np.testing.assert_array_equal(thinned.info.energy_error, largest)
    assert int(thinned.run.step) == 40


def test_save_keeps_a_function_of_the_state_and_of_arrays():
    arrays = jnp.array([[1.0, 0.0], [0.0, 2.0], [4.0, 0.0]])
    saved = run(save=Save(lambda state, a: {"outputs": a @ state.position, "energy": -state.logdensity}, arrays))
    plain = run()
    # Products of one term each with a power of two: exact.
    np.testing.assert_array_equal(saved.draws["outputs"], plain.draws @ np.asarray(arrays).T)
    assert saved.draws["energy"].shape == (3, 40)
    assert run(save=None).draws is None


def position_and_square(position, arrays):
    return {"x": position, "square": arrays * position**2}


def test_moments_equal_those_of_the_draws():
    result = run(fold=moments(position_and_square, jnp.float32(2.0)))
    values = {"x": result.draws.astype(np.float64), "square": 2 * result.draws.astype(np.float64) ** 2}
    fold = result.run.fold
    np.testing.assert_array_equal(fold.num_steps, [40] * 3)
    # 40 updates of numbers below 10, some three roundings each.
    bound = 3 * 40 * 10 * np.finfo(np.float32).eps
    for name, x in values.items():
        np.testing.assert_allclose(fold.mean[name], x.mean(axis=1), rtol=0, atol=bound)
        np.testing.assert_allclose(fold.variance()[name], x.var(axis=1, ddof=1), rtol=bound)


def test_variance_of_a_single_step_is_nan():
    assert np.isnan(run(num_steps=1, fold=moments(position_and_square, jnp.float32(2.0))).run.fold.variance()["x"]).all()


def test_fold_may_begin_at_a_later_call():
    warm, fold = run(num_steps=10), moments(position_and_square, jnp.float32(1.0))
    later = run(num_steps=30, run=warm.run, fold=fold)
    np.testing.assert_array_equal(later.run.fold.num_steps, [30] * 3)
    np.testing.assert_array_equal(later.draws, run().draws[:, 10:])


def test_until_ends_a_run_between_chunks():
    result = run(chunk_draws=8, chunk_seconds=60.0, until=lambda run: int(run.step) >= 9)
    assert not result.is_complete
    assert result.draws.shape == (3, 9, 2)  # chunks of 1 and 8
    np.testing.assert_array_equal(result.draws, run().draws[:, :9])
    assert run(until=lambda run: False).is_complete


def test_chunks_of_a_continued_run_go_on_as_long_as_they_were():
    lengths: list[int] = []

    def call(begun=None):
        options = {"chunk_draws": 4, "chunk_seconds": 1e9, "on_chunk": lambda result: lengths.append(result.info.energy.shape[1])}
        return run(9, run=begun, **options).run

    first = call()
    call(first)
    assert lengths == [1, 4, 4, 4, 4, 1]
    call(jax.tree.map(jnp.copy, first))  # equal, but perhaps another run, whose draws take longer
    assert lengths[6:] == [1, 4, 4]


def test_chunks_aim_for_a_time_and_grow_eightfold_at_most():
    pace, here = Pace(), jnp.int32(7)
    assert pace.length(here, 1.0, 100) == 1
    pace.note(here, 2, 0.4)
    assert [pace.length(here, aim, 100) for aim in (0.1, 1.0, 60.0)] == [1, 5, 16]
    assert pace.length(here, 60.0, 10) == 10
    assert pace.length(jnp.int32(7), 1.0, 100) == 1


def test_on_chunk_takes_the_draws():
    chunks = []
    result = run(chunk_draws=8, on_chunk=chunks.append)
    assert result.draws is None
    assert result.info is None
    np.testing.assert_array_equal(np.concatenate([c.draws for c in chunks], axis=1), run().draws)
    assert [int(c.run.step) for c in chunks] == list(np.cumsum([c.draws.shape[1] for c in chunks]))


def test_draws_are_copied_from_where_they_lie():
    """A row that several devices have is read from one of them, and in place: an array of all rows would be one copy more."""
    mesh, rows = make_mesh(4, data=2), np.arange(24.0, dtype=np.float32).reshape(4, 6)
    array = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("chain")))
    parts = [part for part in processes.own_parts(array) if part.size]
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    assert [part.shape for part in parts] == [(1, 6)] * 4
    devices = [np.asarray(shard.data) for shard in array.addressable_shards]
    assert all(any(np.shares_memory(part, there) for there in devices) for part in parts)
    assert not any(np.shares_memory(processes.own(array), there) for there in devices)


def test_chains_of_their_own_tuning():
    step_sizes = jnp.array([0.5, 0.25, 0.1])
    own = jax.tree.map(lambda x: jnp.repeat(x[None], 3, axis=0), KERNEL.initial_tuning)._replace(step_size=step_sizes)
    result = run(tuning=PerChain(own))
    for chain, step_size in enumerate(step_sizes):
        alone = run(tuning=KERNEL.initial_tuning._replace(step_size=step_size))
        np.testing.assert_array_equal(result.draws[chain], alone.draws[chain])


class WalkState(NamedTuple):
    position: jax.Array


def walk_that_fails(chain_position, at_step):
    """A random walk that makes one chain, known by its first coordinate, NaN at a step and divergent at the one before."""

    def init(key, position, batch, tuning):
        return WalkState(position)

    def step(key, state, batch, tuning, step):
        is_sick = state.position[0] == chain_position
        moved = state.position.at[1:].add(jax.random.normal(key, (1,)))
        moved = jnp.where(is_sick & (step == at_step), jnp.nan, moved)
        nan = jnp.float32(jnp.nan)
        is_divergent = is_sick & (step == at_step - 1)
        return WalkState(moved), Info(jnp.float32(1), nan, nan, nan, nan, is_divergent, jnp.isfinite(moved).all())

    return Kernel(init, step, ())


def test_a_dead_chain_is_named_and_the_others_go_on():
    positions = jnp.stack([jnp.arange(5.0), jnp.zeros(5)], axis=1)

    def walk(chain, throw):
        return sample(
            KEY, walk_that_fails(chain, 6), positions, KNOWN.batch, num_steps=20, first_chain=10, throw=throw, mesh=MESH
        )

    healthy, sick = walk(-1.0, True), walk(3.0, False)
    others = [0, 1, 2, 4]
    np.testing.assert_array_equal(sick.draws[others], healthy.draws[others])
    assert np.isfinite(sick.draws[3, :6]).all()
    assert np.isnan(sick.draws[3, 6:]).any(axis=1).all()
    health = sick.run.health
    np.testing.assert_array_equal(health.num_nonfinite, [0, 0, 0, 14, 0])
    np.testing.assert_array_equal(health.first_nonfinite, [-1, -1, -1, 6, -1])
    np.testing.assert_array_equal(health.num_divergent, [0, 0, 0, 1, 0])
    np.testing.assert_array_equal(health.first_divergent, [-1, -1, -1, 5, -1])
    with pytest.raises(SamplingError, match=r"left the finite numbers: chain 13 at step 6\. Lower the step size"):
        walk(3.0, True)


def test_a_step_size_without_bounds_is_told():
    kernel = sgld(KNOWN.target, step_size=1e3)
    with pytest.raises(SamplingError, match="chain 0 at step"):
        run(kernel=kernel, num_steps=100)


def test_divergences_are_counted():
    # Far beyond the leapfrog's limit of 2: energies of thousands of nats, and no proposal accepted.
    result = run(kernel=hmc(KNOWN.target, step_size=50.0, trajectory_length=100.0))
    np.testing.assert_array_equal(result.run.health.num_divergent, result.info.is_divergent.sum(axis=1))
    assert (result.run.health.num_divergent > 30).all()
    np.testing.assert_array_equal(result.run.health.num_nonfinite, 0)


def test_a_chunk_has_draws():
    with pytest.raises(ValueError, match="chunk needs one draw or more, got chunk_draws=0"):
        run(num_steps=4, chunk_draws=0)


@pytest.mark.parametrize(
    "options", [{"num_steps": 0}, {"num_steps": -4}, {"num_steps": 10, "thin": 4}, {"num_steps": 4, "thin": 0}]
)
def test_number_of_steps_is_a_multiple_of_thin(options):
    with pytest.raises(ValueError, match="num_steps must be a positive multiple of thin; got num_steps="):
        run(**options)


@pytest.mark.parametrize(
    "positions", [jnp.zeros((0, 2)), jnp.float32(0), {}, {"a": jnp.zeros((2, 3)), "b": jnp.zeros(3)}], ids=lambda x: str(type(x))
)
def test_chains_need_one_leading_axis(positions):
    with pytest.raises(ValueError, match="same leading axis of at least one chain; got sizes"):
        sample(KEY, KERNEL, positions, KNOWN.batch, num_steps=1)


def test_starts_are_finite():
    positions = jnp.zeros((4, 2)).at[2, 0].set(jnp.inf)
    with pytest.raises(ValueError, match=r"not finite at the start of chains \[7\]; start closer to zero"):
        sample(KEY, KERNEL, positions, KNOWN.batch, num_steps=1, first_chain=5, mesh=MESH)
    target, batch = from_logdensity(lambda x: jnp.log(x[0]))
    with pytest.raises(ValueError, match=r"start of chains \[0\]"):
        sample(KEY, hmc(target, step_size=1.0, trajectory_length=1.0), -jnp.ones((1, 1)), batch, num_steps=1, mesh=MESH)


def test_tuning_of_a_continued_run_is_its_own():
    with pytest.raises(ValueError, match="a continued run has its own tuning"):
        run(run=run(num_steps=1).run, tuning=KERNEL.initial_tuning)


@pytest.mark.parametrize("data", [0, 3, 16])
def test_data_axis_is_a_power_of_two_of_the_devices(data):
    with pytest.raises(ValueError, match=f"power of two of at most 8 devices, got {data}"):
        make_mesh(1, data=data)


def test_a_warm_up_is_no_sampler():
    with pytest.raises(TypeError, match=r"got WarmUp; of a warm-up pass its \.kernel"):
        run(kernel=window_adaptation(KERNEL, num_steps=10))
    with pytest.raises(TypeError, match=r"got WarmUp; of a warm-up pass its \.kernel"):
        run(kernel=window_adaptation(KERNEL, num_steps=10), run=run(num_steps=1).run)


def test_chain_block_is_positive():
    with pytest.raises(ValueError, match="chain_block must be at least 1, got 0"):
        run(chain_block=0)


@pytest.mark.parametrize(
    "options", [{"step_size": 0.0}, {"step_size": np.nan}, {"trajectory_length": -1.0}, {"jitter": 1.0}, {"max_num_steps": 0}]
)
def test_hmc_checks_its_arguments(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        hmc(KNOWN.target, **{"step_size": 0.1, "trajectory_length": 1.0} | options)
