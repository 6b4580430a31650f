"""Examples that are computed when they are asked for, from an array in memory or on disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# Values that are computed, standardised or hashed at a time: 32 MB in float64, where all images of a set would be gigabytes.
BLOCK_VALUES = 2**22


@dataclass(frozen=True, eq=False)
class Rows:
    """Examples made from those of another array, example by example, when they are asked for.

    An index gives a NumPy array, `numpy.asarray` all of them. What is not asked for takes no memory but the other array's, and
    none where that one lies on disk (`numpy.memmap`).

    Attributes:
        source: [n, ...] what they are made from.
        function: From any of those to these, of the same shape.
        dtype: Of what it makes.
    """

    source: np.ndarray
    function: Callable[[np.ndarray], np.ndarray]
    dtype: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all examples."""
        return self.source.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.function(self.source[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for rows in blocks(self):
            whole[rows] = self[rows]
        return whole


def blocks(x: Any) -> Iterator[slice]:
    """Cut examples into blocks that fit into memory."""
    size = max(1, BLOCK_VALUES // max(1, math.prod(x.shape[1:])))
    return (slice(start, start + size) for start in range(0, len(x), size))
