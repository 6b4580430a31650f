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
        0 when every run came to its end, whatever the verdicts; 1 when one failed; 130 when it was interrupted.
    """
    prepare()
    from bayesnn.suite.budget import make_budget, print_budget
    from bayesnn.suite.execute import execute_suite
    from bayesnn.suite.judge import judge_suite
    from bayesnn.suite.markdown import write_markdown
    from bayesnn.suite.rehearse import rehearse_suite
    from bayesnn.suite.report import print_judged, write_suite_report
    from bayesnn.suite.results import SuiteFolder

    suite, out = load_suite(name, scale, only), console()
    if only_rehearse:
        failures = rehearse_suite(suite, out)
        return INTERRUPTED if failures is None else 1 if failures else 0
    budget = make_budget(suite)
    print_budget(out, suite, budget)
    if only_plan:
        return 0
    folder = SuiteFolder(suites / f"{name}-{scale}")
    if not execute_suite(suite, folder, budget, out):
        out.print("Interrupted; the same command goes on from here.")
        return INTERRUPTED
    judged = judge_suite(suite, folder)
    print_judged(out, judged)
    write_markdown(suite, folder, judged)
    out.print(f"\n{write_suite_report(suite, folder, judged)}", markup=False, soft_wrap=True)
    return 1 if folder.failures.keys() & suite.planned().keys() else 0


def plan_suite(name: str, scale: str, hardware: str, devices: int, efficiency: float) -> int:
    """Print what every run of a suite costs on named hardware, or here."""
    if hardware == "here":
        return audit_suite(name, scale, (), Path(), only_plan=True)
    prepare()
    from bayesnn.plan import Plan, make_plan
    from bayesnn.progress import duration

    suite = load_suite(name, scale)
    table = Table(box=None, pad_edge=False, title=f"{suite.name}, {scale}, on {devices} x {hardware}", title_justify="left")
    columns: dict[str, Callable[[Plan], str]] = {
        "parameters": lambda plan: f"{plan.num_params:,}",
        "FLOP a gradient": lambda plan: f"{plan.gradient_flops:.3g}",
        "gradients": lambda plan: f"{plan.gradients:,.0f}",
        "bytes a draw": lambda plan: f"{plan.draw_bytes:,}",
        "bytes a device": lambda plan: f"{plan.device_bytes:.3g}",
        "time": lambda plan: duration(plan.seconds) if plan.seconds == plan.seconds else "the sampler decides",
    }
    for column in ("run", *columns):
        table.add_column(column, justify="left" if column == "run" else "right")
    total = 0.0
    for folder, planned in suite.planned().items():
        try:
            plan = make_plan(planned.config, hardware, devices, efficiency)
        except UsageError as error:
            table.add_row(folder, str(error))
            continue
        total += plan.seconds if plan.seconds == plan.seconds else 0.0
        table.add_row(folder, *(write(plan) for write in columns.values()))
    out = console()
    out.print(table)
    out.print(f"In all about {duration(total)} at {efficiency:.0%} of the peak.")
    return 0
