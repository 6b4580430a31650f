"""Where data lie: shared out over devices, read by whom they belong to, and the same bits however that is."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from samplers import (
    Batch,
    Save,
    hmc,
    log_density_gradients,
    make_mesh,
    pad_batch,
    place_arrays,
    place_batch,
    read_batch,
    sample,
    start,
)
from samplers.loop import _chunk_program
from samplers.mesh import Layout, tuning_spec
from tests.samplers.rows import NETWORK, ROWS, network_batch, network_positions

SHARED = make_mesh(2, data=4)
ALONE = make_mesh(2, devices=jax.devices()[:1])


@pytest.mark.slow
def test_what_is_saved_of_all_data_has_its_bits_where_devices_share_them():
    """And no device has more of the data than its share."""
    batch, positions = network_batch(), network_positions(2)
    save = Save(lambda state, arrays: log_density_gradients(NETWORK, state.position, arrays["batch"]), {"batch": batch})
    kernel = hmc(NETWORK, step_size=0.1, trajectory_length=0.3)

    def draws(mesh):
        return sample(jax.random.key(0), kernel, positions, batch, num_steps=3, save=save, mesh=mesh).draws

    jax.tree.map(np.testing.assert_array_equal, draws(SHARED), draws(ALONE))


def test_a_batch_among_arrays_is_shared_out_and_all_else_is_everywhere():
    placed = place_arrays({"batch": network_batch(), "inputs": jnp.zeros((24, 3))}, SHARED)
    assert placed["batch"].weight.sharding.spec == PartitionSpec("data")
    assert [part.data.shape for part in placed["batch"].data["x"].addressable_shards] == [(6, 3)] * 8
    assert [part.data.shape for part in placed["inputs"].addressable_shards] == [(24, 3)] * 8
    odd = Batch(jnp.zeros(21), jnp.ones(21))
    with pytest.raises(ValueError, match="21 examples do not divide over 4 devices; pad them"):
        place_arrays((odd,), SHARED)


def test_a_process_reads_the_examples_of_its_devices_and_each_once():
    whole = jax.tree.map(np.asarray, network_batch())
    data, asked = jax.tree.map(lambda x: x[:21], whole.data), []

    def read(rows):
        asked.append(rows.tolist())
        return jax.tree.map(lambda x: x[rows], data)

    batch = read_batch(read, 21, whole.constants, SHARED, multiple=8)
    # 21 examples, and 3 copies of the first to fill up.
    assert sorted(asked) == sorted([list(range(k, k + 6)) for k in (0, 6, 12)] + [[18, 19, 20, 0, 0, 0]])
    expected = pad_batch(network_batch()._replace(data=data, weight=jnp.ones(21)), 8)
    jax.tree.map(np.testing.assert_array_equal, batch, expected)
    assert batch.weight.sharding.spec == PartitionSpec("data")


@pytest.mark.slow
@pytest.mark.parametrize(("data", "is_shared"), [(1, False), (2, True)])
def test_chains_of_nuts_wait_for_no_other_device(data, is_shared):
    """Trees differ in size: an exchange between devices in a step would let all wait for the largest. Shared data need one."""
    kernel, positions, batch = ROWS["nuts"].kernel(NETWORK), ROWS["nuts"].positions(8), network_batch()
    mesh = make_mesh(8, data=data)
    run = start(jax.random.key(0), kernel, positions, batch, mesh=mesh)
    program, _ = _chunk_program(kernel.step, False, None, None, Layout.of(8, mesh, 1), tuning_spec(run.tuning), 1, 1)
    compiled = program.lower(run, 1, place_batch(batch, mesh), (), ()).compile().as_text()
    assert bool(re.search(r"(all-reduce|all-gather|all-to-all|collective-permute)(-start)?\(", compiled)) == is_shared
