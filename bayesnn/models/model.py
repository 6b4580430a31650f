"""The network as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Array, Float, Key

from bayesnn.models.parameters import Params

if TYPE_CHECKING:
    from diagnostics.units import Architecture


def no_symmetries(params: Params) -> Architecture:
    """Declare no symmetries."""
    return ()


class Model(NamedTuple):
    """A network: how its parameters begin, and what it computes from them. Functions only, hence hashable.

    Attributes:
        init: (key, inputs) -> parameters, a nested plain dict of arrays; looks at the shape of inputs alone.
        apply: (parameters, inputs) -> [n, output]. Pure, and the outputs of an example do not depend on the examples beside it.
        description: One line.
        symmetries: (parameters, or arrays of their shapes) -> hidden units that are alike, each a `diagnostics.UnitGroup`, from
            the inputs to the outputs; none by default. Built-in networks declare theirs, and runs carry them to their audits.
    """

    init: Callable[[Key[Array, ""], Float[Array, "n ..."]], Params]
    apply: Callable[[Params, Float[Array, "n ..."]], Float[Array, "n output"]]
    description: str = ""
    symmetries: Callable[[Params], Architecture] = no_symmetries


type AnyModel = Model | tuple[Callable[..., Any], Callable[..., Any]] | Any
