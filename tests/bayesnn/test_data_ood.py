"""Images of other sets: a network that has learned digits is less sure of what is none."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from bayesnn.measure.store import read_measure
from bayesnn.run_folder import RunFolder
from diagnostics.ood import auroc
from diagnostics.predictive import mixture_probability

IMAGES = """
from bayesnn import HMC, RunConfig, WarmUp
from bayesnn.config import Data, GaussianPrior
def images():
    return RunConfig(
        data=Data(name="digits_images", num_train=300),
        prior=GaussianPrior(scale=0.3), start="model", chains=2, draws=20, test_points=100,
        sampler=HMC(step_size=0.02, max_num_steps=20), warmup=WarmUp(steps=30),
    )
"""


@pytest.fixture(name="outside")
def _outside(monkeypatch, tmp_path):
    """Noise, in the files of notmnist."""
    folder = tmp_path / "data" / "notmnist"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (80, 28, 28), dtype=np.uint8)
    for name, magic, array in (("images-idx3", 2051, pixels), ("labels-idx1", 2049, np.zeros(80, np.uint8))):
        content = struct.pack(f">{1 + array.ndim}i", magic, *array.shape) + array.tobytes()
        (folder / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    monkeypatch.setenv("BAYESNN_DATA", str(tmp_path / "data"))


@pytest.mark.slow
def test_doubt_on_images_of_another_set(cli, refused, outside, finished_copy, tmp_path):
    (tmp_path / "own.py").write_text(IMAGES)
    run = cli("run", f"{tmp_path / 'own.py'}:images", "--name", "images", "--runs", tmp_path)
    assert run.status == 0, run.err
    done = cli("measure", tmp_path / "images", "ood", "--sets", "notmnist")
    assert done.status == 0, done.err
    assert "notmnist: area under the ROC curve" in done.out
    result = read_measure(RunFolder.open(tmp_path / "images"), "ood").tree.to_dataset()
    for score in ("entropy", "confidence"):
        value, lower, upper = result["auroc"].sel(set="notmnist", score=score).values
        assert 0.5 < lower <= value <= upper, score
    np.testing.assert_allclose(result["entropy"].sum("bin"), 1)
    assert list(result["predicted"].values) == ["inside", "notmnist"]
    assert "no folder" in refused("measure", tmp_path / "images", "ood", "--sets", "mnist")
    assert "is no image set" in refused("measure", tmp_path / "images", "ood", "--sets", "wine")
    assert "name image sets with --sets" in refused("measure", finished_copy, "ood")


def test_a_predictor_that_sees_nothing_has_an_area_of_a_half():
    probability = np.full((3, 5, 40, 10), 0.1)
    doubt = 1 - mixture_probability(probability).max(-1)
    assert auroc(doubt, doubt).value == 0.5
