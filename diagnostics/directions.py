"""Convergence along directions: those in which a layer's weights vary most, and those about which the data say nothing.

Coordinates are an arbitrary frame: chains that disagree along one direction of a thousand weights show a thousand R-hats that
are nearly 1. And the frame must not be chosen on the draws that are then tested, or the worst directions of stationary chains
would be picked as such.

Along an input direction that no training input has a part in, the first layer's weights do not touch the likelihood. Under a
Gaussian prior that is the same in all directions the posterior there *is* the prior: a known answer inside every real run.

References:
    Izmailov, Nicholson, Lotfi & Wilson 2021, arXiv 2106.11905 (null directions of the inputs).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped

from diagnostics import trees
from diagnostics.claims import Finding, interval_text
from diagnostics.convergence import MIN_DRAWS
from diagnostics.energy import mean_estimate
from diagnostics.estimates import Estimate
from diagnostics.stationary import ALARM
from diagnostics.summary import summarise_variables

NUM_DIRECTIONS = 10
MIN_CHAINS = 4  # two to find directions, two to be compared along them
MARGIN = 0.02  # relative; as for temperatures, of which this is one
WIDTH = 0.1  # relative half-width of an interval that is too wide to see what matters


def leading_directions(
    draws: Float[np.ndarray, "chain draw scalar"], num_directions: int
) -> Float[np.ndarray, "scalar direction"]:
    """Return the orthonormal directions in which draws vary most, within chains and between them.

    Args:
        draws: (chain, draw, scalar), finite.
        num_directions: At most so many; no more than scalars, nor than draws less one.
    """
    flat = np.asarray(draws, float).reshape(-1, draws.shape[-1])
    centred = flat - flat.mean(0)
    if centred.shape[0] >= centred.shape[1]:
        vectors = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
        return vectors[:, :num_directions]
    vectors = np.linalg.eigh(centred @ centred.T)[1]
    keep = slice(-1, -1 - min(num_directions, len(flat) - 1), -1)
    directions = centred.T @ vectors[:, keep]
    size = np.linalg.norm(directions, axis=0)
    return directions[:, size > 0] / size[size > 0]


def along_leading(run: xr.DataTree, num_directions: int = NUM_DIRECTIONS) -> xr.Dataset:
    """Summarise the convergence of each layer along the leading directions of chains that are not tested.

    Half of the chains give the directions along which the other half is compared, and the reverse. With 2 or 3 chains, first
    and second halves of all chains do this for each other; where chains are slow, halves are dependent and the
    test is a little too strict.

    Args:
        run: A run, see `diagnostics.trees`.
        num_directions: Directions of each layer.

    Returns:
        The table of `summarise` over `tested` (which draws were) and `layer`, without its columns by chain.

    Raises:
        ValueError: The tree is not one of a run, or it has a single chain, fewer than 8 draws, or draws that are not finite.
    """
    trees.check_tree(run)
    layers = layer_arrays(trees.weights(run))
    num_chains, num_draws = next(iter(layers.values())).shape[:2]
    if num_chains < 2 or num_draws < 2 * MIN_DRAWS:
        raise ValueError(f"need at least 2 chains and {2 * MIN_DRAWS} draws a chain, got {num_chains} and {num_draws}")
    if bad := [name for name, draws in layers.items() if not np.isfinite(draws).all()]:
        raise ValueError(f"draws of {', '.join(bad)} are not finite; see the claim finite")
    parts: dict[str, Any]
    if num_chains >= MIN_CHAINS:
        parts = {"even chains": np.s_[0::2], "odd chains": np.s_[1::2]}
    else:
        parts = {"first halves": np.s_[:, : num_draws // 2], "second halves": np.s_[:, -(num_draws // 2) :]}
    tables = []
    for tested, other in (tuple(parts), tuple(parts)[::-1]):
        projections = {}
        for layer, draws in layers.items():
            directions = leading_directions(draws[parts[other]], num_directions)
            projections[f"{layer}.direction"] = (("chain", "draw", layer), draws[parts[tested]] @ directions)
        tables.append(summarise_variables(xr.Dataset(projections))[1].drop_dims("chain"))
    return xr.concat(tables, "tested").assign_coords(tested=list(parts))


def layer_arrays(variables: xr.Dataset) -> dict[str, Shaped[np.ndarray, "chain draw scalar"]]:
    """Return the draws of each layer side by side."""
    parts: dict[str, list[np.ndarray]] = {}
    for name, variable in variables.items():
        values = variable.values
        parts.setdefault(trees.layer_of(str(name)), []).append(values.reshape(*values.shape[:2], -1))
    return {layer: np.concatenate(arrays, -1) for layer, arrays in parts.items()}


def null_directions(inputs: Float[np.ndarray, "row feature"]) -> Float[np.ndarray, "feature direction"]:
    """Return an orthonormal basis of the input directions in which no row has a component.

    Args:
        inputs: What multiplies the first kernel: [example, feature] as the network gets them, or patches (`image_patches`). Not
            centred: a direction along which all rows are alike still moves the outputs.

    Raises:
        ValueError: Inputs that are not a matrix, or not finite.
    """
    inputs = np.asarray(inputs, float)
    if inputs.ndim != 2 or not np.isfinite(inputs).all():
        raise ValueError(f"inputs must be a finite matrix (row, feature), got shape {inputs.shape}")
    vectors = np.linalg.svd(np.linalg.qr(inputs, "r"))[2]
    present = np.linalg.norm(inputs @ vectors.T, axis=0)
    # Inputs are float32 at most places: a direction is null when its size is rounding, in every row.
    rounding = np.finfo(np.float32).eps * np.sqrt(max(inputs.shape)) * np.linalg.norm(inputs)
    return vectors.T[:, present <= rounding]


def image_patches(
    images: Float[np.ndarray, "example height width channel"], size: tuple[int, int]
) -> Float[np.ndarray, "row feature"]:
    """Return all patches that a convolution can see, flattened in the order of Flax's kernels (height, width, channel).

    Images are padded with zeros on all sides, so that the patches of every stride and of both usual paddings are among them: a
    direction that is null for these is null for the layer.

    Args:
        images: As the network gets them.
        size: Height and width of the kernel.
    """
    height, width = size
    padded = np.pad(np.asarray(images), ((0, 0), (height - 1,) * 2, (width - 1,) * 2, (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (1, 2))
    return np.moveaxis(patches, 3, -1).reshape(-1, height * width * padded.shape[-1])


class NullSpread(NamedTuple):
    """Draws along null directions, held against the prior.

    Attributes:
        num_directions: Null directions of the inputs.
        spread: Mean square of the projected weights over the prior variance; 1 if the posterior is the prior there.
        projections: (chain, draw, direction, unit) the projected weights in units of the prior's standard deviation.
    """

    num_directions: int
    spread: Estimate
    projections: Float[np.ndarray, "chain draw direction unit"]


def null_spread(
    kernel: Float[np.ndarray, "chain draw ... unit"], directions: Float[np.ndarray, "feature direction"], prior_scale: float
) -> NullSpread:
    """Measure the spread of a first layer's kernel along null directions of its inputs.

    Args:
        kernel: Draws; the axes between draw and unit are those of the features.
        directions: From `null_directions`.
        prior_scale: Standard deviation of every weight of the kernel under the prior.

    Returns:
        The spread with its interval; NaN without null directions.

    Raises:
        ValueError: A kernel with other features than the directions.
    """
    draws = kernel.reshape(*kernel.shape[:2], -1, kernel.shape[-1])
    if draws.shape[2] != len(directions):
        raise ValueError(f"the kernel has {draws.shape[2]} features and the directions have {len(directions)}")
    projections = np.einsum("cdfu,fk->cdku", draws, directions / prior_scale)
    if not directions.shape[1]:
        return NullSpread(0, Estimate(np.nan, np.nan, np.nan), projections)
    return NullSpread(directions.shape[1], mean_estimate(np.square(projections).mean((2, 3))), projections)


def null_finding(null: NullSpread, prior: str | None, temperature: float = 1.0) -> Finding:
    """Judge whether the draws are prior draws where they must be; fails exact ones with a false-alarm rate of 0.001 at most.

    Args:
        null: From `null_spread`.
        prior: None for independent Gaussians of one scale, under which posterior and prior must agree; otherwise what the prior
            is, and the spread is reported without a verdict.
        temperature: Nominal temperature of the posterior, to which the spread is proportional.
    """
    claim = "null-directions"
    if not null.num_directions:
        return Finding(claim, "health", "not applicable", note="Every direction of the inputs occurs in the training data.")
    note = f"Along {null.num_directions} input directions without data the weights' mean square is "
    note += f"{interval_text(*null.spread)} of the prior's variance"
    if prior is not None:
        reason = f"; under this prior ({prior}) it need not be {temperature:g}, so this is no verdict."
        return Finding(claim, "health", "not applicable", null.spread.value, null.spread[1:], note=note + reason)
    low, high = temperature * (1 - MARGIN), temperature * (1 + MARGIN)
    exact = f"exact sampling gives {temperature:g}"
    surely = mean_estimate(np.square(null.projections).mean((2, 3)), level=1 - ALARM)
    if np.isnan(null.spread.lower):
        verdict, meaning = "inconclusive", "; too few draws to tell."
    elif surely.upper < low or surely.lower > high:
        verdict, meaning = "fail", f"; {exact}. The temperature is wrong, the step too large, or the chains are too short."
    elif null.spread.upper - null.spread.lower > 2 * WIDTH * temperature:
        verdict, meaning = "inconclusive", f"; {exact}. The interval is too wide to tell; draw more."
    else:
        verdict, meaning = "pass", f"; {exact}."
    return Finding(claim, "health", verdict, null.spread.value, null.spread[1:], temperature, note + meaning)
