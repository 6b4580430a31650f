"""The contract: what every sampler promises, one row a sampler in `rows.py`."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import Chains, Info, PerChain, Tempering, load_run, make_mesh, moments, rmsprop, sample, save_run, sgld, start
from samplers.mesh import BY_CHAIN, EVERYWHERE, batch_spec, over_mesh
from tests.samplers.rows import NETWORK, QUICK, ROWS, TRACES, network_batch, network_positions

KEY = jax.random.key(3)
# Divides over none of 2, 4 and 8 devices.
NUM_CHAINS = 9
# Powers of two would hide a division that is a product in one program and not in another.
TEMPERING = Tempering.at(0.7, 0.9)
NUM_STEPS = 6  # two epochs of minibatches

slow = pytest.mark.slow


def params(rows, slow_rows=()):
    return [pytest.param(row, id=name, marks=slow if name in slow_rows else ()) for name, row in rows.items()]


def layouts(of_each_kind, of_hmc):
    """Every row on eight devices, two to a chain where all of them see all data; one row of each kind, and HMC, in others."""
    cases = {(name, (8, 2 if row.has_whole_data else 1)): () if name in QUICK else slow for name, row in ROWS.items()}
    for name, layout in [*itertools.product(sorted(QUICK), of_each_kind), *itertools.product(["hmc"], of_hmc)]:
        if layout[1] == 1 or ROWS[name].has_whole_data:
            cases.setdefault((name, layout), slow)
    return [pytest.param(ROWS[name], one, id=f"{name}-{one}", marks=marks) for (name, one), marks in cases.items()]


# Chains that learn from each other are others when they are alone.
on_their_own = {name: row for name, row in ROWS.items() if not row.learns_together}
of_each_kind = {name: ROWS[name] for name in sorted(QUICK)}
every_row = pytest.mark.parametrize("row", params(ROWS, ROWS.keys() - QUICK))
one_of_each_kind = pytest.mark.parametrize("row", params(of_each_kind))
every_row_of_chains_on_their_own = pytest.mark.parametrize("row", params(on_their_own, ROWS.keys() - QUICK))


def identity(position, arrays):
    return position


FOLD = moments(identity)


def on_devices(num_devices, data=1):
    return make_mesh(NUM_CHAINS, data=data, devices=jax.devices()[:num_devices])


def run_network(row, *, key=KEY, num_steps=NUM_STEPS, mesh=None, **options):
    kernel, positions, mesh = row.kernel(NETWORK, tempering=TEMPERING), row.positions(NUM_CHAINS), mesh or on_devices(1)
    return sample(key, kernel, positions, network_batch(), num_steps=num_steps, fold=FOLD, mesh=mesh, **options)


def assert_same_bits(one, other):
    """Two pytrees have the same structure, types and bits (NaN equals NaN)."""
    one, other = jax.tree.map(plain, (one, other))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def plain(leaf):
    leaf = jnp.asarray(leaf)
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def differ(one, other):
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def chains(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def joined(results):
    """Draws and Info of results that follow each other."""
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *[(r.draws, r.info) for r in results])


@pytest.fixture(scope="module")
def reference():
    """Draws of each sampler on one device, computed once."""
    results = {}

    def of(row):
        if row not in results:
            results[row] = run_network(row)
        return results[row]

    return of


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def bare(row, dtype=jnp.float32):
    """`init` and `step` of a row outside of a run, its tuning, and a start: of one chain, or of two that learn together."""
    kernel, positions = row.kernel(NETWORK), row.positions(2, dtype)
    if not row.learns_together:
        return kernel.init, kernel.step, kernel.initial_tuning, chains(positions, 0)

    def on_device(function, *last):
        specs = (BY_CHAIN, BY_CHAIN, batch_spec(), EVERYWHERE, *last)
        return over_mesh(functools.partial(function, Chains(2, 1)), on_devices(1), specs, BY_CHAIN)

    return on_device(kernel.init), on_device(kernel.step, EVERYWHERE), kernel.initial_tuning, positions


@pytest.mark.parametrize("row", params(ROWS))
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])  # cached functions that hold a float64 array would fail next
def test_step_keeps_the_types_of_the_state(row, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        (init, step, tuning, position), batch = bare(row, dtype), network_batch(dtype)
        key = jax.random.split(KEY) if row.learns_together else KEY
        state = jax.eval_shape(init, key, position, batch, tuning)
        after, info = jax.eval_shape(step, key, state, batch, tuning, jnp.int32(0))
    assert types(after) == types(state)
    assert types(state.position) == types(jax.eval_shape(lambda: position))
    assert type(info) is Info
    assert [x.shape for x in info] == [key.shape] * len(info)
    assert [x.dtype for x in info[-2:]] == [jnp.bool, jnp.bool]


@every_row
def test_info_says_what_it_documents(row, reference):
    info = reference(row).info
    for name, values in info._asdict().items():
        assert values.shape == (NUM_CHAINS, NUM_STEPS)
        assert (np.isnan(values) == (name in row.nan)).all(), name
    assert info.is_finite.all()
    if row.num_gradients is not None:
        np.testing.assert_array_equal(info.num_gradients, np.float32(row.num_gradients))


@pytest.mark.parametrize(("row", "layout"), layouts([(2, 1), (4, 2)], [(4, 1), (8, 1), (4, 4), (8, 8)]))
def test_devices_for_chains_and_data_change_no_bit(row, layout, reference):
    assert_same_bits(run_network(row, mesh=on_devices(*layout)), reference(row))


def test_devices_change_no_bit_of_a_tiny_position():
    """Fused with the arrays of all chains, the average of squares of RMSProp is rounded in one way or another."""
    kernel = sgld(NETWORK, step_size=0.01, preconditioner=rmsprop(num_data=21, without_divergence=True), tempering=TEMPERING)

    def run(mesh):
        positions = network_positions(NUM_CHAINS, num_hidden=4)
        return sample(KEY, kernel, positions, network_batch(), num_steps=NUM_STEPS, mesh=mesh)

    assert_same_bits(run(on_devices(8)), run(on_devices(1)))


@every_row_of_chains_on_their_own
def test_chains_beside_it_change_no_bit_of_a_chain(row, reference):
    positions = chains(row.positions(NUM_CHAINS), slice(4, 5))
    alone = sample(
        KEY,
        row.kernel(NETWORK, tempering=TEMPERING),
        positions,
        network_batch(),
        num_steps=NUM_STEPS,
        fold=FOLD,
        first_chain=4,
        mesh=on_devices(1),
    )
    expected = reference(row)
    assert_same_bits((alone.draws, alone.info), chains((expected.draws, expected.info), slice(4, 5)))


@every_row
@pytest.mark.parametrize(("chunk_seconds", "lengths"), [(1e-9, [1] * NUM_STEPS), (1e9, [1, NUM_STEPS - 1])])
def test_length_of_chunks_changes_no_bit(row, chunk_seconds, lengths, reference):
    chunks = []
    run_network(row, chunk_seconds=chunk_seconds, on_chunk=chunks.append)
    assert [c.info.is_finite.shape[1] for c in chunks] == lengths
    draws, info = joined(chunks)
    assert_same_bits((draws, info, chunks[-1].run), (reference(row).draws, reference(row).info, reference(row).run))


@one_of_each_kind
def test_runs_in_double_precision(row):
    def one_step(dtype):
        kernel, positions, batch = row.kernel(NETWORK), row.positions(2, dtype), network_batch(dtype)
        return sample(KEY, kernel, positions, batch, num_steps=1, mesh=on_devices(1)).draws

    with jax.enable_x64(True):
        draws = one_step(jnp.float64)
    assert all(x.dtype == np.float64 and np.isfinite(x).all() for x in jax.tree.leaves(draws))


@slow
@one_of_each_kind
def test_vmapped_chains_agree_to_rounding(row, reference):
    # One step from the same states: every operation rounds in another order, and no chain is long enough to amplify it.
    # 1000 float32 roundings of numbers of order 1, which no step of at most 16 gradients of 24 examples exceeds.
    result, expected = run_network(row, num_steps=1, chain_block=3), run_network(row, num_steps=1)
    bound = 1000 * np.finfo(np.float32).eps
    for x, y in zip(jax.tree.leaves(result.draws), jax.tree.leaves(expected.draws), strict=True):
        np.testing.assert_allclose(x, y, rtol=bound, atol=bound)


@one_of_each_kind
def test_chains_in_blocks_with_tunings_of_their_own_have_the_same_bits_on_any_mesh(row):
    """Two chains a block, two steps a draw, and a step size of each chain."""
    tuning = row.kernel(NETWORK, tempering=TEMPERING).initial_tuning
    own = jax.tree.map(lambda x: jnp.broadcast_to(x, (NUM_CHAINS, *x.shape)), tuning)
    own = own._replace(step_size=own.step_size * jnp.linspace(0.5, 1, NUM_CHAINS, dtype=own.step_size.dtype))

    def on(num_devices, data=1):
        return run_network(row, thin=2, chain_block=2, tuning=PerChain(own), mesh=on_devices(num_devices, data))

    one, several = on(1), on(8, 2 if row.has_whole_data else 1)
    assert_same_bits((several.draws, several.info, several.run), (one.draws, one.info, one.run))
    assert differ(one.draws, run_network(row, thin=2, chain_block=2).draws)


@every_row
def test_resumed_from_disk_nothing_differs(row, tmp_path, reference):
    first = run_network(row, num_steps=2)
    save_run(tmp_path / "run", first.run)
    kernel, positions, batch = row.kernel(NETWORK, tempering=TEMPERING), row.positions(NUM_CHAINS), network_batch()
    like = jax.eval_shape(lambda: start(KEY, kernel, positions, batch, fold=FOLD, mesh=on_devices(1)))
    read = load_run(tmp_path / "run", like)
    assert_same_bits(read, first.run)
    # Another key and other positions: the run's own must be used.
    zeros = jax.tree.map(jnp.zeros_like, positions)
    second = sample(jax.random.key(0), kernel, zeros, batch, num_steps=NUM_STEPS - 2, fold=FOLD, run=read, mesh=on_devices(1))
    assert_same_bits((joined([first, second]), second.run), ((reference(row).draws, reference(row).info), reference(row).run))


@every_row
def test_compiles_once(row, reference):
    run, tuning = reference(row).run, row.kernel(NETWORK, tempering=TEMPERING).initial_tuning
    run_network(row)  # programs of other tests may have taken the place of this one
    num_traces = len(TRACES)
    run_network(row, num_steps=5)
    run_network(row, num_steps=3, run=run)
    changed = run_network(row, tuning=row.change(tuning))
    assert len(TRACES) == num_traces
    assert differ(changed.draws, reference(row).draws)


@every_row
def test_key_decides(row, reference):
    again, other = run_network(row), run_network(row, key=jax.random.key(4))
    assert_same_bits(again, reference(row))
    assert differ(other.draws, again.draws) == row.is_random


# JAX takes a loop over the keys of several chains for one that uses a key again: of chains that learn together, the kernel that
# they give their keys to has a row of its own.
@every_row_of_chains_on_their_own
def test_uses_each_key_once(row):
    (init, step, tuning, position), batch = bare(row), network_batch()
    init_key, step_key = jax.random.split(KEY)
    with jax.debug_key_reuse(True):
        state = init(init_key, position, batch, tuning)
        step(step_key, state, batch, tuning, jnp.int32(0))
