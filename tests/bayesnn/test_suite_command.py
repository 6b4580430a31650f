"""`bayesnn audit-suite` and `bayesnn plan SUITE` as a user meets them."""

from __future__ import annotations

import dataclasses

import pytest

from bayesnn import data
from bayesnn.cli import main
from bayesnn.izmailov2021.suite import SCALES
from bayesnn.suite import command
from bayesnn.suite.command import load_suite
from bayesnn.suite.rehearse import EXAMPLES, rehearsal, rehearse_suite
from bayesnn.suite.suite import Suite
from tests.bayesnn.test_suite import quiet, small_suite


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


@pytest.mark.slow
def test_a_suite_from_nothing_to_its_report(small, tmp_path, capsys):
    assert main(["audit-suite", "izmailov2021", "--suites", str(tmp_path)]) == 1  # one of its runs cannot be built
    out = capsys.readouterr().out
    assert "HMC beats MAP" in out
    folder = tmp_path / "izmailov2021-laptop"
    assert (folder / "report.html").exists()
    assert len(list(folder.glob("runs/*/report.html"))) == 2
    assert "| | better |" in (folder / "findings.md").read_text()


def test_data_that_are_not_at_hand_are_no_failure(monkeypatch, tmp_path):
    whole = small_suite()
    first, second = whole.hypotheses
    runs, claims = ({name: of[name] for name in ("absent",)} for of in (second.runs, second.claims))
    without = dataclasses.replace(whole, hypotheses=(first, dataclasses.replace(second, runs=runs, claims=claims)))
    monkeypatch.setattr(command, "load_suite", lambda name, scale, only=(): without)
    assert main(["audit-suite", "izmailov2021", "--suites", str(tmp_path)]) == 0


@pytest.mark.slow
def test_a_measure_that_fails_is_a_failure(monkeypatch, tmp_path):
    """Tables have no corruptions."""
    suite = small_suite()
    first = suite.hypotheses[0]
    runs = first.runs | {"hmc": first.runs["hmc"]._replace(measures={"shift": {}})}
    measured = dataclasses.replace(suite, hypotheses=(dataclasses.replace(first, runs=runs),))
    monkeypatch.setattr(command, "load_suite", lambda name, scale, only=(): measured)
    assert main(["audit-suite", "izmailov2021", "--suites", str(tmp_path)]) == 1


@pytest.mark.slow
def test_a_plan_names_every_run(small, capsys):
    assert main(["plan", "izmailov2021", "--hardware", "tpu-v3", "--devices", "512"]) == 0
    out = capsys.readouterr().out
    assert "512 x tpu-v3" in out
    heading, row = (next(line.split() for line in out.splitlines() if line.startswith(word)) for word in ("run", "hmc"))
    assert heading == ["run", "parameters", "FLOP", "a", "draw", "all", "bytes", "bytes", "devices", "time"]
    assert row[:2] == ["hmc", f"{(13 + 1) * 3 + (3 + 1) * 3}"]
    assert "\N{HORIZONTAL ELLIPSIS}" not in out  # no number is cut
    assert sum(f"\n{name}" in f"\n{out}" for name in ("hmc ", "map ", "absent cannot", "broken cannot")) == 4


@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.slow
def test_a_rehearsal_takes_first_steps_and_leaves_nothing(small, tmp_path, capsys):
    assert main(["audit-suite", "izmailov2021", "--rehearse", "--suites", str(tmp_path / "suites")]) == 1  # one cannot be built
    out = capsys.readouterr().out
    assert "2 of 4 runs took their first steps; 1 failed, 1 have no data here." in out
    assert "no_such_layer" in out
    assert not (tmp_path / "suites").exists()


@pytest.mark.slow
def test_the_oracle_of_b1_runs_and_its_suite_is_resumed(monkeypatch, tmp_path, capsys):
    """A density, which has no data, as the suite has it."""
    [whole] = load_suite("izmailov2021", "laptop", ["B1"]).hypotheses
    runs, claims = {"oracle": whole.runs["oracle"]}, {"B1 possible": whole.claims["B1 possible"]}
    suite = Suite("b1", "laptop", "", (dataclasses.replace(whole, runs=runs, claims=claims),))
    monkeypatch.setattr(command, "load_suite", lambda name, scale, only=(): suite)
    for said in ("supported", "1 of 1 runs are complete already"):
        assert main(["audit-suite", "izmailov2021", "--suites", str(tmp_path)]) == 0
        assert said in capsys.readouterr().out


def test_a_rehearsal_cuts_sizes_and_keeps_the_posterior():
    """Every run of every scale: what decides the posterior but for the number of examples is the run's own."""
    kept = ("model", "prior", "likelihood", "temperature", "likelihood_temperature", "precision", "start", "seed")
    for scale in SCALES:
        for name, planned in load_suite("izmailov2021", scale).planned().items():
            cut, own = rehearsal(planned.config), planned.config
            assert cut.chains * cut.draws * cut.thin <= 2
            if own.density is not None:
                continue
            assert {key: getattr(cut, key) for key in kept} == {key: getattr(own, key) for key in kept}, name
            assert cut.sampler.kind == own.sampler.kind
            assert cut.data.model_copy(update={"num_train": own.data.num_train}) == own.data
            assert cut.data.num_train == EXAMPLES


@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.slow
def test_the_paper_s_networks_take_their_first_steps():
    """ResNet-20 of 274,042 parameters and the CNN-LSTM, by HMC."""
    names = ("cifar10", "imdb")
    try:
        for name in names:
            data.load(name, num_train=EXAMPLES)
    except ValueError as error:
        pytest.skip(f"the paper's data are not at hand: {error}")
    [whole] = load_suite("izmailov2021", "paper", ["C1"]).hypotheses
    runs = {f"{name}-hmc": whole.runs[f"{name}-hmc"] for name in names}
    suite = Suite("paper", "paper", "", (dataclasses.replace(whole, runs=runs),))
    console = quiet()
    assert rehearse_suite(suite, console) == {}
    out = console.file.getvalue()
    assert "2 of 2 runs took their first steps; 0 failed, 0 have no data here." in out
    assert "274,042 parameters, hmc" in out
