"""The network and data of `benchmarks.digits` in PyTorch, in an environment that has no JAX."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def network(widths: Sequence[int]) -> Any:
    """Return an MLP 64-...-10."""
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise((64, *widths, 10))]
    return torch.nn.Sequential(*itertools.chain.from_iterable((layer, torch.nn.SiLU()) for layer in layers[:-1]), layers[-1])


def read(file: str) -> tuple[Any, Any]:
    """Read what `benchmarks.digits.hand_over` wrote: inputs and labels."""
    with np.load(file) as arrays:
        return torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
