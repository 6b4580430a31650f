"""Convergence of weights as they were drawn and as aligned, side by side.

Two chains that sample different copies of the same part of the posterior disagree about nearly every weight and about nothing
else. Alignment undoes this disagreement, so that raw and aligned statistics side by side tell it from any other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from diagnostics import trees
from diagnostics.alignment import Alignment, align
from diagnostics.estimates import NUM_RESAMPLES, SEED, few_systems_factor, interval
from diagnostics.summary import TOTAL, summarise_variables
from diagnostics.symmetry import architecture_of
from diagnostics.units import Architecture

MIN_CHAINS = 4  # resamples of fewer chains are too few to have quantiles
MAX_SURROGATE_DRAWS = 100  # of a chain: chance moves means of chains, and those of a hundred draws are as good as all
NUM_SURROGATES = 3  # shares of single ones differ by 0.01 to 0.05 (standard deviation; networks of 50 to 3,760 weights)


def aligned_summary(
    run: xr.DataTree, architecture: Architecture | None = None, *, summary: xr.DataTree | None = None
) -> xr.Dataset:
    """Summarise the convergence of weights as they were drawn and as aligned, and how much of their disagreement goes away.

    Alignment brings *any* two networks nearer, unrelated ones too: by half, easily, in narrow layers. What it removes must
    therefore be held against what it removes by chance, and aligned chains against stationary ones.

    Args:
        run: A run, see `diagnostics.trees`.
        architecture: Symmetries of its posterior; by default those that its network has declared (`architecture_of`).
        summary: `summarise(run)`, if at hand; saves computing its half again.

    Returns:
        Dataset over `alignment` ("raw", "aligned") with the table of weights of `summarise`: R-hat and effective sample sizes by
        layer, shares of bad R-hat beside those of stationary chains; and over `layer`, with `TOTAL`:

        - `removed`: share of the variance between chain means, summed over weights, that alignment removes,
          1 - B_aligned / B_raw; NaN for one chain. The Monte Carlo error of the means is part of both;
        - `removed_lower`, `removed_upper`: 95 % interval by resampling chains, with Student's allowance for few; NaN for fewer
          than 4;
        - `removed_by_chance`: the same share after every weight of every chain has been given a sign by lot, which leaves all
          sizes as they are and nothing that chains have in common: what is removed from chains that are unrelated;

        and over `group` of units, `transpositions` and `flips` from a draw to the next, means over all draws but the first.

    Raises:
        ValueError: The tree is not one of a run, no architecture is known or it does not fit, or draws are not finite.
    """
    trees.check_tree(run)
    architecture = architecture_of(run) if architecture is None else architecture
    raw = trees.weights(run)
    aligned, moves = _aligned(raw, architecture)
    raw_table = summarise_variables(raw)[1] if summary is None else summary["posterior_layers"].to_dataset()
    table = xr.concat([raw_table, summarise_variables(aligned)[1]], "alignment").assign_coords(alignment=["raw", "aligned"])
    layers = table["layer"].values.tolist()
    rng = np.random.default_rng(SEED)
    removed, lower, upper = _removed_share(raw, aligned, layers, rng)
    by_chance = np.mean([_removed_by_chance(raw, architecture, layers, rng) for _ in range(NUM_SURROGATES)], 0)
    columns = {"removed": removed, "removed_lower": lower, "removed_upper": upper, "removed_by_chance": by_chance}
    counted = {
        name: ("group", [counts[group.name][:, 1:].mean() if raw.sizes["draw"] > 1 else np.nan for group in architecture])
        for name, counts in (("transpositions", moves.transpositions), ("flips", moves.flips))
    }
    table = table.assign({name: ("layer", column) for name, column in columns.items()} | counted)
    return table.assign_coords(group=[group.name for group in architecture])


def _removed_share(
    raw: xr.Dataset, aligned: xr.Dataset, layers: Sequence[str], rng: np.random.Generator
) -> tuple[Float[np.ndarray, " layer"], Float[np.ndarray, " layer"], Float[np.ndarray, " layer"]]:
    """Return the share of the variance between chain means that alignment removes, and the ends of its interval."""
    num_chains = raw.sizes["chain"]
    distances, aligned_distances = (_squared_distances(variables, layers) for variables in (raw, aligned))
    removed = _removed(distances, aligned_distances, np.ones((1, num_chains), int))[:, 0]
    counts = rng.multinomial(num_chains, np.full(num_chains, 1 / num_chains), NUM_RESAMPLES)
    resamples = _removed(distances, aligned_distances, counts)
    lower, upper = np.full((2, len(layers)), np.nan)
    for row in np.flatnonzero(np.isfinite(removed)) if num_chains >= MIN_CHAINS else ():
        drawn = resamples[row][np.isfinite(resamples[row])]  # without those of one chain alone
        drawn = removed[row] + few_systems_factor(num_chains) * (drawn - removed[row])
        lower[row], upper[row] = interval(removed[row], drawn.clip(max=1))[1:]
    return removed, lower, upper


def _aligned(variables: xr.Dataset, architecture: Architecture) -> tuple[xr.Dataset, Alignment]:
    moves = align({str(name): variable.values for name, variable in variables.items()}, architecture)
    return variables.assign({name: variables[name].copy(data=array) for name, array in moves.weights.items()}), moves


def _removed_by_chance(
    raw: xr.Dataset, architecture: Architecture, layers: Sequence[str], rng: np.random.Generator
) -> Float[np.ndarray, " layer"]:
    """Return what alignment removes after each weight has been multiplied by a sign of its own in each chain."""
    signs = np.array([-1, 1], np.int8)
    few = raw.isel(draw=slice(None, None, max(1, raw.sizes["draw"] // MAX_SURROGATE_DRAWS)))
    unrelated = few.map(lambda draws: draws * rng.choice(signs, (draws.shape[0], 1, *draws.shape[2:])))
    distances, aligned = (
        _squared_distances(variables, layers) for variables in (unrelated, _aligned(unrelated, architecture)[0])
    )
    return _removed(distances, aligned, np.ones((1, raw.sizes["chain"]), int))[:, 0]


def _squared_distances(variables: xr.Dataset, layers: Sequence[str]) -> Float[np.ndarray, "layer chain chain"]:
    """Return the squared distances between the chain means of each layer's weights; of all weights for `TOTAL`."""
    by_layer = dict.fromkeys(layers, np.zeros(()))
    for name, variable in variables.items():
        means = variable.values.mean(1, dtype=float).reshape(variable.shape[0], -1)
        squares = np.stack([np.square(means - chain).sum(-1) for chain in means])
        for layer in (trees.layer_of(str(name)), TOTAL):
            by_layer[layer] = by_layer[layer] + squares
    return np.stack([by_layer[layer] for layer in layers])


def _removed(
    raw: Float[np.ndarray, "layer chain chain"],
    aligned: Float[np.ndarray, "layer chain chain"],
    counts: Int[np.ndarray, "resample chain"],
) -> Float[np.ndarray, "layer resample"]:
    """Return 1 - B_aligned / B_raw with each chain taken `counts` times.

    A variance is proportional to the sum of the squared distances of all pairs.
    """
    between_raw, between_aligned = (np.einsum("ri,lij,rj->lr", counts, matrix, counts) for matrix in (raw, aligned))
    with np.errstate(invalid="ignore"):  # 0 / 0: nothing between chains, as if there were one
        return 1 - between_aligned / between_raw
