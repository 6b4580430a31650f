"""From a suite's runs to its verdicts: each claim on its trees, and what the claims of a hypothesis add up to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bayesnn.errors import UsageError
from bayesnn.shard import write_atomically
from bayesnn.suite.results import NO_DATA, MissingRunError, SuiteFolder, Trees
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Picture, Suite
from diagnostics.claims import Finding
from diagnostics.estimates import Estimate
from diagnostics.hypotheses import conjunction, inconclusive

FINDINGS, EXHIBITS = "findings.json", "exhibits.json"


class Pictured(NamedTuple):
    """A picture and what it shows: data, or why there are none."""

    picture: Picture
    data: Mapping[str, Any]
    reason: str = ""


class Judged(NamedTuple):
    """A hypothesis and what was found.

    Attributes:
        hypothesis: The statement.
        verdict: Of its claims together; claims that do not apply here do not count.
        judgements: Of each claim.
        pictures: Of the hypothesis.
    """

    hypothesis: Hypothesis
    verdict: str
    judgements: tuple[Judgement, ...]
    pictures: tuple[Pictured, ...] = ()


def judge_suite(suite: Suite, folder: SuiteFolder) -> list[Judged]:
    """Judge every hypothesis of a suite on the runs that there are, and write findings.json, exhibits.json and pictures.json.

    A claim whose runs are missing or failed is inconclusive, with the reason. What a picture shows is computed where it was not
    before, on these very runs.
    """
    judged = []
    for hypothesis in suite.hypotheses:
        trees = Trees(folder, suite, hypothesis)
        judgements = tuple(_judge(name, hypothesis, trees) for name in hypothesis.claims)
        verdicts = [one.finding.verdict for one in judgements if one.finding.verdict != "not applicable"]
        pictures = tuple(_picture(name, hypothesis, folder, trees) for name in hypothesis.pictures)
        judged.append(Judged(hypothesis, conjunction(verdicts) if verdicts else "inconclusive", judgements, pictures))
    _write(folder, judged)
    return judged


def _judge(name: str, hypothesis: Hypothesis, trees: Trees) -> Judgement:
    try:
        with np.errstate(all="ignore"):  # draws that are not finite end in a verdict, not in a warning
            return hypothesis.claims[name](trees)
    except MissingRunError as missing:
        if NO_DATA in str(missing):
            return Judgement(Finding(name, "hypothesis", "not applicable", note=f"Not judged: {missing}."))
        return Judgement(inconclusive(name, f"Not judged: {missing}."))
    except KeyError:  # of a group of the tree that a measure should have made
        if not (reason := trees.missing_measures()):
            raise
        return Judgement(inconclusive(name, f"Not judged: {reason}."))
    except ValueError as error:  # what a judge says of runs that it cannot compare
        return Judgement(inconclusive(name, f"Not judged: {error}."))


def _picture(name: str, hypothesis: Hypothesis, folder: SuiteFolder, trees: Trees) -> Pictured:
    key, picture = f"{hypothesis.name}/{name}", hypothesis.pictures[name]
    try:
        runs = {run: trees.run(run) for run in picture.runs}
        folders = [run.folder.path.name for run in runs.values()]
        if folder.pictures.get(key, {}).get("runs") != folders:
            folder.record_picture(key, folders, picture.compute(runs))
    except (MissingRunError, UsageError, ValueError) as error:  # ValueError: what cannot be drawn, such as draws on one line
        return Pictured(picture, {}, f"Not drawn: {error}.")
    return Pictured(picture, folder.pictures[key]["data"])


def _write(folder: SuiteFolder, judged: Sequence[Judged]) -> None:
    findings = [judgement.finding.to_dict() for one in judged for judgement in one.judgements]
    write_atomically(folder.path / FINDINGS, json.dumps(findings, indent=1))
    exhibits = {
        judgement.finding.claim: [
            {**exhibit._asdict(), "rows": {label: list(estimate) for label, estimate in exhibit.rows.items()}}
            for exhibit in judgement.exhibits
        ]
        for one in judged
        for judgement in one.judgements
    }
    write_atomically(folder.path / EXHIBITS, json.dumps(exhibits, indent=1))


def read_exhibits(folder: SuiteFolder) -> dict[str, list[Exhibit]]:
    """Return the exhibits of each claim as they were written, to draw them again."""
    stored = json.loads((folder.path / EXHIBITS).read_text())
    return {
        claim: [
            Exhibit(
                one["caption"],
                one["unit"],
                {label: Estimate(*row) for label, row in one["rows"].items()},
                tuple(one["marks"]),
                one.get("band") and tuple(one["band"]),
            )
            for one in exhibits
        ]
        for claim, exhibits in stored.items()
    }


def read_findings(folder: SuiteFolder) -> list[Finding]:
    """Return the findings as they were written."""
    return [Finding.from_dict(one) for one in json.loads((folder.path / FINDINGS).read_text())]
