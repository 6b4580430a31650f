"""Results of measures, in the folder of the run that they were made on.

    runs/<name>/measures/<measure>/  result.zarr  settings.json  findings.json

A result appears under its name when it is whole. One that is there already stays until then: it is moved aside, the new one takes
its name, and it is removed; a reader that comes between finds it aside.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bayesnn.errors import UsageError
from bayesnn.run_folder import RunFolder
from bayesnn.shard import write_atomically

if TYPE_CHECKING:
    import xarray as xr

    from diagnostics.claims import Finding

MEASURES, RESULT, SETTINGS, FINDINGS = "measures", "result.zarr", "settings.json", "findings.json"


class Measure(NamedTuple):
    """What was measured on a run.

    Attributes:
        tree: The result.
        settings: With which it was measured, plain data.
        findings: What it says.
    """

    tree: xr.DataTree
    settings: dict[str, Any]
    findings: list[Finding]


def write_measure(
    folder: RunFolder, name: str, tree: xr.DataTree, settings: Mapping[str, Any], findings: Sequence[Finding]
) -> Path:
    """Write a result, in the place of an earlier one of the same name.

    Args:
        folder: Of the run.
        name: Of the measure.
        tree: The result; its attributes plain data.
        settings: With which it was measured; plain data.
        findings: What it says.

    Returns:
        Where it lies.
    """
    path = folder.path / MEASURES / name
    draft, aside = path.with_name(f".{name}.{os.getpid()}.tmp"), _aside(path)
    try:
        draft.mkdir(parents=True)
        tree.to_zarr(draft / RESULT, zarr_format=3, consolidated=False)
        write_atomically(draft / SETTINGS, json.dumps(dict(settings), indent=1))
        write_atomically(draft / FINDINGS, json.dumps([finding.to_dict() for finding in findings], indent=1))
        with folder.turn():
            if path.exists():
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
            draft.rename(path)
            shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return path


def read_measure(folder: RunFolder, name: str) -> Measure | None:
    """Read a result; None if there is none of this name.

    Raises:
        UsageError: It is damaged.
    """
    import xarray as xr

    from diagnostics.claims import Finding

    path = folder.path / MEASURES / name
    path = path if path.exists() else _aside(path)
    if not path.exists():
        return None
    try:
        tree = xr.open_datatree(path / RESULT, engine="zarr", consolidated=False).load()
        settings = json.loads((path / SETTINGS).read_text())
        findings = [Finding.from_dict(data) for data in json.loads((path / FINDINGS).read_text())]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"the result {path} is damaged ({reason}); measure again") from error
    return Measure(tree, settings, findings)


def list_measures(folder: RunFolder) -> list[str]:
    """Return the names of what was measured on a run, sorted."""
    found = (folder.path / MEASURES).glob("*")
    return sorted({path.name.removeprefix(".").removesuffix(".old") for path in found if not path.name.endswith(".tmp")})


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")
