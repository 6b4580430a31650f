"""The page: what is measured and drawn elsewhere, laid out by the templates beside this file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
import xarray as xr

from bayesnn.comparison import LOG_SCORE, SCORES, read_trees
from bayesnn.errors import UsageError
from bayesnn.measure.store import Measure
from bayesnn.notation import share
from bayesnn.report.convergence import SPACES, spaces
from bayesnn.report.measured import measured, read_measures
from bayesnn.report.predictions import Predictions, costs, predictions
from bayesnn.report.provenance import Facts, other_posteriors, provenance, size
from bayesnn.report.ranks import MAX_CHAINS, rank_plots
from bayesnn.report.sampling import chain_names, energies, temperatures, traces
from bayesnn.report.symmetry import symmetry
from bayesnn.report.verdict import headline, rows
from bayesnn.run_folder import RunFolder
from bayesnn.shard import write_atomically
from diagnostics.claims import Finding
from diagnostics.evidence import Evidence
from diagnostics.standard import audit
from diagnostics.summary import TOTAL, summarise

TEMPLATES = Path(__file__).parent / "templates"
TILE_SCORES = ("accuracy", "rmse", LOG_SCORE)


def write_report(subject: RunFolder, others: Sequence[RunFolder] = ()) -> Path:
    """Write report.html into a run folder, and its findings.json.

    The health claims are judged anew, because a run may have gone on since its last audit; findings on other claims are kept.
    What `bayesnn measure` found is shown as it lies in the folder.

    Args:
        subject: The run that the page is about.
        others: Runs on the same data, to compare its predictions with.

    Returns:
        Path of the page.

    Raises:
        UsageError: A run without draws, runs that cannot be compared, or a damaged result.
    """
    folders = [subject, *others]
    trees = read_trees(folders)
    summaries = {name: summarise(tree) for name, tree in trees.items()}
    name = next(iter(trees))
    findings = audit(trees[name], summary=summaries[name])
    judged = {finding.claim for finding in findings}
    findings += [finding for finding in read_findings(subject) if finding.claim not in judged]
    facts = {name: Facts.of(folder) for name, folder in zip(trees, folders, strict=True)}
    page = render(trees, summaries, findings, facts, read_measures(subject))
    write_atomically(subject.path / "findings.json", json.dumps([finding.to_dict() for finding in findings], indent=1))
    write_atomically(subject.path / "report.html", page)
    return subject.path / "report.html"


def is_written(run: RunFolder) -> bool:
    """Tell whether a run has a page, and findings, of all its draws and of all that was measured on it."""
    page = run.path / "report.html"
    parts = [*run.path.glob("shards/*/commit.json"), *run.path.glob("measures/*")]
    return page.exists() and all(part.stat().st_mtime_ns <= page.stat().st_mtime_ns for part in parts)


def read_findings(run: RunFolder) -> list[Finding]:
    """Return what a run's audit found, nothing if it was not audited.

    Raises:
        UsageError: A damaged file.
    """
    path = run.path / "findings.json"
    if not path.exists():
        return []
    try:
        return [Finding.from_dict(data) for data in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is damaged ({error}); remove it, and audit again") from None


class Tile(NamedTuple):
    """A number that answers a question at a glance."""

    value: str
    label: str
    detail: str


def render(
    trees: Mapping[str, xr.DataTree],
    summaries: Mapping[str, xr.DataTree],
    findings: Sequence[Finding],
    facts: Mapping[str, Facts] | None = None,
    measures: Mapping[str, Measure] | None = None,
) -> str:
    """Return the page about a run; the same input gives the same text.

    Args:
        trees: Runs by name; the page is about the first, the others are compared with it.
        summaries: `diagnostics.summarise` of each.
        findings: The audit of the first.
        facts: What the run folders know, by run; the page does without.
        measures: What was measured on the first run, by name; none by default.

    Raises:
        UsageError: Runs that cannot be compared.
    """
    facts = facts or {}
    name, tree = next(iter(trees.items()))
    summary, evidence = summaries[name], Evidence(tree, summaries[name])
    # Draws that are not finite end in dashes and verdicts, not in warnings.
    with np.errstate(all="ignore"):
        predicted = predictions(trees)
        context = {
            "name": name,
            "others": list(trees)[1:],
            "subtitle": _subtitle(tree),
            "warnings": _warnings(tree, facts.get(name)),
            "headline": headline(findings, evidence.kind),
            "tiles": _tiles(summary, predicted, name),
            "claims": rows(findings),
            "kind": evidence.kind,
            "num_draws": evidence.num_draws,
            "spaces": spaces(summary),
            "ranks": rank_plots(tree, summary),
            "symmetry": symmetry(tree, summary),
            "measured": measured(measures or {}),
            "max_rank_rows": MAX_CHAINS,
            "chains": chain_names(tree),
            "traces": traces(tree),
            "energies": energies(evidence) if evidence.kind in ("mcmc", "unadjusted") else None,
            "temperatures": temperatures(evidence),
            "predictions": predicted,
            "costs": costs(summaries),
            "other_posteriors": other_posteriors(facts),
            "provenance": provenance(tree, facts.get(name)),
        }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("report.html").render(context)
    return text.encode("ascii", "xmlcharrefreplace").decode()  # reads the same in every encoding; names of files may be any bytes


def _warnings(tree: xr.DataTree, facts: Facts | None) -> list[str]:
    """Say which draws of the run the page is not about: those to come, and those that some chains have and others lack."""
    left_out = tree.attrs.get("left_out", "")
    found = [facts.unfinished() if facts else "", f"{left_out.capitalize()}." if left_out else ""]
    return [sentence for sentence in found if sentence]


def _subtitle(tree: xr.DataTree) -> str:
    attrs = tree.attrs
    scalars = f"{attrs['num_params']:,} parameters" if attrs.get("num_params") else ""
    examples = f"{attrs['num_data']:,} training examples" if attrs.get("num_data") else ""
    sampler = str(attrs.get("sampler", attrs["kind"])).upper()
    temperature = f"temperature {attrs['temperature']:g}" if attrs.get("temperature", 1) != 1 else ""
    parts = (sampler, str(attrs.get("data", attrs["task"])), examples, scalars, temperature, size(tree))
    return ", ".join(part for part in parts if part)


def _tiles(summary: xr.DataTree, predicted: Predictions | None, name: str) -> list[Tile]:
    tiles = []
    for group, words in SPACES.items():
        if group not in summary.children:
            continue
        total = summary[f"{group}_layers"].to_dataset().sel(layer=TOTAL)
        low, high = 1 - total["share"].values
        if np.isfinite(low):
            tiles.append(Tile(share(low), f"of {words} have an R-hat below 1.01", f"{share(high)} below 1.1"))
    if predicted is not None:
        cells = zip(predicted.scores.headings, predicted.scores.rows[name], strict=True)
        chosen = [SCORES[key] for key in TILE_SCORES]
        for measure, cell in cells:
            if measure in chosen and cell.value.ends:
                unit = " %" if measure.label.endswith(", %") else ""
                tiles.append(Tile(cell.value.value + unit, measure.label.removesuffix(", %"), cell.value.ends + unit))
    return tiles
