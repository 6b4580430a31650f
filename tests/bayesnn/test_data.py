"""Data: every path of loading and every check of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bayesnn import data

ROOT = Path(__file__).resolve().parents[2]
# (train, test, features); 1,437 / 360 is the split that the benchmarks name.
BUNDLED = {"digits": (1437, 360, 64), "breast_cancer": (455, 114, 30), "wine": (142, 36, 13), "diabetes": (353, 89, 10)}


@pytest.fixture(name="uci_data")
def _uci_data(monkeypatch):
    directory = Path(os.environ.get("BAYESNN_DATA", ROOT.parent / "shared" / "data"))
    if not (directory / "uci").is_dir():
        pytest.skip(f"no UCI files in {directory}; set BAYESNN_DATA to a directory that has uci/<name>.npz")
    monkeypatch.setenv("BAYESNN_DATA", str(directory))
    return directory


def arrays(num_train=20, num_test=5, num_features=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(3.0, 5.0, (num_train + num_test, num_features))
    y = x[:, 0] * 7 + 100
    return x[:num_train], y[:num_train], x[num_train:], y[num_train:]


@pytest.mark.parametrize(("name", "sizes"), BUNDLED.items())
def test_bundled_sets_are_whole_and_standardised(name, sizes):
    dataset = data.load(name)
    assert (*dataset.x_train.shape, len(dataset.x_test)) == (sizes[0], sizes[2], sizes[1])
    assert dataset.x_train.dtype == np.float32
    assert dataset.y_train.dtype == (np.int32 if dataset.task == "classification" else np.float32)
    # Column moments of float32 values of order 1: rounding 6e-8 a value, worse for the few columns with one large value.
    np.testing.assert_allclose(dataset.x_train.mean(0, dtype=np.float64), 0, atol=1e-6)
    constant = np.ptp(dataset.x_train, axis=0) == 0
    np.testing.assert_allclose(dataset.x_train.std(0, dtype=np.float64)[~constant], 1, atol=1e-5)
    assert np.all(dataset.x_scale[constant] == 1)


def test_digits_has_constant_pixels_and_ten_classes():
    digits = data.load("digits")
    assert (np.ptp(digits.x_train, axis=0) == 0).any()
    assert digits.num_classes == 10
    assert set(digits.y_train) == set(range(10))


def test_the_split_is_a_partition_of_the_rows_and_a_function_of_its_number():
    raw = np.sort(np.concatenate([_raw_x(data.load("wine", split=1))[:, 0], _raw_x(data.load("wine", split=1), "test")[:, 0]]))
    same = np.sort(np.concatenate([_raw_x(data.load("wine", split=2))[:, 0], _raw_x(data.load("wine", split=2), "test")[:, 0]]))
    np.testing.assert_allclose(raw, same, rtol=1e-5)  # float32 round trip through the standardised values
    assert data.load("wine", split=1).hash == data.load("wine", split=1).hash
    assert data.load("wine", split=1).hash != data.load("wine", split=2).hash


def _raw_x(dataset, split="train"):
    return getattr(dataset, f"x_{split}") * dataset.x_scale + dataset.x_mean


def test_the_digits_split_never_changes():
    # Draws and references made on another split are not comparable; the value was computed when the split was fixed.
    assert data.load("digits").hash == "6ba01d78a25261f74d7aa20d3e11061e831f6a3661fa03022ef6a5b82030ee05"


def test_counts_stay_as_they_are():
    x_train, _, x_test, _ = arrays()
    dataset = data.from_arrays(x_train, np.arange(20), x_test, np.arange(5), task="counts")
    assert (dataset.task, dataset.num_classes, dataset.y_mean, dataset.y_scale) == ("counts", None, 0, 1)
    np.testing.assert_array_equal(dataset.y_train, np.arange(20))
    for bad in (-1, 0.5):
        with pytest.raises(ValueError, match=rf"counts must be 0, 1, 2 \.\.\., got {bad}"):
            data.from_arrays(x_train, np.full(20, bad), x_test, np.arange(5), task="counts")
    with pytest.raises(ValueError, match="task must be one of classification, regression, counts, got 'ranking'"):
        data.from_arrays(x_train, np.arange(20), x_test, np.arange(5), task="ranking")


def test_integers_of_a_file_are_classes_unless_it_is_said_what_they_are(tmp_path):
    x_train, _, x_test, _ = arrays()
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=x_train, y_train=np.arange(20) % 3, x_test=x_test, y_test=np.arange(5) % 3)
    assert data.from_npz(path).num_classes == 3
    for task in ("classification", "regression", "counts"):
        assert data.from_npz(path, task=task).task == task
        assert data.load(str(path), task=task, num_train=15).task == task
    with pytest.raises(ValueError, match=r"task=counts is for \.npz files, wine has a task of its own"):
        data.load("wine", task="counts")


def test_regression_targets_round_trip_to_original_units():
    x_train, y_train, x_test, y_test = arrays()
    dataset = data.from_arrays(x_train, y_train, x_test, y_test)
    assert dataset.task == "regression"
    # Standardised values are rounded to float32: 6e-8 of values up to about 3, times the scale.
    np.testing.assert_allclose(dataset.original_units(dataset.y_test), y_test, atol=5e-7 * dataset.y_scale)
    np.testing.assert_allclose((dataset.y_mean, dataset.y_scale), (y_train.mean(), y_train.std()))
    np.testing.assert_array_equal(dataset.standardise(x_test), dataset.x_test)


def test_statistics_come_from_the_training_split_alone():
    x_train, y_train, x_test, y_test = arrays()
    one = data.from_arrays(x_train, y_train, x_test, y_test)
    other = data.from_arrays(x_train, y_train, x_test * 100, y_test * 100)
    np.testing.assert_array_equal(one.x_train, other.x_train)
    np.testing.assert_array_equal(one.y_train, other.y_train)


def test_a_constant_column_becomes_exactly_zero_whatever_rounding_does():
    x_train, y_train, x_test, y_test = arrays()
    x_train[:, 1] = 0.1  # its mean over 20 rows is not 0.1 in float64
    dataset = data.from_arrays(x_train, y_train, x_test, y_test)
    assert np.all(dataset.x_train[:, 1] == 0)
    assert dataset.x_scale[1] == 1


def test_images_keep_their_shape():
    images = np.random.default_rng(0).integers(0, 255, (12, 4, 4, 1), dtype=np.uint8)
    dataset = data.from_arrays(images[:9], np.arange(9) % 3, images[9:], [0, 1, 2])
    assert dataset.x_train.shape == (9, 4, 4, 1)
    assert dataset.num_classes == 3


def test_labels_of_any_integer_type_and_float_integers():
    x = np.random.default_rng(0).normal(size=(6, 2))
    for labels in (np.array([0, 1] * 3, np.uint8), np.array([False, True] * 3)):
        assert data.from_arrays(x, labels, x, labels).num_classes == 2
    floats = np.array([0.0, 1.0] * 3)
    assert data.from_arrays(x, floats, x, floats).task == "regression"
    assert data.from_arrays(x, floats, x, floats, task="classification").y_train.dtype == np.int32
    assert data.from_arrays(x, [0, 1] * 3, x, [2] * 6, num_classes=4).num_classes == 4


def test_the_hash_sees_every_array_and_the_split_but_not_the_number_type():
    x_train, y_train, x_test, y_test = arrays()
    reference = data.from_arrays(x_train, y_train, x_test, y_test).hash
    assert data.from_arrays(x_train.tolist(), y_train, x_test, y_test).hash == reference
    for changed in range(4):
        parts = [x_train, y_train, x_test, y_test]
        parts[changed] = parts[changed] + np.eye(*parts[changed].shape) if changed % 2 == 0 else parts[changed][::-1]
        assert data.from_arrays(*parts).hash != reference


def bad(change):
    parts = list(arrays())
    change(parts)
    return parts


def _nan(parts):
    parts[0][3, 1] = np.nan


def _infinite_target(parts):
    parts[3][2] = np.inf


def _set(index, value):
    def change(parts):
        parts[index] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_nan, r"x_train has 1 values that are NaN or infinite, in columns 1, rows 3"),
        (_infinite_target, r"y_test has 1 values .* rows 2"),
        (_set(1, np.zeros(7)), r"x_train has 20 examples and y_train has 7 targets"),
        (_set(2, np.zeros((5, 4))), r"same features"),
        (_set(0, np.zeros(20)), r"x_train has shape \(20,\), expected \(examples, features\)"),
        (_set(1, np.zeros((20, 1))), r"y_train has shape \(20, 1\), expected one target an example"),
        (_set(1, np.full(20, 2.5)), r"all 20 training targets are 2.5"),
        (_set(0, np.full((20, 3), "red")), r"x_train has dtype <U3, expected numbers"),
        (_set(1, np.array([1, 2] * 10)), r"no training example has label 0"),
        (_set(1, np.array([-1, 1] * 10)), r"got -1 to"),
    ],
)
def test_bad_arrays_are_refused(change, message):
    parts = bad(change)
    if np.asarray(parts[1]).dtype.kind == "i":
        parts[3] = np.array([1, 2, 1, 2, 1])
    with pytest.raises(ValueError, match=message):
        data.from_arrays(*parts)


def test_an_empty_split_is_refused():
    x_train, y_train, x_test, y_test = arrays()
    with pytest.raises(ValueError, match="x_test is empty"):
        data.from_arrays(x_train, y_train, x_test[:0], y_test[:0])


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ([0.0, 1.5], {"task": "classification"}, "labels must be integers, got 1.5"),
        ([0, 3], {"num_classes": 3}, "got 0 to 3 with num_classes=3"),
        ([0, 0], {}, "at least two classes"),
        ([0, 1], {"task": "clustering"}, "'clustering'"),
        ([0.0, 1.0], {"num_classes": 2}, "num_classes=2 is for classification"),
    ],
)
def test_bad_labels_and_settings_are_refused(labels, settings, message):
    x = np.eye(2)
    with pytest.raises(ValueError, match=message):
        data.from_arrays(x, labels, x, labels, **settings)


def test_new_inputs_are_checked():
    dataset = data.from_arrays(*arrays())
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(points, 3\)"):
        dataset.standardise(np.zeros(3))
    with pytest.raises(ValueError, match="columns 2, rows 0"):
        dataset.standardise([[0, 0, np.nan]])


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        data.load("digts")
    with pytest.raises(ValueError, match="split must be at least 0"):
        data.load("digits", split=-1)


def test_npz_round_trip_and_errors(tmp_path):
    parts = dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays(), strict=True))
    path = tmp_path / "own.npz"
    np.savez(path, **parts)
    dataset = data.load(str(path))
    assert (dataset.name, dataset.hash) == ("own", data.from_arrays(*arrays()).hash)
    with pytest.raises(ValueError, match="holds one split"):
        data.load(str(path), split=1)
    del parts["y_test"]
    np.savez(path, **parts)
    with pytest.raises(ValueError, match=r"own.npz lacks y_test; it has x_test, x_train, y_train"):
        data.from_npz(path)
    np.savez(path, **parts, y_test=np.array([None, 1], dtype=object))
    with pytest.raises(ValueError, match="cannot be read"):
        data.from_npz(path)
    path.write_bytes(b"PK not a zip")
    with pytest.raises(ValueError, match="cannot be read"):
        data.from_npz(path)
    with pytest.raises(ValueError, match="no file"):
        data.from_npz(tmp_path / "none.npz")


def test_without_a_data_directory_the_error_says_what_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setenv("BAYESNN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"nowhere: set BAYESNN_DATA to a directory with uci/<name>.npz"):
        data.load("uci_yacht")
    monkeypatch.delenv("BAYESNN_DATA")
    (tmp_path / "shared" / "data").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert data.data_directory().resolve() == tmp_path / "shared" / "data"


def test_uci_layouts(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 2)), rng.normal(size=20)
    (tmp_path / "uci").mkdir()
    monkeypatch.setenv("BAYESNN_DATA", str(tmp_path))
    order = rng.permutation(20)
    np.savez(tmp_path / "uci" / "yacht.npz", X=x, y=y, train_idx=[order[:15], order[5:]], test_idx=[order[15:], order[:5]])
    np.savez(tmp_path / "uci" / "pol.npz", X=x, y=y, fold=np.arange(20, dtype=np.uint8) % 4)
    np.savez(tmp_path / "uci" / "airfoil.npz", X=x, y=y)
    yacht, pol, airfoil = data.load("uci_yacht", split=1), data.load("uci_pol", split=3), data.load("uci_airfoil", split=7)
    np.testing.assert_allclose(yacht.original_units(yacht.y_test), y[order[:5]], atol=1e-6)  # float32 round trip
    np.testing.assert_allclose(pol.original_units(pol.y_test), y[3::4], atol=1e-6)
    assert (airfoil.num_data, len(airfoil.x_test)) == (18, 2)
    for name, last in (("uci_yacht", 1), ("uci_pol", 3)):
        with pytest.raises(ValueError, match=f"has splits 0 to {last}, got split=4"):
            data.load(name, split=4)
    np.savez(tmp_path / "uci" / "kin8nm.npz", X=x)
    with pytest.raises(ValueError, match=r"kin8nm.npz lacks y; it has X"):
        data.load("uci_kin8nm")


@pytest.mark.parametrize(("name", "sizes"), [("yacht", (277, 31)), ("concrete", (927, 103)), ("ionosphere", (315, 36))])
def test_published_uci_files(uci_data, name, sizes):
    dataset = data.load(f"uci_{name}")
    assert (dataset.num_data, len(dataset.x_test)) == sizes
    assert dataset.task == ("classification" if name == "ionosphere" else "regression")


def test_published_splits_are_the_published_ones(uci_data):
    # Gal & Ghahramani's splits follow from one seed: the first is the first permutation (see their data's documentation).
    raw = np.load(uci_data / "uci" / "yacht.npz")
    np.random.seed(1)
    order = np.random.choice(range(308), 308, replace=False)
    dataset = data.load("uci_yacht")
    np.testing.assert_allclose(dataset.original_units(dataset.y_test), raw["y"][order[277:]], rtol=1e-5)


def test_listing_imports_neither_jax_nor_scikit_learn():
    code = (
        "import sys; from bayesnn.data import DATASETS; import bayesnn.catalogue; assert 'digits' in DATASETS; "
        "sys.exit(len({'jax', 'sklearn', 'flax', 'numpyro'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
