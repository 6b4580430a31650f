"""`bayesnn measure FOLDER llc` on finished runs."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from bayesnn import measure
from bayesnn.measure.centres import _errors_over_data
from bayesnn.measure.store import read_measure
from bayesnn.run_folder import RunFolder
from tests.bayesnn.conftest import command

pytestmark = pytest.mark.slow

SMALL = ("--draws", "20", "--burn-in", "20", "--thin", "1")


@pytest.fixture(scope="module")
def measured(finished, tmp_path_factory):
    """A copy of a run, measured at two centres, with data drawn again."""
    path = shutil.copytree(finished, tmp_path_factory.mktemp("measured") / "wine")
    status = command("measure", path, "llc", *SMALL, "--centres", "2", "--resamples", "2", "--descent-steps", "300")
    assert status in (0, 1)
    return RunFolder.open(path)


def test_two_centres_are_stored_with_their_verdicts(measured):
    found = read_measure(measured, "llc")
    assert set(found.tree.children) == {"centre_0", "centre_1", "fluctuation"}
    assert found.settings["centres"] == 2
    assert [one.claim for one in found.findings][::6] == ["centre 0: learning coefficient", "centre 1: learning coefficient"]
    centres = [found.tree[name] for name in ("centre_0", "centre_1")]
    for tree in centres:
        assert tree["draws/loss"].shape == (2, 4, 20)
        assert tree["resamples/two_temperature"].shape == (2,)
        assert tree.attrs["num_params"] == sum(variable.size for variable in tree["centre"].to_dataset().data_vars.values())
        assert tree.attrs["num_data"] == 142
        assert np.isfinite(tree["estimates/value"].values).all()
    baselines = [tree.attrs["baseline"] for tree in centres]
    likelihoods = read_best(measured)
    # A centre lies below the best draw of its chain; its loss is a mean over examples.
    assert all(baseline < -best / 142 for baseline, best in zip(baselines, likelihoods, strict=True))


def test_the_fluctuation_is_of_the_runs_own_draws(measured):
    from bayesnn.build import build_posterior
    from bayesnn.load import read_tree

    found = read_measure(measured, "llc").tree["fluctuation"].to_dataset()
    posterior, weights = build_posterior(measured.config), read_tree(measured)["posterior"].to_dataset()
    likelihoods = []
    for chain in range(2):
        for draw in range(40):
            place = weights.isel(chain=chain, draw=draw)
            position = posterior.unflatten({name: place[name].values for name in place.data_vars})
            likelihoods.append(posterior.target.log_likelihood(position, posterior.batch.data, posterior.batch.constants))
    assert float(found["functional_variance"]) == pytest.approx(np.var(likelihoods, axis=0, ddof=1).sum(), rel=1e-3)  # float32


def test_chains_that_are_not_finite_are_left_out_and_counted(measured):
    from bayesnn.build import build_posterior
    from bayesnn.load import read_tree
    from bayesnn.measure.waic import run_fluctuation

    assert read_measure(measured, "llc").tree["fluctuation"].attrs == {"chains_left_out": 0}
    posterior, weights = build_posterior(measured.config), read_tree(measured)["posterior"].to_dataset()
    alone, _ = run_fluctuation(posterior, weights.isel(chain=[1]))
    weights["layer_0.bias"].values[0, 7] = np.nan
    assert run_fluctuation(posterior, weights) == (alone, 1)
    weights["layer_0.bias"].values[1, 7] = np.nan
    assert run_fluctuation(posterior, weights) == (None, 2)


def test_the_fluctuation_is_of_the_temperature_of_the_likelihood(measured):
    from bayesnn.build import build_posterior
    from bayesnn.load import read_tree
    from bayesnn.measure.waic import run_fluctuation
    from samplers import Tempering

    posterior, weights = build_posterior(measured.config), read_tree(measured)["posterior"].to_dataset()
    (one, _), (hot, _) = (
        run_fluctuation(dataclasses.replace(posterior, tempering=tempering), weights)
        for tempering in (Tempering.at(), Tempering.at(2.0, 4.0))
    )
    # beta V / 2, at the same V: the temperature of all times that of the likelihood is 8.
    assert hot.singular_fluctuation == pytest.approx(one.singular_fluctuation / 8)


def test_data_sets_that_lost_all_chains_are_counted():
    forms = {"mean": np.array([1.0, np.nan, 2.0]), "variance": np.array([1.0, np.nan, 3.0])}
    words = _errors_over_data(forms, 3)
    assert "mean 0.71, variance 1.4" in words
    assert "On 1 of them all chains were lost" in words
    assert _errors_over_data({name: values[:2] for name, values in forms.items()}, 2).startswith("There is no error over data.")
    assert _errors_over_data({}, 2).startswith("There is no error over data. On 2 of 2")


def read_best(folder):
    from bayesnn.load import read_tree

    values = read_tree(folder)["sample_stats"].to_dataset()["log_likelihood"].values
    return sorted(values.max(1), reverse=True)


def test_some_parameters_on_the_test_data(cli, finished_copy):
    status, out, err = cli(
        "measure", finished_copy, "llc", *SMALL, "--parameters", "layer_1.*", "--examples", "test", "--sampler", "mala"
    )
    assert status in (0, 1), err
    assert "learning coefficient" in out
    found = read_measure(RunFolder.open(finished_copy), "llc")
    attrs = found.tree["centre_0"].attrs
    assert (attrs["num_params"], attrs["num_data"]) == (15, 36)
    assert found.tree.attrs == {"examples": "test", "parameters": "layer_1.*"}
    assert found.tree["centre_0/centre"].to_dataset()["layer_0.kernel"].shape == (13, 4)  # the whole centre, all the same


def test_mistakes_are_one_message(refused, finished, own, tmp_path):
    assert "no such parameters; there are layer_0.bias" in refused("measure", finished, "llc", "--parameters", "layer_9")
    assert "the run has 2 chains" in refused("measure", finished, "llc", "--centres", "3")
    assert "settings of sgld" in refused("measure", finished, "llc", "--sampler", "nuts", "--batch-size", "3")
    assert "batch_size must be from 1" in refused("measure", finished, "llc", "--batch-size", "1000")


def test_a_density_has_no_loss(refused, own, tmp_path):
    assert command("run", own("gaussian"), "--runs", tmp_path) == 0
    assert "without a likelihood" in refused("measure", tmp_path / "gaussian", "llc")


def test_the_settings_are_registered():
    assert measure.MEASURES["llc"].settings_class()().chains == 4
    assert callable(measure.MEASURES["llc"].load())
