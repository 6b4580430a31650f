"""What pages say that suites have found is what the suites' files say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bayesnn.suite.judge import read_findings
from bayesnn.suite.results import SuiteFolder

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"
INTERVAL = re.compile(r"95 % interval (\S+ to [^)\s]+)\)")


def page(name: str) -> str:
    return (FINDINGS / f"{name}.md").read_text().replace("\N{MINUS SIGN}", "-")


def rows_of(text: str, interval: str, verdict: str) -> list[str]:
    """Return the rows of a table that have this interval and this verdict."""
    return [row for row in text.splitlines() if f"| {verdict} |" in row and f"({interval})" in row]


LAPTOP = {one.claim: one for one in read_findings(SuiteFolder(FINDINGS / "izmailov2021-laptop"))}
QUOTED = [name for name, one in LAPTOP.items() if INTERVAL.search(one.note)]


@pytest.mark.parametrize("claim", QUOTED)
def test_the_page_has_the_interval_and_the_verdict_of_every_claim(claim):
    found = LAPTOP[claim]
    [interval, *_] = INTERVAL.findall(found.note)
    assert rows_of(page("izmailov2021"), interval, found.verdict), (interval, found.verdict)


def test_claims_without_an_interval_have_their_verdicts():
    rows = {
        "F2 good R-hat in function space, bad in weight space": ("digits", "diabetes", "fixed"),
        "F2, images and reviews": ("images", "reviews"),
    }
    claims = {f"F2 {name}": row for row, names in rows.items() for name in names}
    assert set(LAPTOP) == set(QUOTED) | set(claims)
    for claim, row in claims.items():
        assert f"| {row} | {LAPTOP[claim].verdict} |" in page("izmailov2021")


def test_the_page_on_uci_has_the_intervals_and_verdicts_of_its_sets():
    found = {one.claim: one for one in read_findings(SuiteFolder(FINDINGS / "izmailov2021-laptop-full"))}
    words = " ".join(page("uci").split())
    decided = {name: one.verdict for name, one in found.items() if one.verdict != "inconclusive"}
    assert decided == {"C1 boston": "supported", "C5 gaps, boston": "contradicted"}
    gains = dict(re.findall(r"HMC gains over (\w+) in (\d+) of 11 gaps and loses in 0", found["C5 gaps, boston"].note))
    assert gains == {"SGD": "11"}
    assert "| boston | 11 | **11, 0** |" in words
    longer = {one.claim: one for one in read_findings(SuiteFolder(FINDINGS / "uci-boston"))}
    assert {name: one.verdict for name, one in longer.items()} == {"C1 boston": "supported", "F2 boston": "contradicted"}
    judged = [found[f"C1 {name}"] for name in ("yacht", "concrete", "boston", "energy", "naval")]
    for one in [*judged, longer["C1 boston"]]:
        for interval in INTERVAL.findall(one.note):
            assert f"({interval})" in words
