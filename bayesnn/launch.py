"""Starting, continuing and widening runs: what `bayesnn run` and `bayesnn resume` do, in one process or several."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bayesnn import distributed, manifest
from bayesnn.config import APPROXIMATIONS, Imported, RunConfig
from bayesnn.errors import UsageError
from bayesnn.imports import is_import_path, source_of
from bayesnn.interrupts import INTERRUPTED, uninterrupted
from bayesnn.run_folder import FolderExistsError, RunFolder
from bayesnn.shard import Shard, TakenError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from bayesnn.manifest import Launch
    from bayesnn.problem import Problem


def prepare(threads: int | None = None) -> None:
    """Set JAX up, before it is imported: a device a core, a compilation cache on disk. Once it is imported, do nothing.

    Args:
        threads: Size of the CPU thread pool of the run that is continued: with another size, last bits of draws differ.
    """
    if "jax" in sys.modules:  # it may have begun with other settings, and a manifest must not say that it had these
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bayesnn" / "xla"
    defaults = {
        "JAX_NUM_CPU_DEVICES": str(manifest.num_cores()),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    } | ({"PJRT_NPROC": str(threads)} if threads else {})
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def cpu_threads(path: Path) -> int | None:
    """Return the size of the CPU thread pool with which the run in a folder began; None where there is no folder yet."""
    return RunFolder.open(path).manifest["launches"][0]["cpu_threads"] if path.exists() else None


def run_path(experiment: str, name: str, runs: Path) -> Path:
    """Return the folder of a run: by default it has the name of its experiment, or of the experiment's function."""
    if is_import_path(experiment):
        experiment = experiment.rpartition(":")[2].replace("_", "-")
    return runs / (name or experiment)


def run(
    experiment: str,
    config: RunConfig,
    name: str,
    runs: Path,
    *,
    resume_if_exists: bool = False,
    add_chains: bool = False,
) -> int:
    """Sample an experiment into a new folder; or continue, or widen, the one that the same command began."""
    path = run_path(experiment, name, runs)
    if not distributed.on_first(path.exists):  # one answer for all processes: the first may be about to make it
        try:
            state = sample_into(path, experiment, config)
            if state == "complete":
                console().print(f"{path} is complete; judge it with: bayesnn audit {path}", markup=False, soft_wrap=True)
            return exit_status(state)
        except (FolderExistsError, TakenError):  # another job was quicker to make the folder, or to run what is in it
            pass
    if not (resume_if_exists or add_chains):
        RunFolder.refuse_existing(path)
    folder = RunFolder.open(path)
    if folder.config != config.model_copy(update={"chains": folder.config.chains} if add_chains else {}):
        raise UsageError(f"{path} has another configuration, so this command cannot continue it: choose another --name")

    def is_to_resume() -> bool:
        return resume_if_exists and (not add_chains or any(not shard.is_locked for shard in folder.unfinished()))

    return resume(folder) if distributed.on_first(is_to_resume) else widen(folder, config)


def sample_into(path: Path, experiment: str, config: RunConfig) -> str:
    """Make a run folder and bring the run to its end; return its state."""
    from bayesnn.build import build_method, build_problem
    from bayesnn.execute import begin, execute
    from bayesnn.progress import Reporter

    folder, sources = RunFolder(path), _sources(experiment, config)
    problem = build_problem(config, data_mesh(config, config.chains))
    method = build_method(config, problem)
    begun = begin(config, problem, method)
    facts = {
        "experiment": experiment,
        "sources": {name: digest for name, (_, digest) in sources.items()},
        "problem": problem.description,
        "launches": [manifest.launch()],
    }

    def create() -> None:
        with uninterrupted():
            RunFolder.create(path, config, facts, _copies(sources), begun)

    distributed.on_first(create)
    return execute(folder, folder.shards()[0], problem, method, Reporter(str(path), console()))


def resume(folder: RunFolder, *, accept_changed_code: bool = False, join: Callable[[], None] | None = None) -> int:
    """Continue a run from its last commits: all its chains that are unfinished and that no other job runs.

    Args:
        folder: The run.
        accept_changed_code: Go on although the experiment's source has changed.
        join: Joins the other processes of this job, before JAX begins to work.
    """
    prepare(cpu_threads(folder.path))
    if join is not None:
        join()
    names = distributed.on_first(lambda: _free(folder))
    if not names:
        num_chains = sum(shard.num_chains for shard in folder.shards())
        draws = min(shard.read_commit().draws for shard in folder.shards())
        console().print(f"{folder.path} is complete: {draws} draws of {num_chains} chains", markup=False, soft_wrap=True)
        return 0
    shards = [shard for shard in folder.shards() if shard.path.name in names]
    problem, launch = _describe(folder, shards[0].num_chains, accept_changed_code=accept_changed_code)
    from bayesnn.build import build_method, build_problem
    from bayesnn.execute import execute
    from bayesnn.progress import Reporter

    distributed.on_first(lambda: folder.add_launch(launch))
    mesh, num_run = data_mesh(folder.config, shards[0].num_chains), 0
    for shard in shards:
        if (own_mesh := data_mesh(folder.config, shard.num_chains)) != mesh:
            problem, mesh = build_problem(folder.config, own_mesh), own_mesh
        name = str(folder.path) if len(folder.shards()) == 1 else str(shard.path)
        try:
            state = execute(folder, shard, problem, build_method(folder.config, problem), Reporter(name, console()))
        except TakenError:  # since this job looked, by one that was restarted at the same time
            continue
        num_run += 1
        if state != "complete":
            return exit_status(state)
    if not num_run:
        raise TakenError(f"other processes are running {folder.path}; wait for them, or stop them first")
    return 0


def _free(folder: RunFolder) -> list[str]:
    """Return the names of the shards that can be continued, none if all are complete.

    Raises:
        UsageError: Other jobs run all that are not complete.
    """
    unfinished = folder.unfinished()
    if not unfinished:
        for shard in folder.shards():
            folder.write_status(shard, "complete", shard.read_commit())  # a kill after the last commit left it at "running"
        return []
    free = [shard.path.name for shard in unfinished if not shard.is_locked]
    if not free:
        raise UsageError(f"another process is running {folder.path}; wait for it, or stop it first")
    return free


def widen(folder: RunFolder, config: RunConfig) -> int:
    """Add chains to a run, as a shard of its own: other jobs may do so at the same time."""
    problem, launch = _describe(folder, config.chains, accept_changed_code=False)
    from bayesnn.build import build_method
    from bayesnn.execute import begin, execute
    from bayesnn.progress import Reporter

    method = build_method(config, problem)

    shards = folder.path / "shards"
    claimed = Shard(shards / distributed.on_first(lambda: folder.claim(config.chains).path.name))
    begun = begin(config, problem, method, claimed.first_chain)
    shard = Shard(shards / distributed.on_first(lambda: folder.begin(claimed, begun, launch).path.name))
    return exit_status(execute(folder, shard, problem, method, Reporter(str(shard.path), console())))


def data_mesh(config: RunConfig, num_chains: int) -> Mesh | None:
    """Return the mesh of a job whose processes share the data of each chain; None where each of them needs all data."""
    if not distributed.is_joined() or isinstance(config.sampler, APPROXIMATIONS):
        return None
    from bayesnn.execute import run_mesh
    from samplers.targets import DATA_AXIS

    mesh = run_mesh(num_chains, config.data_blocks)
    return mesh if mesh.shape[DATA_AXIS] > 1 else None


def _describe(folder: RunFolder, num_chains: int, *, accept_changed_code: bool) -> tuple[Problem, Launch]:
    """Build what so many chains of a run sample and describe this execution, warning of what has changed."""
    facts, config = folder.manifest, folder.config
    changed = folder.check_sources(accept_changed_code=accept_changed_code)
    from bayesnn.build import build_problem

    now = manifest.launch()
    if differences := manifest.differences(facts["launches"][-1], now) + [f"accepted: {name}" for name in changed]:
        print(f"bayesnn: warning: other than when this run last ran: {'; '.join(differences)} (recorded)", file=sys.stderr)
    problem = build_problem(config, data_mesh(config, num_chains))
    if problem.description != facts["problem"]:
        raise UsageError(f"the data or the model changed since this run began: {facts['problem']} is now {problem.description}")
    return problem, {**now, "differences": differences}


def console() -> Console:
    """Return where people read; of several processes one speaks."""
    return Console(highlight=False, quiet=not distributed.is_first())


def exit_status(state: str) -> int:
    """Return the exit status of a command that left a run in this state."""
    return 0 if state == "complete" else INTERRUPTED


def _sources(experiment: str, config: RunConfig) -> dict[str, tuple[str, str]]:
    parts = (config.model, config.prior, config.likelihood, config.density)
    names = [experiment, config.data.name, *(part.source for part in parts if isinstance(part, Imported))]
    return {name: source_of(name) for name in dict.fromkeys(names) if is_import_path(name)}


def _copies(sources: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Return what to copy by the name of the copy: the file's own, and, where several share it, the beginning of its sha256."""
    files = {(Path(name.rpartition(":")[0]).name, digest): text for name, (text, digest) in sources.items()}
    shared = Counter(name for name, _ in files)
    return {
        name if shared[name] == 1 else f"{Path(name).stem}-{digest[:8]}{Path(name).suffix}": text
        for (name, digest), text in files.items()
    }
