"""What `bayesnn audit-suite` and `bayesnn plan SUITE` do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from bayesnn.errors import UsageError, did_you_mean
from bayesnn.interrupts import INTERRUPTED
from bayesnn.launch import console, prepare
from bayesnn.suite import SUITES

if TYPE_CHECKING:
    from bayesnn.config import RunConfig
    from bayesnn.suite.suite import Suite


def load_suite(name: str, scale: str, only: Sequence[str] = ()) -> Suite:
    """Return a suite at a scale, or some of its hypotheses.

    Raises:
        UsageError: An unknown suite, scale or hypothesis; the nearest is suggested.
    """
    import dataclasses

    if name not in SUITES:
        raise UsageError(f"unknown suite {name!r}{did_you_mean(name, SUITES)}")
    from bayesnn.izmailov2021.suite import suite

    whole = suite(scale)
    known = {one.name: one for one in whole.hypotheses}
    for wanted in only:
        if wanted not in known:
            raise UsageError(f"unknown hypothesis {wanted!r}{did_you_mean(wanted, known)}")
    return dataclasses.replace(whole, hypotheses=tuple(known[wanted] for wanted in only or known))


def audit_suite(
    name: str, scale: str, only: Sequence[str], suites: Path, *, only_plan: bool = False, only_rehearse: bool = False
) -> int:
    """Show what a suite costs, run what it still lacks, judge, and report; or stop after the costs, or only rehearse.

    Returns:
        0 when every run whose data are at hand came to its end, whatever the verdicts; 1 when one, or a measure on it, failed;
        130 when it was interrupted.
    """
    prepare()
    from bayesnn.suite.budget import make_budget, print_budget
    from bayesnn.suite.execute import execute_suite, lacking
    from bayesnn.suite.judge import judge_suite
    from bayesnn.suite.markdown import write_markdown
    from bayesnn.suite.pages import write_run_pages
    from bayesnn.suite.rehearse import rehearse_suite
    from bayesnn.suite.report import print_judged, write_suite_report
    from bayesnn.suite.results import NO_DATA, SuiteFolder

    suite, out = load_suite(name, scale, only), console()
    if only_rehearse:
        failures = rehearse_suite(suite, out)
        return INTERRUPTED if failures is None else 1 if failures else 0
    folder = SuiteFolder(suites / f"{name}-{scale}")
    wanted = suite.planned() if only_plan else lacking(suite, folder)
    budget = make_budget(wanted)
    if wanted:
        print_budget(out, suite, budget)
    if only_plan:
        return 0
    if not execute_suite(suite, folder, budget, out):
        out.print("Interrupted; the same command goes on from here.")
        return INTERRUPTED
    write_run_pages(suite, folder, out)
    judged = judge_suite(suite, folder)
    print_judged(out, judged)
    write_markdown(suite, folder, judged)
    out.print(f"\n{write_suite_report(suite, folder, judged)}", markup=False, soft_wrap=True)
    planned = suite.planned()
    failed = [name for name, why in folder.failures.items() if name.partition("/")[0] in planned and not why.startswith(NO_DATA)]
    return 1 if failed else 0


def plan_suite(name: str, scale: str, hardware: str, devices: int, efficiency: float) -> int:
    """Print what every run of a suite costs on named hardware, or here."""
    if hardware == "here":
        return audit_suite(name, scale, (), Path(), only_plan=True)
    prepare()
    from bayesnn.notation import with_prefix
    from bayesnn.plan import Known, Plan, make_plan
    from bayesnn.progress import duration
    from bayesnn.suite.budget import each_once

    suite = load_suite(name, scale)
    title = f"{suite.name}, {scale}, on {devices} x {hardware}"
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left")
    columns: dict[str, Callable[[Plan], str]] = {
        "parameters": lambda plan: f"{plan.num_params:,}",
        "gradient,\nFLOP": lambda plan: with_prefix(plan.gradient_flops, ""),
        "gradients\na draw": lambda plan: with_prefix(plan.gradients_a_draw, ""),
        "in\nall": lambda plan: with_prefix(plan.gradients, ""),
        "draw,\nbytes": lambda plan: with_prefix(plan.draw_bytes, ""),
        "device,\nbytes": lambda plan: with_prefix(plan.device_bytes, ""),
        "busy\ndevices": lambda plan: f"{plan.devices:,}",
        "time": lambda plan: duration(plan.seconds) if plan.seconds == plan.seconds else "unknown",
    }
    table.add_column("run", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    known = Known()

    def plan_of(config: RunConfig) -> Plan | str:
        try:
            return make_plan(config, hardware, devices, efficiency, known)
        except UsageError as error:
            return str(error)

    plans, total = each_once(suite.planned(), plan_of), 0.0
    out = console()
    for folder, plan in plans.items():
        name = folder.rpartition("-")[0]
        if isinstance(plan, str):
            out.print(f"{name} cannot be planned: {plan}", markup=False, soft_wrap=True)
            continue
        total += plan.seconds if plan.seconds == plan.seconds else 0.0
        table.add_row(name, *(write(plan) for write in columns.values()))
    out.print(table)
    out.print(f"In all about {duration(total)} at {efficiency:.0%} of the peak.")
    return 0
