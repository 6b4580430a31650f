"""Runs side by side: the numbers are those of diagnostics.compare, the words agree with them, and it fits a terminal."""

from __future__ import annotations

import io
import shutil

import pytest
from rich.console import Console

from bayesnn.comparison import LOG_SCORE, compare_runs, outcomes, print_comparison, read_trees
from bayesnn.errors import UsageError
from bayesnn.notation import interval
from bayesnn.run_folder import RunFolder
from diagnostics.estimates import Estimate
from diagnostics.fidelity import Comparison, compare
from diagnostics.trees import make_tree
from tests.bayesnn.simulated import classification, density, regression


def printed(trees, width=80):
    console = Console(file=io.StringIO(), width=width)
    print_comparison(console, trees)
    return console.file.getvalue()


def test_every_number_is_printed_once_for_its_run():
    trees = {"good": make_tree(**classification()), "bad": make_tree(**classification(1, error=8))}
    comparison, text = compare(trees), printed(trees)
    for estimate, is_difference in (
        *((run[LOG_SCORE], False) for run in comparison.scores.values()),
        (comparison.differences["bad"]["brier"], True),
        (comparison.closeness["bad"]["total_variation"], False),
        (comparison.noise_floor["total_variation"], False),
    ):
        value, ends = interval(estimate, is_signed=is_difference)
        assert value in text
        assert ends in text
    assert "good beats bad" in text


def test_what_excludes_zero_is_marked_and_nothing_else_is():
    different = {"good": make_tree(**classification()), "bad": make_tree(**classification(1, error=8))}
    same = {"one": make_tree(**classification()), "other": make_tree(**classification())}
    assert "* +" in printed(different)
    assert "* \N{MINUS SIGN}" in printed(dict(reversed(different.items())))
    assert "* +" not in printed(same)
    assert "* \N{MINUS SIGN}" not in printed(same)


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        ((0.02, 0.01, 0.03), "HMC beats SGLD by 0.020 nats a point (95 % interval 0.010 to 0.030, which excludes zero)"),
        ((-0.02, -0.03, -0.01), "SGLD beats HMC by 0.020 nats a point (95 % interval 0.010 to 0.030, which excludes zero)"),
        (
            (0.01, -0.01, 0.03),
            "SGLD and HMC cannot be told apart: −0.010 nats a point (95 % interval −0.030 to +0.010, which includes zero)",  # noqa: RUF001
        ),
    ],
)
def test_the_sentence_names_the_better_run_by_the_sign_of_log_likelihood(difference, sentence):
    # A negative log likelihood that is larger is worse.
    comparison = Comparison("HMC", {}, {"SGLD": {LOG_SCORE: Estimate(*difference)}}, {}, {})
    assert outcomes(comparison) == [f"On test log likelihood {sentence}."]


@pytest.mark.parametrize("num_others", [1, 2])
def test_it_fits_eighty_columns_without_breaking_a_number(num_others):
    names = ["digits-hmc", "digits-sgld", "digits-ensemble"][: num_others + 1]
    trees = {name: make_tree(**classification(seed, error=seed)) for seed, name in enumerate(names)}
    lines = printed(trees).splitlines()
    assert max(map(len, lines)) <= 80
    ends = interval(compare(trees).scores[names[-1]][LOG_SCORE]).ends
    assert any(line.endswith(ends) for line in lines)


def test_names_are_no_markup():
    trees = {"[red]a[/red]": make_tree(**classification()), "[b": make_tree(**classification(1))}
    text = printed(trees)
    assert "[red]a[/red]" in text
    assert "[b" in text


def test_a_single_chain_has_no_noise_floor_and_the_table_says_so():
    trees = {"one": make_tree(**classification(num_chains=1)), "other": make_tree(**classification(1))}
    assert "one chain" in printed(trees)
    assert "one chain" not in printed(dict(reversed(trees.items())))


def test_regressions_are_compared_by_their_own_scores():
    text = printed({"one": make_tree(**regression()), "other": make_tree(**regression(1))})
    assert "root mean square error" in text
    assert "coverage of 90 % intervals" in text
    assert "accuracy" not in text


@pytest.mark.parametrize(
    ("other", "attrs", "message"),
    [
        (regression, {}, r"must be of one task .*HMC: classification, simulated, 60 test points; .*: regression"),
        (density, {}, "run other has no predictions"),
        (
            classification,
            {"data_sha256": "b" * 64},
            r"different data.* simulated a{12}, .* simulated b{12}, ",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_with_what_differs(other, attrs, message):
    base, arrays = classification(), other(1)
    base["attrs"] |= {"data_sha256": "a" * 64} if attrs else {}
    arrays["attrs"] |= attrs
    with pytest.raises(UsageError, match=message):
        compare_runs({"HMC": make_tree(**base), "other": make_tree(**arrays)})


def test_other_test_points_are_refused():
    arrays = classification(1)
    arrays["observed_data"]["y_test"] = arrays["observed_data"]["y_test"][::-1]
    with pytest.raises(UsageError, match="tested on different points"):
        compare_runs({"HMC": make_tree(**classification()), "other": make_tree(**arrays)})


def test_folders_of_one_name_are_told_apart_by_their_parents(finished, tmp_path):
    paths = [tmp_path / "a" / "wine", tmp_path / "b" / "wine", tmp_path / "b" / "again"]
    for path in paths:
        shutil.copytree(finished, path)
    assert list(read_trees([RunFolder.open(path) for path in paths])) == ["a/wine", "b/wine", "again"]
    with pytest.raises(UsageError, match="given more than once"):
        read_trees([RunFolder.open(paths[0]), RunFolder.open(tmp_path / "b" / ".." / "a" / "wine")])
