"""Draws on their way to disk: chunks that fill a block, and blocks that come back as they were written."""

from __future__ import annotations

import numpy as np
import pytest

from bayesnn.draw_store import Block, DrawStore
from bayesnn.errors import UsageError

WEIGHTS = np.arange(2 * 7 * 3, dtype=np.float32).reshape(2, 7, 3)
IS_DIVERGENT = np.arange(14).reshape(2, 7) % 3 == 0


def draws(start, stop):
    return {"posterior/w": WEIGHTS[:, start:stop], "sample_stats/diverging": IS_DIVERGENT[:, start:stop]}


def assert_draws(found, start, stop):
    assert found.keys() == draws(start, stop).keys()
    for name, x in draws(start, stop).items():
        np.testing.assert_array_equal(found[name], x)
        assert found[name].dtype == x.dtype


def test_chunks_fill_a_block_and_what_was_taken_stays_as_it_is():
    block = Block(4)
    block.append(draws(0, 1))
    block.append(draws(1, 4))
    first = block.take()
    block.append(draws(4, 6))
    block.append(draws(6, 7))
    assert_draws(block.take(), 4, 7)
    assert_draws(first, 0, 4)  # the store may still refer to it


def test_a_chunk_of_a_whole_block_is_not_copied():
    block, chunk = Block(4), draws(0, 4)
    block.append(chunk)
    assert np.shares_memory(block.take()["posterior/w"], chunk["posterior/w"])
    block.append(draws(4, 7))
    assert_draws(block.take(), 4, 7)


def test_blocks_are_read_as_they_were_written(tmp_path):
    store = DrawStore(tmp_path / "draws.zarr")
    described = {"posterior/w": ((3,), np.float64), "sample_stats/diverging": ((), np.bool_)}  # of another precision
    store.create(2, 7, 4, described, {}, {})
    store.write(0, draws(0, 4))
    store.write(4, draws(4, 6))
    store.write(6, draws(6, 7))  # into a block that is begun
    store.flush()
    store.check(7)
    assert {name: store.read(name, 7).dtype for name in described} == {name: dtype for name, (_, dtype) in described.items()}
    for name, x in draws(0, 7).items():
        np.testing.assert_array_equal(store.read(name, 7), x)


@pytest.mark.parametrize(
    ("num_chains", "first_chains", "files"),
    [
        (6, [0], [range(6)]),  # one process
        (6, [0, 3], [range(3), range(3, 6)]),
        (3, [0, 2], [range(2), range(2, 3)]),
        (5, [0, 2, 4], [range(2), range(2, 4), range(4, 5)]),
        (4, [0, 3], [range(3), range(3, 4)]),
        (2, [0, 0, 1, 0], [range(1), range(1, 2)]),  # four processes, two of which share the data of the others' chains
    ],
)
def test_no_file_has_two_writers(num_chains, first_chains, files, tmp_path):
    path, draws = tmp_path / "draws.zarr", np.arange(num_chains * 6, dtype=np.float32).reshape(num_chains, 6, 1)
    DrawStore(path).create(num_chains, 6, 4, {"posterior/w": ((1,), np.float32)}, {}, {}, first_chains)
    written = set()
    for own in files:
        process = DrawStore(path)
        process.write(0, {"posterior/w": draws[own.start : own.stop, :4]}, own.start)
        process.write(4, {"posterior/w": draws[own.start : own.stop, 4:]}, own.start)
        process.flush()
        seen = set((path / "posterior/w/c").glob("*/*/0"))
        assert len(seen - written) == 2  # its own two blocks
        written = seen
    np.testing.assert_array_equal(DrawStore(path).read("posterior/w", 6), draws)
    DrawStore(path).check(6)
    for file in written:
        found = file.read_bytes()
        file.unlink()
        with pytest.raises(UsageError, match=f"{file} has 0 bytes"):
            DrawStore(path).check(6)
        file.write_bytes(found)
