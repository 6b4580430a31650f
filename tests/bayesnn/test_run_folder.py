"""Damaged, edited, locked and foreign run folders: named and refused, never guessed at, and nothing made worse."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from bayesnn.errors import UsageError
from bayesnn.load import load_run, read_tree
from bayesnn.run_folder import RunFolder
from bayesnn.shard import Commit, Record, Shard, write_atomically
from diagnostics.standard import HEALTH
from tests.bayesnn.conftest import interrupt_in

SHARD = Path("shards/0-2")
STORE = SHARD / "draws.zarr"


def contents(folder):
    """Return all files but the lock and the manifest, which records that someone tried."""
    return {
        file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.name not in (".lock", "manifest.json")
    }


@pytest.fixture
def refused_resume(refused, halfway_copy):
    """Resume a damaged copy, which must be refused and left as it is; return the message."""

    def resume(*flags):
        before = contents(halfway_copy)
        message = refused("resume", halfway_copy, *flags)
        assert contents(halfway_copy) == before
        return message

    return resume


def flip(file, at=-1):
    """Change one bit."""
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-7])


def edit(file, **entries):
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


DAMAGES = {
    "config edited": (lambda run: edit(run / "config.json", seed=3), "config.json was changed since the run began"),
    "config truncated": (lambda run: truncate(run / "config.json"), "config.json is damaged"),
    "config gone": (lambda run: (run / "config.json").unlink(), "is no run folder: it has no config.json"),
    "config with an unknown key": (lambda run: edit(run / "config.json", sead=3), "unknown key sead; did you mean 'seed'?"),
    "manifest truncated": (lambda run: truncate(run / "manifest.json"), "manifest.json is damaged"),
    "manifest gone": (lambda run: (run / "manifest.json").unlink(), "it has no manifest.json"),
    "manifest without launches": (lambda run: edit(run / "manifest.json", launches=3), "manifest.json is damaged at launches"),
    "manifest a list": (lambda run: (run / "manifest.json").write_text("[]"), "manifest.json is damaged (no object)"),
    "commit truncated": (lambda run: truncate(run / SHARD / "commit.json"), "commit.json is missing, damaged or edited"),
    "commit gone": (lambda run: (run / SHARD / "commit.json").unlink(), "commit.json is missing, damaged or edited"),
    "commit edited": (
        lambda run: (run / SHARD / "commit.json").write_text(
            (run / SHARD / "commit.json").read_text().replace('"draws": ', '"draws": 1')
        ),
        "commit.json is missing, damaged or edited",
    ),
    "commit empty": (lambda run: (run / SHARD / "commit.json").write_text(""), "commit.json is missing, damaged or edited"),
    "checkpoint gone": (lambda run: shutil.rmtree(checkpoint(run)), "no checkpoint at"),
    "checkpoint truncated": (lambda run: truncate(largest(checkpoint(run))), "is damaged or incomplete"),
    "checkpoint with a flipped bit": (lambda run: flip(largest(checkpoint(run))), "is damaged or incomplete"),
    "block gone": (lambda run: block(run).unlink(), "has 0 bytes instead of"),
    "block torn": (lambda run: truncate(block(run)), "the draw store is damaged"),
    "array gone": (lambda run: shutil.rmtree(run / STORE / "posterior"), "the draw store is damaged"),
    "description edited": (lambda run: heat_up(run), "zarr.json in"),
    "array metadata truncated": (lambda run: truncate(run / STORE / "posterior/layer_0.bias/zarr.json"), "zarr.json"),
}


def heat_up(run):
    """Let the draws be of another temperature."""
    root = run / STORE / "zarr.json"
    text = root.read_text()
    assert '"temperature": 1.0' in text
    root.write_text(text.replace('"temperature": 1.0', '"temperature": 1.4'))


def checkpoint(run):
    return next((run / SHARD / "checkpoints").iterdir())


def largest(folder):
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def block(run):
    return run / STORE / "posterior/layer_0.kernel/c/0/0/0/0"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_not_continued(damage, halfway_copy, refused_resume):
    break_it, message = DAMAGES[damage]
    break_it(halfway_copy)
    assert message in refused_resume()


def test_an_undamaged_copy_is_continued(halfway_copy, cli):
    assert cli("resume", halfway_copy).status == 0


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: block(run).unlink(), "draws before 0 of posterior/layer_0.kernel are intact"),
        (lambda run: truncate(block(run)), "the draw store is damaged"),
        (lambda run: flip(block(run)), "the draw store"),
        (lambda run: truncate(run / STORE / "zarr.json"), "the draw store"),
        (lambda run: heat_up(run), "are not those that were written"),
        (lambda run: truncate(run / STORE / "posterior/zarr.json"), "the draw store"),
        (lambda run: truncate(run / STORE / "posterior/layer_0.bias/zarr.json"), "the draw store"),
        (lambda run: shutil.rmtree(run / STORE / "posterior/layer_0.bias"), "the draw store"),
        (lambda run: (run / STORE / "observed_data/y_test/c/0").unlink(), "the draw store"),
        (lambda run: shutil.rmtree(run / STORE), "the draw store"),
    ],
    ids=[
        "block gone",
        "block torn",
        "bit flipped",
        "root truncated",
        "root edited",
        "group truncated",
        "array truncated",
        "array gone",
        "labels gone",
        "store gone",
    ],
)
def test_damaged_draws_are_not_read(break_it, message, finished_copy, refused):
    break_it(finished_copy)
    assert message in refused("audit", finished_copy)
    assert not (finished_copy / "findings.json").exists()


def test_damaged_draws_are_not_used(finished_copy, refused, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 13)))
    flip(block(finished_copy))
    message = refused("predict", finished_copy, tmp_path / "x.npz", "--output", tmp_path / "p.npz")
    assert "the draw store" in message
    assert not (tmp_path / "p.npz").exists()


def test_status_is_for_people_and_is_written_anew(halfway_copy, cli):
    (halfway_copy / "status.json").write_text("{")
    assert cli("resume", halfway_copy).status == 0
    assert RunFolder(halfway_copy).status["state"] == "complete"


def test_a_truncated_findings_file_is_written_anew(finished_copy, cli):
    (finished_copy / "findings.json").write_text("[{")
    cli("audit", finished_copy)
    assert len(json.loads((finished_copy / "findings.json").read_text())) == len(HEALTH)


@pytest.mark.parametrize("command", ["resume", "audit", "report"])
def test_a_folder_that_is_no_run(command, refused, tmp_path):
    (tmp_path / "thesis").mkdir()
    assert "is no run folder: it has no config.json" in refused(command, tmp_path / "thesis")
    assert f"no folder {tmp_path / 'nowhere'}" in refused(command, tmp_path / "nowhere")


def test_a_run_that_is_named_without_its_folder_is_pointed_at(finished, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "runs" / "mine")
    assert refused("audit", "mine") == "no folder mine; did you mean runs/mine?"
    assert refused("audit", "mnie") == refused("audit", "mnie/") == "no folder mnie; did you mean runs/mine?"
    assert refused("audit", "runs/mnie") == "no folder runs/mnie; did you mean runs/mine?"
    assert refused("audit", "another") == "no folder another"
    assert refused("audit", "runs") == "runs is no run folder, it holds some: name one, such as runs/mine"


def test_two_processes_do_not_run_one_folder(refused_resume, halfway_copy):
    with (halfway_copy / SHARD / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert f"another process is running {halfway_copy}; wait for it, or stop it first" in refused_resume()


def test_what_a_kill_left_in_the_middle_of_a_write_is_removed(halfway_copy, cli):
    leftovers = [halfway_copy / ".status.json.1.tmp", halfway_copy / SHARD / ".commit.json.1.tmp"]
    for leftover in leftovers:
        leftover.write_text("{")
    (halfway_copy / SHARD / "checkpoints" / "000000000049").mkdir()
    assert cli("resume", halfway_copy).status == 0
    assert not any(leftover.exists() for leftover in leftovers)
    assert [path.name for path in (halfway_copy / SHARD / "checkpoints").iterdir()] == ["000000000050"]


def test_draws_beyond_the_commit_do_not_count(halfway_copy, finished, cli):
    """As a kill between draws and commit leaves them: here with the draws of another run."""
    commit = RunFolder(halfway_copy).shards()[0].read_commit()
    path = halfway_copy / STORE / "posterior/layer_0.kernel/c/0/19/0/0"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(block(finished).stat().st_size))
    assert load_run(halfway_copy).tree["posterior"].sizes["draw"] == commit.draws
    assert cli("resume", halfway_copy).status == 0
    assert load_run(halfway_copy).tree["posterior"].equals(load_run(finished).tree["posterior"])


def test_a_run_without_draws_is_not_audited(finished_copy, refused):
    folder = RunFolder(finished_copy)
    shard = folder.shards()[0]
    commit = shard.read_commit().model_copy(update={"draws": 0})
    write_atomically(shard.path / "commit.json", Record.of(commit).model_dump_json())
    message = f"has no committed draws yet; continue it with: bayesnn resume {finished_copy}"
    assert message in refused("audit", finished_copy)
    with pytest.raises(UsageError, match="no committed draws"):
        read_tree(folder)


def test_an_unknown_claim_is_named(refused, finished):
    assert "unknown claim 'finit'; did you mean 'finite'?" in refused("audit", finished, "--claims", "finit")


def test_changed_code_is_refused_unless_accepted_and_then_recorded(tmp_path, own, cli, refused):
    source = Path(own("").removesuffix(":")).read_text()
    mine = tmp_path / "mine.py"
    mine.write_text(source)
    assert cli("run", f"{mine}:gaussian", "--runs", tmp_path, "--draws", "2").status == 0
    run = tmp_path / "gaussian"
    assert (run / "source" / "mine.py").read_text() == source
    folder = RunFolder(run)
    assert set(folder.manifest["sources"]) == {f"{mine}:gaussian", f"{mine}:standard_normal"}
    mine.write_text(source + "# a remark\n")
    with pytest.raises(UsageError, match="--accept-changed-code"):
        folder.check_sources()
    assert folder.check_sources(accept_changed_code=True) == [f"{mine}:gaussian", f"{mine}:standard_normal"]
    mine.unlink()
    with pytest.raises(UsageError, match=r"cannot read .*mine.py: No such file"):
        folder.check_sources()


def test_resume_refuses_and_accepts_changed_code(tmp_path, own, cli, refused, monkeypatch):
    source = Path(own("").removesuffix(":")).read_text()
    mine = tmp_path / "mine.py"
    mine.write_text(source)
    with monkeypatch.context() as patch:
        interrupt_in(patch, "sampling", 9)
        assert cli("run", f"{mine}:gaussian", "--runs", tmp_path).status == 130
    mine.write_text(source + "# a remark\n")
    run = tmp_path / "gaussian"
    message = refused("resume", run)
    assert f"{mine}:gaussian" in message
    assert f"a copy is in {run / 'source'}" in message
    monkeypatch.chdir(tmp_path)  # and from anywhere
    status, _, err = cli("resume", "gaussian", "--accept-changed-code")
    assert status == 0
    assert f"accepted: {mine}:gaussian" in err
    assert RunFolder(run).manifest["launches"][1]["differences"] == [
        f"accepted: {mine}:gaussian",
        f"accepted: {mine}:standard_normal",
    ]


def test_a_run_that_cannot_be_written_leaves_nothing(tmp_path, own, refused, monkeypatch):
    """A disk that is full at the first commit."""

    def full(path, text):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("bayesnn.shard.write_atomically", full)
    assert "No space left on device" in refused("run", own("gaussian"), "--runs", tmp_path)
    assert not list(tmp_path.iterdir())


def test_runs_below_a_file_or_where_nothing_may_be_written(tmp_path, own, refused):
    (tmp_path / "file").write_text("")
    assert f"cannot read or write {tmp_path / 'file'}" in refused("run", own("gaussian"), "--runs", tmp_path / "file")


def test_readers_see_the_old_file_or_the_new_one(tmp_path):
    path, texts = tmp_path / "record", ["a" * 100_000, "b" * 100_000]
    write_atomically(path, texts[0])
    done, seen = threading.Event(), set()

    def read():
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(50):
        write_atomically(path, texts[i % 2])
    done.set()
    reader.join()
    assert seen <= set(texts)
    assert os.listdir(tmp_path) == ["record"]


@pytest.fixture
def damaged(tmp_path):
    """Return a shard with two of eight draws, one bit of which is flipped, and two more draws."""
    shard, draws = Shard(tmp_path / "0-2"), {"posterior/x": np.ones((2, 2, 3), np.float32)}
    store = shard.draws
    store.create(2, 8, 4, {"posterior/x": ((3,), np.float32)}, {}, {})
    store.write(0, draws)
    np.testing.assert_array_equal(store.read("posterior/x", 2), draws["posterior/x"])
    flip(store.path / "posterior/x/c/0/0/0")
    return shard, draws


def damage():
    return pytest.raises(UsageError, match="the draw store is damaged: DATA_LOSS")


def test_a_flipped_bit_in_a_block_that_is_written_on_is_told(damaged):
    store, draws = damaged[0].draws, damaged[1]
    store.write(2, draws)
    with damage():
        store.flush()
    store.write(2, draws)
    with damage():  # what was begun before
        store.write(4, draws)
    with damage():
        store.read("posterior/x", 2)


def test_no_commit_goes_before_its_draws(damaged):
    shard, draws = damaged
    shard.draws.write(2, draws)
    with damage():
        shard.commit(Commit(phase=1, step=4, draws=4), None)  # it does not come to the state
    assert [file.name for file in shard.path.iterdir()] == ["draws.zarr"]
