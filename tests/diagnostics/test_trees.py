"""Trees: ArviZ reads them, and arrays that do not fit together are refused with the reason."""

import arviz_stats
import numpy as np
import pytest
import xarray as xr

from diagnostics.trees import check_tree, layer_of, make_tree, predicted, weights

ATTRS = {"kind": "mcmc", "task": "density"}


def test_layer_is_all_before_the_last_dot():
    assert [layer_of(name) for name in ("a.b.kernel", "layer_0.bias", "x")] == ["a.b", "layer_0", "x"]


def test_arviz_works_on_a_tree(simulate):
    tree = simulate.healthy_tree()
    assert tree["posterior"]["layer_0.kernel"].dims[:2] == ("chain", "draw")
    assert set(arviz_stats.ess(tree, group="posterior").data_vars) == {"layer_0.kernel", "layer_0.bias", "layer_1.kernel"}


def test_layers_come_from_the_posterior_in_its_order(simulate):
    sizes = simulate.healthy_tree()["constant_data"]["layer_size"]
    assert dict(zip(sizes["layer"].values, sizes.values, strict=True)) == {"layer_0": 120, "layer_1": 30}


def test_layers_can_be_given_when_weights_were_not_all_kept():
    tree = make_tree(
        attrs=ATTRS, posterior={"b.w": np.zeros((1, 2))}, sample_stats={"virial": np.zeros((1, 2, 2))}, layers={"a": 7, "b": 9}
    )
    assert tree["sample_stats"]["virial"]["layer"].values.tolist() == ["a", "b"]
    assert tree["constant_data"]["layer_size"].values.tolist() == [7, 9]


def test_weights_come_in_the_order_of_the_layers():
    names = ("b.bias", "a.kernel", "b.kernel", "a.bias")
    arrays = {name: np.zeros((1, 3)) for name in names}
    tree = make_tree(attrs=ATTRS, posterior=arrays, layers={"a": 2, "b": 2})
    assert list(weights(tree).data_vars) == ["a.kernel", "a.bias", "b.bias", "b.kernel"]
    del tree["constant_data"]
    assert list(weights(tree).data_vars) == list(names)


def test_functions_are_all_but_the_log_likelihood(simulate):
    assert list(predicted(simulate.healthy_tree()).data_vars) == ["probability"]
    assert not predicted(make_tree(attrs=ATTRS, posterior={"x": np.zeros((2, 5))})).data_vars


def test_a_tree_survives_a_netcdf_like_round_trip(simulate):
    tree = simulate.healthy_tree()
    again = xr.DataTree.from_dict({node.path: node.to_dataset() for node in tree.subtree})
    check_tree(again)
    xr.testing.assert_identical(tree, again)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attrs": {"kind": "mcm", "task": "density"}}, "kind must be one of .*got 'mcm'; did you mean mcmc"),
        ({"attrs": {"kind": "mcmc"}}, "task must be one of .*got None"),
        ({"attrs": {**ATTRS, "temperature": 0.0}}, "temperature must be positive, got 0.0"),
        ({"posterior": {}}, "no group posterior"),
        ({"posterior": {"w": np.zeros((2, 4)), "v": np.zeros((2, 5))}}, "conflicting sizes|same chains x draws"),
        ({"sample_stats": {"energy": np.zeros((2, 5))}}, "same chains x draws, got: .*2 x 4.*2 x 5|.*2 x 5.*2 x 4"),
        ({"sample_stats": {"virial": np.zeros((2, 4, 3))}}, "virial has 3 layers, expected 1: w"),
        ({"functions": {"probability": np.zeros((2, 4, 3))}}, r"probability must have dimensions \(chain, draw, point, class\)"),
        (
            {
                "functions": {"mean": np.zeros((2, 4, 3)), "scale": np.ones((2, 4, 3))},
                "observed_data": {"y_test": np.zeros(5)},
            },
            "at 3 points and y_test at 5",
        ),
        ({"functions": {"mean": np.zeros((2, 4, 3))}}, "mean and scale; one of them is missing"),
        (
            {"functions": {"probability": np.full((2, 4, 3, 2), 0.5)}, "observed_data": {"y_test": np.array([0, 1, 2])}},
            "integers from 0 to 1, got int64 from 0 to 2",
        ),
        (
            {"functions": {"log_likelihood": np.zeros((2, 4, 3))}, "observed_data": {"labels": np.zeros(3)}},
            "must hold y_test.*it holds labels",
        ),
        ({"posterior": {"w": np.zeros((2, 0))}}, "no draws"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make_tree(**({"attrs": ATTRS, "posterior": {"w": np.zeros((2, 4))}} | change))


def test_a_tree_with_other_dimensions_is_refused():
    tree = xr.DataTree.from_dict({"/posterior": xr.Dataset({"w": (("draw", "chain"), np.zeros((4, 2)))})})
    tree.attrs = ATTRS
    with pytest.raises(ValueError, match=r"posterior.w must start with the dimensions chain and draw"):
        check_tree(tree)
