"""Suites: shared runs run once, what is there is kept, failures are told, verdicts and a page come out."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping

import jax
import numpy as np
import pytest
import xarray as xr
from markupsafe import Markup
from rich.console import Console

from bayesnn.build import build_problem
from bayesnn.config import CNNLSTM, HMC, MLP, NUTS, Data, FamilyPrior, GaussianPrior, Optimise, ResNet, RunConfig, WarmUp
from bayesnn.errors import UsageError
from bayesnn.izmailov2021.disagreement import agreement
from bayesnn.plan import problem_key
from bayesnn.report.pictures import Drawing, Shown
from bayesnn.run_folder import RunFolder
from bayesnn.suite import execute, pages
from bayesnn.suite.budget import PROGRAM_SECONDS, RUN_SECONDS, Budget, each_once, make_budget, print_budget
from bayesnn.suite.execute import execute_suite, lacking
from bayesnn.suite.judge import judge_suite, read_exhibits, read_findings
from bayesnn.suite.pages import run_lines, write_run_pages
from bayesnn.suite.report import show, write_suite_report
from bayesnn.suite.results import SuiteFolder, Trees, _read, data_hash
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Picture, Planned, Suite
from diagnostics.estimates import Estimate
from diagnostics.evidence import Evidence
from diagnostics.hypotheses import hypothesis, paired_gain, point_scores, superiority
from diagnostics.mixing import functions_converge

WINE = RunConfig(
    data=Data(name="wine"), model=MLP(widths=(3,)), sampler=HMC(step_size=0.02), warmup=WarmUp(steps=5), draws=5, chains=2
)
MAP = WINE.model_copy(
    update={"sampler": Optimise(), "start": "model", "warmup": WarmUp(steps=0), "chains": 2, "draws": 1, "thin": 50}
)
ABSENT = WINE.model_copy(update={"data": Data(name="no_such_data")})
BROKEN = WINE.model_copy(update={"prior": GaussianPrior(layer_scales={"no_such_layer": 1.0})})


def judge(trees: Mapping[str, xr.DataTree]) -> Judgement:
    gain = paired_gain(point_scores(trees["hmc"])["log_score"], point_scores(trees["map"])["log_score"])
    return Judgement(hypothesis("better", superiority(gain), gain, "A note."), (Exhibit("A caption.", "nats", {"gain": gain}),))


def needs_absent(trees: Mapping[str, xr.DataTree]) -> Judgement:
    raise AssertionError(f"never judged without its run: {trees['absent']}")


def needs_broken(trees: Mapping[str, xr.DataTree]) -> Judgement:
    raise AssertionError(f"never judged without its run: {trees['broken']}")


def small_suite() -> Suite:
    first = Hypothesis(
        "H1", "HMC beats MAP", "nobody", "Run: both.", {"hmc": Planned(WINE), "map": Planned(MAP)}, {"better": judge}
    )
    runs = {"again": Planned(WINE), "absent": Planned(ABSENT), "broken": Planned(BROKEN)}
    second = Hypothesis(
        "H2", "This cannot be told", "nobody", "Run: nothing.", runs, {"absent": needs_absent, "broken": needs_broken}
    )
    return Suite("small", "tiny", "seconds", (first, second))


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder, suite, console = SuiteFolder(tmp_path_factory.mktemp("suite")), small_suite(), quiet()
    budget = make_budget(suite.planned())
    print_budget(console, suite, budget)
    assert execute_suite(suite, folder, budget, console)
    return suite, folder, console


def test_runs_are_shared_and_named(finished):
    suite, folder, _ = finished
    assert len(suite.planned()) == 4
    names = suite.folder_names(suite.hypotheses[1])
    assert names["again"] == suite.folder_names(suite.hypotheses[0])["hmc"]
    assert json.loads((folder.path / "suite.json").read_text())["hypotheses"]["H1"]["claims"] == ["better"]


def test_the_budget_comes_first(finished):
    text = finished[2].file.getvalue()
    assert text.index("in all") < text.index("1/4")


def of_runs(configs) -> Suite:
    runs = {f"run{number}": Planned(config) for number, config in enumerate(configs)}
    return Suite("s", "t", "d", (Hypothesis("H1", "t", "s", "p", runs, {}),))


def test_runs_that_differ_in_split_and_seed_cost_once_and_those_on_one_problem_follow_each_other():
    changes = ({}, {"prior": GaussianPrior(scale=0.5)}, {"seed": 3}, {"data": Data(name="wine", split=2)}, {"sampler": NUTS()})
    asked = []
    suite = of_runs([WINE.model_copy(update=change) for change in changes])
    costs = each_once(suite.planned(), lambda config: asked.append(config) or config.sampler.kind)
    assert list(costs.values()) == ["hmc", "hmc", "hmc", "hmc", "nuts"]
    assert list(costs) == list(suite.planned())
    problems = [problem_key(config) for config in asked]
    assert (len(problems), len(set(problems)), problems) == (3, 2, sorted(problems))


def test_chains_that_are_more_than_devices_wait_for_their_turn():
    devices = len(jax.devices())
    chains = (1, devices, devices + 1, 2 * devices)
    budget = make_budget(of_runs([WINE.model_copy(update={"chains": count}) for count in chains]).planned())
    one, *others = budget.seconds.values()  # each a program of its own
    assert others == pytest.approx([one, others[2], others[2]])
    assert others[2] > one


def test_a_budget_that_nobody_has_is_told_in_years():
    console, suite = quiet(), of_runs([WINE])
    [name] = suite.planned()
    print_budget(console, suite, Budget({name: 1e9}, {name: 43_410 * 365.25 * 86_400}))
    assert console.file.getvalue().count("43,410 years") == 2


def test_a_program_is_compiled_once():
    changes = ({}, {"seed": 1}, {"temperature": 0.5, "prior": GaussianPrior(scale=0.5)}, {"prior": FamilyPrior(name="laplace")})
    first, *alike, other = make_budget(of_runs([WINE.model_copy(update=change) for change in changes]).planned()).seconds.values()
    assert all(seconds < first - PROGRAM_SECONDS for seconds in alike)
    assert other > RUN_SECONDS + PROGRAM_SECONDS


def test_data_are_looked_for_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(execute, "absent_data", lambda data: asked.append(data) or "nobody has them")
    suite, folder = of_runs([WINE, MAP, ABSENT]), SuiteFolder(tmp_path)
    assert execute_suite(suite, folder, make_budget(suite.planned()), quiet())
    assert [data.name for data in asked] == ["wine", "no_such_data"]
    assert len(folder.failures) == 3


def test_runs_on_published_data_share_them(tmp_path, monkeypatch):
    """Not those on files of one's own, nor on what another directory holds."""
    runs = [WINE.model_copy(update={"prior": GaussianPrior(scale=scale)}) for scale in (0.3, 0.5)]
    first, other = (build_problem(run).posterior.dataset for run in runs)
    assert first is other
    monkeypatch.setenv("BAYESNN_DATA", str(tmp_path))
    assert build_problem(WINE).posterior.dataset is not first
    path = tmp_path / "own.npz"
    own, found = WINE.model_copy(update={"data": Data(name=str(path))}), []
    for value in (0, 1):
        x = np.random.default_rng(value).normal(size=(6, 2))
        np.savez(path, x_train=x, y_train=np.array([0, 1, 0, 1, 0, 1]), x_test=x, y_test=np.array([0, 1, 0, 1, 0, 1]))
        found.append(build_problem(own).posterior.dataset.hash)
    assert found[0] != found[1]


def test_a_failure_is_told_and_ends_nothing(finished):
    suite, folder, console = finished
    names = suite.folder_names(suite.hypotheses[1])
    assert sorted(folder.failures) == sorted([names["absent"], names["broken"]])
    assert "no_such_data" in folder.failures[names["absent"]]
    assert "no_such_layer" in folder.failures[names["broken"]]
    assert "failed: " in console.file.getvalue()
    assert "not run: its data are not at hand" in console.file.getvalue()


def test_verdicts_and_page(finished):
    suite, folder, _ = finished
    first, second = judge_suite(suite, folder)
    assert first.judgements[0].finding.note == "A note."
    assert second.verdict == "inconclusive"
    absent, broken = (judgement.finding for judgement in second.judgements)
    assert (absent.verdict, broken.verdict) == ("not applicable", "inconclusive")
    assert "no_such_data" in absent.note
    assert "no_such_layer" in broken.note
    page = write_suite_report(suite, folder, [first, second]).read_text()
    assert '<a href="#H1">H1: HMC beats MAP</a>' in page
    assert 'id="H1"' in page
    assert "no_such_data" in page
    assert '<a href="#better-shown">better</a>' in page
    assert 'id="better-shown"' in page
    assert "broken <strong>(failed: " in page
    assert "absent <strong>(its data are not at hand: " in page
    assert "Without broken: " in page
    assert f'href="runs/{folder.run_path(suite.folder_names(suite.hypotheses[0])["hmc"]).name}/config.json">hmc</a>' in page
    assert read_findings(folder) == [judgement.finding for one in (first, second) for judgement in one.judgements]
    assert read_exhibits(folder)["better"][0].rows == first.judgements[0].exhibits[0].rows


def test_every_run_has_a_page_of_its_own_and_a_line(finished, tmp_path):
    suite, folder = finished[0], SuiteFolder(shutil.copytree(finished[1].path, tmp_path / "suite"))
    write_run_pages(suite, folder, quiet())
    hmc, other = run_lines(suite, folder)
    assert (hmc.name, hmc.sampler, hmc.draws, hmc.verdict) == ("hmc", "hmc", "2 x 5", "inconclusive")
    assert (other.name, other.draws, other.verdict) == ("map", "2 x 1", "not applicable")
    assert hmc.sentence.startswith("Do not rely on these draws yet")
    text = write_suite_report(suite, folder, judge_suite(suite, folder)).read_text()
    assert f'href="{hmc.path}">hmc</a> <strong>(audit: inconclusive)</strong>' in text
    assert f'href="{other.path}">map</a>.' in text
    assert "Audits of its 2 runs: 1 inconclusive, 1 not applicable." in text
    assert (folder.path / hmc.path).name == "report.html"
    before = {path: path.stat().st_mtime_ns for path in folder.path.glob("runs/*/report.html")}
    run = (folder.path / hmc.path).parent
    os.utime(next(run.glob("shards/*/commit.json")), ns=(before[run / "report.html"] + 10**9,) * 2)  # as if it had gone on
    write_run_pages(suite, folder, quiet())
    assert [path.parent for path, time in before.items() if path.stat().st_mtime_ns != time] == [run]


def test_judges_read_what_the_audit_of_all_draws_found(finished, tmp_path):
    suite, folder = finished[0], SuiteFolder(shutil.copytree(finished[1].path, tmp_path / "suite"))
    trees = Trees(folder, suite, suite.hypotheses[0])
    assert "audit" not in trees["hmc"].attrs
    computed = agreement(trees["hmc"])
    write_run_pages(suite, folder, quiet())
    _read.cache_clear()
    claims = [found["claim"] for found in trees["hmc"].attrs["audit"]]
    assert "functions-converge" in claims
    assert agreement(trees["hmc"]) == computed == functions_converge(Evidence(trees["hmc"]))
    changed = trees["hmc"].copy()
    changed.attrs["audit"] = [{**found, "verdict": "fail"} for found in trees["hmc"].attrs["audit"]]
    assert agreement(changed).verdict == "fail"
    run = trees.run("hmc").folder.path
    later = (run / "report.html").stat().st_mtime_ns + 10**9
    os.utime(next(run.glob("shards/*/commit.json")), ns=(later, later))  # as if it had gone on
    _read.cache_clear()
    assert "audit" not in trees["hmc"].attrs


def test_a_page_that_cannot_be_written_costs_nothing_else(finished, tmp_path, monkeypatch):
    def refuse(run):
        raise ValueError("no page today")

    monkeypatch.setattr(pages, "write_report", refuse)
    suite, folder, console = finished[0], SuiteFolder(shutil.copytree(finished[1].path, tmp_path / "suite")), quiet()
    write_run_pages(suite, folder, console)
    assert console.file.getvalue().count("no page today") == 2
    assert [(line.path.rpartition("/")[2], line.verdict) for line in run_lines(suite, folder)] == [("config.json", "")] * 2


def test_what_is_complete_is_not_run_again(finished):
    suite, folder, _ = finished
    names = [name for name in suite.planned() if name not in folder.failures]
    before = [RunFolder.open(folder.run_path(name)).manifest["launches"] for name in names]
    console = quiet()
    budget = make_budget(lacking(suite, folder))
    assert budget.seconds.keys() == set(suite.planned()) - set(names)
    print_budget(console, suite, budget)
    assert [line.split()[2] for line in console.file.getvalue().splitlines() if line.startswith("in all")] == ["2"]
    assert execute_suite(suite, folder, budget, console)
    assert "2 of 4 runs are complete already" in console.file.getvalue()
    assert [RunFolder.open(folder.run_path(name)).manifest["launches"] for name in names] == before


@pytest.mark.slow
def test_an_interrupted_suite_goes_on(tmp_path, monkeypatch):
    from bayesnn import launch

    suite, folder = small_suite(), SuiteFolder(tmp_path)
    monkeypatch.setattr(launch, "sample_into", lambda *_: "interrupted")
    assert not execute_suite(suite, folder, make_budget(suite.planned()), quiet())
    assert not folder.failures
    monkeypatch.undo()
    asked = []
    monkeypatch.setattr(execute, "make_room", lambda: asked.append(True))
    assert execute_suite(suite, folder, make_budget(suite.planned()), quiet())
    assert len(folder.failures) == 2
    assert len(asked) == 3  # room for what the next run compiles, after every run that could begin


@pytest.mark.slow
def test_a_failed_measure_leaves_its_run_to_the_others(tmp_path):
    """Tables have no corruptions."""
    measured = {"hmc": Planned(WINE, {"shift": {}}), "map": Planned(MAP)}
    claims = {"better": judge, "shift": lambda trees: trees["hmc"]["shift"]}
    suite = Suite("s", "t", "d", (Hypothesis("H1", "t", "s", "p", measured, claims),))
    folder = SuiteFolder(tmp_path)
    assert execute_suite(suite, folder, make_budget(suite.planned()), quiet())
    better, shift = judge_suite(suite, folder)[0].judgements
    assert better.finding.note == "A note."
    assert shift.finding.verdict == "inconclusive"
    assert "the measure shift of the run hmc failed: no corruption suits" in shift.finding.note


def test_one_measure_with_two_settings_is_refused():
    runs = [{"a": Planned(WINE, {"shift": {"intensities": [i]}})} for i in (1, 2)]
    suite = Suite("s", "t", "d", tuple(Hypothesis(str(i), "t", "s", "p", one, {}) for i, one in enumerate(runs)))
    with pytest.raises(ValueError, match="two settings"):
        suite.planned()


def test_a_run_is_found_by_its_digest_whatever_it_is_called(finished):
    suite, folder, _ = finished
    shared = suite.folder_names(suite.hypotheses[0])["hmc"]
    alone = Suite(suite.name, suite.scale, suite.description, suite.hypotheses[1:])
    called = alone.folder_names(suite.hypotheses[1])["again"]
    assert called != shared
    assert folder.run_path(called) == folder.run_path(shared)
    assert folder.has_draws(called)


def with_picture(compute, run="hmc"):
    picture = Picture(
        "A title", "A caption.", (run,), compute, lambda data: Drawing([Shown("", Markup(), Markup(data["shown"]))])
    )
    runs = {"hmc": Planned(WINE), "broken": Planned(BROKEN), "never": Planned(WINE.model_copy(update={"seed": 7}))}
    return Suite("s", "t", "d", (Hypothesis("H1", "t", "s", "p", runs, {"better": lambda _: JUDGED}, {"one": picture}),))


JUDGED = Judgement(hypothesis("better", "supported", Estimate(1.0, 0.5, 2.0), "A note."))


def test_a_picture_is_computed_once_and_kept(finished):
    folder, computed = finished[1], []

    def compute(runs):
        computed.append(runs["hmc"].tree.attrs["num_params"])
        return {"shown": "<svg></svg>"}

    suite = with_picture(compute)
    for _ in range(2):
        judged = judge_suite(suite, folder)
    assert len(computed) == 1
    page = write_suite_report(suite, folder, judged).read_text()
    assert "<h3>A title</h3>" in page
    assert "<svg></svg>" in page
    assert folder.pictures["H1/one"]["data"] == {"shown": "<svg></svg>"}
    folder.record_picture("H1/one", ["another run"], {"shown": "stale"})
    assert judge_suite(suite, folder)[0].pictures[0].data == {"shown": "<svg></svg>"}
    assert len(computed) == 2


def test_a_picture_that_cannot_be_drawn_says_why(finished):
    folder = finished[1]

    def refuse(runs):
        raise ValueError("the draws lie on one line")

    folder.record_picture("H1/one", [], {})
    cases = {"hmc": "the draws lie on one line", "broken": "the run broken failed: ", "never": "the run never has not begun"}
    for run, reason in cases.items():
        suite = with_picture(refuse, run)
        judged = judge_suite(suite, folder)
        assert judged[0].pictures[0].reason.startswith(f"Not drawn: {reason}")
        assert f"Not drawn: {reason}" in write_suite_report(suite, folder, judged).read_text()


def test_exhibits_keep_their_bands(finished):
    banded = Judgement(JUDGED.finding, (Exhibit("c", "u", {"a": Estimate(1.0, 0.5, 2.0)}, (1.0,), (0.5, 1.5)),))
    suite = Suite("s", "t", "d", (Hypothesis("H1", "t", "s", "p", {}, {"better": lambda _: banded}),))
    judge_suite(suite, finished[1])
    assert read_exhibits(finished[1])["better"][0].band == (0.5, 1.5)


def test_numbers_have_signs_on_both_sides_of_zero_and_no_interval_that_is_none():
    def written(rows, marks):
        return [tuple(strip.value) for strip in show(Exhibit("c", "u", rows, marks)).strips]

    rows = {"a": Estimate(0.02, -0.01, 0.05), "b": Estimate(0.0, 0.0, 0.0)}
    assert written(rows, (0.0,)) == [("+0.020", "\N{MINUS SIGN}0.010 to +0.050"), ("0", "")]
    assert written(rows, (1.0,))[0] == ("0.020", "\N{MINUS SIGN}0.010 to 0.050")
    assert written({"a": Estimate(0.02, 0.01, 0.05)}, (0.0,)) == [("0.020", "0.010 to 0.050")]


def test_a_digest_is_of_what_was_chosen_and_of_every_kind():
    assert Planned(RunConfig(seed=0)).digest == Planned(RunConfig()).digest
    configs = [
        RunConfig(),
        RunConfig(seed=1),
        RunConfig(model=ResNet()),
        RunConfig(model=CNNLSTM()),
        RunConfig(sampler=NUTS()),
        RunConfig(sampler=NUTS(step_size=0.02)),
        RunConfig(sampler=HMC(step_size=0.02)),
        RunConfig(draws=100),
        RunConfig(chains=100),
    ]
    assert len({Planned(config).digest for config in configs}) == len(configs)


def test_a_setting_that_is_new_leaves_runs_valid_and_a_default_that_has_changed_does_not(tmp_path):
    suite, folder = small_suite(), SuiteFolder(tmp_path)
    path = folder.run_path(suite.folder_names(suite.hypotheses[0])["hmc"])
    path.mkdir(parents=True)
    recorded, sha256 = WINE.model_dump(mode="json"), data_hash(WINE.data)

    def record():
        text = json.dumps(recorded)
        problem = {"data_sha256": sha256}
        facts = {"experiment": "", "sources": {}, "problem": problem, "launches": [], "config": recorded}
        (path / "config.json").write_text(text)
        (path / "manifest.json").write_text(json.dumps(facts | {"config_sha256": hashlib.sha256(text.encode()).hexdigest()}))

    del recorded["sampler"]["jitter"]  # as if it had not been there when the run was made
    record()
    folder.begin(suite)
    recorded["thin"] = 2  # as if this had been the default then
    record()
    with pytest.raises(UsageError, match="when defaults of thin were others; remove it"):
        folder.begin(suite)
    recorded["thin"], sha256 = WINE.thin, "of other data"
    record()
    with pytest.raises(UsageError, match="was run on other data than wine is now; restore them, or remove the run"):
        folder.begin(suite)
