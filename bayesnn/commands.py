"""What each command does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from bayesnn.config import Frozen, RunConfig
from bayesnn.errors import UsageError, did_you_mean
from bayesnn.launch import console, exit_status, prepare, resume, run, sample_into
from bayesnn.run_folder import RunFolder
from bayesnn.shard import write_atomically
from bayesnn.suite import SUITES
from bayesnn.suite.command import audit_suite, plan_suite

if TYPE_CHECKING:
    from diagnostics.claims import Finding

# The demo's methods; the first is the subject of its report, the others stand beside it.
DEMO = ("digits-hmc", "digits-sgld", "digits-ensemble", "digits-map")
COLOURS = {"pass": "green", "supported": "green", "fail": "red", "contradicted": "red", "inconclusive": "yellow"}


def audit(folder: RunFolder, claims: Sequence[str] = ()) -> int:
    """Judge a run, write findings.json, print the verdicts, and return the exit status."""
    from bayesnn.load import read_tree
    from diagnostics.standard import HEALTH, overall
    from diagnostics.standard import audit as judge

    chosen = [_named(HEALTH, name, "claim") for name in claims or HEALTH]
    tree = read_tree(folder)
    findings = judge(tree, chosen)
    title = title_of(folder)
    print_findings(findings, title)  # first: where the folder cannot be written, they are of use all the same
    if not claims:  # a part of them does not say whether draws can be trusted
        print_headline(findings, tree.attrs["kind"])
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
    print_findings(findings, title_of(folder, name))
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
        "suites": SUITES,
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
    from bayesnn.npz import read_npz

    try:
        arrays = read_npz(inputs)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if "x" not in arrays:
        raise UsageError(
            f"{inputs} must hold an array x [point, feature] in original units; it holds {', '.join(arrays) or 'none'}"
        )
    if not output.parent.is_dir():  # before the work
        raise UsageError(f"no folder {output.parent} to write {output.name} into; make it, or choose another --output")
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
            return exit_status(state)
    from bayesnn.build import describe_sampler
    from bayesnn.report import write_report

    subject, *others = (RunFolder.open(folder / name) for name in DEMO)
    page = write_report(subject, others)
    findings = read_findings(subject)
    print_findings(findings, f"{DEMO[0]}: {subject.config.chains} chains of {subject.config.draws} draws")
    print_headline(findings, describe_sampler(subject.config.sampler)["kind"])
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


def title_of(folder: RunFolder, *remarks: str) -> str:
    """Return what stands above findings on a run: where it lies, and what of its draws they do not rest on."""
    parts = list(remarks)
    if folder.unfinished():
        parts.append(f"not complete, {min(folder.draws_by_chain(), default=0):,} of {folder.config.draws:,} draws a chain")
    parts += [left_out] if (left_out := folder.left_out()) else []
    return f"{folder.path}: {'; '.join(parts)}" if parts else str(folder.path)


def print_findings(findings: Sequence[Finding], title: str) -> None:
    """Print verdicts as a table."""
    table = Table(title=title, title_justify="left", show_lines=False, pad_edge=False, box=None)
    for column in ("verdict", "claim", "what was found"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        colour = COLOURS.get(finding.verdict, "dim")
        table.add_row(f"[{colour}]{finding.verdict}[/]", finding.claim, escape(finding.note))
    console().print(table)


def print_headline(findings: Sequence[Finding], kind: str) -> None:
    """Print what an audit adds up to, as the report says it."""
    from bayesnn.report.verdict import headline

    console().print(f"\n{headline(findings, kind).sentence}", markup=False)


def _named(registry: Any, name: str, what: str) -> Any:
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
    "AuditSuite": lambda c: audit_suite(c.suite, c.scale, c.only, c.suites, only_plan=c.plan, only_rehearse=c.rehearse),
    "PlanSuite": lambda c: plan_suite(c.suite, c.scale, c.hardware, c.devices, c.efficiency),
    "Data": lambda c: fetch_data(c.name),
    "Reference": lambda c: HANDLERS[type(c.action).__name__](c.action),
    "SaveReference": lambda c: save_reference(c.folder, c.output),
    "CompareReference": lambda c: compare_reference(c.paths, accept_differences=c.accept_differences),
    "ShowReference": lambda c: show_reference(c.reference),
    "Predict": lambda c: predict(RunFolder.open(c.folder), c.inputs, c.output, accept_changed_code=c.accept_changed_code),
    "Resume": lambda c: resume(RunFolder.open(c.folder), accept_changed_code=c.accept_changed_code, join=c.processes.join),
    "Measure": lambda c, settings: measure(
        RunFolder.open(c.folder), c.measure, settings, accept_changed_code=c.accept_changed_code
    ),
    "Audit": lambda c: audit(RunFolder.open(c.folder), c.claims),
}
