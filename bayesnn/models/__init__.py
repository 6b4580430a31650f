"""Networks: the built-in MLP, adapters for the user's own, NumPyro models."""

from bayesnn.models.adapt import as_model
from bayesnn.models.mlp import ACTIVATIONS, mlp
from bayesnn.models.model import AnyModel, Model
from bayesnn.models.numpyro_model import from_numpyro
from bayesnn.models.parameters import Container, Params, layer_of, layer_sizes, named, nest

__all__ = [
    "ACTIVATIONS",
    "AnyModel",
    "Container",
    "Model",
    "Params",
    "as_model",
    "from_numpyro",
    "layer_of",
    "layer_sizes",
    "mlp",
    "named",
    "nest",
]
