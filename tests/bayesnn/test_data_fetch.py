"""Fetching, from a server on this machine: hashes, offline instructions, and nothing half-written."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import tarfile
import threading

import numpy as np
import pytest

from bayesnn import data
from bayesnn.catalogue import DATASETS
from bayesnn.data import published
from bayesnn.data.fetch import fetch
from bayesnn.data.published import File, Recipe
from bayesnn.data.sources import IMAGES
from bayesnn.errors import UsageError


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(name="server")
def _server(tmp_path):
    """A folder and the address under which its files are served."""
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(name="directory")
def _directory(monkeypatch, tmp_path):
    monkeypatch.setenv("BAYESNN_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def serve(monkeypatch, server, name, content, path, checksum=None, folder=""):
    where, address = server
    (where / "file").write_bytes(content)
    checksum = f"md5:{hashlib.md5(content).hexdigest()}" if checksum is None else checksum
    monkeypatch.setitem(published.FILES, name, (File(f"{address}/file", path, checksum, folder),))


def test_a_file_is_fetched_checked_and_left_alone_when_it_is_there(monkeypatch, server, directory):
    serve(monkeypatch, server, "mnist", b"pixels", "mnist/file.gz")
    said = []
    (path,) = fetch("mnist", said.append)
    assert path.read_bytes() == b"pixels"
    assert "6 bytes, md5:" in said[0]
    (server[0] / "file").unlink()
    fetch("mnist", said.append)
    assert "is there already" in said[1]
    path.write_bytes(b"other")  # not the published file: fetched again, and the server has none
    with pytest.raises(UsageError, match=r"cannot download .*put it at .*file.gz \(md5:.*say the same command again"):
        fetch("mnist", said.append)


def test_another_file_than_the_published_one_is_not_kept(monkeypatch, server, directory):
    serve(monkeypatch, server, "mnist", b"pixels", "mnist/file.gz", "sha256:00")
    with pytest.raises(UsageError, match=r"has sha256:\w+, expected sha256:00: it is not the published file, and was not kept"):
        fetch("mnist")
    assert list((directory / "mnist").iterdir()) == []


def test_without_a_published_hash_the_hash_is_said(monkeypatch, server, directory):
    serve(monkeypatch, server, "mnist", b"pixels", "mnist/file.gz", "")
    said = []
    fetch("mnist", said.append)
    assert f"sha256:{hashlib.sha256(b'pixels').hexdigest()} (no hash is published" in said[0]


def tar(names):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
    return content.getvalue()


def test_archives_are_unpacked_whole_or_not_at_all(monkeypatch, server, directory):
    serve(monkeypatch, server, "cifar10", tar(["batches/a.bin", "batches/b.bin"]), "cifar10/a.tar.gz", folder="batches")
    (folder,) = fetch("cifar10", lambda line: None)
    assert sorted(path.name for path in folder.iterdir()) == ["a.bin", "b.bin"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["batches"]
    serve(monkeypatch, server, "cifar100", tar(["batches/a", "../escaped"]), "cifar100/a.tar.gz", folder="batches")
    with pytest.raises(UsageError, match="cannot be unpacked"):
        fetch("cifar100", lambda line: None)
    assert not (directory / "cifar100" / "batches").exists()
    assert not (directory / "escaped").exists()


def test_tables_are_built_into_the_layout_that_load_reads(monkeypatch, server, directory):
    where, address = server
    table = np.random.default_rng(0).normal(size=(30, 4))
    np.savetxt(where / "data.txt", table)
    (where / "index_features.txt").write_text("0\n1\n2\n")
    (where / "index_target.txt").write_text("3\n")
    digest = hashlib.sha256(table[:, :3].tobytes() + table[:, 3].tobytes()).hexdigest()
    recipe = published.UCI["yacht"]._replace(url=address, sha256=digest)
    monkeypatch.setitem(published.UCI, "yacht", recipe)
    said = []
    fetch("uci_yacht", said.append)
    assert "as expected" in said[0]
    dataset = data.load("uci_yacht", split=1)
    rng = np.random.RandomState(1)
    rows = [rng.choice(range(30), 30, replace=False) for _ in range(2)][1]
    # float32 round trip.
    np.testing.assert_allclose(dataset.original_units(dataset.y_test), table[rows[27:], 3], atol=1e-6)
    assert [path.name for path in (directory / "uci").iterdir()] == ["yacht.npz"]
    monkeypatch.setitem(published.UCI, "concrete", recipe._replace(sha256="0"))
    with pytest.raises(UsageError, match="expected 0; nothing was written"):
        fetch("uci_concrete", said.append)
    assert [path.name for path in (directory / "uci").iterdir()] == ["yacht.npz"]


def test_folds(monkeypatch, server, directory):
    where, address = server
    table, fold = np.arange(24.0).reshape(8, 3), np.arange(8) % 4
    for name, array in (("data", table), ("test_mask", np.eye(4)[fold])):
        content = io.StringIO()
        np.savetxt(content, array, delimiter=",")
        (where / f"{name}.csv.gz").write_bytes(gzip.compress(content.getvalue().encode()))
    digest = hashlib.sha256(np.ascontiguousarray(table[:, :2]).tobytes() + table[:, 2].tobytes()).hexdigest()
    files = published.UCI["pol"].files
    monkeypatch.setitem(published.UCI, "pol", Recipe(address, published.UCI["pol"].build, files, 4, digest))
    fetch("uci_pol", lambda line: None)
    dataset = data.load("uci_pol", split=2)
    np.testing.assert_allclose(dataset.original_units(dataset.y_test), table[fold == 2, 2], rtol=1e-6)


def test_offline_says_what_to_put_where(monkeypatch, directory, tmp_path):
    monkeypatch.setitem(published.FILES, "svhn", (File(f"file://{tmp_path}/nowhere.mat", "svhn/train_32x32.mat", "md5:1"),))
    with pytest.raises(UsageError, match=r"cannot download file://.*nowhere.mat .* put it at .*svhn/train_32x32.mat \(md5:1\)"):
        fetch("svhn")


def test_names_and_directories(monkeypatch, directory, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'cifar10'"):
        fetch("cifar1O")
    with pytest.raises(UsageError, match="digits is not downloaded"):
        fetch("digits")
    with pytest.raises(UsageError, match=r"put uci/airfoil\.npz into the data directory"):
        fetch("uci_airfoil")
    monkeypatch.delenv("BAYESNN_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="set BAYESNN_DATA to the directory in which data sets are to live"):
        fetch("mnist")


def test_every_set_of_files_can_be_fetched_or_is_said_to_be_put_by_hand():
    by_hand = {"uci_airfoil", "uci_bikesharing", "uci_ionosphere"}
    known = published.FILES.keys() | {f"uci_{name}" for name in published.UCI}
    assert {name for name in DATASETS if name.startswith("uci_")} - known == by_hand
    assert (IMAGES.keys() | {"imdb"}) <= known
    assert all(file.checksum for files in published.FILES.values() for file in files)
