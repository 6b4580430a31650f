"""Checkpoints: the same bits back, and an error that helps for whatever is not one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import CheckpointError, hmc, load_run, make_mesh, processes, sample, save_run, start
from tests.samplers.analytic import correlated, isotropic

KNOWN = correlated()
MESH = make_mesh(3, devices=jax.devices()[:1])


def make_run(known=KNOWN, key=None, num_chains=3, num_steps=5):
    kernel = hmc(known.target, step_size=0.4, trajectory_length=1.0)
    key, mesh = jax.random.key(1) if key is None else key, make_mesh(num_chains, devices=jax.devices()[:1])
    return sample(key, kernel, known.positions(num_chains), known.batch, num_steps=num_steps, mesh=mesh).run


@pytest.fixture(scope="module")
def run():
    return make_run()


@pytest.fixture
def saved(tmp_path, run):
    path = tmp_path / "checkpoint"
    return path, save_run(path, run)


def bits(run):
    return [np.asarray(x) for x in jax.tree.leaves(run._replace(key=jax.random.key_data(run.key)))]


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_round_trip_is_exact(tmp_path, run, impl):
    # NaN with a payload, infinities, negative zero and a subnormal number come back as they went.
    odd = jnp.asarray(np.array([0x7FC12345, 0xFF800000, 0x80000000], np.uint32).view(np.float32))
    run = run._replace(key=jax.random.key(3, impl=impl), fold={"odd": odd, "step": jnp.int32(4)})
    save_run(tmp_path / "checkpoint", run)
    read = load_run(tmp_path / "checkpoint", jax.eval_shape(lambda: run))
    assert jax.tree.structure(read) == jax.tree.structure(run)
    assert read.key.dtype == run.key.dtype
    for x, y in zip(bits(read), bits(run), strict=True):
        assert x.dtype == y.dtype
        assert x.tobytes() == y.tobytes()
    jax.random.normal(read.key)  # a key to draw with


def test_fits_what_start_promises(saved, run):
    kernel = hmc(KNOWN.target, step_size=0.4, trajectory_length=1.0)
    like = jax.eval_shape(lambda: start(run.key, kernel, KNOWN.positions(3), KNOWN.batch, mesh=MESH))
    for x, y in zip(bits(load_run(saved[0], like, saved[1])), bits(run), strict=True):
        np.testing.assert_array_equal(x, y)


def test_replaces_what_is_there(saved):
    later = make_run(num_steps=6)
    digest = save_run(saved[0], later)
    assert digest != saved[1]
    assert int(load_run(saved[0], later, digest).step) == 6


def test_processes_wait_for_each_other_once(saved, run, monkeypatch):
    """As if others had chains of this run: what they left of an attempt before goes, once all have written."""
    path, digest = saved
    left, waits = path / "0000000007.npz", []

    def gather(value):
        assert left.exists()
        waits.append(value)
        return np.asarray(value)[None]

    left.write_bytes(b"of a process that was killed")
    monkeypatch.setattr(processes, "is_local", lambda array: False)
    monkeypatch.setattr(processes, "gather", gather)
    assert save_run(path, run) == digest
    assert len(waits) == 1
    assert not left.exists()
    load_run(path, jax.eval_shape(lambda: run), digest)


def largest_file(path):
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(path):
    file = largest_file(path)
    file.write_bytes(file.read_bytes()[:-7])


def flip_a_bit(path):
    file = largest_file(path)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def lose_a_file(path):
    largest_file(path).unlink()


def lose_the_digest(path):
    (path / "digest").unlink()


def empty(path):
    for file in [p for p in path.rglob("*") if p.is_file()]:
        file.unlink()


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, lose_a_file, lose_the_digest, empty])
def test_damage_is_told_and_nothing_else_is_printed(saved, run, damage, capfd):
    damage(saved[0])
    with pytest.raises(CheckpointError, match=r"the checkpoint at .*checkpoint is damaged or incomplete"):
        load_run(saved[0], run)
    assert capfd.readouterr() == ("", "")


def test_missing_is_told(tmp_path, run):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nowhere"):
        load_run(tmp_path / "nowhere", run)


def test_digest_of_another_record_is_told(saved, run):
    with pytest.raises(CheckpointError, match="its files are not those that were written"):
        load_run(saved[0], run, digest="0" * 32)


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (
            lambda: make_run(num_chains=2),
            r"of another run, or of another version: chain is \(\(3,\), .*int32.*\) on disk, \(\(2,\), .*\) expected",
        ),
        (lambda: make_run(isotropic()), r"of another run, or of another version: state\.\S+ is .* on disk, .* expected"),
        (
            lambda: make_run(key=jax.random.key(1, impl="rbg")),
            r"of another run, or of another version: key is \(\(2,\), .*\) on disk, \(\(4,\), .*\) expected",
        ),
    ],
)
def test_another_run_is_told(saved, other, match):
    with pytest.raises(CheckpointError, match=match):
        load_run(saved[0], other())
