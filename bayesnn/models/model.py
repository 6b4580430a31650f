"""The network as two pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Key

from bayesnn.models.parameters import Params


class Model(NamedTuple):
    """A network: how its parameters begin, and what it computes from them. Functions only, hence hashable.

    Attributes:
        init: (key, inputs) -> parameters, a nested plain dict of arrays; looks at the shape of inputs alone.
        apply: (parameters, inputs) -> [n, output]. Pure, and the outputs of an example do not depend on the examples beside it.
        description: One line.
    """

    init: Callable[[Key[Array, ""], Float[Array, "n ..."]], Params]
    apply: Callable[[Params, Float[Array, "n ..."]], Float[Array, "n output"]]
    description: str = ""


type AnyModel = Model | tuple[Callable[..., Any], Callable[..., Any]] | Any
