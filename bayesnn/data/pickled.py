"""Reading the pickles in which CIFAR and Keras publish arrays, without running what else a pickle may hold."""

from __future__ import annotations

import pickle
from typing import IO, Any

import numpy as np

# What NumPy's pickles of arrays call, under the names of its old and new versions.
ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
}


def load_plain_pickle(file: IO[bytes]) -> Any:
    """Load a pickle of arrays, numbers, strings, lists and dicts; strings of Python 2 become bytes.

    Raises:
        ValueError: It is damaged, or would call anything but NumPy's construction of arrays.
    """
    try:
        return _Plain(file, encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, TypeError) as error:
        raise ValueError(f"no pickle of plain arrays: {error}") from None


def load_object_array(file: IO[bytes]) -> np.ndarray:
    """Load an .npy file of Python objects, such as lists of different lengths.

    Raises:
        ValueError: As `load_plain_pickle`, or no .npy file.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if not dtype.hasobject:
        return np.frombuffer(file.read(), dtype).reshape(shape)
    return np.asarray(load_plain_pickle(file), object).reshape(shape)


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}")
        return super().find_class(module, name)
