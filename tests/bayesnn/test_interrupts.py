"""Ctrl-C in the first moments of a command, while modules are still imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# `python -m`, under the handler with which Python begins; what a shell starts in the background ignores the signal.
AS_A_SHELL_STARTS_IT = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(("module", "is_quiet"), [("bayesnn", True), ("bayesnn.cli", False)])
def test_ctrl_c_in_an_import_prints_nothing(module, is_quiet, tmp_path):
    """The command line's own module is the negative control: it is imported under Python's handler."""
    (tmp_path / "tyro.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-c", AS_A_SHELL_STARTS_IT, module, "list"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT  # 130 in a shell
    assert ("Traceback" not in said) == is_quiet
    assert (said == "") == is_quiet
