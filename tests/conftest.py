"""Settings of the whole suite, made before JAX is imported."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bayesnn" / "xla"
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    # Pretend devices, for tests of meshes. XLA's thread pool has one thread for each of max(cores, devices), and the last bits of
    # a matrix product on a CPU depend on its size: fixed, so that numbers in tests mean the same everywhere.
    "JAX_NUM_CPU_DEVICES": "8",
    "PJRT_NPROC": "8",
    # Compilation is most of the time of these tests.
    "JAX_COMPILATION_CACHE_DIR": str(CACHE),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}

if "jax" in sys.modules:
    raise RuntimeError("JAX was imported before the settings of the tests were made; look for a pytest plugin that imports it")
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)


def pytest_configure(config):
    # An entry that a killed process left half-written is compiled anew.
    config.addinivalue_line("filterwarnings", "ignore:Error reading persistent compilation cache entry")


@pytest.fixture
def quick_to_compile() -> Iterator[None]:
    """Compile in two thirds of the time, without most optimisations: for tests of much code that is run a little.

    Not for tests of bits or of speed, which are those of other programs.
    """
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # no other test is to run what was compiled here


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs() -> Iterator[None]:
    yield
    from bayesnn.programs import make_room

    make_room()
