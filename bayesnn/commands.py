"""What each command does."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bayesnn.config import Frozen, Imported, RunConfig
from bayesnn.errors import UsageError
from bayesnn.imports import is_import_path, source_of
from bayesnn.interrupts import INTERRUPTED, uninterrupted
from bayesnn.run_folder import FolderExistsError, RunFolder
from bayesnn.shard import write_atomically

if TYPE_CHECKING:
    from bayesnn.manifest import Launch
    from bayesnn.problem import Problem
    from diagnostics.claims import Finding

# The demo's methods; the first is the subject of its report, the others stand beside it.
DEMO = ("digits-hmc", "digits-sgld", "digits-ensemble", "digits-map")
COLOURS = {"pass": "green", "supported": "green", "fail": "red", "contradicted": "red", "inconclusive": "yellow"}


def prepare(threads: int | None = None) -> None:
    """Set JAX up, before it is imported: a device a core, a compilation cache on disk.

    Args:
        threads: Size of the CPU thread pool of the run that is continued: with another size, last bits of draws differ.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bayesnn" / "xla"
    defaults = {
        "JAX_NUM_CPU_DEVICES": str(len(os.sched_getaffinity(0))),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    } | ({"PJRT_NPROC": str(threads)} if threads else {})
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def run(
    experiment: str, config: RunConfig, name: str, runs: Path, *, resume_if_exists: bool = False, add_chains: bool = False
) -> int:
    """Sample an experiment into a new folder; or continue, or widen, the one that the same command began."""
    _refuse_object_store(runs)
    path = runs / (name or default_name(experiment))
    try:
        RunFolder.refuse_existing(path)
        prepare()
        return _finish(sample_into(path, experiment, config))
    except FolderExistsError:
        if not (resume_if_exists or add_chains):
            raise
    folder = RunFolder.open(path)
    if folder.config != config.model_copy(update={"chains": folder.config.chains} if add_chains else {}):
        raise UsageError(f"{path} has another configuration, so this command cannot continue it: choose another --name")
    if resume_if_exists and (not add_chains or any(not shard.is_locked for shard in folder.unfinished())):
        return resume(folder)
    return widen(folder, config)


def sample_into(path: Path, experiment: str, config: RunConfig) -> str:
    """Make a run folder and bring the run to its end; return its state."""
    from bayesnn import manifest
    from bayesnn.build import build_method, build_problem
    from bayesnn.execute import begin, execute
    from bayesnn.progress import Reporter

    sources = _sources(experiment, config)
    problem = build_problem(config)
    method = build_method(config, problem)
    facts = {
        "experiment": experiment,
        "sources": {name: digest for name, (_, digest) in sources.items()},
        "problem": problem.description,
        "launches": [manifest.launch()],
    }
    copies = {Path(name.partition(":")[0]).name: text for name, (text, _) in sources.items()}
    begun = begin(config, problem, method)
    with uninterrupted():
        folder = RunFolder.create(path, config, facts, copies, begun)
    return execute(folder, folder.shards()[0], problem, method, Reporter(str(path), console()))


def resume(folder: RunFolder, *, accept_changed_code: bool = False) -> int:
    """Continue a run from its last commits: all its chains that are unfinished and that no other process runs."""
    unfinished = folder.unfinished()
    if not unfinished:
        num_chains = sum(shard.num_chains for shard in folder.shards())
        draws = min(shard.read_commit().draws for shard in folder.shards())
        for shard in folder.shards():
            folder.write_status(shard, "complete", shard.read_commit())  # a kill after the last commit left it at "running"
        console().print(f"{folder.path} is complete: {draws} draws of {num_chains} chains", markup=False, soft_wrap=True)
        return 0
    free = [shard for shard in unfinished if not shard.is_locked]
    if not free:
        raise UsageError(f"another process is running {folder.path}; wait for it, or stop it first")
    problem, launch = _join(folder, accept_changed_code=accept_changed_code)
    from bayesnn.build import build_method
    from bayesnn.execute import execute
    from bayesnn.progress import Reporter

    folder.add_launch(launch)
    for shard in free:
        name = str(folder.path) if len(folder.shards()) == 1 else str(shard.path)
        state = execute(folder, shard, problem, build_method(folder.config, problem), Reporter(name, console()))
        if state != "complete":
            return _finish(state)
    return 0


def widen(folder: RunFolder, config: RunConfig) -> int:
    """Add chains to a run, as a shard of its own: other jobs may do so at the same time."""
    problem, launch = _join(folder, accept_changed_code=False)
    from bayesnn.build import build_method
    from bayesnn.execute import begin, execute
    from bayesnn.progress import Reporter

    method = build_method(config, problem)
    claimed = folder.claim(config.chains)
    shard = folder.begin(claimed, begin(config, problem, method, claimed.first_chain), launch)
    return _finish(execute(folder, shard, problem, method, Reporter(str(shard.path), console())))


def _join(folder: RunFolder, *, accept_changed_code: bool) -> tuple[Problem, Launch]:
    """Prepare JAX for a run that exists, build what it samples and describe this execution, warning of what has changed."""
    facts, config = folder.manifest, folder.config
    changed = folder.check_sources(accept_changed_code=accept_changed_code)
    prepare(facts["launches"][0]["cpu_threads"])
    from bayesnn import manifest
    from bayesnn.build import build_problem

    now = manifest.launch()
    if differences := manifest.differences(facts["launches"][-1], now) + [f"accepted: {name}" for name in changed]:
        print(f"bayesnn: warning: other than when this run last ran: {'; '.join(differences)} (recorded)", file=sys.stderr)
    problem = build_problem(config)
    if problem.description != facts["problem"]:
        raise UsageError(f"the data or the model changed since this run began: {facts['problem']} is now {problem.description}")
    return problem, {**now, "differences": differences}


def audit(folder: RunFolder, claims: Sequence[str] = ()) -> int:
    """Judge a run, write findings.json, print the verdicts, and return the exit status."""
    from bayesnn.load import read_tree
    from diagnostics.standard import HEALTH, overall
    from diagnostics.standard import audit as judge

    chosen = [_named(HEALTH, name, "claim") for name in claims or HEALTH]
    tree = read_tree(folder)
    findings = judge(tree, chosen)
    print_findings(findings, str(folder.path))  # first: where the folder cannot be written, they are of use all the same
    write_findings(folder, findings)
    return 0 if overall(findings) == "pass" else 1


def measure(folder: RunFolder, name: str, settings: Frozen, *, accept_changed_code: bool = False) -> int:
    """Measure something on a run, print and write what was found, and return the exit status, as of an audit."""
    folder.check_sources(accept_changed_code=accept_changed_code)
    prepare()
    from bayesnn.load import LoadedRun
    from bayesnn.measure import MEASURES
    from bayesnn.measure.store import write_measure
    from diagnostics.standard import overall

    tree, findings = MEASURES[name].load()(LoadedRun(folder), settings, console())
    print_findings(findings, f"{folder.path}: {name}")
    path = write_measure(folder, name, tree, settings.model_dump(mode="json"), findings)
    console().print(f"{path}", markup=False, soft_wrap=True)
    return 0 if overall(findings) == "pass" else 1


def list_all() -> int:
    """Print everything that has a name."""
    from bayesnn import catalogue, config
    from bayesnn.experiments import EXPERIMENTS, describe
    from bayesnn.measure import MEASURES
    from diagnostics.standard import HEALTH

    sections = {
        "experiments": {name: describe(function) for name, function in EXPERIMENTS.items()},
        "samplers": {model.model_fields["kind"].default: describe(model) for model in config.UNIONS["sampler"]},
        "models": catalogue.MODELS,
        "priors": catalogue.PRIORS,
        "likelihoods": catalogue.LIKELIHOODS,
        "data sets": catalogue.DATASETS,
        "claims": {claim.name: claim.description for claim in HEALTH.values()},
        "measures": {name: describe(entry.settings_class()) for name, entry in MEASURES.items()},
    }
    for title, entries in sections.items():
        console().print(f"[bold]{title}[/]")
        for name, line in entries.items():
            console().print(f"  [cyan]{name:<20}[/] {escape(line)}", soft_wrap=True)
    return 0


def predict(folder: RunFolder, inputs: Path, output: Path, *, accept_changed_code: bool = False) -> int:
    """Predict on the inputs of an .npz file."""
    prepare()
    import numpy as np

    from bayesnn.load import LoadedRun

    try:
        with np.load(inputs, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{inputs} cannot be read as .npz: {error}") from None
    if "x" not in arrays:
        raise UsageError(
            f"{inputs} must hold an array x [point, feature] in original units; it holds {', '.join(arrays) or 'none'}"
        )
    run = LoadedRun(folder)
    predicted: dict[str, Any] = run.predict(arrays["x"], accept_changed_code=accept_changed_code)
    with output.open("wb") as file:  # given a path, NumPy may write to another one
        np.savez(file, **predicted)
    shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in predicted.items())
    sizes = run.tree["posterior"].sizes
    console().print(f"{output}: {shapes}, from {sizes['draw']} draws of {sizes['chain']} chains", markup=False)
    return 0


def report(folders: Sequence[RunFolder]) -> int:
    """Write report.html into the first folder, with the others beside it."""
    from bayesnn.report import write_report

    if not folders:
        raise UsageError("report needs a run folder")
    subject, *others = folders
    console().print(str(write_report(subject, others)), markup=False, soft_wrap=True)
    return 0


def compare(folders: Sequence[RunFolder]) -> int:
    """Print the predictions of runs side by side."""
    from bayesnn.comparison import print_comparison, read_trees

    if len(folders) < 2:
        raise UsageError(f"compare needs two or more run folders, got {len(folders)}")
    print_comparison(console(), read_trees(folders))
    return 0


def save_reference(folder: Path, output: Path) -> int:
    """Save a run as a reference."""
    from bayesnn.load import load_run
    from bayesnn.reference import bundle_of

    bundle = bundle_of(load_run(folder))
    bundle.save(output)
    chains = f"{bundle.prefixes.num_chains} chains of {bundle.prefixes.counts[-1]:,} draws"
    console().print(f"{output}: {chains}, {len(bundle.y_test):,} test points", markup=False, soft_wrap=True)
    return 0


def compare_reference(paths: Sequence[str], *, accept_differences: bool = False) -> int:
    """Rank runs by closeness to a reference, which is the last of the paths."""
    from bayesnn.reference import hold_against, open_reference
    from bayesnn.reference.comparison import open_runs, print_fidelity

    if len(paths) < 2:
        raise UsageError(f"reference compare needs one or more run folders and then a reference, got {len(paths)}")
    *folders, name = paths
    bundle = open_reference(name)
    print_fidelity(console(), hold_against(open_runs(folders), bundle, accept_differences=accept_differences), bundle)
    return 0


def show_reference(name: str) -> int:
    """Print what is known of a reference."""
    from bayesnn.reference import open_reference
    from bayesnn.reference.bundle import describe

    for what, value in describe(open_reference(name)):
        console().print(f"{what:<32}{value}", markup=False, soft_wrap=True)
    return 0


def fetch_data(name: str) -> int:
    """Download a data set."""
    from bayesnn.data.fetch import fetch

    fetch(name, lambda line: console().print(line, markup=False, soft_wrap=True))
    return 0


def demo(runs: Path) -> int:
    """Sample, train, audit and report digits by four methods; succeeds whatever the verdicts are."""
    from bayesnn.experiments import load_experiment
    from bayesnn.progress import duration

    began = time.monotonic()
    prepare()
    folder = next(path for number in range(1, 10_000) if not (path := runs / "demo" / str(number)).exists())
    for name in DEMO:
        if (state := sample_into(folder / name, name, load_experiment(name))) != "complete":
            return _finish(state)
    from bayesnn.report import write_report

    subject, *others = (RunFolder.open(folder / name) for name in DEMO)
    page = write_report(subject, others)
    print_findings(read_findings(subject), f"{DEMO[0]}: {subject.config.chains} chains of {subject.config.draws} draws")
    console().print(f"\nReport, with {', '.join(DEMO[1:])} beside it: {page}", markup=False, soft_wrap=True)
    console().print(f"Done in {duration(time.monotonic() - began)}.")
    return 0


def read_findings(folder: RunFolder) -> list[Finding]:
    """Read findings.json."""
    from diagnostics.claims import Finding

    return [Finding.from_dict(data) for data in json.loads((folder.path / "findings.json").read_text())]


def write_findings(folder: RunFolder, findings: Sequence[Finding]) -> None:
    """Write findings.json."""
    write_atomically(folder.path / "findings.json", json.dumps([finding.to_dict() for finding in findings], indent=1))


def print_findings(findings: Sequence[Finding], title: str) -> None:
    """Print verdicts as a table."""
    table = Table(title=title, title_justify="left", show_lines=False, pad_edge=False, box=None)
    for column in ("verdict", "claim", "what was found"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        colour = COLOURS.get(finding.verdict, "dim")
        table.add_row(f"[{colour}]{finding.verdict}[/]", finding.claim, escape(finding.note))
    console().print(table)


def console() -> Console:
    """Return where people read."""
    return Console(highlight=False)


def default_name(experiment: str) -> str:
    """Return the folder name of an experiment: its own, or its function's."""
    return experiment.rpartition(":")[2].replace("_", "-") if is_import_path(experiment) else experiment


def _finish(state: str) -> int:
    return 0 if state == "complete" else INTERRUPTED


def _refuse_object_store(runs: Path) -> None:
    scheme, colon, _ = runs.parts[0].partition(":") if runs.parts else ("", "", "")
    if colon and len(scheme) > 1:
        raise UsageError(
            f"--runs {runs}: runs live in a file system, because a commit needs a rename that is atomic, and object stores "
            f"({scheme}://) have none; run on a local or network disk and copy the folder when it is complete"
        )


def _sources(experiment: str, config: RunConfig) -> dict[str, tuple[str, str]]:
    parts = (config.model, config.prior, config.likelihood, config.density)
    names = [experiment, config.data.name, *(part.source for part in parts if isinstance(part, Imported))]
    return {name: source_of(name) for name in dict.fromkeys(names) if is_import_path(name)}


def _named(registry: Any, name: str, what: str) -> Any:
    from bayesnn.errors import did_you_mean

    if name not in registry:
        raise UsageError(f"unknown {what} {name!r}{did_you_mean(name, registry)}")
    return registry[name]


def plan(config: RunConfig, hardware: str, devices: int, efficiency: float) -> int:
    """Print what a run would cost."""
    prepare()
    from bayesnn.plan import make_plan, print_plan

    print_plan(console(), make_plan(config, hardware, devices, efficiency), hardware, devices)
    return 0


# Commands that take an experiment or a measure get its checked settings, too.
HANDLERS: dict[str, Callable[..., int]] = {
    "Run": lambda c, config: run(
        c.experiment, config, c.name, c.runs, resume_if_exists=c.resume_if_exists, add_chains=c.add_chains
    ),
    "Plan": lambda c, config: plan(config, c.hardware, c.devices, c.efficiency),
    "List": lambda c: list_all(),
    "Report": lambda c: report([RunFolder.open(path) for path in c.folders]),
    "Compare": lambda c: compare([RunFolder.open(path) for path in c.folders]),
    "Demo": lambda c: demo(c.runs),
    "Data": lambda c: fetch_data(c.name),
    "Reference": lambda c: HANDLERS[type(c.action).__name__](c.action),
    "SaveReference": lambda c: save_reference(c.folder, c.output),
    "CompareReference": lambda c: compare_reference(c.paths, accept_differences=c.accept_differences),
    "ShowReference": lambda c: show_reference(c.reference),
    "Predict": lambda c: predict(RunFolder.open(c.folder), c.inputs, c.output, accept_changed_code=c.accept_changed_code),
    "Resume": lambda c: resume(RunFolder.open(c.folder), accept_changed_code=c.accept_changed_code),
    "Measure": lambda c, settings: measure(
        RunFolder.open(c.folder), c.measure, settings, accept_changed_code=c.accept_changed_code
    ),
    "Audit": lambda c: audit(RunFolder.open(c.folder), c.claims),
}
