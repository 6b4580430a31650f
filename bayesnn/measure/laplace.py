r"""Masses of regions by Laplace's method at the minima below pilot draws, where it applies.

It does where three things hold, each of which is measured:

- the regions are made of minima: a cluster of functions cuts through basins, and curvatures do not say what lies on which side;
- few pilot draws lie over a minimum that no other system of particles has shown: the share of those estimates the probability
  of minima that none has shown. Draws of one system have ancestors in common, so that one of its minima seen twice is seen once;
- the posterior around each minimum is nearly Gaussian: at draws of Student's t with the minimum's Hessian, whose tails are
  heavier than a Gaussian's, the ratios of the posterior to it have a Pareto k below 0.67.

The error is what these ratios say that the Gaussian misses, where Gaussians of neighbouring minima overlap in part, and what the
search may have missed (`diagnostics.regions.masses_from_minima`).
Every minimum counts as often as symmetries make different networks of it. That is the whole orbit: the usual priors leave no
continuous symmetry in networks with smooth activations (rescaling, and shifts of logits, change the prior), so its volume is 1.

References:
    Good 1953, Biometrika 40 (species not seen); Vehtari, Simpson, Gelman, Yao & Gabry 2024, arXiv 1507.02646 (Pareto's k); Yao,
    Vehtari, Simpson & Gelman 2018, arXiv 1802.02538 (k as a check of approximations).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
import xarray as xr
from arviz_stats.base.array import array_stats
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key
from scipy.special import logsumexp

import samplers
from bayesnn.measure.classify import Reference
from bayesnn.measure.gradient_flow import Minima
from bayesnn.models import named, nest
from bayesnn.posteriors import Posterior
from diagnostics import regions
from diagnostics.regions import Masses
from diagnostics.regions.partition import SAME
from diagnostics.units import Arrays, UnitGroup, copy_units, group_sizes
from samplers import Batch, Target, Tempering
from samplers.types import Position

NUM_DRAWS = 1000  # around each minimum
FREEDOM = 5  # of Student's t: few enough for tails that are heavier than those of regular minima, and for a variance
LARGEST_K = 1 - 1 / math.log10(NUM_DRAWS)  # Vehtari et al. 2024: beyond it so many draws say nothing; 0.7 for more than 2,200
UNSEEN = 0.1  # probability of minima not seen: the distance to which `regions-visited-by-mass` looks
BLOCK = 32  # draws whose densities are computed at a time


class Laplace(NamedTuple):
    """What Laplace's method says.

    Attributes:
        masses: Of the regions; None where it does not apply.
        reason: Why it does not; empty where it does.
        minima: By `reference` minimum: `reference_log_mass` of all its copies with `reference_log_mass_error`, nats;
            `reference_log_copies`; `reference_pareto_k`.
    """

    masses: Masses | None
    reason: str
    minima: xr.Dataset


def laplace_masses(key: Key[Array, ""], posterior: Posterior, reference: Reference) -> Laplace:
    """Weigh regions by the minima in them.

    Args:
        key: Of the draws around the minima.
        posterior: The posterior, smooth.
        reference: Different minima below pilot draws, with the region of each as its number.
    """
    minima, places = reference.minima, reference.nearest.diagonal().T
    if not (np.linalg.eigvalsh(minima.hessian) > 0).all():
        return Laplace(None, "a minimum is flat along some direction", xr.Dataset())
    ratios = _log_ratios(key, posterior, reference, places)
    pareto_k = np.atleast_1d(array_stats.psislw(-ratios, axis=-1)[1])  # ArviZ takes log likelihoods that are left out
    log_copies = np.array([_log_copies(posterior, jax.tree.map(lambda x, i=i: x[i], minima)) for i in range(len(places))])
    log_mass = log_copies + list(map(regions.laplace_log_mass, minima.log_density, minima.hessian))
    missed = logsumexp(ratios, axis=-1) - math.log(NUM_DRAWS)
    error = np.hypot(missed, np.exp(ratios - missed[:, None]).std(-1, ddof=1) / math.sqrt(NUM_DRAWS))
    columns = {"log_mass": log_mass, "log_mass_error": error, "log_copies": log_copies, "pareto_k": pareto_k}
    table = xr.Dataset({f"reference_{name}": ("reference", values) for name, values in columns.items()})
    if reference.unseen > UNSEEN:
        return Laplace(
            None, f"an estimated {reference.unseen:.0%} of the posterior lies over minima that no pilot system shows", table
        )
    if not (pareto_k < LARGEST_K).all():
        worst = float(pareto_k.max())
        return Laplace(None, f"around a minimum the posterior is not nearly Gaussian (Pareto k {worst:.2f})", table)
    return Laplace(regions.masses_from_minima("Laplace", log_mass, error, reference.number, reference.found), "", table)


def _log_ratios(
    key: Key[Array, ""], posterior: Posterior, reference: Reference, places: Float[np.ndarray, "minimum d"]
) -> Float[np.ndarray, "minimum draw"]:
    """Return the log of the posterior over the density of draws around each minimum, whose Gaussian has mass 1 in these units."""
    curvatures, axes = np.linalg.eigh(reference.minima.hessian)
    (count, d), rng = places.shape, np.random.default_rng(np.asarray(jax.random.key_data(key)))
    student = scipy.stats.multivariate_t(shape=np.eye(d), df=FREEDOM)
    whitened = student.rvs((count, NUM_DRAWS), rng).reshape(count, NUM_DRAWS, d)
    draws = places[:, None] + np.einsum("mde,mne->mnd", axes, whitened / np.sqrt(curvatures)[:, None])
    like = jax.tree.map(lambda x: x[0], reference.minima.position)
    rows = jnp.asarray(draws.reshape(-1, d), jnp.result_type(float))
    values = np.asarray(_log_densities(posterior.target)(rows, like, posterior.batch, posterior.tempering), float)
    fall = values.reshape(count, NUM_DRAWS) - reference.minima.log_density[:, None]
    return fall - d / 2 * math.log(2 * math.pi) - student.logpdf(whitened).reshape(count, NUM_DRAWS)


@functools.lru_cache(maxsize=64)  # the same function for the same target, so that nothing recompiles
def _log_densities(target: Target) -> Callable[..., Float[Array, " row"]]:
    @jax.jit
    def log_densities(rows: Float[Array, "row d"], like: Position, batch: Batch, tempering: Tempering) -> Float[Array, " row"]:
        unravel, density = ravel_pytree(like)[1], samplers.log_density(target, batch, tempering)
        return jax.lax.map(lambda row: density(unravel(row)), rows, batch_size=BLOCK)

    return log_densities


def _log_copies(posterior: Posterior, minimum: Minima) -> float:
    """Return the logarithm of how many different networks the symmetries make of a minimum."""
    weights = {name: np.asarray(array, float) for name, array in named(minimum.position).items()}
    architecture = posterior.model.symmetries(posterior.like)
    if not architecture:
        return 0.0

    def is_same(moved: Arrays) -> bool:
        step = np.asarray(ravel_pytree(nest(moved))[0], float) - np.asarray(ravel_pytree(nest(weights))[0], float)
        return bool(step @ minimum.hessian @ step / 2 < SAME)

    sizes = group_sizes(architecture, {name: array.shape for name, array in weights.items()})
    return sum(_log_copies_of(group, size, weights, is_same) for group, size in zip(architecture, sizes, strict=True))


def _log_copies_of(group: UnitGroup, size: int, weights: Arrays, is_same: Callable[[Arrays], bool]) -> float:
    """Count the moves of a group of units, over those that change nothing: of like units, and of signs of dead ones."""
    turns = [np.array(signs, np.int8) for signs in itertools.product((1, -1), repeat=len(group.flips))]

    def is_kept(one: int, other: int, signs: np.ndarray) -> bool:
        order, turned = np.arange(size), np.ones((len(group.flips), size), np.int8)
        order[[one, other]] = other, one
        turned[:, [one, other]] = signs[:, None]
        return is_same(copy_units(weights, group, order, turned))

    log_kept = sum(math.log(sum(is_kept(unit, unit, signs) for signs in turns)) for unit in range(size))
    like = np.array(
        [[one == other or any(is_kept(one, other, signs) for signs in turns) for other in range(size)] for one in range(size)]
    )
    _, counts = np.unique(like.argmax(1), return_counts=True)  # units by the first that is like them
    log_kept += sum(math.lgamma(count + 1) for count in counts)
    return math.lgamma(size + 1) + size * math.log(len(turns)) - log_kept
