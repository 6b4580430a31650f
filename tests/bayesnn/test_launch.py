"""Beginning or continuing: what processes that run one command agree on."""

from __future__ import annotations

from bayesnn import launch
from tests.bayesnn.experiments import SHORT


def test_processes_go_by_what_the_first_of_them_saw(tmp_path, monkeypatch):
    """By the time that a slow process looks, the first one may have made the folder."""
    (tmp_path / "wine").mkdir()
    begun = []
    monkeypatch.setattr(launch.distributed, "on_first", lambda action: False)  # the first one found nothing
    monkeypatch.setattr(launch, "sample_into", lambda path, *rest: begun.append(path) or "complete")
    assert launch.run("wine", SHORT, "", tmp_path) == 0
    assert begun == [tmp_path / "wine"]
