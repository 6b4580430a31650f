"""Downloading data sets from where their authors publish them, checked against the hashes that they publish."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bayesnn.catalogue import DATASETS
from bayesnn.data.published import FILES, UCI, File
from bayesnn.data.sources import UCI_PREFIX, data_directory
from bayesnn.errors import UsageError, did_you_mean

BLOCK_BYTES = 2**20
TIMEOUT_SECONDS = 60  # without a single byte


def fetch(name: str, report: Callable[[str], None] = print) -> list[Path]:
    """Download a data set into the data directory; what is there already, and whole, is left alone.

    Args:
        name: A data set that is made of files, `notmnist` included.
        report: Told of each file, in a sentence.

    Returns:
        What the set is read from.

    Raises:
        UsageError: An unknown name (the nearest is suggested), no place to put files, no connection (what to put where is said),
            or a file that is not the published one.
    """
    known = {*FILES, *(f"{UCI_PREFIX}{uci}" for uci in UCI)}
    if name not in known:
        if name in DATASETS:
            by_hand = (
                f"put uci/{name.removeprefix(UCI_PREFIX)}.npz into the data directory" if UCI_PREFIX in name else "it is built in"
            )
            raise UsageError(f"{name} is not downloaded: {by_hand}")
        raise UsageError(f"unknown data set {name!r}{did_you_mean(name, known)}")
    directory = _directory()
    if name in FILES:
        return [_fetch_file(file, directory, report) for file in FILES[name]]
    return [_fetch_uci(name.removeprefix(UCI_PREFIX), directory, report)]


def _directory() -> Path:
    named = os.environ.get("BAYESNN_DATA")
    if named:
        Path(named).expanduser().mkdir(parents=True, exist_ok=True)
    try:
        return data_directory()
    except ValueError:
        raise UsageError("set BAYESNN_DATA to the directory in which data sets are to live; it is made if need be") from None


def _fetch_file(file: File, directory: Path, report: Callable[[str], None]) -> Path:
    path = directory / file.path
    unpacked = path.parent / file.folder
    if file.folder and unpacked.is_dir():
        report(f"{unpacked} is there already")
        return unpacked
    if path.is_file() and (not file.checksum or _hash(path, file.checksum) == file.checksum):
        report(f"{path} is there already")
    else:
        _download(file.url, path, file.checksum, report)
    if not file.folder:
        return path
    _unpack(path, unpacked)
    return unpacked


def _fetch_uci(name: str, directory: Path, report: Callable[[str], None]) -> Path:
    recipe, path = UCI[name], directory / "uci" / f"{name}.npz"
    if path.is_file():
        report(f"{path} is there already")
        return path
    parts = {file: path.with_name(f"{name}.{file}") for file in recipe.files}
    try:
        for file, part in parts.items():
            _download(f"{recipe.url}/{file}", part, "", lambda line: None)
        try:
            arrays = recipe.build(parts, recipe.num_splits)
        except (ValueError, OSError, IndexError) as error:
            raise UsageError(f"the files of {recipe.url} are no table of numbers: {error}") from None
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(arrays[key], "<f8").tobytes() for key in ("X", "y"))).hexdigest()
    if digest != recipe.sha256:
        raise UsageError(f"the values of {recipe.url} have the sha256 {digest}, expected {recipe.sha256}; nothing was written")
    draft = path.with_name(f".{path.name}")
    with draft.open("wb") as target:
        np.savez_compressed(target, **arrays)  # type: ignore[arg-type]  # numpy's stub takes keywords for its own flag
    draft.rename(path)
    report(f"{path}: from {recipe.url}, sha256 of its values as expected")
    return path


def _download(url: str, path: Path, checksum: str, report: Callable[[str], None]) -> None:
    """Download to a temporary name, check, rename: a file under its name is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as source, draft.open("wb") as target:
            expected = source.headers.get("Content-Length")
            while block := source.read(BLOCK_BYTES):
                target.write(block)
        if expected is not None and draft.stat().st_size != int(expected):
            raise UsageError(f"{url} broke off after {draft.stat().st_size:,} of {int(expected):,} bytes; fetch again")
        found = _hash(draft, checksum)
        if checksum and found != checksum:
            raise UsageError(f"{url} has {found}, expected {checksum}: it is not the published file, and was not kept")
        draft.rename(path)
        report(
            f"{path}: {path.stat().st_size:,} bytes, {found}{'' if checksum else ' (no hash is published to check it against)'}"
        )
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        what = f"download it elsewhere and put it at {path}" + (f" ({checksum})" if checksum else "")
        raise UsageError(f"cannot download {url} ({reason}); {what}, then say the same command again") from None
    finally:
        draft.unlink(missing_ok=True)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack one folder of an archive, whole or not at all, and remove the archive."""
    draft = archive.with_name(f".{archive.name}.{os.getpid()}.tmp")
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(draft, filter="data")
        (draft / folder.name).rename(folder)
    except (tarfile.TarError, EOFError, zlib.error, FileNotFoundError) as error:
        raise UsageError(f"{archive} cannot be unpacked into {folder.name}: {error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    archive.unlink()


def _hash(path: Path, like: str) -> str:
    kind = like.partition(":")[0] or "sha256"
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"
