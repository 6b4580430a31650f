"""Findings: what they refuse, and that they survive the way to disk and back."""

import json
import math

import numpy as np
import pytest

from diagnostics.claims import Finding, interval_text, percent


@pytest.mark.parametrize(
    "finding",
    [
        Finding("finite", "health", "pass", 0.0, (0.0, 1.5), 0.0, "All is well."),
        Finding("llc", "hypothesis", "contradicted", np.float32(1.25), (np.float64(-np.inf), 2), math.inf, "Mu\u00dfte sein."),
        Finding("temperature", "health", "not applicable"),
        Finding("energy", "health", "inconclusive", math.nan, (math.nan, 1.0), np.nan),
    ],
)
def test_round_trip_through_strict_json(finding):
    text = json.dumps(finding.to_dict(), allow_nan=False)
    assert Finding.from_dict(json.loads(text)) == finding


def test_nan_is_no_value():
    finding = Finding("energy", "health", "inconclusive", math.nan, (math.nan, 1.0), math.nan)
    assert (finding.value, finding.interval, finding.bound) == (None, None, None)


def test_infinities_and_numpy_numbers():
    finding = Finding("r", "hypothesis", "supported", np.float32(0.5), (0, np.inf))
    assert finding.interval == (0.0, math.inf)
    assert type(finding.value) is float
    assert finding.to_dict()["interval"] == [0.0, "inf"]


@pytest.mark.parametrize(
    ("kind", "verdict", "message"),
    [
        ("health", "supported", "health claim must be one of pass, fail"),
        ("hypothesis", "pass", "hypothesis claim must be one of supported"),
        ("healthy", "pass", "kind must be one of health, hypothesis; got 'healthy'"),
    ],
)
def test_verdicts_belong_to_kinds(kind, verdict, message):
    with pytest.raises(ValueError, match=message):
        Finding("x", kind, verdict)


def test_from_dict_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="a finding has no colour"):
        Finding.from_dict({"claim": "x", "kind": "health", "verdict": "pass", "colour": "green"})
    with pytest.raises(ValueError, match="a finding needs verdict"):
        Finding.from_dict({"claim": "x", "kind": "health"})


def test_findings_cannot_be_changed():
    with pytest.raises(AttributeError):
        Finding("x", "health", "pass").verdict = "fail"


def test_numbers_are_written_to_the_digits_they_deserve():
    assert percent(0.5) == "50 %"
    assert interval_text(0.99959, 0.99873, 1.00045) == "0.9996 (95 % interval 0.9987 to 1.0005)"
    assert interval_text(123.4, 100.0, 150.0) == "123 (95 % interval 100 to 150)"
    assert interval_text(1.0, 1.0, 1.0) == "1.000 (95 % interval 1.000 to 1.000)"
