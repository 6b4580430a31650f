"""What was measured on a run is on its page: the numbers as they are stored, in the order of the questions."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pytest
import xarray as xr

from bayesnn.measure import MEASURES
from bayesnn.measure.store import Measure, write_measure
from bayesnn.notation import MINUS, interval
from bayesnn.report import exhibits, render, write_report
from bayesnn.report import measured as section
from bayesnn.report.panels import Value, panel
from bayesnn.report.verdict import headline
from bayesnn.run_folder import RunFolder
from diagnostics.claims import Finding
from diagnostics.estimates import Estimate
from diagnostics.standard import audit
from diagnostics.summary import summarise
from diagnostics.trees import make_tree
from tests.bayesnn import measured as results
from tests.bayesnn.simulated import classification
from tests.bayesnn.test_report import HOSTILE, check

FOUND = "Measured on this run"


def page(measures):
    tree = make_tree(**classification())
    summary = summarise(tree)
    return render({"run": tree}, {"run": summary}, audit(tree, summary=summary), measures=measures)


@pytest.fixture(scope="module")
def measures():
    return results.everything()


@pytest.fixture(scope="module")
def text(measures):
    return check(page(measures)).text


def test_a_run_without_measures_has_no_such_section(text):
    assert FOUND in text
    assert FOUND not in check(page({})).text


def test_every_measure_of_the_command_line_has_its_place(measures):
    assert set(section.ABOUT) == set(MEASURES) == set(measures)


def test_resonance_comes_before_any_talk_of_basins(text):
    positions = [text.index(about.title) for about in section.ABOUT.values()]
    assert positions == sorted(positions)
    assert text.index("trajectories of one length resonate") < text.index(section.ABOUT["basins"].title)


def test_every_finding_is_there_with_its_kind_and_its_verdict(measures, text):
    for name, measure in measures.items():
        for finding in measure.findings:
            prefix, _, claim = finding.claim.rpartition(": ")
            words = section.ABOUT[name].claims[claim]
            described = f"{prefix}: {words}" if prefix else words
            assert f"{finding.verdict} {described} {name}" in text, finding.claim  # in the overview
            assert f"{finding.verdict} {described} {finding.kind} · {finding.claim}" in text
            assert finding.note in text


@pytest.mark.parametrize(
    "numbers",
    [
        "layer_0.kernel 0.980 0.950 to 1.020",
        "order 2.000",
        "chain 3, draw 39 1.70 1.59 to 1.82 2.50 2.39 to 2.62",
        "steps from region to region",
        "3 below 4 draws: 75 per 100",
        "7.5 to 7.5 nats, the lowest found",
        "stepping stone −41.52 −41.80 to −41.24",  # noqa: RUF001
        "3 to 11",
        "mean 7.00 6.80 to 7.20 9.00 8.80 to 9.20",
        "two-temperature 8.00 7.61 to 8.39 —",
        "free energy (WBIC), centre 0 9.0 (8.4 to 9.6) nats",
        "singular fluctuation of the draws 6.50 (6.01 to 6.99); 15 in a regular model",
        "notmnist 0.910 0.880 to 0.940 0.710 0.660 to 0.750",
    ],
)
def test_numbers_are_those_of_the_results(numbers, text):
    assert numbers in text


def test_accuracies_and_shares_are_in_percent(measures, text):
    accuracy = measures["shift"].tree["accuracy"].sel(corruption="fog", intensity=5).values
    half = 1.96 * accuracy.std(ddof=1) / 10
    value, ends = interval(Estimate(accuracy.mean(), accuracy.mean() - half, accuracy.mean() + half), unit=0.01)
    assert re.search(rf"fog \S+ \S+ to \S+ {value} {ends}", text)
    table = measures["resonance"].tree.to_dataset().sel(direction="directions", threshold=1.1, trajectory="fixed")
    value, ends = interval(Estimate(*(float(table[name]) for name in ("share", "share_lower", "share_upper"))), unit=0.01)
    assert float(table["share"]) > 0.3  # ten of twenty stand apart
    assert f"directions, above 1.1 {value} {ends} stationary: at most" in text


def test_visits_to_clusters_of_weights_have_a_panel_of_their_own(measures):
    shown = check(page({"basins": measures["basins"]})).text
    panel = shown[shown.index("Visits to each cluster of weights beside its mass, %") :]
    table = measures["basins"].tree["weights"].to_dataset()
    first = float(re.findall(r"-?\d+\.?\d*", panel)[1])  # after the region's name, 0
    assert first == pytest.approx(100 * float(table["visit_share"][0]), abs=0.5)
    assert abs(first - 100 * float(measures["basins"].tree["regions"]["visit_share"][0])) > 10  # the other panel's


def test_visits_stand_beside_masses_in_percent(measures):
    table = measures["basins"].tree["regions"].to_dataset()
    shown = check(page({"basins": measures["basins"]})).text
    row = shown[shown.index("prior volume") :]
    written = [float(value) for value in re.findall(r"-?\d+\.?\d*", row)[1:11]]  # after the region's name, 0
    columns = ("visit_share", "visit_lower", "visit_upper", "mass", "mass_lower", "mass_upper")
    expected = [table[name].values[..., 0].ravel() for name in columns]
    visits, masses = np.ravel(expected[:3]), np.ravel(expected[3:]).reshape(3, 2).T.ravel()
    # Two digits of intervals a few percent wide: half of the last one.
    np.testing.assert_allclose(written, 100 * np.concatenate([visits, masses, [0.6]]), atol=0.5)


def test_scores_of_regions_are_those_of_the_claim(measures, text):
    finding = next(one for one in measures["basins"].findings if one.claim.startswith("predictions-robust"))
    gain = interval(Estimate(finding.value, *finding.interval))
    assert f"paired weighted gain by mass {gain.value} {gain.ends}" in text
    for name, words in (("visits", "as visited"), ("mass", "by mass"), ("stacking", "stacked")):
        score = re.search(rf"{name} (-\d\.\d+)", finding.note).group(1)
        shown = re.search(rf"a test point weighted log score .*?{words} (\S+)", text).group(1)
        assert abs(float(score) - float(shown.replace(MINUS, "-"))) <= 0.006  # rounded to the thousandth, and to the hundredth


def test_measured_findings_do_not_touch_the_answer(measures):
    tree = make_tree(**classification())
    answer = headline(audit(tree), "mcmc")
    shown = check(page(measures))
    assert "fail" in shown.text
    assert f"{answer.sentence} run" in shown.text
    assert answer.tally in shown.text


def test_an_unknown_measure_shows_its_findings_and_settings():
    tree, finding = (
        xr.DataTree(xr.Dataset({"x": 1.0})),
        Finding("their claim", "hypothesis", "contradicted", 2.5, note="So it is."),
    )
    shown = check(page({"theirs": Measure(tree, {"size": 7}, [finding]), "shift": results.shift()})).text
    assert "contradicted their claim hypothesis · their claim 2.5 So it is." in shown
    assert "size 7" in shown
    assert shown.index("fog") < shown.index("So it is.")


def test_hostile_names_and_notes_are_text():
    finding = Finding(HOSTILE, "hypothesis", "supported", 1.0, note=HOSTILE)
    assert HOSTILE in check(page({HOSTILE: Measure(xr.DataTree(), {HOSTILE: HOSTILE}, [finding])})).text


def test_a_chain_that_is_lost_leaves_no_form_to_draw():
    lost = results.llc()
    for name in ("centre_0", "centre_1"):
        lost.tree[f"{name}/estimates"] = xr.DataTree(lost.tree[f"{name}/estimates"].to_dataset().isel(form=slice(0)))
    assert "singular fluctuation of the draws" in check(page({"llc": lost})).text


def test_marks_are_drawn_where_their_numbers_are():
    first, second = Value(Estimate(0.25, 0.1, 0.5), 0.4), Value(Estimate(0.75, np.nan, np.nan))
    drawn = panel("A", "b", ["row"], {"one": [first], "other": [second]}, unit=0.01, reference=50, include=(0, 100))
    (row,) = drawn.rows
    assert [cell.value for cell in row.cells] == [("25", "10 to 50"), ("75", "")]
    assert [cell.note for cell in row.cells] == ["stationary: at most 40", ""]
    dots = re.findall(r'<circle class="(series-\d)" cx="(\d+)%"', row.chart)
    assert dots == [("series-0", "25"), ("series-1", "75")]
    assert re.findall(r'class="whisker (series-\d)" x1="(\d+)%" x2="(\d+)%"', row.chart) == [("series-0", "10", "50")]
    assert re.findall(r'class="largest (series-\d)" x1="(\d+)%"', row.chart) == [("series-0", "40")]
    assert re.findall(r'class="threshold" x1="(\d+)%"', row.chart) == ["50"]
    heights = [float(height) for height in re.findall(r'cy="([\d.]+)"', row.chart)]
    assert heights[0] < heights[1]  # the first series above the second


def test_what_stationary_chains_hardly_ever_show_is_drawn_as_nothing():
    drawn = panel("A", "b", ["row"], {"one": [Value(Estimate(0.0, np.nan, np.nan), 1e-45)]}, include=(0, 1))
    assert drawn.rows[0].cells[0].note == "stationary: at most 0"
    assert "e\u2212" not in drawn.ticks
    assert re.findall(r"x1=\"(\d+)%", drawn.rows[0].chart) == ["0"]


def test_a_road_to_the_evidence_without_use_does_not_spoil_the_others():
    """Thermodynamic integration of a heteroscedastic likelihood has had an interval of thousands of nats."""
    useless = results.evidence()
    table = useless.tree["evidence"].to_dataset()
    for name, value in (("lower", -9000.0), ("upper", 4000.0)):
        table[name].values[2] = value
    useless.tree["evidence"] = xr.DataTree(table)
    [drawn] = exhibits.evidence(useless).panels
    [sound] = exhibits.evidence(results.evidence()).panels
    ticks = [[float(tick.replace(MINUS, "-")) for tick in re.findall(r">([^<]+)</text>", one.ticks)] for one in (drawn, sound)]
    assert np.ptp(ticks[0]) <= np.ptp(ticks[1])  # those of the others, and no more
    assert [row.chart.count("\N{BLACK LEFT-POINTING SMALL TRIANGLE}") for row in drawn.rows] == [0, 0, 1]
    assert drawn.rows[2].cells[0].value.ends.endswith("4,000")
    assert "TRIANGLE" not in "".join(map(unicodedata.name, "".join(row.chart for row in sound.rows)))


def test_a_folder_s_measures_are_on_its_page_and_in_no_other_file(finished_copy):
    folder = RunFolder.open(finished_copy)
    assert FOUND not in write_report(folder).read_text()
    before = (finished_copy / "findings.json").read_bytes()
    evidence = results.evidence()
    write_measure(folder, "evidence", evidence.tree, evidence.settings, evidence.findings)
    source = write_report(folder).read_text()
    assert "They agree." in source
    assert (finished_copy / "findings.json").read_bytes() == before
    assert write_report(folder).read_text() == source


@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.slow
def test_what_the_commands_store_is_what_the_page_reads(cli, finished_copy):
    # Their exit statuses are verdicts on a short run, and may be 1.
    few = ("--systems", "4", "--particles", "40", "--rungs", "2", "--ladder-warmup", "16", "--ladder-draws", "50")
    names = {
        "directions": (),
        "resonance": ("--draws", "20", "--chains", "2"),
        "llc": ("--draws", "20", "--burn-in", "5", "--descent-steps", "5"),
        "basins": (*few, "--minima", "2", "--num-regions", "2", "--max-num-steps", "2"),
    }
    for name, words in names.items():
        outcome = cli("measure", finished_copy, name, *words)
        assert outcome.status in (0, 1), outcome.err
    shown = check(write_report(RunFolder.open(finished_copy)).read_text()).text
    assert all(section.ABOUT[name].title in shown for name in names)
    assert "if the minimum were regular" in shown
    assert "2 clusters of functions" in shown
