"""Jobs that add chains to one run: distinct chains, the bits of one wide run, one status, one audit."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bayesnn import launch
from bayesnn.load import load_run, read_tree
from bayesnn.reference import bundle_of
from bayesnn.run_folder import RunFolder
from bayesnn.shard import Record, write_atomically
from tests.bayesnn.conftest import EXPERIMENTS, command, interrupt_in

WINE = f"{EXPERIMENTS}:wine"


def words_of(path, *more):
    return ["run", WINE, "--name", path.name, "--runs", str(path.parent), *more]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Six chains in one job."""
    path = tmp_path_factory.mktemp("wide") / "run"
    assert command(*words_of(path, "--chains", "6")) == 0
    return load_run(path).tree


@pytest.mark.slow
def test_added_chains_have_the_bits_of_one_wide_run(wide, finished_copy, cli):
    """Two jobs after the first, of two chains and of one, and a sixth chain through an interrupt."""
    for chains in (2, 1):
        assert cli(*words_of(finished_copy, "--add-chains", "--chains", chains)).status == 0
    with pytest.MonkeyPatch.context() as monkeypatch:
        interrupt_in(monkeypatch, "sampling", 9)
        assert cli(*words_of(finished_copy, "--add-chains", "--chains", "1")).status == 130
    folder = RunFolder(finished_copy)
    assert [(shard.first_chain, shard.num_chains) for shard in folder.shards()] == [(0, 2), (2, 2), (4, 1), (5, 1)]
    assert (folder.status["state"], folder.status["chains"]) == ("interrupted", 6)
    assert read_tree(folder)["posterior"].sizes["draw"] < 40  # as far as all chains are
    assert cli("resume", finished_copy).status == 0
    assert (folder.status["state"], folder.status["draws"]) == ("complete", 40)
    assert "is complete: 40 draws of 6 chains" in cli("resume", finished_copy).out
    tree = read_tree(folder)
    assert tree["posterior"]["chain"].values.tolist() == list(range(6))
    for group in ("posterior", "functions", "sample_stats"):
        for name, values in wide[group].data_vars.items():
            np.testing.assert_array_equal(values.values, tree[group][name].values, err_msg=name)
    assert cli("audit", finished_copy).status in (0, 1)
    assert len(folder.manifest["launches"]) == 5


def test_the_chains_of_other_seeds_are_not_added(finished_copy, refused):
    assert "has another configuration" in refused(*words_of(finished_copy, "--add-chains", "--seed", "9"))


def test_a_first_job_makes_the_folder(tmp_path, cli):
    assert cli(*words_of(tmp_path / "run", "--add-chains", "--draws", "3")).status == 0
    assert [shard.first_chain for shard in RunFolder(tmp_path / "run").shards()] == [0]


def test_a_restarted_job_continues_what_nobody_runs(halfway_copy, cli):
    """The same command with both flags: first the unfinished chains, then new ones, but none that another job runs."""
    folder, both = RunFolder(halfway_copy), ("--add-chains", "--resume-if-exists")
    with (folder.shards()[0].path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert cli(*words_of(halfway_copy, *both)).status == 0
    assert [shard.read_commit().draws == 40 for shard in folder.shards()] == [False, True]
    assert cli(*words_of(halfway_copy, *both)).status == 0
    assert [shard.read_commit().draws for shard in folder.shards()] == [40, 40]


def test_jobs_that_are_restarted_together_share_the_unfinished_chains(halfway_copy, cli, refused, monkeypatch):
    """Each has looked before the other has begun: who comes late goes on to the chains that nobody runs."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt_in(patch, "sampling", 9)
        assert cli(*words_of(halfway_copy, "--add-chains", "--chains", "1")).status == 130
    folder = RunFolder(halfway_copy)
    names = [shard.path.name for shard in folder.shards()]
    monkeypatch.setattr(launch, "_free", lambda folder: names)
    with (folder.shards()[0].path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert cli("resume", halfway_copy).status == 0
        assert [shard.read_commit().is_complete for shard in folder.shards()] == [False, True]
        names.pop()
        assert f"other processes are running {halfway_copy}" in refused("resume", halfway_copy)


def test_claims_never_overlap(finished_copy):
    folder = RunFolder(finished_copy)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(folder.claim, [1, 2, 3] * 4))
    taken = [chain for shard in claims for chain in range(shard.first_chain, shard.first_chain + shard.num_chains)]
    assert sorted(taken) == list(range(2, 2 + 24))
    assert len(folder.shards()) == 1  # a claim is no shard before it has begun


def test_a_kill_before_a_shard_has_begun_harms_nothing(finished_copy, cli):
    folder = RunFolder(finished_copy)
    claimed = folder.claim(2)
    (claimed.path / "checkpoints").mkdir()  # as far as it had come
    assert "is complete: 40 draws of 2 chains" in cli("resume", finished_copy).out
    assert cli(*words_of(finished_copy, "--add-chains")).status == 0
    assert [shard.first_chain for shard in folder.shards()] == [0, 4]


def test_a_look_whether_chains_are_run_turns_nobody_away(finished_copy):
    """A job that looks holds the lock for an instant, in which another may want to run the chains."""
    shard, is_over = RunFolder(finished_copy).shards()[0], threading.Event()

    def look():
        while not is_over.wait(0.0005):
            assert shard.is_locked in (True, False)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(300):
            with shard.lock():
                assert shard.is_locked
    finally:
        is_over.set()
        looking.join()
    assert not shard.is_locked


def test_a_look_removes_nothing(finished_copy):
    shard = RunFolder(finished_copy).shards()[0]
    leftover = shard.path / ".status.json.1.tmp"
    leftover.write_text("{")  # of a job that is about to rename it
    assert not shard.is_locked
    assert leftover.exists()


def test_a_job_of_another_machine_with_the_same_process_number_is_left_alone(tmp_path, cli):
    """In containers process numbers are small, and on a shared disk two jobs may begin one run at the same time."""
    draft = tmp_path / f".run.{os.getpid()}.tmp"
    draft.mkdir()
    assert cli(*words_of(tmp_path / "run", "--draws", "3")).status == 0
    assert draft.exists()


@pytest.mark.slow
def test_three_jobs_at_once(tmp_path):
    """Processes that begin together: the quickest makes the folder, the others add to it."""
    path = tmp_path / "run"
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2"}

    def job(*more):
        return subprocess.Popen(
            [sys.executable, "-m", "bayesnn.cli", *words_of(path, *more)], env=environment, stdout=subprocess.DEVNULL
        )

    assert [job.wait() for job in [job("--add-chains") for _ in range(3)]] == [0, 0, 0]
    status = json.loads((path / "status.json").read_text())
    assert (status["state"], status["chains"]) == ("complete", 6)
    tree = load_run(path).tree
    first = tree["posterior"]["layer_0.bias"].values[:, 0]
    assert len(np.unique(first, axis=0)) == 6  # no two chains alike


def test_draws_that_only_some_chains_have_are_told(finished_copy, cli):
    """As two jobs leave them that `--stop` ended at 40 and at 30 draws."""
    shutil.copytree(finished_copy / "shards/0-2", finished_copy / "shards/2-2")
    folder = RunFolder(finished_copy)
    assert read_tree(folder).attrs["left_out"] == ""
    shard = folder.shards()[1]
    commit = shard.read_commit().model_copy(update={"draws": 30})
    write_atomically(shard.path / "commit.json", Record.of(commit).model_dump_json())
    told = "chains have 30 to 40 draws, and the first 30 of each are read: 20 of 140 draws are left out"
    tree = read_tree(folder)
    assert dict(tree["posterior"].sizes)["draw"] == 30
    assert tree.attrs["left_out"].startswith(told)
    assert f"{folder.path}: {told}" in " ".join(cli("audit", finished_copy).out.split())
    assert cli("report", finished_copy).status == 0
    assert told.capitalize() in (finished_copy / "report.html").read_text()
    assert bundle_of(load_run(finished_copy)).facts["notes"] == [tree.attrs["left_out"]]
