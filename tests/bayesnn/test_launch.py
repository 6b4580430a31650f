"""Beginning or continuing: what processes that run one command agree on, and what a new folder holds of the user's files."""

from __future__ import annotations

from pathlib import Path

from bayesnn import launch
from bayesnn.experiments import load_experiment
from bayesnn.run_folder import RunFolder
from tests.bayesnn.experiments import SHORT


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
