"""Reading .npz files that others wrote."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np


def read_npz(path: Path, remedy: str = "") -> dict[str, np.ndarray]:
    """Read all arrays of a file.

    Args:
        path: The file.
        remedy: What to say if it is not there.

    Raises:
        ValueError: There is none, or it is no .npz file of plain arrays: another kind of file, pickles, or something damaged.
    """
    try:
        with path.open("rb") as stream:  # which NumPy would leave open where the archive is damaged
            if not zipfile.is_zipfile(stream):  # of which NumPy would say that it is a pickle
                raise ValueError("it is another kind of file, or damaged; numpy.savez makes one")
            stream.seek(0)
            return dict(np.load(stream, allow_pickle=False))
    except FileNotFoundError:
        raise ValueError(f"no file {path}{remedy}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as an .npz file of plain arrays: {error}") from None
