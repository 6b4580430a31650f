"""Compiled programs are forgotten when they crowd what a process may map, and not before."""

from __future__ import annotations

import jax
import pytest

from bayesnn import programs


@pytest.mark.skipif(not programs.MAPPED.exists(), reason="this system does not list what a process has mapped")
@pytest.mark.parametrize(("allowed", "kept"), [(10**9, 1), (30, 0)])
def test_programs_are_forgotten_when_they_crowd_the_process(allowed, kept, monkeypatch, tmp_path):
    (tmp_path / "max_map_count").write_text(f"{allowed}\n")
    monkeypatch.setattr(programs, "ALLOWED", tmp_path / "max_map_count")
    doubled = jax.jit(lambda x: 2 * x)
    doubled(1.0)
    programs.make_room()
    assert doubled._cache_size() == kept
    assert doubled(2.0) == 4.0


def test_where_a_system_does_not_tell_nothing_happens(monkeypatch, tmp_path):
    monkeypatch.setattr(programs, "MAPPED", tmp_path / "none")
    programs.make_room()
