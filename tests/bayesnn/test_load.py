"""Runs read back and used: the tree, predictions in original units, starts from files, sampling in memory."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint.experimental.v1 as orbax
import pytest
import xarray as xr

import bayesnn
import samplers
from bayesnn import data, inference
from bayesnn.build import build_method, build_posterior, build_problem
from bayesnn.config import HMC, Imported, WarmUp
from bayesnn.execute import begin
from bayesnn.load import load_run
from bayesnn.models import named
from tests.bayesnn import experiments as own_experiments
from tests.bayesnn.conftest import EXPERIMENTS, command

TOLERANCE = 1e-5  # of sums of float32 numbers of order one, a few dozen roundings of 6e-8 each


@pytest.fixture(scope="module")
def line_run(tmp_path_factory):
    """A regression run in which everything is the user's own."""
    path = tmp_path_factory.mktemp("line") / "line"
    assert command("run", f"{EXPERIMENTS}:own_parts", "--name", "line", "--runs", path.parent, "--draws", "6") == 0
    return path


def test_the_tree_is_what_xarray_shows_of_the_store(finished):
    tree = load_run(finished).tree
    store = xr.open_datatree(finished / "shards/0-2/draws.zarr", engine="zarr", consolidated=False)
    assert set(tree.children) == set(store.children)
    for name in tree.children:
        stored, read = store[name].to_dataset(), tree[name].to_dataset()
        assert set(read.data_vars) == set(stored.data_vars)
        for variable, values in read.data_vars.items():
            assert values.dims == stored[variable].dims
            np.testing.assert_array_equal(values, stored[variable])
    assert tree["posterior"]["layer_0.kernel"].shape == (2, 40, 13, 4)
    assert tree["functions"]["probability"].dims == ("chain", "draw", "point", "class")
    assert tree["sample_stats"]["virial"].layer.values.tolist() == ["layer_0", "layer_1"]
    assert tree.attrs["num_data"] == 142
    assert tree.attrs["name"] == "wine"


def test_draws_keep_what_the_network_says_of_them(finished):
    """Functions, densities: recomputed from the weights that were read."""
    run = load_run(finished)
    posterior, tree = build_posterior(run.config), run.tree
    position = posterior.unflatten({n: v.values[1, 7] for n, v in tree["posterior"].data_vars.items()})
    probability = posterior.functions(position, posterior.dataset.x_test)["probability"]
    np.testing.assert_allclose(tree["functions"]["probability"][1, 7], probability, atol=TOLERANCE)
    log_prior, log_likelihood = posterior.terms(position)
    assert float(tree["sample_stats"]["log_prior"][1, 7]) == pytest.approx(float(log_prior), rel=TOLERANCE)
    assert float(tree["sample_stats"]["log_likelihood"][1, 7]) == pytest.approx(float(log_likelihood), rel=TOLERANCE)


def test_class_probabilities_are_the_mean_over_draws(finished, cli, tmp_path):
    run = load_run(finished)
    raw = raw_wine()[:5]
    predicted = run.predict(raw)["probability"]
    posterior = build_posterior(run.config)
    x = posterior.dataset.standardise(raw)
    weights = run.tree["posterior"].to_dataset().stack(sample=("chain", "draw")).transpose("sample", ...)
    by_hand = jax.vmap(lambda position: posterior.functions(position, x)["probability"])(
        posterior.unflatten({n: v.values for n, v in weights.data_vars.items()})
    )
    np.testing.assert_allclose(predicted, np.mean(by_hand, axis=0), atol=TOLERANCE)
    np.savez(tmp_path / "x.npz", x=raw)
    status, out, err = cli("predict", finished, tmp_path / "x.npz", "--output", tmp_path / "p.npz")
    assert (status, err) == (0, "")
    assert "from 40 draws of 2 chains" in out
    with np.load(tmp_path / "p.npz") as written:
        np.testing.assert_array_equal(written["probability"], predicted)


def test_every_draw_predicts_what_the_run_keeps_of_its_test_points(finished):
    run = load_run(finished)
    dataset = build_posterior(run.config).dataset
    draws = run.predict_draws(dataset.original_inputs(dataset.x_test))
    kept = run.tree["functions"]["probability"]
    assert draws["probability"].dims == kept.dims
    # Inputs go to original units and back in between, in float32.
    np.testing.assert_allclose(draws["probability"], kept, atol=TOLERANCE)
    mixture = run.predict(dataset.original_inputs(dataset.x_test))["probability"]
    np.testing.assert_allclose(draws["probability"].mean(("chain", "draw")), mixture, atol=TOLERANCE)


def raw_wine():
    from sklearn.datasets import load_wine

    return load_wine()["data"]


def test_regression_is_predicted_in_original_units(line_run):
    predicted = load_run(line_run).predict(np.array([[5.0], [6.0]]))
    posterior = build_posterior(load_run(line_run).config)
    weights = load_run(line_run).tree["posterior"]
    x = posterior.dataset.standardise(np.array([[5.0], [6.0]]))
    draws = [
        posterior.functions(posterior.unflatten({n: v.values[c, d] for n, v in weights.data_vars.items()}), x)
        for c in range(2)
        for d in range(6)
    ]
    means, scales = (np.array([draw[name] for draw in draws], np.float64) for name in ("mean", "scale"))
    np.testing.assert_allclose(predicted["mean"], means.mean(axis=0), rtol=TOLERANCE)
    np.testing.assert_allclose(predicted["scale"] ** 2, (scales**2).mean(0) + means.var(0), rtol=1e-3)  # of a difference
    assert np.all(np.abs(predicted["mean"] - 250) < 6 * 60)  # 100 + 30 x, whose standard deviation is 60
    np.testing.assert_allclose(scales, 0.1 * posterior.dataset.y_scale, rtol=TOLERANCE)


@pytest.mark.slow
def test_double_precision_is_kept_in_predictions(tmp_path, cli, own):
    settings = ["--precision", "float64", "--draws", "3", "--warmup.steps", "0"]
    assert cli("run", own("own_parts"), "--name", "line", "--runs", tmp_path, *settings).status == 0
    run, x = load_run(tmp_path / "line"), np.random.default_rng(0).normal(5.0, 2.0, (48, 1))[40:]  # as `line` makes them
    kept = run.tree["functions"]["mean"].mean(("chain", "draw"))
    np.testing.assert_allclose(run.predict(x)["mean"], kept, rtol=1e-13)  # sums of six doubles; in single precision 1e-7


@pytest.mark.slow
def test_changed_code_or_data_predict_nothing(tmp_path, cli, refused, own):
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.normal(size=(30, 13)), "y_train": np.arange(30) % 3, "x_test": rng.normal(size=(9, 13))}
    file = tmp_path / "mine.npz"
    np.savez(file, y_test=np.arange(9) % 3, **arrays)
    settings = ["--data.name", file, "--draws", "2", "--warmup.steps", "0"]
    source = Path(own("").removesuffix(":")).read_text()
    (tmp_path / "mine.py").write_text(source)
    assert cli("run", f"{tmp_path}/mine.py:wine", "--runs", tmp_path, *settings).status == 0
    np.savez(tmp_path / "x.npz", x=arrays["x_test"])
    words = ["predict", tmp_path / "wine", tmp_path / "x.npz", "--output", tmp_path / "p.npz"]
    assert cli(*words).status == 0
    (tmp_path / "mine.py").write_text(source + "# a remark\n")
    assert "--accept-changed-code" in refused(*words)
    assert cli(*words, "--accept-changed-code").status == 0
    np.savez(file, y_test=np.arange(9) % 3, **(arrays | {"x_train": arrays["x_train"] + 1}))
    assert f"{file} has changed since this run began" in refused(*words, "--accept-changed-code")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros((2, 13))}, "must hold an array x [point, feature] in original units; it holds y"),
        ({"x": np.zeros((2, 12))}, "inputs have shape (2, 12), expected (points, 13)"),
        ({"x": np.zeros(13)}, "inputs have shape (13,), expected (points, 13)"),
        ({"x": np.full((2, 13), np.nan)}, "inputs has 26 values that are NaN or infinite"),
        ({"x": np.array([["a"] * 13])}, "inputs has dtype <U1, expected numbers"),
        ({"x": np.array([[None] * 13])}, "cannot be read as an .npz file"),
    ],
    ids=["no x", "too few features", "one axis", "NaN", "text", "pickled"],
)
def test_inputs_that_cannot_be_predicted(arrays, message, finished, refused, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    assert message in refused("predict", finished, tmp_path / "x.npz", "--output", tmp_path / "p.npz")
    assert not (tmp_path / "p.npz").exists()


def test_inputs_that_are_no_file(finished, refused, tmp_path):
    path = tmp_path / "x.npz"
    assert f"no file {path}" in refused("predict", finished, path)
    np.savez(path, x=np.zeros((2, 13)))
    whole = path.read_bytes()
    with (tmp_path / "x.npy").open("wb") as file:
        np.save(file, np.zeros((2, 13)))
    single = (tmp_path / "x.npy").read_bytes()
    for content in (b"x", b"", whole[: len(whole) // 2], single):
        path.write_bytes(content)
        told = refused("predict", finished, path)
        assert f"{path} cannot be read as an .npz file of plain arrays: it is another kind of file, or damaged" in told


def test_predictions_that_cannot_be_written(finished, refused, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 13)))
    output = tmp_path / "nowhere" / "p.npz"
    assert "to write p.npz into; make it" in refused("predict", finished, tmp_path / "x.npz", "--output", output)


def test_a_density_predicts_nothing(tmp_path, cli, refused, own):
    assert cli("run", own("gaussian"), "--runs", tmp_path, "--draws", "2").status == 0
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 13)))
    assert "is a density: it has no network" in refused("predict", tmp_path / "gaussian", tmp_path / "x.npz")


def started(config):
    """Return the positions at which the chains of a configuration begin."""
    problem = build_problem(config)
    return begin(config, problem, build_method(config, problem)).state.position


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("linen_network", {"Dense_0.kernel", "Dense_0.bias", "Dense_1.kernel", "Dense_1.bias"}),
        ("functions", {"matrix"}),
    ],
)
def test_models_of_the_users_own_are_sampled(model, names, own):
    update = {"model": Imported(source=own(model)), "warmup": WarmUp(steps=0)}
    position = started(own_experiments.SHORT.model_copy(update=update))
    assert named(position).keys() == names


def test_an_nnx_model_with_own_prior_likelihood_and_data_is_sampled(line_run):
    tree = load_run(line_run).tree
    assert set(tree["posterior"].data_vars) == {"hidden.kernel", "hidden.bias", "out.kernel", "out.bias"}
    assert tree["posterior"]["hidden.kernel"].shape == (2, 6, 1, 3)
    assert tree.attrs["data"] == "line"
    sources = load_run(line_run).folder.manifest["sources"]
    assert {name.rpartition(":")[2] for name in sources} == {"own_parts", "line", "nnx_network", "narrow_prior", "known_noise"}


@pytest.mark.parametrize("with_chains", [False, True], ids=["one for all", "one a chain"])
@pytest.mark.parametrize("form", ["npz", "orbax"])
def test_chains_start_from_weights_in_a_file(form, with_chains, tmp_path):
    config = own_experiments.SHORT.model_copy(update={"warmup": WarmUp(steps=0)})
    rng = np.random.default_rng(5)
    shapes = {"layer_0": {"bias": (4,), "kernel": (13, 4)}, "layer_1": {"bias": (3,), "kernel": (4, 3)}}
    lead = (2,) if with_chains else ()
    weights = {
        layer: {name: rng.normal(size=lead + shape).astype(np.float32) for name, shape in parts.items()}
        for layer, parts in shapes.items()
    }
    path = tmp_path / ("weights.npz" if form == "npz" else "weights")
    if form == "npz":
        np.savez(path, **{f"{layer}.{name}": value for layer, parts in weights.items() for name, value in parts.items()})
    else:
        orbax.save(path, weights)
    positions = started(config.model_copy(update={"start": str(path)}))
    for layer, parts in weights.items():
        for name, value in parts.items():
            np.testing.assert_array_equal(positions[layer][name], np.broadcast_to(value, (2, *shapes[layer][name])))


@pytest.mark.parametrize("chains", [1, 2, 5])
def test_chains_start_from_the_last_draws_of_a_run(chains, finished):
    update = {"warmup": WarmUp(steps=0), "start": str(finished), "chains": chains}
    positions = named(started(own_experiments.SHORT.model_copy(update=update)))
    last = load_run(finished).tree["posterior"].to_dataset().isel(draw=-1)
    for name, value in positions.items():
        np.testing.assert_array_equal(value, last[name].values[[chain % 2 for chain in range(chains)]])


def test_own_data_in_a_file_are_those_that_are_sampled(tmp_path):
    dataset = own_experiments.line()
    rng = np.random.default_rng(0)
    x = rng.normal(5.0, 2.0, (48, 1))
    y = 100 + 30 * x[:, 0]
    np.savez(tmp_path / "line.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    assert data.load(str(tmp_path / "line.npz")).hash == dataset.hash


@pytest.mark.slow
def test_sampling_in_memory_depends_on_its_key_alone():
    posterior = build_posterior(own_experiments.SHORT)
    first, same, other = (
        inference.sample(jax.random.key(seed), posterior, HMC(step_size=0.02), chains=2, draws=5, warmup=3) for seed in (0, 0, 1)
    )
    assert first.tree["posterior"].equals(same.tree["posterior"])
    assert not first.tree["posterior"].equals(other.tree["posterior"])
    assert first.tree["functions"]["probability"].shape == (2, 5, 36, 3)
    assert first.predict(raw_wine()[:2])["probability"].shape == (2, 3)
    assert first.predict_draws(raw_wine()[:2])["probability"].shape == (2, 5, 2, 3)


def test_what_is_no_problem_is_not_sampled():
    with pytest.raises(TypeError, match=r"expected a posterior .* to sample, got .Target"):
        inference.sample(jax.random.key(0), samplers.from_logdensity(jnp.sum), HMC())


def test_public_names_are_there():
    assert all(getattr(bayesnn, name) is not None for name in bayesnn.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bayesnn.nothing


def test_variables_are_read_in_the_order_of_the_model(finished):
    """Not in that of the file system, on which the last bits of an audit would then depend."""
    tree = load_run(finished).tree
    assert list(tree["posterior"].data_vars) == ["layer_0.bias", "layer_0.kernel", "layer_1.bias", "layer_1.kernel"]
    assert list(tree.children) == ["posterior", "functions", "sample_stats", "constant_data", "observed_data"]
