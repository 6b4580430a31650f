r"""The posterior on planes through three draws: in one chain and across chains, as drawn and aligned.

The plane through :math:`\theta_1, \theta_2, \theta_3` has its origin at the first, :math:`u = \theta_2 - \theta_1`, and for v
what :math:`\theta_3 - \theta_1` has orthogonal to u; places are in units of u and v, so that the draws lie at (0, 0), (1, 0) and
(s, 1). A plane shows two of d dimensions: draws of a posterior lie in shells, and most of a plane between them is lower than all
of them even where nothing separates them. What a picture can show is a second hill, or a valley in the likelihood alone that
alignment closes.

References:
    Izmailov et al. 2021, arXiv 2104.14421 (and the code of their plots), after Garipov et al. 2018, arXiv 1802.10026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from markupsafe import Markup

from bayesnn.models import nest
from bayesnn.posteriors import Posterior
from bayesnn.precision import arithmetic
from bayesnn.report.pictures import Drawing, Shown, embedded
from diagnostics.alignment import align
from diagnostics.symmetry import architecture_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayesnn.load import LoadedRun

LIMITS = (-0.75, 1.75)  # in units of u and v: Izmailov et al. 2021, their code
BLOCK = 50  # places evaluated at a time; bounds memory
LEVELS = np.array([0, 1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5])  # nats below the highest place
COARSE = 25  # places along each axis of a picture: 2,500 evaluations on all training data, a few draws of HMC
DECIMALS = 3  # of nats, and of places
FIELDS = {"log_posterior": "log posterior", "log_likelihood": "log likelihood", "log_prior": "log prior"}

type Weights = Mapping[str, np.ndarray]  # of one draw, by dotted path


class Surface(NamedTuple):
    """A posterior on a plane through three draws.

    Attributes:
        x: [column] places along u.
        y: [row] places along v.
        draws: [3, 2] where the three draws are.
        log_posterior: [row, column] log prior plus log likelihood, tempered as the posterior is, nats; not normalised.
        log_likelihood: [row, column] on all training data, untempered, nats.
        log_prior: [row, column] untempered, nats.
    """

    x: Float[np.ndarray, " column"]
    y: Float[np.ndarray, " row"]
    draws: Float[np.ndarray, "3 2"]
    log_posterior: Float[np.ndarray, "row column"]
    log_likelihood: Float[np.ndarray, "row column"]
    log_prior: Float[np.ndarray, "row column"]


def surface(posterior: Posterior, first: Weights, second: Weights, third: Weights, *, size: int = 50) -> Surface:
    """Evaluate a posterior on the plane through three draws.

    Args:
        posterior: The posterior.
        first: Weights by dotted path; the origin.
        second: The end of u.
        third: A draw off the line of the others.
        size: Places along each axis, >= 2.

    Raises:
        ValueError: Draws on one line, or weights that do not fit the posterior.
    """
    if size < 2:
        raise ValueError(f"a surface needs at least 2 places along each axis, got {size}")
    origin, second_flat, third_flat = (_flat(posterior, weights) for weights in (first, second, third))
    along, other = second_flat - origin, third_flat - origin
    share = float(along @ other / max(along @ along, np.finfo(float).tiny))
    across = other - share * along
    lengths = np.linalg.norm([along, across], axis=1)
    if lengths.min() <= 1e-6 * max(lengths.max(), np.finfo(float).tiny):  # rounding of float32 weights
        raise ValueError("the three draws lie on one line, which leaves no plane: choose draws that differ")
    places = np.linspace(*LIMITS, size)
    grid = np.stack(np.meshgrid(places, places), -1).reshape(-1, 2)
    like = nest({name: np.asarray(value) for name, value in first.items()})
    terms = _terms(posterior, like, np.stack([origin, along, across]), grid)
    prior, likelihood = (np.asarray(term, float).reshape(size, size) for term in terms)
    tempering = posterior.tempering
    tempered = (prior + likelihood / float(tempering.likelihood_temperature)) / float(tempering.temperature)
    draws = np.array([[0.0, 0.0], [1.0, 0.0], [share, 1.0]])
    return Surface(places, places, draws, tempered, likelihood, prior)


def surfaces(posterior: Posterior, tree: xr.DataTree, *, size: int = 50) -> dict[str, Surface]:
    """Evaluate the planes through the first, middle and last draw of a chain, and through the last draws of three chains.

    Args:
        posterior: What the run has sampled.
        tree: The run. Where its network declares symmetries, each plane comes aligned, too.
        size: Places along each axis.

    Returns:
        Surfaces by title: "one chain", "three chains" (with three or more), and the same "aligned".

    Raises:
        ValueError: A run of less than three draws, or draws that have no plane.
    """
    drawn = {str(name): variable.values for name, variable in tree["posterior"].data_vars.items()}
    num_chains, num_draws = next(iter(drawn.values())).shape[:2]
    if num_draws < 3:
        raise ValueError(f"a plane needs three draws, the run has {num_draws} a chain")
    sets = {"as drawn": drawn}
    if tree.attrs.get("architecture"):
        sets["aligned"] = align(drawn, architecture_of(tree)).weights
    triples = {"one chain": [(0, 0), (0, num_draws // 2), (0, num_draws - 1)]}
    if num_chains >= 3:
        triples["three chains"] = [(chain, num_draws - 1) for chain in range(3)]
    return {
        f"{place}, {words}": surface(
            posterior, *({name: array[where] for name, array in arrays.items()} for where in triple), size=size
        )
        for place, triple in triples.items()
        for words, arrays in sets.items()
    }


def surfaces_of(run: LoadedRun, *, size: int = COARSE) -> dict[str, Any]:
    """Evaluate the planes of `surfaces` of a run in its folder.

    Args:
        run: The run.
        size: Places along each axis.

    Returns:
        Plain data: the fields of each `Surface`, rounded to thousandths, by title.

    Raises:
        UsageError: The run's own code or data cannot be loaded.
        ValueError: See `surfaces`.
    """
    from bayesnn.build import build_posterior

    with arithmetic(run.config):
        found = surfaces(build_posterior(run.config), run.tree, size=size)
    return {
        title: {name: np.round(part, DECIMALS).tolist() for name, part in one._asdict().items()} for title, one in found.items()
    }


def read_surfaces(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Surface]:
    """Return the surfaces that `surfaces_of` made plain data of."""
    return {title: Surface(**{name: np.array(part) for name, part in one.items()}) for title, one in stored.items()}


def show_surfaces(stored: Mapping[str, Mapping[str, Any]]) -> Drawing:
    """Draw the surfaces that `surfaces_of` made plain data of, as one image for a page."""
    label = "Log posterior, log likelihood and log prior on planes through three draws"
    return Drawing([Shown("", Markup(), embedded(draw_surfaces(read_surfaces(stored)), label))])


def draw_surfaces(found: Mapping[str, Surface]) -> Figure:
    """Draw surfaces as contours of how far each place lies below the highest: a column each, a row each field.

    Args:
        found: Surfaces by title, from `surfaces`.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.15 * len(found) + 1.3, 7.2), layout="constrained")
    axes = figure.subplots(len(FIELDS), len(found), squeeze=False, sharex=True, sharey=True)
    norm = BoundaryNorm(LEVELS, 256)
    for column, (title, one) in zip(axes.T, found.items(), strict=True):
        for axis, field in zip(column, FIELDS, strict=True):
            values: Any = getattr(one, field)
            below = np.clip(np.nanmax(values) - values, LEVELS[0], LEVELS[-1])
            axis.contourf(one.x, one.y, below, LEVELS, norm=norm, cmap="viridis_r")
            axis.contour(one.x, one.y, below, LEVELS[1:-1], colors="white", linewidths=0.4, alpha=0.6)
            axis.plot(*one.draws.T, "o", color="white", markeredgecolor="black", markersize=9)
            for label, place in zip("123", one.draws, strict=True):
                axis.annotate(label, place, ha="center", va="center_baseline", fontsize="x-small")
            axis.set(xlim=LIMITS, ylim=LIMITS, aspect="equal", xticks=(0, 1), yticks=(0, 1))
            axis.tick_params(labelsize="x-small", length=2)
        column[0].set_title(title, fontsize="medium")
    for axis, words in zip(axes[:, 0], FIELDS.values(), strict=True):
        axis.set_ylabel(words, fontsize="medium")
    figure.supxlabel("along the line from draw 1 to draw 2, its length as unit", fontsize="small")
    bar = figure.colorbar(ScalarMappable(norm, "viridis_r"), ax=axes, shrink=0.95, ticks=LEVELS, spacing="uniform")
    bar.set_label("nats below the highest place of the panel", fontsize="small")
    bar.ax.set_yticklabels([f"{level:,g}" for level in LEVELS[:-1]] + ["more"], fontsize="x-small")
    return figure


def _flat(posterior: Posterior, weights: Weights) -> np.ndarray:
    leaves = jax.tree.leaves(posterior.unflatten(weights))
    return np.concatenate([np.ravel(leaf).astype(float) for leaf in leaves])


def _terms(posterior: Posterior, like: Any, vectors: np.ndarray, grid: np.ndarray) -> tuple[Array, Array]:
    """Return log prior and log likelihood at places [place, 2] of the plane of an origin and two directions [3, d]."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    @jax.jit
    def evaluate(vectors: Float[Array, "3 d"], grid: Float[Array, "place 2"]) -> tuple[Array, Array]:
        def one(place: Float[Array, " 2"]) -> tuple[Array, Array]:
            flat = vectors[0] + place @ vectors[1:]
            parts = zip(jnp.split(flat, ends), leaves, strict=True)
            return posterior.terms(jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in parts]))

        return jax.lax.map(one, grid, batch_size=BLOCK)

    return evaluate(jnp.asarray(vectors, float), jnp.asarray(grid, float))
