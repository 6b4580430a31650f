"""Room for compiled programs: each takes several mappings of memory, of which Linux allows a process 65,530."""

from __future__ import annotations

from pathlib import Path

MAPPED, ALLOWED = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")


def make_room() -> None:
    """Forget what JAX has compiled in this process if it takes more than a third of the mappings that the process may have.

    For work that goes on in one process, between parts that share few programs: XLA's compiler ends a process that has no mapping
    left by a segmentation fault. What is compiled again is read from the cache on disk, where there is one.
    """
    if not (MAPPED.exists() and ALLOWED.exists()):
        return
    if len(MAPPED.read_bytes().splitlines()) > int(ALLOWED.read_text()) / 3:
        import jax

        jax.clear_caches()
