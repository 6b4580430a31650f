"""`bayesnn audit-suite` and `bayesnn plan SUITE` as a user meets them."""

from __future__ import annotations

import pytest

from bayesnn.cli import main
from bayesnn.suite import command
from tests.bayesnn.test_suite import small_suite


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["audit-suite", "izmailov2012"], "did you mean 'izmailov2021'?"),
        (["audit-suite", "izmailov2021", "--scale", "labtop"], "did you mean 'laptop'?"),
        (["audit-suite", "izmailov2021", "--only", "C7"], "unknown hypothesis 'C7'"),
        (["plan", "izmailov2021", "--scale", "pod", "--hardware", "h200"], "unknown scale 'pod'"),
    ],
)
def test_mistakes_are_answered(words, told, capsys):
    assert main(words) == 2
    assert told in capsys.readouterr().err


@pytest.fixture
def small(monkeypatch):
    """Put the small suite in the place of the real ones."""
    monkeypatch.setattr(command, "load_suite", lambda name, scale, only=(): small_suite())


def test_the_budget_alone(small, tmp_path, capsys):
    assert main(["audit-suite", "izmailov2021", "--plan", "--suites", str(tmp_path / "suites")]) == 0
    assert "in all" in capsys.readouterr().out
    assert not (tmp_path / "suites").exists()


def test_a_suite_from_nothing_to_its_report(small, tmp_path, capsys):
    assert main(["audit-suite", "izmailov2021", "--suites", str(tmp_path)]) == 1  # one of its runs cannot be built
    out = capsys.readouterr().out
    assert "HMC beats MAP" in out
    folder = tmp_path / "izmailov2021-laptop"
    assert (folder / "report.html").exists()
    assert "| | better |" in (folder / "findings.md").read_text()


def test_a_plan_names_every_run(small, capsys):
    assert main(["plan", "izmailov2021", "--hardware", "tpu-v3", "--devices", "512"]) == 0
    out = capsys.readouterr().out
    assert "512 x tpu-v3" in out
    assert sum(name in out for name in ("hmc-", "map-", "absent-", "broken-")) == 4
