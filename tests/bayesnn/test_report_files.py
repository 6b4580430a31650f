"""report.html and findings.json in a run folder: what is written, and what is kept."""

from __future__ import annotations

import dataclasses
import html
import json
import shutil

import numpy as np
import pytest
import xarray as xr

from bayesnn.config import HMC, NUTS, AdjustedMCLMC, DynamicHMC
from bayesnn.errors import UsageError
from bayesnn.load import read_tree
from bayesnn.report import write_report
from bayesnn.report.provenance import Facts, _trajectories, other_posteriors, provenance
from bayesnn.run_folder import RunFolder
from diagnostics.claims import Finding
from diagnostics.standard import HEALTH

PAPER = Finding("paper", "hypothesis", "contradicted", 0.25, (0.2, 0.3), 0.5, "The paper says otherwise.")


@pytest.fixture(scope="module")
def reported(finished, tmp_path_factory):
    """A copy of a finished run, with its report."""
    path = tmp_path_factory.mktemp("reported") / "wine"
    shutil.copytree(finished, path)
    assert write_report(RunFolder.open(path)) == path / "report.html"
    return path


def test_the_findings_are_those_of_the_page(reported):
    findings = [Finding.from_dict(data) for data in json.loads((reported / "findings.json").read_text())]
    source = html.unescape((reported / "report.html").read_text())
    assert [finding.claim for finding in findings] == list(HEALTH)
    assert all(finding.note in source for finding in findings)


def test_the_same_folder_gives_the_same_bytes(reported):
    before = {name: (reported / name).read_bytes() for name in ("report.html", "findings.json")}
    write_report(RunFolder.open(reported))
    assert {name: (reported / name).read_bytes() for name in before} == before


def test_nothing_else_in_the_folder_changes(reported, finished):
    written = {path.relative_to(reported) for path in reported.rglob("*") if path.is_file()}
    assert {str(path) for path in written - {path.relative_to(finished) for path in finished.rglob("*")}} == {
        "findings.json",
        "report.html",
    }
    assert all((reported / name).read_bytes() == (finished / name).read_bytes() for name in ("manifest.json", "status.json"))


def test_findings_on_other_claims_are_kept_and_shown_and_stale_ones_are_judged_anew(finished_copy):
    stale = Finding("finite", "health", "fail", note="Stale.")
    (finished_copy / "findings.json").write_text(json.dumps([stale.to_dict(), PAPER.to_dict()]))
    source = write_report(RunFolder.open(finished_copy)).read_text()
    findings = [Finding.from_dict(data) for data in json.loads((finished_copy / "findings.json").read_text())]
    assert findings[-1] == PAPER
    assert PAPER.note in source
    assert "contradicted" in source
    assert "Stale." not in source
    assert [finding.verdict for finding in findings if finding.claim == "finite"] == ["pass"]


@pytest.mark.parametrize("damage", ["{", "[1]", '[{"claim": "a"}]', '{"a": 1}'])
def test_damaged_findings_are_refused_by_name(finished_copy, damage):
    (finished_copy / "findings.json").write_text(damage)
    with pytest.raises(UsageError, match=r"findings\.json is damaged .*; remove it, and audit again"):
        write_report(RunFolder.open(finished_copy))


def test_a_run_that_is_not_complete_says_so(finished_copy):
    folder = RunFolder.open(finished_copy)
    assert "This run is" not in write_report(folder).read_text()
    (finished_copy / "status.json").write_text(json.dumps(folder.status | {"state": "interrupted", "draws": 31}))
    assert "This run is interrupted: 31 of 40 draws a chain." in write_report(folder).read_text()


def rows(path, **changes):
    folder = RunFolder.open(path)
    facts = dataclasses.replace(Facts.of(folder), **changes)
    return provenance(read_tree(folder), facts)


def test_the_facts_are_those_of_the_folder(reported):
    facts, manifest = rows(reported), json.loads((reported / "manifest.json").read_text())
    (launch,) = manifest["launches"]
    assert dict(facts.run)["draws"] == "2 chains × 40 draws"  # noqa: RUF001
    assert dict(facts.run)["configuration SHA-256"] == manifest["config_sha256"]
    assert dict(facts.versions) == launch["versions"]
    assert dict(facts.settings)["sampler.step_size"] == "0.05"
    assert dict(facts.machine)["devices"] == f"{len(launch['devices'])} × {launch['devices'][0]}"  # noqa: RUF001
    assert dict(facts.launches[0])["time"] == launch["time"]


def test_the_commands_are_quoted_and_a_run_is_repeated_under_another_name(reported):
    manifest = json.loads((reported / "manifest.json").read_text())
    launch = manifest["launches"][0] | {"command": ["bayesnn", "run", "my file.py:wine", "--draws", "40"]}
    commands = dict(rows(reported, name="my run", manifest=manifest | {"launches": [launch]}).commands)
    assert commands["run again"] == "bayesnn run 'my file.py:wine' --draws 40 --name 'my run-again'"
    assert commands["resume"] == "bayesnn resume 'my run'"
    launch["command"] = ["bayesnn", "demo"]  # takes no name
    assert dict(rows(reported, manifest=manifest | {"launches": [launch]}).commands)["run again"] == "bayesnn demo"


@pytest.mark.slow
def test_trajectories_that_the_bound_cut_short_are_counted(reported):
    config, steps = RunFolder.open(reported).config, read_tree(RunFolder.open(reported))["sample_stats"]["num_gradients"].values
    at_bound = f"{100 * (steps >= steps.max()).mean():.3g} % are at that bound"

    def trajectories(sampler, thin=1):
        changed = config.model_copy(update={"sampler": sampler, "thin": thin})
        return dict(rows(reported, config=changed).sampler)["trajectories"]

    assert "none is cut short" in trajectories(HMC(max_num_steps=int(steps.max()) + 1))
    assert at_bound in trajectories(HMC(max_num_steps=int(steps.max())))
    assert "raise sampler.max-num-steps" in trajectories(HMC(max_num_steps=int(steps.max())))
    tried_again = trajectories(HMC(max_num_steps=int(steps.max()), delayed_rejection=True))  # of these draws none failed
    assert "a trajectory, of which there are up to three where one failed; " in tried_again
    assert at_bound.replace(" are", " of those that did not fail are") in tried_again
    assert at_bound in trajectories(DynamicHMC(max_num_steps=int(steps.max())))
    assert "1,023 allowed; none is cut short" in trajectories(NUTS(max_num_doublings=10))
    assert "2,000 allowed; none is cut short" in trajectories(AdjustedMCLMC(max_num_steps=1000))  # two gradients a step
    # Means over a draw's trajectories below the bound do not say that each was.
    assert "cut short" not in trajectories(HMC(max_num_steps=int(steps.max())), thin=2)


def test_trajectories_that_failed_are_left_out_of_those_cut_short(reported):
    """They are two or three, of which none says what the bound did."""
    gradients, errors = [[100.0, 60.0, 100.0, 300.0, 200.0]], [[0.1, -0.2, 3.0, 50.0, np.inf]]
    stats = xr.Dataset({"num_gradients": (("chain", "draw"), gradients), "energy_error": (("chain", "draw"), errors)})
    config = RunFolder.open(reported).config.model_copy(update={"sampler": HMC(max_num_steps=100, delayed_rejection=True)})
    [(_, words)] = _trajectories(xr.DataTree.from_dict({"sample_stats": stats}), config)
    assert "66.7 % of those that did not fail are at that bound" in words


def test_runs_of_another_posterior_are_named_with_what_differs(reported):
    facts = Facts.of(RunFolder.open(reported))
    colder = dataclasses.replace(facts, config=facts.config.model_copy(update={"temperature": 0.5}))
    longer = dataclasses.replace(facts, config=facts.config.model_copy(update={"draws": 80, "seed": 1}))
    assert other_posteriors({"HMC": facts, "cold": colder, "long": longer}) == [
        "cold samples another posterior: temperature is 0.5 instead of 1.0."
    ]


def test_report_refuses_a_run_on_other_data(reported, finished_copy):
    other = finished_copy.with_name("other")
    shutil.copytree(finished_copy, other)
    for store in other.glob("shards/*/draws.zarr/zarr.json"):
        root = json.loads(store.read_text())
        del root["attributes"]["digest"]  # as if it were another run's, not damage
        root["attributes"]["data_sha256"] = "0" * 64
        store.write_text(json.dumps(root))
    with pytest.raises(UsageError, match="runs on different data"):
        write_report(RunFolder.open(finished_copy), [RunFolder.open(other)])
    assert not (finished_copy / "report.html").exists()
