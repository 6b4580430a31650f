"""Networks: the built-in ones, adapters for the user's own, NumPyro models.

What needs Flax is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bayesnn.models.adapt import as_model
from bayesnn.models.mlp import ACTIVATIONS, mlp
from bayesnn.models.model import AnyModel, Model
from bayesnn.models.numpyro_model import from_numpyro
from bayesnn.models.parameters import Container, Params, layer_of, layer_sizes, named, nest

if TYPE_CHECKING:
    from bayesnn.models.convolutional import lenet
    from bayesnn.models.recurrent import cnn_lstm
    from bayesnn.models.residual import resnet

_HOME = {"cnn_lstm": "recurrent", "lenet": "convolutional", "resnet": "residual"}

__all__ = [
    "ACTIVATIONS",
    "AnyModel",
    "Container",
    "Model",
    "Params",
    "as_model",
    "cnn_lstm",
    "from_numpyro",
    "layer_of",
    "layer_sizes",
    "lenet",
    "mlp",
    "named",
    "nest",
    "resnet",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
