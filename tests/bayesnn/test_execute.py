"""Runs to their end and through interrupts: the same draws, whatever came between."""

from __future__ import annotations

import json
from importlib import metadata

import numpy as np
import pytest
import xarray as xr

from bayesnn import manifest
from bayesnn.load import load_run
from bayesnn.run_folder import RunFolder
from tests.bayesnn.conftest import interrupt_in


def trees_are_equal(first, second):
    """Compare every array of two folders' draw stores, bit for bit."""
    a, b = (xr.open_datatree(path / "shards/0-2/draws.zarr", engine="zarr", consolidated=False) for path in (first, second))
    assert set(a.groups) == set(b.groups)
    for group in a.groups:
        assert set(a[group].data_vars) == set(b[group].data_vars)
        for name, values in a[group].data_vars.items():
            assert values.values.tobytes() == b[group][name].values.tobytes(), f"{group}/{name}"
    return True


def commit_of(path):
    return RunFolder(path).shards()[0].read_commit()


def test_a_complete_run_says_so(finished):
    status = json.loads((finished / "status.json").read_text())
    assert (status["state"], status["draws"], status["step"], status["chains"]) == ("complete", 40, 50, 2)
    assert status["gradients"] == load_run(finished).tree["sample_stats"]["num_gradients"].sum()
    assert len((finished / "metrics.jsonl").read_text().splitlines()) >= 2  # the end of warm-up and of sampling
    assert not list(finished.rglob("*.tmp"))


def test_an_interrupted_run_keeps_its_draws_and_says_how_to_go_on(halfway):
    assert RunFolder(halfway).status["state"] == "interrupted"
    assert 0 < commit_of(halfway).draws < 40


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["warm-up", "sampling"])
def test_resumed_draws_are_those_of_an_uninterrupted_run(phase, finished_copy, tmp_path, own, cli, monkeypatch):
    path = tmp_path / "again"
    with monkeypatch.context() as patch:
        interrupt_in(patch, phase, 3)
        status, out, _ = cli("run", own("wine"), "--name", path.name, "--runs", path.parent)
    assert status == 130
    assert f"continue with: bayesnn resume {path}" in out
    before = commit_of(path)
    assert before.phase == (phase == "sampling")
    status, out, err = cli("resume", path)
    assert (status, err) == (0, "")
    assert trees_are_equal(finished_copy, path)
    assert RunFolder(path).status["state"] == "complete"
    for folder in (path, finished_copy):
        cli("audit", folder)
    assert (path / "findings.json").read_bytes() == (finished_copy / "findings.json").read_bytes()


def test_resuming_a_complete_run_does_nothing_and_says_so(finished_copy, cli):
    before = {file: file.read_bytes() for file in finished_copy.rglob("*") if file.is_file()}
    status, out, err = cli("resume", finished_copy)
    assert (status, err) == (0, "")
    assert "is complete: 40 draws of 2 chains" in out
    assert {file: file.read_bytes() for file in before} == before


def test_a_run_killed_after_its_last_commit_becomes_complete(finished_copy, cli):
    folder = RunFolder(finished_copy)
    folder.write_status(folder.shards()[0], "running", commit_of(finished_copy))
    assert cli("resume", finished_copy).status == 0
    assert folder.status["state"] == "complete"


def test_a_commit_names_draws_and_state_that_are_on_disk(halfway):
    shard, commit = RunFolder(halfway).shards()[0], commit_of(halfway)
    shard.draws.check(commit.draws)
    assert [path.name for path in (shard.path / "checkpoints").iterdir()] == [commit.checkpoint]
    assert commit.step == 10 + commit.draws


def test_the_command_that_began_a_run_continues_it(halfway_copy, finished, own, cli, refused):
    words = ["run", own("wine"), "--runs", halfway_copy.parent, "--resume-if-exists"]
    assert "has another configuration" in refused(*words, "--seed", "3")
    for _ in range(2):
        assert cli(*words).status == 0
        assert trees_are_equal(finished, halfway_copy)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["nuts", "sgld", "optimise"])
def test_every_sampler_resumes_bit_for_bit(sampler, tmp_path, own, cli, monkeypatch):
    settings = {
        "nuts": ["--draws", "20"],
        "sgld": ["--draws", "20", "--sampler.batch-size", "16"],
        "optimise": ["--draws", "1", "--thin", "5", "--sampler.batch-size", "16"],
    }
    words = ["run", own("wine"), "--runs", tmp_path, "--sampler", sampler, *settings[sampler]]
    assert cli(*words, "--name", "whole").status == 0
    with monkeypatch.context() as patch:
        interrupt_in(patch, "warm-up" if sampler == "optimise" else "sampling", 3)
        assert cli(*words, "--name", "parts").status == 130
    assert cli("resume", tmp_path / "parts").status == 0
    assert trees_are_equal(tmp_path / "whole", tmp_path / "parts")


def test_resuming_with_other_versions_warns_and_records(halfway_copy, cli, monkeypatch):
    versions = manifest.versions() | {"jax": "0.0.1"}
    monkeypatch.setattr(manifest, "versions", lambda: versions)
    status, _, err = cli("resume", halfway_copy)
    assert status == 0
    assert f"jax {metadata.version('jax')} -> 0.0.1 (recorded)" in err
    first, second = RunFolder.open(halfway_copy).manifest["launches"]
    assert first["differences"] == []
    assert second["differences"] == [f"jax {metadata.version('jax')} -> 0.0.1"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [["--precision", "float64"], ["--seed", "7"]], ids=str)
def test_settings_of_a_run_reach_its_draws(settings, finished, tmp_path, own, cli):
    assert cli("run", own("wine"), "--runs", tmp_path, *settings).status == 0
    draws, reference = (load_run(path).tree["posterior"]["layer_0.kernel"] for path in (tmp_path / "wine", finished))
    assert draws.dtype == (np.float64 if "float64" in settings else np.float32)
    assert draws.shape == reference.shape
    assert not np.array_equal(draws, reference)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", "school"])
def test_a_density_runs_resumes_and_is_audited(name, tmp_path, own, cli, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_in(patch, "sampling", 9)
        assert cli("run", own(name), "--runs", tmp_path).status == 130
    assert cli("resume", tmp_path / name).status == 0
    status, out, err = cli("audit", tmp_path / name)
    assert status == 1  # 40 draws settle nothing
    assert err == ""
    assert "fail" not in out


@pytest.mark.slow
def test_one_chain_that_is_lost_is_named_and_the_others_go_on(tmp_path, own, cli):
    start = tmp_path / "start.npz"
    far = np.stack([np.zeros((1, 4), np.float32), np.full((1, 4), 1e18, np.float32)])
    others = {"layer_0.bias": (2, 4), "layer_1.kernel": (2, 4, 1), "layer_1.bias": (2, 1), "noise.log_scale": (2,)}
    np.savez(start, **{"layer_0.kernel": far}, **{name: np.zeros(shape, np.float32) for name, shape in others.items()})
    settings = ["--model.activation", "relu", "--sampler.step-size", "1e-3", "--start", start]
    status, out, _ = cli("run", own("regression"), "--runs", tmp_path, *settings)
    assert status == 0
    assert "warning: chain 1 left the finite numbers. Do not use these draws" in out
    commit = commit_of(tmp_path / "regression")
    assert commit.num_nonfinite[0] == 0
    assert commit.num_nonfinite[1] > 0
    assert np.isfinite(load_run(tmp_path / "regression").tree["posterior"]["layer_0.kernel"].values[0]).all()
    status, out, _ = cli("audit", tmp_path / "regression", "--claims", "finite")
    assert status == 1
    assert "fail" in out
    assert "chain 1" in out


@pytest.mark.slow
def test_a_step_size_far_too_large_ends_in_a_warning_and_a_failed_audit(tmp_path, own, cli):
    settings = ["--warmup.steps", "0", "--sampler.step-size", "5"]
    status, out, err = cli("run", own("wine"), "--runs", tmp_path, *settings)
    assert (status, err) == (0, "")
    assert "warning: chains 0, 1 diverged on the way to 100% of the draws" in out
    assert min(commit_of(tmp_path / "wine").num_divergent) > 0
    status, out, err = cli("audit", tmp_path / "wine")
    assert (status, err) == (1, "")
    assert "fail" in out
