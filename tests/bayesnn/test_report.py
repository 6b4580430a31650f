"""The report says what the findings say, needs nothing from outside, harms nobody, and is there for every kind of run."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from bayesnn.notation import MISSING, interval
from bayesnn.report.provenance import Facts
from bayesnn.report.verdict import headline, rows
from bayesnn.run_folder import RunFolder
from diagnostics.claims import Finding
from diagnostics.fidelity import compare
from diagnostics.standard import HEALTH, audit
from diagnostics.trees import KINDS, make_tree
from tests.bayesnn.simulated import classification, density, ensemble, page_of, regression

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;{{ 7 * 6 }}"
HOSTILE_LAYER = "<img src=x onerror=alert(1)>"  # xarray takes no slash in a name
VOID = {"meta", "link"}  # of the page's elements, those that have no end
FORBIDDEN = {"script", "iframe", "object", "embed", "img", "image", "form", "base", "foreignobject", "animate", "set"}


class Page(HTMLParser):
    """A page taken apart; fails on elements that do not end, or end elsewhere."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"line {self.getpos()[0]}"

    def handle_data(self, data):
        self.words.append(data)


def check(source):
    """Take a page apart, and check that nothing in it runs, or comes from outside."""
    page = Page(source)
    assert not FORBIDDEN & {tag for tag, _ in page.elements}
    attributes = [(name, value) for _, attrs in page.elements for name, value in attrs.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name in ("src", "srcset", "style", "action")]
    assert {value.partition("/abs/")[0] for name, value in attributes if name == "href" and value[0] != "#"} <= {
        "https://arxiv.org",
        "data:,",
    }
    identifiers = [value for name, value in attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    assert not re.search(r"@import|url\(", source)
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", page.text)
    return page


@pytest.fixture(scope="module")
def runs():
    return ("HMC", classification()), ("SGLD", classification(1, error=8)), ("ensemble", ensemble(2))


@pytest.fixture(scope="module")
def source(runs):
    return page_of(*runs)


def test_every_finding_is_there_required_ones_first(runs, source):
    page, (name, arrays) = check(source), runs[0]
    tree = make_tree(**arrays)
    positions = []
    for finding in audit(tree):
        claim = HEALTH[finding.claim]
        assert f"{finding.verdict} {claim.description}" in page.text
        assert finding.note in page.text
        positions.append((page.text.index(claim.description), not claim.required))
    assert [is_reported for _, is_reported in sorted(positions)] == sorted(is_reported for _, is_reported in positions)
    assert page.text.index(name) < min(positions)[0]


def test_every_score_and_difference_is_there(runs, source):
    page = check(source)
    comparison = compare({name: make_tree(**arrays) for name, arrays in runs})
    estimates = [*comparison.scores["SGLD"].items(), *comparison.closeness["ensemble"].items()]
    for key, estimate in estimates:
        value, ends = interval(estimate, 0.01 if "accuracy" in key or "calibration" in key or "agreement" in key else 1)
        assert f"{value} {ends}" in page.text or f"if calibrated {value} {ends}" in page.text, key
    value, ends = interval(comparison.differences["SGLD"]["brier"], is_signed=True)
    assert f"{value} {ends} worse" in page.text
    assert "HMC beats SGLD" in page.text


def test_a_figure_is_in_every_section(source):
    # Bars of two spaces and of layers, rank plots of three scalars of each space by chain, lines of three traces by chain.
    count = {style: len(re.findall(f'class="{style}"', source)) for style in ("functions", "weights", "band")}
    assert min(count["functions"], count["weights"]) > 6 * 4
    assert count["band"] == 6 * 4
    assert len(re.findall("<polyline", source)) == 3 * 4
    assert source.count('aria-label="Reliability diagram"') == 3


def test_the_same_runs_give_the_same_bytes(runs, source):
    assert page_of(*runs) == source


def test_the_page_says_the_same_in_every_encoding(runs, source):
    assert source.isascii()
    assert "größer-" in check(page_of(("größer-\udcff", runs[0][1]))).text  # a file's name may hold bytes that are no text


def test_hostile_names_are_text_wherever_they_come_from(finished_copy):
    arrays = classification()
    arrays["posterior"][f"{HOSTILE_LAYER}.kernel"] = arrays["posterior"].pop("layer_0.kernel")
    arrays["posterior"][f"{HOSTILE_LAYER}.kernel"][0, :, 0, 0] += 100  # one of those whose ranks are shown
    arrays["layers"] = {HOSTILE_LAYER: 20, "layer_0": 4, "layer_1": 6}
    arrays["sample_stats"]["virial"] = np.ones((4, 120, 3))
    arrays["attrs"] |= {"sampler": HOSTILE, "data": HOSTILE, "data_sha256": HOSTILE}
    findings = [Finding("finite", "health", "pass", note=HOSTILE), Finding(HOSTILE, "hypothesis", "supported", 1.0)]
    facts = Facts.of(RunFolder(finished_copy))
    launch = facts.manifest["launches"][0]
    strings = {
        "time": HOSTILE,
        "command": ["bayesnn", "run", HOSTILE],
        "versions": {HOSTILE: HOSTILE},
        "code": {"commit": HOSTILE, "sha256": HOSTILE},
        "platform": HOSTILE,
        "devices": [HOSTILE],
        "differences": [HOSTILE],
    }
    manifest = {**facts.manifest, "experiment": HOSTILE, "config_sha256": HOSTILE, "launches": [{**launch, **strings}]}
    facts = dataclasses.replace(facts, name=HOSTILE, manifest=manifest, status={**facts.status, "state": HOSTILE})
    other = HOSTILE.replace("alert", "prompt")
    page = check(page_of((HOSTILE, arrays), (other, classification(1)), findings=findings, facts={HOSTILE: facts}))
    for text in (HOSTILE, HOSTILE.upper(), other, f"{HOSTILE_LAYER}.kernel[0, 0]"):
        assert text in page.text
    for label in ("experiment", "data SHA-256", "configuration SHA-256", "time", "platform"):
        assert f"{label} {HOSTILE}" in page.text


def break_draws(arrays, value, chains, first):
    for group in ("posterior", "functions", "sample_stats"):
        for name, values in arrays[group].items():
            if values.dtype.kind == "f" and name not in ("num_gradients", "acceptance_rate"):
                values[chains, first:] = value
    return arrays


def stuck(arrays):
    for group in ("posterior", "functions", "sample_stats"):
        for values in arrays[group].values():
            values[1:2] = values[1:2, :1]
    return arrays


def unadjusted(arrays):
    for name in ("acceptance_rate", "energy", "kinetic_temperature"):
        arrays["sample_stats"][name][:] = np.nan
    return arrays | {"attrs": arrays["attrs"] | {"kind": "unadjusted", "sampler": "mclmc"}}


RUNS = {
    "regression": (regression, ["root mean square error", "covered, %"], ["accuracy"]),
    "density": (lambda: density(num_draws=400), ["Trust averages over these draws"], ["Function space", "Reliability"]),
    "ensemble": (ensemble, ["Members of an ensemble", "4 members", "and members of an ensemble have one"], ["Energy"]),
    "approximation": (
        lambda: {**classification(), "attrs": classification()["attrs"] | {"kind": "approximation"}},
        ["Draws of an approximation"],
        ["Energy errors"],
    ),
    "unadjusted": (lambda: unadjusted(classification()), ["Without an accept step", "Energy errors of all chains"], []),
    "one chain": (lambda: classification(num_chains=1), ["1 chain ×", "Do not rely on these draws yet"], ["1 chains"]),  # noqa: RUF001
    "one draw": (lambda: classification(num_draws=1), ["4 chains × 1 draw "], ["members", "1 draws a"]),  # noqa: RUF001
    "three draws": (lambda: classification(num_draws=3), ["Do not rely on these draws yet"], []),
    "stuck chain": (lambda: stuck(classification()), ["a chain stands still"], []),
    "some NaN": (
        lambda: break_draws(classification(), np.nan, 2, 50),
        ["some are not finite", "30 are not finite", "Nothing has an R-hat here"],
        ["needs at least two"],
    ),
    "all NaN": (lambda: break_draws(classification(), np.nan, slice(None), 0), ["some are not finite"], ["Traces"]),
    "infinite": (lambda: break_draws(classification(), -np.inf, 0, 100), ["some are not finite"], []),
    "NaN regression": (lambda: break_draws(regression(), np.nan, 0, 0), ["some are not finite"], []),
    "bare": (
        lambda: {
            "attrs": {"kind": "mcmc", "task": "density"},
            "posterior": {"x": np.random.default_rng(0).normal(size=(4, 400, 6))},
        },
        ["Trust averages over these draws"],
        ["Traces", "Energy and temperature"],
    ),
}


@pytest.mark.parametrize("kind", RUNS)
def test_every_kind_of_run_has_a_page(kind):
    make, expected, absent = RUNS[kind]
    page = check(page_of(("run", make())))
    assert [text for text in expected if text not in page.text] == []
    assert [text for text in absent if text in page.text] == []
    assert all(claim.description in page.text for claim in HEALTH.values())


@pytest.mark.parametrize("kind", ["ensemble", "one chain", "some NaN", "all NaN"])
def test_runs_that_are_not_whole_are_compared_all_the_same(kind):
    arrays = RUNS[kind][0]()
    for runs in ((("HMC", classification()), ("other", arrays)), (("other", arrays), ("HMC", classification()))):
        assert "Predictions, beside other methods" in check(page_of(*runs)).text


@pytest.mark.slow
def test_many_chains_and_draws_leave_the_page_small():
    arrays = classification(num_chains=48, num_draws=300)
    assert len(page_of(("run", arrays))) < 1.5e6  # bytes


def findings(**verdicts):
    return [Finding(name, "health", verdicts.get(name.replace("-", "_"), "pass")) for name in HEALTH]


@pytest.mark.parametrize(
    ("verdicts", "kind", "verdict", "sentence"),
    [
        ({}, "mcmc", "pass", "Trust the predictions; single weights agree between chains, too."),
        ({"weights_converge": "fail"}, "mcmc", "pass", "Trust the predictions; do not trust single weights."),
        ({"functions_converge": "fail"}, "mcmc", "fail", "Do not trust these draws: the chains predict different things."),
        ({"finite": "fail", "functions_converge": "fail"}, "mcmc", "fail", "Do not trust these draws: some are not finite."),
        (
            {"temperature": "fail", "enough_draws": "inconclusive"},
            "sgmcmc",
            "fail",
            "Do not trust these draws: they are not spread",
        ),
        (
            {"enough_draws": "inconclusive", "weights_converge": "fail"},
            "mcmc",
            "inconclusive",
            "Do not rely on these draws yet: there are too few effective draws to tell whether the chains agree; single",
        ),
        ({"functions_converge": "not applicable"}, "mcmc", "pass", "Trust averages over these draws: the chains agree."),
        (
            {"functions_converge": "not applicable", "weights_converge": "fail"},
            "mcmc",
            "fail",
            "Do not trust these draws: the chains disagree.",
        ),
        ({}, "ensemble", "not applicable", "Members of an ensemble"),
        ({"finite": "fail"}, "ensemble", "fail", "Do not trust these draws: some are not finite."),
    ],
)
def test_the_headline_follows_from_the_verdicts(verdicts, kind, verdict, sentence):
    found = headline(findings(**verdicts), kind)
    assert found.verdict == verdict
    assert found.sentence.startswith(sentence)


def test_weights_are_required_where_there_are_no_predictions():
    kinds = {row.claim: row.kind for row in rows(findings())}
    assert kinds["weights-converge"] == "reported"
    kinds = {row.claim: row.kind for row in rows(findings(functions_converge="not applicable"))}
    assert kinds["weights-converge"] == "required"


def test_what_has_no_value_is_held_against_nothing():
    without, with_value = rows(
        [Finding("a", "health", "inconclusive", bound=100), Finding("b", "health", "pass", 120, bound=100)]
    )
    assert (without.value.value, without.bound) == (MISSING, "")
    assert (with_value.value.value, with_value.bound) == ("120", "100")


def test_every_kind_has_a_caveat():
    assert all(headline(findings(), kind).caveat.endswith(".") for kind in KINDS)


def test_a_claim_that_the_headline_does_not_know_is_named():
    found = headline([*findings(), Finding("my-claim", "health", "fail")], "mcmc")
    assert (found.verdict, found.sentence) == ("fail", "Do not trust these draws: the check my-claim fails.")
    assert headline([*findings(), Finding("paper", "hypothesis", "contradicted")], "mcmc").verdict == "pass"
