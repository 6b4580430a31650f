"""Beginning or continuing: what processes that run one command agree on, and what a new folder holds of the user's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bayesnn import launch, manifest
from bayesnn.experiments import load_experiment
from bayesnn.run_folder import RunFolder
from tests.bayesnn.experiments import SHORT

ROOT = Path(__file__).parents[2]


def test_processes_go_by_what_the_first_of_them_saw(tmp_path, monkeypatch):
    """By the time that a slow process looks, the first one may have made the folder."""
    (tmp_path / "wine").mkdir()
    begun = []
    monkeypatch.setattr(launch.distributed, "on_first", lambda action: False)  # the first one found nothing
    monkeypatch.setattr(launch, "sample_into", lambda path, *rest: begun.append(path) or "complete")
    assert launch.run("wine", SHORT, "", tmp_path) == 0
    assert begun == [tmp_path / "wine"]


def test_files_of_one_name_are_copied_each(tmp_path):
    """The experiment and its density, each in a file of the same name."""
    texts = {"first": "import numpy as np\n\ndef density():\n    return lambda x: -(x @ x), np.zeros(2)\n"}
    texts["second"] = f"""from bayesnn.config import HMC, Imported, RunConfig, WarmUp

def it():
    density = Imported(source={str(tmp_path / "first" / "mine.py:density")!r})
    return RunConfig(density=density, sampler=HMC(step_size=0.3, trajectory_length=1.0), warmup=WarmUp(steps=0), draws=2)
"""
    for folder, text in texts.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(text)
    experiment = f"{tmp_path / 'second' / 'mine.py'}:it"
    assert launch.run(experiment, load_experiment(experiment), "it", tmp_path) == 0
    run = tmp_path / "it"
    digests = RunFolder(run).manifest["sources"]
    copies = {Path(name.rpartition(":")[0]).parent.name: f"mine-{digest[:8]}.py" for name, digest in digests.items()}
    assert {name: (run / "source" / copy).read_text() for name, copy in copies.items()} == texts
    assert len(list((run / "source").iterdir())) == 2


def test_a_restarted_job_sets_jax_up_as_the_run_had_it(finished_copy, tmp_path):
    """Before a file of the user's own, or the other processes, set JAX to work: XLA reads its number of threads once."""
    recorded = json.loads((finished_copy / "manifest.json").read_text())
    recorded["launches"][0]["cpu_threads"] = 3
    (finished_copy / "manifest.json").write_text(json.dumps(recorded))
    mine = tmp_path / "mine.py"
    lines = ("import os", "import jax", "from tests.bayesnn.experiments import wine")
    mine.write_text("\n".join([*lines, "jax.devices()", "print(os.environ['PJRT_NPROC'])"]))
    words = [sys.executable, "-m", "bayesnn.cli", "run", f"{mine}:wine", "--runs", tmp_path, "--resume-if-exists"]
    environment = {name: value for name, value in os.environ.items() if name != "PJRT_NPROC"}
    ended = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    assert ended.stdout.splitlines()[0] == "3"


def test_another_thread_pool_is_a_difference():
    before = manifest.launch()
    threads = before["cpu_threads"]
    found = manifest.differences(before, {**before, "cpu_threads": threads + 2})
    assert found == [f"CPU threads {threads} -> {threads + 2}, and with them last bits of draws"]


def test_what_jax_has_read_already_is_not_set_and_recorded(monkeypatch):
    """A suite, say, goes on with one of its runs after others."""
    monkeypatch.delenv("PJRT_NPROC", raising=False)
    before = manifest.launch()["cpu_threads"]
    launch.prepare(before + 2)
    assert manifest.launch()["cpu_threads"] == before
