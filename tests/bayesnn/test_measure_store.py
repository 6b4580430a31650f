"""Results of measures: written whole, replaced whole, read back; the command that makes them."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from bayesnn import measure
from bayesnn.config import Frozen
from bayesnn.errors import UsageError
from bayesnn.measure import store
from bayesnn.run_folder import RunFolder
from diagnostics.claims import Finding

FINDINGS = [Finding("somewhere", "health", "pass", 1.0, (0.5, np.inf), 2.0, "Fine."), Finding("h", "hypothesis", "contradicted")]


class Settings(Frozen):
    """Settings of a measure of these tests."""

    size: int = 2
    """Of the result."""


def measured(run, settings, console):
    """Measure nothing much."""
    verdict = "pass" if settings.size < 5 else "inconclusive"
    return result(settings.size), [Finding("size", "health", verdict, settings.size, note=run.config.data.name)]


def result(size=2, **attrs):
    tree = xr.DataTree.from_dict({"part": xr.Dataset({"x": ("place", np.arange(size)), "name": ("place", ["a"] * size)})})
    tree.attrs = attrs
    return tree


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def test_what_is_written_is_read(folder):
    assert store.read_measure(folder, "llc") is None
    path = store.write_measure(folder, "llc", result(n=3), {"size": 2}, FINDINGS)
    assert path == folder.path / "measures" / "llc"
    found = store.read_measure(folder, "llc")
    assert found.tree.attrs == {"n": 3}
    assert found.tree["part/x"].values.tolist() == [0, 1]
    assert (found.settings, found.findings) == ({"size": 2}, FINDINGS)
    assert store.list_measures(folder) == ["llc"]


def test_a_result_is_replaced_when_the_new_one_is_whole(folder, monkeypatch):
    store.write_measure(folder, "llc", result(2), {}, [])
    with pytest.raises(TypeError):
        store.write_measure(folder, "llc", result(3), {"cannot": object()}, [])
    assert store.read_measure(folder, "llc").tree["part/x"].size == 2
    store.write_measure(folder, "llc", result(4), {}, [])
    assert store.read_measure(folder, "llc").tree["part/x"].size == 4
    assert sorted(path.name for path in (folder.path / "measures").iterdir()) == ["llc"]


def test_a_kill_between_two_renames_loses_nothing(folder):
    path = store.write_measure(folder, "llc", result(2), {}, [])
    os.rename(path, path.with_name(".llc.old"))
    assert store.list_measures(folder) == ["llc"]
    assert store.read_measure(folder, "llc").tree["part/x"].size == 2
    store.write_measure(folder, "llc", result(3), {}, [])
    assert store.read_measure(folder, "llc").tree["part/x"].size == 3


def test_a_damaged_result_is_told(folder):
    path = store.write_measure(folder, "llc", result(), {}, [])
    (path / "findings.json").write_text("[")
    with pytest.raises(UsageError, match=r"damaged .*; measure again"):
        store.read_measure(folder, "llc")


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(sys.modules, "a_measure_of_these_tests", sys.modules[__name__])
    entry = measure.Entry("a_measure_of_these_tests:Settings", "a_measure_of_these_tests:measured")
    monkeypatch.setitem(measure.MEASURES, "small", entry)


def test_the_command_stores_what_it_prints(cli, finished_copy, registered):
    status, out, _ = cli("measure", finished_copy, "small", "--size", "3")
    assert status == 0
    assert "pass" in out
    assert "wine" in out
    found = store.read_measure(RunFolder.open(finished_copy), "small")
    assert found.settings == {"size": 3}
    assert found.tree["part/x"].size == 3
    assert cli("measure", finished_copy, "small", "--size", "7").status == 1  # inconclusive


def test_mistakes_in_measuring_are_one_message(refused, cli, finished, registered):
    assert "unknown measure 'smal'; did you mean 'small'?" in refused("measure", finished, "smal")
    assert "measure needs a run folder and what to measure" in refused("measure", finished)
    assert "no folder nowhere" in refused("measure", "nowhere", "small")
    assert "--size" in cli("measure", finished, "small", "--help").out
    assert "small" in cli("list").out


def test_changed_code_is_refused(refused, cli, finished_copy, registered, monkeypatch):
    monkeypatch.setattr(RunFolder, "changed_sources", lambda self: ["mine.py:experiment"])
    assert "--accept-changed-code" in refused("measure", finished_copy, "small")
    assert cli("measure", finished_copy, "small", "--accept-changed-code").status == 0


def test_settings_are_told_without_what_they_need():
    code = (
        "import sys; from bayesnn.cli import main\n"
        "try: main(['measure', 'x', 'llc', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'jax', 'xarray', 'scipy', 'arviz', 'zarr'} & set(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr.splitlines()[-1] == "[]"
    assert "--inverse-temperatures" in ended.stdout
