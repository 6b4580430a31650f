"""What the figures show is what was measured: areas are shares, lines keep their extremes, bands hold what they say."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from bayesnn.notation import share
from bayesnn.report.convergence import rhat_axis, spaces
from bayesnn.report.plots import Axis, Chart, linear_axis, thinned
from bayesnn.report.ranks import MAX_CHAINS, rank_counts, rank_plots, uniform_band
from bayesnn.report.sampling import strips
from diagnostics.estimates import LEVEL, Estimate
from diagnostics.summary import summarise
from diagnostics.trees import make_tree
from tests.bayesnn.simulated import classification

ROUNDING = 0.05  # pixels: heights are written to a tenth of a pixel


def bars(markup):
    """Return the left edge, the width (both %) and the height (pixels) of bars."""
    rects = [element for element in ElementTree.fromstring(markup).iter() if element.tag == "rect"]
    return np.array([[float(rect.get(name).rstrip("%")) for name in ("x", "width", "height")] for rect in rects]).T


@pytest.fixture(scope="module")
def disagreeing():
    """A run whose chain 0 has four of its 30 weights elsewhere; the second of them furthest."""
    arrays = classification()
    arrays["posterior"]["layer_0.kernel"][0, :, 1, :] += [2.0, 5.0, 1.5, 0.5]
    tree = make_tree(**arrays)
    return tree, summarise(tree)


def test_areas_of_the_histogram_are_the_shares_that_are_written(disagreeing):
    _, summary = disagreeing
    for space, group in zip(spaces(summary), ("functions", "posterior"), strict=True):
        variables = summary[group].to_dataset().sel(statistic="rhat").data_vars.values()
        rhat = np.concatenate([variable.values.ravel() for variable in variables])
        left, width, height = bars(space.panel)
        bound = ROUNDING * width.sum() / (width * height).sum()
        axis = rhat_axis(rhat)
        for threshold in (1.01, 1.1):
            measured = np.mean(rhat <= threshold)
            is_below = left + width <= 100 * axis(threshold) + 1e-3  # places are written to a thousandth of a percent
            assert abs((width * height)[is_below].sum() / (width * height).sum() - measured) < 2 * bound
            assert f"{share(measured)} below {threshold}" in space.panel
    assert np.mean(rhat > 1.1) > 0.05  # else both thresholds say the same


def test_both_spaces_share_an_axis_that_holds_the_largest_rhat(disagreeing):
    _, summary = disagreeing
    functions, weights = (ElementTree.fromstring(space.panel) for space in spaces(summary))
    labels = [[text.text for text in root.iter("text") if text.get("class") == "tick"] for root in (functions, weights)]
    assert labels[0] == labels[1]
    largest = float(summary["posterior"]["layer_0.kernel"].sel(statistic="rhat").max())
    assert rhat_axis(np.array([1.0, largest])).upper >= largest
    assert rhat_axis(np.array([1.0, np.inf])).upper == 2.0  # chains that stand still are not drawn further than others
    assert rhat_axis(np.array([1e9])).upper == pytest.approx(1001)


def test_the_worst_are_picked_and_named(disagreeing):
    tree, summary = disagreeing
    plots = [plot for plot in rank_plots(tree, summary) if plot.style == "weights"]
    assert [plot.name for plot in plots] == ["layer_0.kernel[1, 1]", "layer_0.kernel[1, 0]", "layer_0.kernel[1, 2]"]
    left, _, _ = bars(plots[0].charts[0])
    assert left.min() >= 70  # chain 0, one of four, has nearly all of the highest ranks


def test_of_many_chains_the_ones_furthest_from_uniform_are_shown():
    arrays = classification(num_chains=MAX_CHAINS + 3, num_draws=40)
    arrays["posterior"]["layer_1.kernel"][[2, 13], :, 0] += 100
    tree = make_tree(**arrays)
    plot = next(plot for plot in rank_plots(tree, summarise(tree)) if plot.name == "layer_1.kernel[0]")
    labels = [re.search(r"in chain (\d+)", chart).group(1) for chart in plot.charts]
    assert len(labels) == MAX_CHAINS
    assert {"2", "13"} <= set(labels)
    assert labels == sorted(labels, key=int)


def test_ranks_count_every_draw_once_and_share_ties():
    draws = np.random.default_rng(0).normal(size=(3, 50))
    counts = rank_counts(draws, 10)
    assert (counts.sum(1) == 50).all()
    assert (counts.sum(0) == 15).all()
    assert (rank_counts(np.exp(draws), 10) == counts).all()
    assert (rank_counts(np.zeros((3, 50)), 10)[:, [4, 5]].sum(1) == 50).all()


def test_the_band_holds_independent_chains_and_not_others():
    rng, num_chains, num_draws, num_bins, num_runs = np.random.default_rng(0), 4, 200, 20, 500
    low, high = uniform_band(num_chains, num_draws, num_bins)

    def share_outside(draws):
        counts = np.stack([rank_counts(run, num_bins) for run in draws])
        return np.mean(((counts < low) | (counts > high)).any(-1))

    independent = rng.normal(size=(num_runs, num_chains, num_draws))
    # Four standard errors of a share of chains; those of a run are negatively dependent, which makes it smaller.
    assert share_outside(independent) <= 1 - LEVEL + 4 * np.sqrt(LEVEL * (1 - LEVEL) / (num_runs * num_chains))
    assert share_outside(independent) > 0  # the band is no wider than it has to be
    assert share_outside(independent[:50] + np.array([1.0, 0, 0, 0])[:, None]) > 0.25


def test_a_thinned_line_keeps_every_extreme():
    values = np.random.default_rng(0).normal(size=10_000)
    values[[17, 7777]] = [50, -60]
    x, y = thinned(values, 100)
    assert len(x) == len(y) == 200
    assert (np.diff(x) >= 0).all()
    assert (values[x.astype(int)] == y).all()
    assert {50, -60} <= set(y)
    assert thinned(values[:150], 100)[1].tolist() == values[:150].tolist()


@pytest.mark.parametrize("values", [[0.0, 1.0], [-1234.5, -1200.1], [3.0, 3.0], [1e-9, 2e-9], [-2e8, 5e8], [np.nan, 2.0], []])
def test_an_axis_holds_its_values_between_round_ticks(values):
    axis = linear_axis(values)
    finite = [value for value in values if np.isfinite(value)]
    assert axis.lower <= min(finite, default=0) <= max(finite, default=0) <= axis.upper
    assert axis.lower < axis.upper
    places, labels = zip(*axis.ticks, strict=True)
    assert len(set(labels)) == len(labels)
    assert 3 <= len(labels) <= 12
    assert np.allclose(np.diff(places), places[1] - places[0])
    assert re.fullmatch(r"[125](\.0*)?", f"{places[1] - places[0]:e}".split("e")[0].rstrip("0"))


def test_a_place_beyond_the_axis_stays_on_its_end():
    axis = Axis(1.0, 101.0, (), lambda values: np.log10(np.maximum(values, 1e-3)))
    assert axis(np.array([0.0, 1.0, 101.0, 1e9])).tolist() == [0, 0, 1, 1]


def test_marks_without_a_place_are_left_out():
    chart = Chart("chart", Axis(0, 1), Axis(0, 1), 100)
    chart.point(np.nan, 0.5, "mark")
    chart.segment((0, np.inf), (0, 1), "whisker")
    assert len(chart.root) == 0
    chart.point(0.25, 0.5, "mark")
    chart.segment((0, 1), (0, 1), "whisker")
    assert [(mark.tag, mark.get("class")) for mark in chart.root] == [("circle", "mark"), ("line", "whisker")]
    assert (chart.root[0].get("cx"), chart.root[0].get("cy")) == ("25%", "50")


def test_strips_draw_the_interval_where_it_is():
    rows, _ = strips({"first": Estimate(1.0, 0.5, 1.5), "second": Estimate(3.0, 2.0, 4.0)}, 0.0)
    mark = ElementTree.fromstring(rows[1].chart).find("circle")
    whisker = next(line for line in ElementTree.fromstring(rows[1].chart).iter("line") if line.get("class") == "whisker")
    assert (whisker.get("x1"), mark.get("cx"), whisker.get("x2")) == ("50%", "75%", "100%")  # of an axis from 0 to 4


def test_strips_shade_the_band_and_draw_every_reference():
    rows, _ = strips({"first": Estimate(1.0, 0.0, 4.0)}, 1.0, 2.0, band=(1.0, 3.0))
    chart = ElementTree.fromstring(rows[0].chart)
    assert [line.get("x1") for line in chart.iter("line") if line.get("class") == "threshold"] == ["25%", "50%"]
    [band] = chart.iter("polygon")
    assert band.get("class") == "band"
    assert {point.split(",")[0] for point in band.get("points").split()} == {"250.0", "750.0"}


def test_a_row_that_squeezes_all_others_is_off_the_scale_and_says_so():
    estimates = {"a": Estimate(1.0, 0.5, 1.5), "b": Estimate(2.0, 1.0, 3.0), "far": Estimate(900.0, 800.0, 1000.0)}
    rows, ticks = strips(estimates, 0.0)
    assert [tick.text for tick in ElementTree.fromstring(ticks).iter("text")][-1] == "3"
    marks = [ElementTree.fromstring(row.chart).findall("circle") for row in rows]
    assert [len(found) for found in marks] == [1, 1, 0]
    assert "off scale \N{BLACK RIGHT-POINTING SMALL TRIANGLE}" in rows[2].chart
    assert all("off scale" not in row.chart for row in rows[:2])
    assert rows[2].value.value == "900"  # written as it is
    for kept in ({**estimates, "far": Estimate(9.0, 8.0, 10.0)}, {name: estimates[name] for name in ("a", "far")}):
        assert all("off scale" not in row.chart for row in strips(kept, 0.0)[0])


def test_an_interval_that_leaves_the_scale_has_arrows_where_it_does():
    chart = Chart("chart", Axis(0, 1), Axis(0, 1), 20)
    chart.estimate(Estimate(0.5, -900.0, 900.0), 0.5, "whisker", "mark")
    assert [text.text for text in chart.root.iter("text")] == [
        "\N{BLACK LEFT-POINTING SMALL TRIANGLE}",
        "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}",
    ]
    assert chart.root.find("circle").get("cx") == "50%"
    chart = Chart("chart", Axis(0, 1), Axis(0, 1), 20)
    chart.estimate(Estimate(0.5, np.nan, np.nan), 0.5, "whisker", "mark")
    assert [mark.tag for mark in chart.root] == ["circle"]
