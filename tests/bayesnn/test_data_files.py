"""Image sets and reviews in the formats of their authors: written here byte by byte, and read from the real files."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from bayesnn import RunConfig, data
from bayesnn.build import build_problem
from bayesnn.config import Data
from bayesnn.data import images, text
from bayesnn.data import rows as rows_module
from bayesnn.data.pickled import load_plain_pickle

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(20) % 10


@pytest.fixture(name="real")
def _real(monkeypatch):
    directory = Path(os.environ.get("BAYESNN_DATA", ROOT.parent / "shared" / "data"))
    if not (directory / "mnist").is_dir() or not (directory / "imdb").is_dir():
        pytest.skip(f"no image sets and reviews in {directory}; set BAYESNN_DATA to a directory that has mnist/, cifar10/, imdb/")
    monkeypatch.setenv("BAYESNN_DATA", str(directory))
    return directory


@pytest.fixture(name="directory")
def _directory(monkeypatch, tmp_path):
    monkeypatch.setenv("BAYESNN_DATA", str(tmp_path))
    return tmp_path


def write_idx(folder, prefix, pixels, labels, compress):
    folder.mkdir(exist_ok=True)
    for name, magic, array in (("images-idx3", 2051, pixels), ("labels-idx1", 2049, labels.astype(np.uint8))):
        content = struct.pack(f">{1 + array.ndim}i", magic, *array.shape) + array.tobytes()
        name = f"{prefix}-{name}-ubyte"
        (folder / (f"{name}.gz" if compress else name)).write_bytes(gzip.compress(content) if compress else content)


@pytest.mark.parametrize("compress", [True, False])
def test_idx_files(directory, compress):
    grey = PIXELS[..., 0]
    write_idx(directory / "mnist", "train", grey[:15], LABELS[:15], compress)
    write_idx(directory / "mnist", "t10k", grey[15:], LABELS[15:], compress)
    dataset = data.load("mnist")
    # Intensities of float32, standardised: rounding 6e-8 of values up to 2, times the scale of 0.3.
    np.testing.assert_allclose(dataset.original_inputs(dataset.x_test)[..., 0], grey[15:] / 255, atol=1e-6)
    assert (dataset.x_train.shape, dataset.num_classes, dataset.inputs) == ((15, 32, 32, 1), 10, "images")
    np.testing.assert_array_equal(dataset.y_train, LABELS[:15])


def test_a_set_of_images_is_in_memory_once(directory, monkeypatch):
    """While it is read, too: as standardised floats, and not also as intensities; pixels stay on disk."""
    pixels = np.random.default_rng(0).integers(0, 256, (20_000, 28, 28), dtype=np.uint8)
    for prefix, rows in (("train", slice(None)), ("t10k", slice(10))):
        write_idx(directory / "mnist", prefix, pixels[rows], np.arange(20_000)[rows] % 10, compress=False)
    monkeypatch.setattr(rows_module, "BLOCK_VALUES", 2**16)
    tracemalloc.start()
    try:
        dataset = data.load("mnist")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * dataset.x_train.nbytes
    intensities = np.divide(pixels, 255, dtype=np.float32)[..., None]
    in_memory = data.from_arrays(intensities, dataset.y_train, intensities[:10], dataset.y_test, inputs="images")
    assert dataset.hash == in_memory.hash
    np.testing.assert_array_equal(dataset.x_train, in_memory.x_train)


def write_cifar(folder, num_classes, form):
    channels_first = PIXELS.transpose(0, 3, 1, 2).reshape(20, -1)
    names = [f"data_batch_{i}" for i in range(1, 6)] if num_classes == 10 else ["train"]
    rows = dict(zip(names, np.split(np.arange(15), len(names)), strict=True)) | {
        "test_batch" if num_classes == 10 else "test": np.arange(15, 20)
    }
    if form == "binary":
        folder = folder / ("cifar-10-batches-bin" if num_classes == 10 else "cifar-100-binary")
    else:
        folder = folder / ("cifar-10-batches-py" if num_classes == 10 else "cifar-100-python")
    folder.mkdir(parents=True)
    for name, row in rows.items():
        labels, coarse = LABELS[row], np.zeros(len(row), int)
        if form == "binary":
            columns = [labels] if num_classes == 10 else [coarse, labels]
            records = np.column_stack([*columns, channels_first[row]]).astype(np.uint8)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        else:
            key = b"labels" if num_classes == 10 else b"fine_labels"
            batch = {b"data": channels_first[row], key: labels.tolist(), b"coarse_labels": coarse.tolist()}
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize("form", ["binary", "python"])
def test_cifar_batches(directory, num_classes, form):
    write_cifar(directory / f"cifar{num_classes}", num_classes, form)
    dataset = data.load(f"cifar{num_classes}")
    assert (dataset.num_data, dataset.num_classes) == (15, num_classes)
    np.testing.assert_allclose(dataset.original_inputs(dataset.x_train), PIXELS[:15] / 255, atol=1e-6)
    np.testing.assert_array_equal(dataset.y_test, LABELS[15:])


def test_svhn_calls_the_digit_zero_ten(directory):
    (directory / "svhn").mkdir()
    for split, rows in (("train", slice(15)), ("test", slice(15, 20))):
        labels = np.where(LABELS == 0, 10, LABELS)[rows, None].astype(np.uint8)
        savemat(directory / "svhn" / f"{split}_32x32.mat", {"X": PIXELS[rows].transpose(1, 2, 3, 0), "y": labels})
    dataset = data.load("svhn")
    np.testing.assert_array_equal(dataset.y_train, LABELS[:15])
    np.testing.assert_allclose(dataset.original_inputs(dataset.x_test), PIXELS[15:] / 255, atol=1e-6)


def test_no_pickle_runs_code():
    class Evil:
        def __reduce__(self):
            return (os.system, ("true",))

    with pytest.raises(ValueError, match=r"it wants to call posix.system"):
        load_plain_pickle(io.BytesIO(pickle.dumps({b"data": Evil()})))
    with pytest.raises(ValueError, match="no pickle of plain arrays"):
        load_plain_pickle(io.BytesIO(b"not a pickle"))


def damage(directory, name):
    if name == "mnist":
        write_idx(directory / name, "train", PIXELS[..., 0], LABELS, compress=False)
        path = directory / name / "train-images-idx3-ubyte"
        path.write_bytes(path.read_bytes()[:-1])
    elif name == "cifar10":
        write_cifar(directory / name, 10, "binary")
        (directory / name / "cifar-10-batches-bin" / "data_batch_3.bin").write_bytes(bytes(3072))
    elif name == "cifar100":
        (directory / name / "cifar-100-python").mkdir(parents=True)
        (directory / name / "cifar-100-python" / "train").write_bytes(pickle.dumps({b"data": PIXELS}))
    elif name == "svhn":
        (directory / name).mkdir()
        (directory / name / "train_32x32.mat").write_bytes(b"no matlab file at all" * 20)
    else:
        (directory / name).mkdir()
        (directory / name / "imdb.npz").write_bytes(b"PK no zip")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100", "svhn", "imdb"])
def test_missing_and_damaged_files_are_named(directory, name):
    with pytest.raises(ValueError, match=rf"no folder .*{name}; `bayesnn data fetch {name}` fills it"):
        data.load(name)
    damage(directory, name)
    with pytest.raises(ValueError, match=str(directory / name)):
        data.load(name)


def keras_file(path, reviews, labels):
    """Write what Keras publishes: arrays of lists of ranks."""
    with zipfile.ZipFile(path, "w") as archive:
        for split in ("train", "test"):
            for name, array in ((f"x_{split}", reviews), (f"y_{split}", labels)):
                content = io.BytesIO()
                np.lib.format.write_array(content, array, allow_pickle=True)
                archive.writestr(f"{name}.npy", content.getvalue())


def test_reviews_from_keras_are_what_keras_loads(directory):
    reviews = np.empty(6, object)
    reviews[:] = [[1, 2], [19_996, 19_997], list(range(1, 150)), [5], [6], [7]]
    (directory / "imdb").mkdir()
    keras_file(directory / "imdb" / "imdb.npz", reviews, np.arange(6) % 2)
    dataset = data.load("imdb")
    # keras.datasets.imdb.load_data(num_words=20000), then pad_sequences(maxlen=100), written out.
    order = np.random.RandomState(113)
    expected = []
    for _ in range(2):
        rows = np.arange(6)
        order.shuffle(rows)
        ids = [[1] + [rank + 3 if rank + 3 < 20_000 else 2 for rank in reviews[row]] for row in rows]
        expected.append((np.array([([0] * 100 + review)[-100:] for review in ids]), (np.arange(6) % 2)[rows]))
    for (x, y), found_x, found_y in zip(
        expected, (dataset.x_train, dataset.x_test), (dataset.y_train, dataset.y_test), strict=True
    ):
        np.testing.assert_array_equal(found_x, x)
        np.testing.assert_array_equal(found_y, y)
    assert (dataset.x_train.dtype, dataset.vocabulary_size, dataset.inputs) == (np.int32, 20_000, "tokens")
    np.testing.assert_array_equal(dataset.standardise(dataset.x_test), dataset.x_test)
    with pytest.raises(ValueError, match="tokens 0 to 20000, expected 0 to vocabulary_size - 1 = 19999"):
        dataset.standardise(np.where(dataset.x_test == 1, 20_000, dataset.x_test))


def test_reviews_from_texts(directory):
    written = {
        "train/neg/1_1.txt": "bad, bad film",
        "train/pos/2_9.txt": "A film. GOOD<br />film!",
        "test/neg/0_2.txt": "bad unheard",
        "test/pos/0_8.txt": "good",
    }
    for name, words in written.items():
        path = directory / "imdb" / "aclImdb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(words)
    dataset = data.load("imdb")
    # By frequency in training, then by the alphabet: film 3, bad 2, a, br, good.
    np.testing.assert_array_equal(dataset.x_train[0, -4:], [1, 5, 5, 4])
    np.testing.assert_array_equal(dataset.x_train[1, -6:], [1, 6, 4, 8, 7, 4])
    np.testing.assert_array_equal(dataset.x_test[0, -3:], [1, 5, 2])
    assert not dataset.x_test[:, :-3].any()
    np.testing.assert_array_equal(dataset.y_test, [0, 1])


def test_area_averages_by_hand_and_in_the_mean():
    image = np.arange(9.0, dtype=np.float32).reshape(1, 3, 3, 1)
    # A new pixel covers one old pixel, halves of two and a quarter of one.
    expected = (0 + 1 / 2 + 3 / 2 + 4 / 4) / 2.25
    assert images.resize(image, 2)[0, 0, 0, 0] == pytest.approx(expected)
    np.testing.assert_array_equal(images.resize(image, 3), image)
    np.testing.assert_allclose(images.resize(image, 6), image.repeat(2, 1).repeat(2, 2))
    real = PIXELS / np.float32(255)
    for size in (1, 7, 16, 32, 45):
        # Sums of up to 45^2 float32 numbers below 1, each rounded to 6e-8 of itself.
        np.testing.assert_allclose(images.resize(real, size).mean((1, 2)), real.mean((1, 2)), atol=1e-6)


def test_subsets_are_nested_and_leave_the_test_split_alone(directory):
    write_idx(directory / "mnist", "train", PIXELS[:15, ..., 0], LABELS[:15], compress=True)
    write_idx(directory / "mnist", "t10k", PIXELS[15:, ..., 0], LABELS[15:], compress=True)
    large, small = (data.load("mnist", num_train=number, size=16) for number in (8, 3))
    assert small.x_train.shape == (3, 16, 16, 1)
    assert small.num_classes == 10
    np.testing.assert_array_equal(small.y_train, large.y_train[:3])
    np.testing.assert_array_equal(small.y_train, LABELS[:15][np.random.RandomState(0).permutation(15)[:3]])
    assert len(small.x_test) == 5
    assert data.load("mnist", num_train=3, split=1).hash != data.load("mnist", num_train=3).hash


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("wine", {"size": 4}, "size=4 is for images"),
        ("wine", {"num_train": 143}, "num_train must be from 1 to 142 for wine, got 143"),
        ("wine", {"gap": True, "split": 13}, r"a gap split, one a feature, has splits 0 to 12, got split=13"),
        ("digits_images", {"gap": True}, r"a gap needs features \(rows, features\), got inputs of shape \(1797, 8, 8, 1\)"),
        ("digits_images", {"size": 0}, "a size of at least 1"),
        ("mnist", {"split": 1}, "holds one split, got split=1; leave it at 0, or choose a subset"),
        ("mnist", {"gap": True}, "has one train/test split and no gaps"),
    ],
)
def test_settings_that_do_not_suit_the_set(name, settings, message):
    with pytest.raises(ValueError, match=message):
        data.load(name, **settings)


def test_a_gap_split_tests_between_what_it_trains_on():
    whole = data.load("diabetes")
    for feature in (0, 2):
        dataset = data.load("diabetes", gap=True, split=feature)
        inside, outside = (dataset.original_inputs(x)[:, feature] for x in (dataset.x_test, dataset.x_train))
        assert (len(inside), len(outside)) == (442 - 2 * 147, 2 * 147)
        below, above = outside[outside <= inside.min() + 1e-6], outside[outside >= inside.max() - 1e-6]
        assert len(below) + len(above) == len(outside)
        assert min(len(below), len(above)) >= 147
        assert dataset.hash != whole.hash
    with pytest.raises(ValueError, match="one train/test split and no gaps"):
        data.load("own.npz", gap=True)


def test_real_image_sets_have_their_published_counts(real):
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    mnist = data.load("mnist")
    np.testing.assert_array_equal(np.bincount(mnist.y_train), counts)
    assert (mnist.x_train.shape, mnist.x_test.shape) == ((60_000, 28, 28, 1), (10_000, 28, 28, 1))
    # The mean and standard deviation that every tutorial divides by; all images count, however many devices there are.
    assert mnist.x_mean[0] == pytest.approx(0.1307, abs=5e-5)
    assert mnist.x_scale[0] == pytest.approx(0.3081, abs=5e-5)
    assert data.outside(mnist, "notmnist").shape == (10_000, 28, 28, 1)
    with pytest.raises(ValueError, match="images of cifar10 have 3 channels"):
        data.outside(mnist, "cifar10")


def test_real_cifar_sheets_are_the_published_pixels(real):
    tiny = np.load(real / "cifar10" / "tiny.npz")
    test = images.cifar(real / "cifar10", "test", 10)
    assert len(test.x) == 10_000
    np.testing.assert_array_equal(np.round(test.x[:256] * 255), tiny["x_test"])
    np.testing.assert_array_equal(test.y[:256], tiny["y_test"])


def test_real_reviews(real):
    train, test = text.imdb(real / "imdb")
    assert (train.x.shape, test.x.shape) == ((25_000, 100), (25_000, 100))
    assert train.x.max() == 19_999
    assert test.y.mean() == 0.5
    dataset = data.load("imdb", num_train=200)
    assert dataset.x_train.shape == (200, 100)
    assert dataset.num_classes == 2


def test_tokens_and_images_of_the_wrong_form_are_refused():
    x, y = np.arange(6).reshape(3, 2), np.array([0, 1, 0])
    tokens = data.from_arrays(x, y, x, y, inputs="tokens")
    assert tokens.vocabulary_size == 6
    for inputs, array, settings, message in (
        ("tokens", x.astype(float), {}, "token ids .* of an integer type"),
        ("tokens", x, {"vocabulary_size": 5}, "x_train has tokens 0 to 5"),
        ("images", x, {}, r"images have shape \(3, 2\)"),
        ("features", x, {"vocabulary_size": 9}, "vocabulary_size=9 is for tokens"),
        ("sounds", x, {}, "inputs must be"),
    ):
        with pytest.raises(ValueError, match=message):
            data.from_arrays(array, y, array, y, inputs=inputs, **settings)


def test_settings_reach_the_data_and_are_refused_where_they_would_do_nothing(refused, own, tmp_path):
    problem = build_problem(RunConfig(data=Data(name="digits_images", num_train=30, size=4)))
    assert problem.posterior.dataset.x_train.shape == (30, 4, 4, 1)
    run = ("run", own("regression"), "--runs", tmp_path)
    assert "leave out split, gap, num_train, size and task" in refused(*run, "--data.num-train", "5")
    assert "size=4 is for images" in refused("run", own("wine"), "--runs", tmp_path, "--data.size", "4")
