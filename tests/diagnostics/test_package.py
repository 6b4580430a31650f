"""Importing the package costs nothing, and every public name is where the package says."""

import subprocess
import sys

import pytest

import diagnostics


def test_import_loads_no_library():
    program = (
        "import sys, diagnostics; print([m for m in ('numpy', 'scipy', 'xarray', 'jax', 'arviz_stats') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_an_audit_needs_neither_arviz_nor_jax():
    program = (
        "import sys, diagnostics; diagnostics.audit; print([m for m in ('jax', 'arviz_base', 'arviz_stats') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_name_resolves():
    for name in diagnostics.__all__:
        value = getattr(diagnostics, name)
        assert getattr(value, "__module__", "diagnostics").startswith("diagnostics")
    assert set(diagnostics.__all__) <= set(dir(diagnostics))


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'rhats'"):
        diagnostics.rhats  # noqa: B018
