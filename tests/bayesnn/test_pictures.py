"""Pictures of a run: planes through its draws, and histograms of entropy, of the right inputs and drawn where they are."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from bayesnn import data
from bayesnn.config import HMC, MLP, Data, RunConfig, WarmUp
from bayesnn.launch import sample_into
from bayesnn.load import LoadedRun
from bayesnn.report.entropies import CORRUPTED, OWN, POINTS, draw_entropies, entropies
from bayesnn.report.surface import DECIMALS, read_surfaces, show_surfaces, surfaces_of
from bayesnn.run_folder import RunFolder

# Short steps are all accepted: repeated draws would have no plane.
DIGITS = RunConfig(
    data=Data(name="digits_images"),
    model=MLP(widths=(3,)),
    sampler=HMC(step_size=1e-3, max_num_steps=20),
    warmup=WarmUp(steps=0),
    draws=3,
    chains=3,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("entropies") / "digits"
    assert sample_into(path, "digits", DIGITS) == "complete"
    return LoadedRun(RunFolder.open(path))


@pytest.fixture(scope="module")
def found(run, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("BAYESNN_DATA", str(tmp_path_factory.mktemp("nothing")))
        return entropies({"HMC": run, "again": run})


def test_a_run_in_its_folder_has_the_planes_of_its_draws_as_plain_data(run):
    stored = surfaces_of(run, size=11)
    found = read_surfaces(json.loads(json.dumps(stored)))
    assert list(found) == [f"{place}, {words}" for place in ("one chain", "three chains") for words in ("as drawn", "aligned")]
    one = found["three chains, as drawn"]
    row, column = np.argmin(np.abs(one.y)), np.argmin(np.abs(one.x - 1))
    recorded = run.tree["sample_stats"]["log_likelihood"].values[1, -1]
    # Of the second draw; sums over 1,437 examples in float32.
    assert one.log_likelihood[row, column] == pytest.approx(recorded, rel=1e-5, abs=10**-DECIMALS)
    [shown] = show_surfaces(stored).figures
    assert shown.chart.startswith('<img class="picture" alt="Log posterior, ')
    assert "base64,iVBORw0KGgo" in shown.chart  # what every PNG begins with


def test_entropies_are_those_of_the_mixture_of_all_draws(found, run):
    p = run.tree["functions"]["probability"].values.mean((0, 1), dtype=np.float64)
    entropy = -(p * np.log(p)).sum(1)
    one = found["sets"][OWN]["HMC"]
    # Predictions of the run and those made anew are in float32: relative errors of 1e-6 or so in each of ten probabilities.
    assert one["mean"] == pytest.approx(entropy.mean(), rel=1e-4)
    counts, _ = np.histogram(entropy, found["edges"])
    # A point within rounding of an edge may fall on its other side.
    np.testing.assert_allclose(one["shares"], counts / len(p), atol=2 / len(p))
    assert found["sets"][OWN]["again"] == one
    assert found["edges"][-1] == pytest.approx(np.log(10), abs=1e-6)


def test_each_input_is_under_one_corruption_in_turn(found, run):
    dataset = data.load("digits_images")
    names = data.corruptions_of(dataset)
    x = np.stack([data.corrupt(dataset, names[row % len(names)], 5)[row] for row in range(len(dataset.x_test))])
    p = run.predict(dataset.original_inputs(x[:POINTS]))["probability"]
    expected = float(-(p * np.log(p)).sum(1).mean())
    assert found["sets"][CORRUPTED]["HMC"]["mean"] == pytest.approx(expected, rel=1e-6)
    assert found["sets"][OWN]["HMC"]["mean"] != pytest.approx(expected, rel=1e-5)


def test_sets_that_are_not_at_hand_are_said_to_be_missing(found):
    assert set(found["sets"]) == {OWN, CORRUPTED}
    assert set(found["left_out"]) == {"notmnist", "fashion_mnist"}
    remark = draw_entropies(found).remark
    assert remark.startswith("Without notmnist: ")
    assert "Without fashion_mnist: " in remark


def test_outlines_are_drawn_at_the_shares():
    stored = {
        "edges": [0.0, 1.0, 2.0],
        "sets": {"<own>": {"HMC": {"shares": [0.75, 0.25], "mean": 0.5}, "<b>": {"shares": [0.0, 1.0], "mean": 1.5}}},
        "left_out": {},
    }
    drawing = draw_entropies(stored)
    (figure,) = drawing.figures
    assert drawing.remark == ""
    assert "<b>" not in figure.note + figure.chart
    assert re.findall(r'class="(chain-\d)">(.+?)</strong> (\S+)', figure.note) == [
        ("chain-0", "HMC", "0.5,"),
        ("chain-1", "&lt;b&gt;", "1.5"),
    ]
    outlines = [re.findall(r"([\d.]+),([\d.]+)", points) for points in re.findall(r'points="(.+?)"', figure.chart)]
    heights = [[1 - float(y) / 130 for _, y in outline] for outline in outlines]  # of an axis from 0 to 100 %
    # Pixels are rounded to a tenth.
    np.testing.assert_allclose(heights, [[0, 0.75, 0.75, 0.25, 0.25, 0], [0, 0, 0, 1, 1, 0]], atol=0.05 / 130 + 1e-9)
    assert [float(x) for x, _ in outlines[0]] == [0, 0, 500, 500, 1000, 1000]
