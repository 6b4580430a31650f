"""One run as an `xarray.DataTree`: building it from plain arrays, checking it, naming its parts.

ArviZ's conventions hold (every variable starts with the dimensions chain and draw), so that all of ArviZ works on these trees.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

KINDS = {
    "mcmc": "exact Markov kernels",
    "sgmcmc": "stochastic-gradient Markov kernels, biased by their step size",
    "unadjusted": "Markov kernels without an accept step, biased by their step size",
    "ensemble": "members of an optimiser, one draw a chain",
    "approximation": "independent draws from a fitted distribution",
}
TASKS = ("classification", "regression", "counts", "density")
SAMPLE_DIMS = ("chain", "draw")
FUNCTION_DIMS = {
    "probability": ("point", "class"),
    "mean": ("point",),
    "scale": ("point",),
    "log_likelihood": ("point",),
}


def layer_of(name: str) -> str:
    """Return the layer of a variable: all before the last dot of its name.

    Example:
        >>> layer_of("encoder.layer_0.kernel"), layer_of("log_noise")
        ('encoder.layer_0', 'log_noise')
    """
    return name.rpartition(".")[0] or name


def make_tree(
    *,
    attrs: Mapping[str, Any],
    posterior: Mapping[str, ArrayLike],
    functions: Mapping[str, ArrayLike] | None = None,
    sample_stats: Mapping[str, ArrayLike] | None = None,
    observed_data: Mapping[str, ArrayLike] | None = None,
    layers: Mapping[str, int] | None = None,
) -> xr.DataTree:
    """Build the tree of a run from arrays.

    Args:
        attrs: Facts about the run: `kind`, `task` and what else is known of `name`, `sampler`, `temperature`,
            `likelihood_temperature`, `num_data`, `num_params`, `gradients`, `seconds`, `num_nonfinite`.
        posterior: Weights by dotted path, each (chain, draw, ...).
        functions: `probability` (chain, draw, point, class), or `mean` and `scale` (chain, draw, point); `log_likelihood`
            (chain, draw, point), nats.
        sample_stats: Each (chain, draw), except `virial` (chain, draw, layer).
        observed_data: `y_test` (point).
        layers: Number of scalars by layer, in the order of `virial`; by default the layers of `posterior` in its order.

    Returns:
        A tree that passes `check_tree`, with the sizes of the layers as `constant_data.layer_size`.

    Raises:
        ValueError: Arrays that do not fit together, or an unknown kind or task.
    """
    arrays = {name: np.asarray(value) for name, value in posterior.items()}
    if layers is None:
        layers = {}
        for name, value in arrays.items():
            layers[layer_of(name)] = layers.get(layer_of(name), 0) + int(np.prod(value.shape[2:]))
    groups = {
        "posterior": _dataset(arrays, {}),
        "functions": _dataset(functions, FUNCTION_DIMS),
        "sample_stats": _dataset(sample_stats, {"virial": ("layer",)}),
        "observed_data": _dataset(observed_data, {"y_test": ("point",)}, ()),
        "constant_data": _dataset({"layer_size": list(layers.values())}, {"layer_size": ("layer",)}, ()),
    }
    for group in ("sample_stats", "constant_data"):
        if "layer" in groups[group].dims and groups[group].sizes["layer"] != len(layers):
            raise ValueError(f"virial has {groups[group].sizes['layer']} layers, expected {len(layers)}: {', '.join(layers)}")
        if "layer" in groups[group].dims:
            groups[group] = groups[group].assign_coords(layer=list(layers))
    tree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items() if group.data_vars})
    tree.attrs = dict(attrs)
    check_tree(tree)
    return tree


def check_tree(tree: xr.DataTree) -> None:
    """Check that a tree is one that the diagnostics can read; says nothing about the quality of the draws.

    Raises:
        ValueError: No group `posterior`, an unknown kind or task, a temperature that is not positive, variables that lack the
            dimensions chain and draw or disagree about them, test targets that do not fit the functions, labels out of range.
    """
    _check_choice("kind", tree.attrs.get("kind"), tuple(KINDS))
    _check_choice("task", tree.attrs.get("task"), TASKS)
    for name in ("temperature", "likelihood_temperature"):
        if not tree.attrs.get(name, 1.0) > 0:
            raise ValueError(f"attribute {name} must be positive, got {tree.attrs[name]}")
    if "posterior" not in tree.children or not tree["posterior"].data_vars:
        raise ValueError(f"the tree has no group posterior with variables; it has {', '.join(tree.children) or 'no groups'}")
    sizes: dict[tuple[int, ...], str] = {}
    for group in [name for name in ("posterior", "functions", "sample_stats") if name in tree.children]:
        for key, variable in tree[group].data_vars.items():
            if variable.dims[:2] != SAMPLE_DIMS:
                raise ValueError(f"{group}.{key} must start with the dimensions chain and draw, got {variable.dims}")
            sizes.setdefault((variable.sizes["chain"], variable.sizes["draw"]), f"{group}.{key}")
    if len(sizes) > 1:
        found = "; ".join(f"{owner} has {chain} x {draw}" for (chain, draw), owner in sizes.items())
        raise ValueError(f"all variables need the same chains x draws, got: {found}")
    if 0 in next(iter(sizes)):
        raise ValueError("the run has no draws")
    if "functions" in tree.children:
        _check_functions(tree)


def _check_functions(tree: xr.DataTree) -> None:
    functions = tree["functions"].to_dataset()
    if ("mean" in functions) != ("scale" in functions):
        raise ValueError("the functions of a regression are mean and scale; one of them is missing")
    if "observed_data" not in tree.children:
        return
    observed = tree["observed_data"].to_dataset()
    if "y_test" not in observed:
        raise ValueError(f"observed_data must hold y_test, the test targets; it holds {', '.join(map(str, observed.data_vars))}")
    y = observed["y_test"]
    if functions.sizes.get("point") != y.size:
        raise ValueError(
            f"functions are given at {functions.sizes.get('point')} points and y_test at {y.size}; they must be the same"
        )
    if "probability" in functions:
        num_classes = functions.sizes["class"]
        if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= num_classes:
            raise ValueError(
                f"y_test must hold integers from 0 to {num_classes - 1}, got {y.dtype} from {y.min().item()} to {y.max().item()}"
            )


def weights(tree: xr.DataTree) -> xr.Dataset:
    """Return the weights of a run, layer by layer in the order of `constant_data.layer_size` as far as it names their layers."""
    dataset = tree["posterior"].to_dataset()
    sizes = tree["constant_data"].to_dataset().get("layer_size") if "constant_data" in tree.children else None
    order = {} if sizes is None else {str(layer): place for place, layer in enumerate(sizes["layer"].values)}
    names = [str(name) for name in dataset.data_vars]
    names.sort(key=lambda name: order.get(layer_of(name), len(order)))
    return dataset[names]


def predicted(tree: xr.DataTree) -> xr.Dataset:
    """Return what a run predicts: its functions except for their log likelihood; empty if it has none."""
    if "functions" not in tree.children:
        return xr.Dataset()
    return tree["functions"].to_dataset().drop_vars("log_likelihood", errors="ignore")


def _dataset(
    values: Mapping[str, ArrayLike] | None, dims: Mapping[str, Sequence[str]], leading: Sequence[str] = SAMPLE_DIMS
) -> xr.Dataset:
    variables = {}
    for name, value in (values or {}).items():
        array = np.asarray(value)
        trailing = dims.get(name) or [f"{name}_dim_{axis}" for axis in range(array.ndim - len(leading))]
        if array.ndim != len(leading) + len(trailing):
            raise ValueError(f"{name} must have dimensions ({', '.join((*leading, *trailing))}), got shape {array.shape}")
        variables[name] = ((*leading, *trailing), array)
    dataset = xr.Dataset(variables)
    return dataset.assign_coords({dim: np.arange(dataset.sizes[dim]) for dim in SAMPLE_DIMS if dim in dataset.sizes})


def _check_choice(what: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, 1)
        raise ValueError(
            f"attribute {what} must be one of {', '.join(choices)}; got {value!r}"
            + (f"; did you mean {near[0]}?" if near else "")
        )
