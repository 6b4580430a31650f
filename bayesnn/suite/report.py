"""The page about a suite: claims first, each a click from its evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bayesnn.report.page import TEMPLATES
from bayesnn.report.sampling import Strip, strips
from bayesnn.report.verdict import STYLES, Row, rows
from bayesnn.shard import write_atomically
from bayesnn.suite.judge import Judged
from bayesnn.suite.results import SuiteFolder
from bayesnn.suite.suite import Exhibit, Judgement, Suite

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


def show(exhibit: Exhibit) -> Shown:
    """Draw the rows of an exhibit on one axis; its first mark is the line in every row, and numbers around zero have signs."""
    drawn, ticks = strips(exhibit.rows, exhibit.marks[0], is_signed=0.0 in exhibit.marks, include=exhibit.marks)
    return Shown(exhibit.caption, exhibit.unit, drawn, ticks)


def write_suite_report(suite: Suite, folder: SuiteFolder, judged: Sequence[Judged]) -> Path:
    """Write report.html into a suite's folder."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("suite.html").render(
        suite=suite,
        tally=_tally(judged),
        caveat=CAVEAT,
        failures=_by_reason(folder.failures),
        hypotheses=[_section(one, suite, folder) for one in judged],
    )
    path = folder.path / "report.html"
    write_atomically(path, page.encode("ascii", "xmlcharrefreplace").decode())
    return path


def _section(one: Judged, suite: Suite, folder: SuiteFolder) -> dict[str, Any]:
    hypothesis = one.hypothesis
    places = {name: folder.run_path(path).relative_to(folder.path) for name, path in suite.folder_names(hypothesis).items()}
    runs = [(name, f"{place}/config.json") for name, place in places.items()]
    return {
        "name": hypothesis.name,
        "title": hypothesis.title,
        "source": hypothesis.source,
        "protocol": hypothesis.protocol.split("\n\n"),
        "verdict": one.verdict,
        "style": STYLES.get(one.verdict, one.verdict),
        "summary": _summary(one),
        "claims": [{"row": _row(judgement), "exhibits": [show(x) for x in judgement.exhibits]} for judgement in one.judgements],
        "runs": [(name, path if (folder.path / path).exists() else "") for name, path in runs],
    }


def _by_reason(failures: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return each reason with the runs that failed for it."""
    reasons: dict[str, list[str]] = {}
    for name, reason in failures.items():
        reasons.setdefault(reason, []).append(name)
    return [(reason, ", ".join(names)) for reason, names in reasons.items()]


def _row(judgement: Judgement) -> Row:
    return rows([judgement.finding])[0]


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
