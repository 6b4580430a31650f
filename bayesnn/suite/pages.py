"""The pages of a suite's runs: each has its own report, and a line on what it took and whether its draws can be trusted."""

from __future__ import annotations

from typing import NamedTuple

from rich.console import Console

from bayesnn.build import describe_sampler
from bayesnn.notation import number
from bayesnn.progress import duration
from bayesnn.report import write_report
from bayesnn.report.page import is_written, read_findings
from bayesnn.report.verdict import headline
from bayesnn.run_folder import RunFolder
from bayesnn.suite.results import SuiteFolder
from bayesnn.suite.suite import Suite

REPORT = "report.html"


class RunLine(NamedTuple):
    """A run in the table of all runs.

    Attributes:
        name: Of its folder, without the digest.
        path: Of its report, or of its configuration where there is none, relative to the suite's folder.
        sampler: Its name.
        draws: Chains and draws.
        gradients: Full-data gradients, all chains, warm-up included.
        time: That it ran.
        verdict: Of its audit; empty where there is none.
        sentence: What its draws can be trusted for.
    """

    name: str
    path: str
    sampler: str
    draws: str
    gradients: str
    time: str
    verdict: str
    sentence: str


def write_run_pages(suite: Suite, folder: SuiteFolder, console: Console) -> None:
    """Write the report of every complete run that has none yet, or has been measured since; its audit comes with it."""
    for name in suite.planned():
        if not folder.has_draws(name):
            continue
        run = RunFolder.open(folder.run_path(name))
        if is_written(run):
            continue
        try:
            write_report(run)
        except Exception as error:  # a run whose page cannot be written is linked by its configuration, and the rest goes on
            console.print(f"no page of {name}: {error}", markup=False)


def run_lines(suite: Suite, folder: SuiteFolder) -> list[RunLine]:
    """Return the lines of all complete runs, in the order of the suite."""
    return [_line(name, folder) for name in suite.planned() if folder.has_draws(name)]


def audit_of(run: RunFolder) -> tuple[str, str]:
    """Return the verdict of a run's audit and what its draws can be trusted for; empty if it was not audited."""
    findings = read_findings(run)
    if not findings:
        return "", ""
    told = headline(findings, describe_sampler(run.config.sampler)["kind"])
    return told.verdict, told.sentence


def page_of(run: RunFolder, folder: SuiteFolder) -> str:
    """Return where a run's report lies, or its configuration if it has none, relative to the suite's folder."""
    there = next(file for file in (REPORT, "config.json") if (run.path / file).exists())
    return f"{run.path.relative_to(folder.path)}/{there}"


def _line(name: str, folder: SuiteFolder) -> RunLine:
    run = RunFolder.open(folder.run_path(name))
    config, status = run.config, run.status
    verdict, sentence = audit_of(run)
    return RunLine(
        name=name.rpartition("-")[0],
        path=page_of(run, folder),
        sampler=describe_sampler(config.sampler)["sampler"],
        draws=f"{status['chains']} x {status['draws']:,}",
        gradients=number(status["gradients"] + status["warmup_gradients"]),
        time=duration(status["seconds"] + status["warmup_seconds"]),
        verdict=verdict,
        sentence=sentence,
    )
