"""Verdicts and the numbers behind them as Markdown, for pages that quote them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bayesnn.notation import interval
from bayesnn.shard import write_atomically
from bayesnn.suite.judge import Judged
from bayesnn.suite.results import SuiteFolder
from bayesnn.suite.suite import Exhibit, Suite


def write_markdown(suite: Suite, folder: SuiteFolder, judged: Sequence[Judged]) -> Path:
    """Write findings.md into a suite's folder: the table of claims, then the numbers of each."""
    lines = [f"# {suite.name}, scale {suite.scale}", "", f"{suite.description[:1].upper()}{suite.description[1:]}.", ""]
    lines += ["| | statement | verdict | what decides |", "| --- | --- | --- | --- |"]
    for one in judged:
        lines.append(f"| **{one.hypothesis.name}** | **{one.hypothesis.title}** | **{one.verdict}** | |")
        for judgement in one.judgements:
            finding = judgement.finding
            lines.append(f"| | {finding.claim} | {finding.verdict} | {_cell(finding.note)} |")
    for one in judged:
        lines += ["", f"## {one.hypothesis.name}: {one.hypothesis.title}"]
        for judgement in one.judgements:
            for exhibit in judgement.exhibits:
                lines += ["", f"{judgement.finding.claim}. {exhibit.caption}", "", *_table(exhibit)]
    path = folder.path / "findings.md"
    write_atomically(path, "\n".join(lines) + "\n")
    return path


def _table(exhibit: Exhibit) -> list[str]:
    rows = [f"| | {exhibit.unit} | 95 % interval |", "| --- | ---: | --- |"]
    for label, estimate in exhibit.rows.items():
        value, ends = interval(estimate)
        rows.append(f"| {_cell(label)} | {value} | {ends if estimate.lower < estimate.upper else ''} |")
    return rows


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
