"""The page about a suite: claims first, each a click from its evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bayesnn.notation import Interval, number
from bayesnn.report.page import TEMPLATES
from bayesnn.report.pictures import Drawing
from bayesnn.report.sampling import Strip, strips
from bayesnn.report.verdict import STYLES, Row, row_of
from bayesnn.run_folder import RunFolder
from bayesnn.shard import write_atomically
from bayesnn.suite.judge import Judged, Pictured
from bayesnn.suite.pages import RunLine, audit_of, page_of, run_lines
from bayesnn.suite.results import NO_DATA, SuiteFolder
from bayesnn.suite.suite import Exhibit, Suite
from diagnostics.claims import VERDICTS

CAVEAT = (
    "A verdict holds for the networks, data and sizes of this scale. Inconclusive is an answer: the interval is too wide to "
    "tell, or a run is missing; the reason stands beside it."
)
COLOURS = {"supported": "green", "contradicted": "red", "inconclusive": "yellow"}


class Shown(NamedTuple):
    """An exhibit, drawn."""

    caption: str
    unit: str
    strips: list[Strip]
    ticks: Markup


class Claim(NamedTuple):
    """A claim on the page: what it is called there, its row in tables, and its exhibits."""

    anchor: str
    row: Row
    exhibits: list[Shown]


class Run(NamedTuple):
    """A run of a hypothesis on the page: its report, or its configuration if it has none; and a reservation, or nothing."""

    name: str
    path: str
    reservation: str


def show(exhibit: Exhibit) -> Shown:
    """Draw the rows of an exhibit on one axis, its marks as lines.

    Numbers on both sides of a mark at zero have signs; an interval of no width is none.
    """
    is_signed = 0.0 in exhibit.marks and min(estimate.lower for estimate in exhibit.rows.values()) < 0
    drawn, ticks = strips(exhibit.rows, *exhibit.marks, is_signed=is_signed, band=exhibit.band)
    told = [
        strip if one.lower < one.upper else strip._replace(value=Interval(number(one.value), ""))
        for strip, one in zip(drawn, exhibit.rows.values(), strict=True)
    ]
    return Shown(exhibit.caption, exhibit.unit, told, ticks)


def write_suite_report(suite: Suite, folder: SuiteFolder, judged: Sequence[Judged]) -> Path:
    """Write report.html into a suite's folder."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    runs = run_lines(suite, folder)
    page = environment.get_template("suite.html").render(
        suite=suite,
        tally=_tally(judged),
        audits=_audits(runs),
        runs=runs,
        caveat=CAVEAT,
        failures=_by_reason(suite, folder),
        hypotheses=[_section(one, suite, folder) for one in judged],
    )
    path = folder.path / "report.html"
    write_atomically(path, page.encode("ascii", "xmlcharrefreplace").decode())
    return path


def _section(one: Judged, suite: Suite, folder: SuiteFolder) -> dict[str, Any]:
    hypothesis = one.hypothesis
    claims = [
        Claim(judgement.finding.claim.replace(" ", "-"), row_of(judgement.finding), [show(x) for x in judgement.exhibits])
        for judgement in one.judgements
    ]
    return {
        "name": hypothesis.name,
        "title": hypothesis.title,
        "source": hypothesis.source,
        "protocol": hypothesis.protocol.split("\n\n"),
        "verdict": one.verdict,
        "style": STYLES.get(one.verdict, one.verdict),
        "summary": _summary(one),
        "claims": claims,
        "pictures": [(pictured, _drawing(pictured)) for pictured in one.pictures],
        "runs": [_run(name, folder_name, folder) for name, folder_name in suite.folder_names(hypothesis).items()],
    }


def _drawing(pictured: Pictured) -> Drawing | None:
    return None if pictured.reason else pictured.picture.draw(dict(pictured.data))


def _run(name: str, folder_name: str, folder: SuiteFolder) -> Run:
    """Return a run with a link to what there is of it, and say why there is no more, or why its draws are not to be relied on."""
    place = folder.run_path(folder_name)
    path = page_of(RunFolder(place), folder) if place.exists() else ""
    reason = folder.failures.get(folder_name, "")
    if reason:
        return Run(name, path, reason if reason.startswith(NO_DATA) else f"failed: {reason}")
    if not folder.has_draws(folder_name):
        return Run(name, path, "not complete" if path else "has not begun")
    verdict, _ = audit_of(RunFolder(place))
    return Run(name, path, f"audit: {verdict}" if verdict in ("fail", "inconclusive") else "")


def _audits(runs: Sequence[RunLine]) -> str:
    """Say how many runs are good for what rests on them; empty if none was audited."""
    counts = Counter(run.verdict for run in runs)
    told = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS["health"] if counts[verdict]]
    return f"Audits of its {len(runs)} runs: {', '.join(told)}." if told else ""


def _by_reason(suite: Suite, folder: SuiteFolder) -> list[tuple[str, str]]:
    """Return each reason with the runs, and the measures on them, that failed for it."""
    reasons: dict[str, list[str]] = {}
    planned = suite.planned()
    for failed, reason in folder.failures.items():
        folder_name, _, measure = failed.partition("/")
        if folder_name in planned:
            name = folder_name.rpartition("-")[0]
            reasons.setdefault(reason, []).append(f"the measure {measure} of {name}" if measure else name)
    return [(reason, ", ".join(names)) for reason, names in reasons.items()]


def _summary(one: Judged) -> str:
    """Say what decides: the note of the first claim that has the verdict of the whole."""
    deciding = [judgement.finding for judgement in one.judgements if judgement.finding.verdict == one.verdict]
    return deciding[0].note if deciding else "No claim applies here."


def _tally(judged: Sequence[Judged]) -> str:
    counts = Counter(one.verdict for one in judged)
    return f"Of {len(judged)} statements " + ", ".join(
        f"{counts[verdict]} {verdict}" for verdict in ("supported", "contradicted", "inconclusive") if counts[verdict]
    )


def print_judged(console: Console, judged: Sequence[Judged]) -> None:
    """Print the verdicts as a table."""
    table = Table(box=None, pad_edge=False)
    for column in ("verdict", "claim", "what was found"):
        table.add_column(column, overflow="fold")
    for one in judged:
        name = f"{one.hypothesis.name}: {one.hypothesis.title}"
        table.add_row(f"[{COLOURS[one.verdict]}]{one.verdict}[/]", escape(name), "", style="bold")
        for judgement in one.judgements:
            finding = judgement.finding
            table.add_row(f"[{COLOURS.get(finding.verdict, 'dim')}]{finding.verdict}[/]", finding.claim, escape(finding.note))
    console.print(table)
