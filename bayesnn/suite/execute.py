"""Run what a suite still lacks, one run after the other; a failure is written down and the rest goes on."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from bayesnn.config import Data
from bayesnn.errors import UsageError
from bayesnn.programs import make_room
from bayesnn.progress import duration
from bayesnn.run_folder import RunFolder
from bayesnn.suite.budget import Budget
from bayesnn.suite.results import NO_DATA, SuiteFolder
from bayesnn.suite.suite import Planned, Suite

# Attempts to hold a failure's reason to what fits into a table.
MAX_REASON = 300


def execute_suite(suite: Suite, folder: SuiteFolder, budget: Budget, console: Console) -> bool:
    """Bring all runs and measures of a suite to their end.

    Args:
        suite: What to run.
        folder: Where; what is complete there is not run again.
        budget: What each run that is lacking is expected to cost, for the time that is left.
        console: Where progress goes.

    Returns:
        Whether it came to its end; False when it was interrupted, and then the same command continues it.
    """
    folder.begin(suite)
    planned, why_absent = suite.planned(), functools.cache(absent_data)
    waiting = list(lacking(suite, folder))
    done = len(planned) - len(waiting)
    if done:
        console.print(f"{done} of {len(planned)} runs are complete already")
    for place, name in enumerate(waiting, done + 1):
        left = sum(budget.seconds.get(other, 0.0) for other in waiting[place - done - 1 :])
        console.print(f"[bold]{place}/{len(planned)}[/] {name}, about {duration(left)} left")
        began = time.monotonic()
        if absent := why_absent(planned[name].config.data):
            folder.record_failure(name, f"{NO_DATA}{absent}")
            console.print(f"  not run: {NO_DATA}{absent}", markup=False)
            continue
        if not _complete(folder, name, planned[name], console):
            return False
        make_room()
        console.print(f"  {'failed' if name in folder.failures else 'done'} after {duration(time.monotonic() - began)}")
    return True


def lacking(suite: Suite, folder: SuiteFolder) -> dict[str, Planned]:
    """Return the runs that are not complete, all their measures made, by the names of their folders."""
    failures, planned = folder.failures, suite.planned()
    return {name: one for name, one in planned.items() if name in failures or not folder.is_complete(name, one)}


def _complete(folder: SuiteFolder, name: str, planned: Planned, console: Console) -> bool:
    """Bring one run to its end, and measure; False when it was interrupted."""
    from bayesnn import launch

    try:
        if not folder.run_path(name).exists():
            state = launch.sample_into(folder.run_path(name), name, planned.config)
        elif not folder.has_draws(name):
            state = "complete" if launch.resume(RunFolder.open(folder.run_path(name))) == 0 else "interrupted"
        else:
            state = "complete"
        if state != "complete":
            return False
    except Exception as error:  # whatever goes wrong in one run is reported with it, and must not end the others
        _record(folder, name, error, console)
        return True
    folder.record_failure(name, None)
    for measure, settings in folder.missing_measures(name, planned).items():
        try:
            _measure(RunFolder.open(folder.run_path(name)), measure, settings, console)
        except Exception as error:  # nor must a measure take its run with it
            _record(folder, f"{name}/{measure}", error, console)
        else:
            folder.record_failure(f"{name}/{measure}", None)
    return True


def absent_data(data: Data) -> str:
    """Say why data cannot be read; empty if they can, or are made by a function. Large ones take seconds: ask once for each."""
    from bayesnn.data import load
    from bayesnn.imports import is_import_path

    if is_import_path(data.name):
        return ""
    try:
        load(**data.model_dump())
    except ValueError as error:
        return str(error)
    return ""


def reason_of(error: Exception) -> str:
    """Return what an error says in one line, with its type where it is not meant for users."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
    return f"{kind}{reason}"[:MAX_REASON]


def _record(folder: SuiteFolder, name: str, error: Exception, console: Console) -> None:
    folder.record_failure(name, reason_of(error))
    console.print(f"  failed: {reason_of(error)}", markup=False)


def _measure(folder: RunFolder, name: str, settings: Mapping[str, Any], console: Console) -> None:
    from bayesnn.load import LoadedRun
    from bayesnn.measure import MEASURES
    from bayesnn.measure.store import write_measure

    entry = MEASURES[name]
    chosen = entry.settings_class().model_validate(dict(settings))
    tree, findings = entry.load()(LoadedRun(folder), chosen, console)
    write_measure(folder, name, tree, chosen.model_dump(mode="json"), findings)
