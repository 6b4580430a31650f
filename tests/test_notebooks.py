"""Every notebook runs from top to bottom, with settings so small that only its code is tested, not what it finds."""

import os
from pathlib import Path

import jupytext
import nbclient
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.md"))
SMALL = {"DIGITS_DRAWS": "40", "DIGITS_WARMUP": "20", "DIGITS_MAX_STEPS": "40"}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_notebook_runs(path, monkeypatch, tmp_path):
    for name, value in (SMALL | {"JAX_NUM_CPU_DEVICES": str(os.cpu_count())}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PJRT_NPROC", raising=False)
    notebook = jupytext.read(path)
    kernel = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    kernel.execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    outputs = [output for cell in cells for output in cell.outputs]
    warnings = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    # The kernel's own, on its sockets, is not the notebook's.
    assert [text for text in warnings if "IPKernelApp" not in text] == []
