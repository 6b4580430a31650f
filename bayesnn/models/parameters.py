"""Names of parameters: one nested plain dict of arrays, whatever container a model keeps its own in.

A parameter is named by its dotted path, `layer_0.kernel`; its layer is everything before the last dot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

type Params = dict[str, Any]


class Container(NamedTuple):
    """The two-way road between a model's own container of parameters and a nested plain dict.

    Attributes:
        structure: Tree structure of the model's own container.
        paths: Names from the root to each of its leaves.
    """

    structure: Any
    paths: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, tree: PyTree) -> Container:
        """Describe a container.

        Raises:
            ValueError: No parameters at all, or two whose names are equal.
        """
        leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
        if not leaves:
            raise ValueError("the model has no parameters, so there is nothing to sample")
        paths = tuple(tuple(_part(key) for key in path) or ("params",) for path, _ in leaves)
        if len(set(paths)) < len(paths):
            twice = next(path for path in paths if paths.count(path) > 1)
            raise ValueError(f"two parameters have the name {'.'.join(twice)}; rename one of them")
        return cls(structure, paths)

    def to_dict(self, tree: PyTree) -> Params:
        """Return the parameters as a nested plain dict."""
        return nest({".".join(path): leaf for path, leaf in zip(self.paths, jax.tree.leaves(tree), strict=True)})

    def from_dict(self, params: Params) -> PyTree:
        """Return the parameters in the model's own container."""
        leaves = named(params)
        return jax.tree.unflatten(self.structure, [leaves[".".join(path)] for path in self.paths])


def named(params: PyTree) -> dict[str, Any]:
    """Return every parameter by its dotted path; layer_2 comes before layer_10."""
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in jax.tree_util.tree_leaves_with_path(params)
    }
    return {name: leaves[name] for name in sorted(leaves, key=_natural)}


def nest(leaves: Mapping[str, Any]) -> Params:
    """Return the nested dict of parameters given by their dotted paths."""
    params: Params = {}
    for name, leaf in leaves.items():
        *layers, last = name.split(".")
        inner = params
        for layer in layers:
            inner = inner.setdefault(layer, {})
        inner[last] = leaf
    return params


def layer_of(name: str) -> str:
    """Return the layer of a parameter; a name without a dot is its own layer."""
    return name.rpartition(".")[0] or name


def layer_sizes(params: PyTree) -> dict[str, int]:
    """Return the number of scalars of each layer."""
    sizes: dict[str, int] = {}
    for name, leaf in named(params).items():
        sizes[layer_of(name)] = sizes.get(layer_of(name), 0) + int(leaf.size)
    return sizes


def _part(key: Any) -> str:
    # A dot separates layers and a slash separates groups of a draw store.
    return re.sub(r"[./]", "_", jax.tree_util.keystr((key,), simple=True))


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
