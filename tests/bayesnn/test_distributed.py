"""One run in several processes: the bits of one process, decisions alike, and an end with a clear message when one dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from bayesnn import distributed
from bayesnn.build import build_method, build_problem
from bayesnn.errors import UsageError
from bayesnn.load import read_tree
from bayesnn.run_folder import RunFolder
from samplers import make_mesh, start
from tests.bayesnn.conftest import EXPERIMENTS, command
from tests.bayesnn.experiments import SHORT

WINE = f"{EXPERIMENTS}:wine"
SECONDS = 120  # a process that has not ended by then hangs
# What schedulers tell their processes, as JAX reads it; `job` decides about the port.
SCHEDULERS = {
    "Slurm": {
        "SLURM_JOB_ID": "{job}",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "{number}",
        "SLURM_LOCALID": "{number}",
    },
    "Open MPI 4": {
        "OMPI_VERSION": "4.1.4",
        "OMPI_MCA_orte_hnp_uri": "{job}000.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "{number}",
        "OMPI_COMM_WORLD_LOCAL_RANK": "{number}",
    },
}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def two_processes(*words, signals=(), victim=1, scheduler=None):
    """Run a command line in two processes of one device each; return exit statuses and what they wrote to stderr.

    `signals` are what the process `victim` sends itself: signal, method, number of the call after which. A `scheduler` tells the
    processes where they find each other; otherwise the command line does.
    """
    told = SCHEDULERS.get(scheduler, {})
    port = free_port()
    running = []
    for number in range(2):
        environment = {name: text.format(job=os.getpid(), number=number) for name, text in told.items()}
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"} | environment
        explicit = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", "--process-id", str(number)]
        name, method, call = signals if signals and number == victim else ("SIGTERM", "load", 0)
        program = [sys.executable, "-m", "tests.bayesnn.signalled", name, method, str(call)]
        own_words = [*map(str, words), "--distributed", *([] if told else explicit)]
        running.append(
            subprocess.Popen(
                [*program, *own_words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        )
    try:
        said = [process.communicate(timeout=SECONDS)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    return [process.returncode for process in running], said


def run_words(path, *more):
    return ["run", WINE, "--name", path.name, "--runs", path.parent, "--data-blocks", "2", *more]


def assert_same_draws(path, expected):
    tree, wanted = read_tree(RunFolder(path)), read_tree(RunFolder(expected))
    for group in ("posterior", "functions", "sample_stats"):
        for name, values in wanted[group].data_vars.items():
            np.testing.assert_array_equal(tree[group][name].values, values.values, err_msg=name)


def chains_in_files(path):
    """Return how many chains share a file of draws, by array."""
    (shard,) = RunFolder(path).shards()
    arrays = [json.loads(file.read_text()) for file in shard.draws.path.glob("*/*/zarr.json")]
    return {
        array["chunk_grid"]["configuration"]["chunk_shape"][0] for array in arrays if array["dimension_names"][:1] == ["chain"]
    }


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_chains_over_processes_one_of_which_is_killed(victim, tmp_path):
    """The other ends with a message; one process alone brings the run to the bits of one that never had a second."""
    path = tmp_path / "two"
    statuses, messages = two_processes(*run_words(path), signals=("SIGKILL", "write", 9), victim=victim)
    status, message = statuses[1 - victim], messages[1 - victim]
    assert statuses[victim] == -signal.SIGKILL
    if status == -signal.SIGABRT:  # with process 0 dies JAX's coordinator, which may be noticed before the next message fails
        assert victim == 0
        assert "another task died" in message
    else:
        assert status == 2, message
        assert "another process of this run ended or cannot be reached" in message
    folder = RunFolder(path)
    commit = folder.shards()[0].read_commit()
    assert 0 < commit.draws < 40
    assert len(list(folder.shards()[0].path.glob("checkpoints/*/*.npz"))) == 2  # a part by each process
    assert folder.manifest["launches"][0]["processes"] == 2
    assert chains_in_files(path) == {1}  # of two
    assert command("resume", path) == 0
    assert command(*run_words(tmp_path / "one")) == 0
    assert_same_draws(path, tmp_path / "one")
    assert commit.gradients > 0
    one, two = (RunFolder(p).shards()[0].read_commit() for p in (tmp_path / "one", path))
    assert one.gradients == two.gradients  # of all chains, whoever counted them


@pytest.mark.slow
def test_processes_that_stop_early_do_so_at_the_draw_of_one(tmp_path):
    """The first process decides for all; the others' draws are on disk when it looks."""
    stop = ["--draws", "400", "--stop.ess", "60", "--stop.rhat", "1.1"]
    statuses, said = two_processes(*run_words(tmp_path / "two", *stop))
    assert statuses == [0, 0], said
    assert command(*run_words(tmp_path / "one", *stop)) == 0
    assert 0 < RunFolder(tmp_path / "two").shards()[0].read_commit().draws < 400
    assert_same_draws(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_two_processes_go_on_with_a_run_of_one(halfway_copy, finished):
    """Whose files hold both chains, so that the two take turns."""
    assert chains_in_files(halfway_copy) == {2}
    statuses, said = two_processes("resume", halfway_copy)
    assert statuses == [0, 0], said
    assert_same_draws(halfway_copy, finished)


@pytest.mark.slow
def test_data_of_a_chain_over_processes_and_a_signal_to_one(tmp_path):
    """Both stop with a commit when one gets SIGTERM, and go on together from there."""
    path, one_chain = tmp_path / "two", ["--chains", "1"]
    statuses, said = two_processes(*run_words(path, *one_chain), signals=("SIGTERM", "load", 1))
    assert statuses == [130, 130], said
    assert not RunFolder(path).shards()[0].read_commit().is_complete
    statuses, said = two_processes("resume", path)
    assert statuses == [0, 0], said
    assert command(*run_words(tmp_path / "one", *one_chain)) == 0
    assert_same_draws(path, tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_processes_find_each_other_by_what_a_scheduler_tells_them(scheduler, tmp_path):
    statuses, said = two_processes(*run_words(tmp_path / "two"), scheduler=scheduler)
    assert statuses == [0, 0], said
    assert RunFolder(tmp_path / "two").manifest["launches"][0]["processes"] == 2


@pytest.mark.parametrize(("chain", "data"), [(1, 2), (2, 2), (3, 1), (3, 2)])
def test_a_gradient_has_its_bits_on_every_mesh(chain, data):
    """Three chains, two data blocks; a lone block of a device that has several chains once had bits of its own."""
    problem = build_problem(SHORT.model_copy(update={"data_blocks": 2}))
    kernel, key = build_method(SHORT, problem).first_kernel, jax.random.key(0)
    positions = problem.init(key, 3, "prior")

    def begun(chain, data):
        mesh = make_mesh(chain, data=data, devices=jax.devices()[: chain * data])
        return jax.tree.leaves(start(key, kernel, positions, problem.batch, mesh=mesh).state)

    for x, y in zip(begun(1, 1), begun(chain, data), strict=True):
        np.testing.assert_array_equal(x, y)


SHARES = """
import sys
from bayesnn import distributed
distributed.join(f"127.0.0.1:{sys.argv[1]}", 2, int(sys.argv[2]))
from bayesnn.build import build_problem
from bayesnn.launch import data_mesh
from tests.bayesnn.experiments import SHORT
config = SHORT.model_copy(update={"data_blocks": 2, "chains": 1})
problem = build_problem(config, data_mesh(config, 1))
held = [x for part in (problem.batch, problem.save.arrays.batch) for x in (part.weight, *part.data)]
print(*{sum(part.data.shape[0] for part in x.addressable_shards) / x.shape[0] for x in held})
"""


@pytest.mark.slow
def test_processes_that_share_data_hold_no_more_than_their_share():
    port, environment = str(free_port()), os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    running = [
        subprocess.Popen([sys.executable, "-c", SHARES, port, str(number)], env=environment, stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    try:
        assert [process.communicate(timeout=SECONDS)[0].split() for process in running] == [["0.5"], ["0.5"]]
    finally:
        for process in running:
            process.kill()


def test_a_process_without_work_is_refused():
    devices = [SimpleNamespace(process_index=process, id=10 * process + place) for process in range(3) for place in range(2)]
    with pytest.raises(ValueError, match="3 processes have work for 2 devices only: start fewer processes"):
        make_mesh(2, devices=devices)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--distributed", "--coordinator", "127.0.0.1:1"], "--num-processes and --process-id must be given too"),
        (["--process-id", "1"], "need --distributed"),
        (
            ["--distributed", "--coordinator", "nowhere", "--num-processes", "2", "--process-id", "0"],
            "--coordinator must be HOST:PORT, got nowhere",
        ),
    ],
)
def test_incomplete_addresses_are_refused(words, message, tmp_path, refused):
    assert message in refused("run", WINE, "--runs", tmp_path, *words)
    assert not list(tmp_path.iterdir())


def test_alone_the_first_process_does_it():
    assert distributed.on_first(lambda: {"chains": [1, 2]}) == {"chains": [1, 2]}

    def fail():
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        distributed.on_first(fail)
