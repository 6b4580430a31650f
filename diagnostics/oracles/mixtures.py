"""Mixtures of Gaussians, with the exact mass of the region around each mode, however much the components overlap."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from numpy.typing import ArrayLike
from scipy.special import ndtr

from diagnostics.oracles.oracle import Oracle, Position, Regions, check_positive


def gaussian_mixture(
    masses: ArrayLike,
    means: ArrayLike,
    covariances: ArrayLike,
    prior_scale: float,
    *,
    log_evidence: float = 0.0,
    direction: ArrayLike | None = None,
) -> Oracle:
    r"""Return a posterior that is a mixture of Gaussians.

    The prior is an isotropic Gaussian around 0, and the likelihood is the mixture over the prior, so that tempering the
    likelihood leads from the one to the other. The regions are slabs across a direction: between two components that are
    neighbours along it, the cut lies the same number of their standard deviations away from both.

    .. math:: P(\mathrm{slab}) = \sum_k \pi_k \left[\Phi\left(\frac{c_+ - u \cdot \mu_k}{\sigma_k}\right)
        - \Phi\left(\frac{c_- - u \cdot \mu_k}{\sigma_k}\right)\right], \qquad \sigma_k^2 = u^T \Sigma_k u

    Args:
        masses: [k] probabilities of the components; > 0, made to add up to 1.
        means: [k, d] of the components.
        covariances: [k, d, d] of the components, or [k] variances of isotropic ones; smaller than the prior's in every direction.
        prior_scale: Standard deviation of the prior, > 0.
        log_evidence: Log of the integral of prior x likelihood, nats; a constant of the likelihood.
        direction: [d] across which the regions are cut; by default the one in which the means vary most.

    Returns:
        Oracle over positions of shape [d], with a region for each component, in the order of the components. A region's mass
        differs from that of its component by what overlaps.

    Raises:
        ValueError: Shapes that do not fit, covariances that are not positive definite or not smaller than the prior's, or
            components in the same place along the direction.
    """
    check_positive(prior_scale=prior_scale)
    probabilities, centres, spreads = _components(masses, means, covariances, prior_scale)
    dimension = centres.shape[1]
    factors = np.linalg.cholesky(spreads)
    whitening = np.linalg.inv(factors)
    constants = np.log(probabilities) - np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1) - dimension / 2 * np.log(2 * np.pi)

    def log_prior(position: Position) -> Float[Array, ""]:
        return jnp.sum(jax.scipy.stats.norm.logpdf(position, scale=prior_scale))

    def log_likelihood(position: Position, data: Float[Array, " n"]) -> Float[Array, " n"]:
        whitened = jnp.einsum("kij,kj->ki", whitening, position - centres)
        log_mixture = jax.scipy.special.logsumexp(constants - 0.5 * jnp.sum(whitened**2, 1))
        return data + log_mixture - log_prior(position)

    def draw_prior(key: Key[Array, ""], num_draws: int) -> Position:
        return prior_scale * jax.random.normal(key, (num_draws, dimension))

    def draw(key: Key[Array, ""], num_draws: int) -> Position:
        key_component, key_normal = jax.random.split(key)
        component = jax.random.categorical(key_component, jnp.log(probabilities), shape=(num_draws,))
        normal = jax.random.normal(key_normal, (num_draws, dimension))
        return jnp.asarray(centres)[component] + jnp.einsum("nij,nj->ni", jnp.asarray(factors)[component], normal)

    mean = probabilities @ centres
    deviations = centres - mean
    return Oracle(
        log_prior,
        log_likelihood,
        jnp.full(1, log_evidence, jnp.float32),
        draw_prior,
        "Closed form.",
        draw=draw,
        mean=mean,
        covariance=np.tensordot(probabilities, spreads + deviations[:, :, None] * deviations[:, None, :], 1),
        log_evidence=log_evidence,
        regions=_slabs(probabilities, centres, spreads, log_evidence, direction),
    )


def _components(masses: ArrayLike, means: ArrayLike, covariances: ArrayLike, prior_scale: float) -> tuple[np.ndarray, ...]:
    probabilities, centres, spreads = (np.asarray(array, float) for array in (masses, means, covariances))
    if centres.ndim != 2 or probabilities.shape != centres.shape[:1] or not (probabilities > 0).all():
        raise ValueError(f"masses must be positive, [k], and means [k, d]; got {masses!r} and means of shape {centres.shape}")
    num_components, dimension = centres.shape
    if spreads.shape == (num_components,):
        spreads = spreads[:, None, None] * np.eye(dimension)
    if spreads.shape != (num_components, dimension, dimension) or not np.allclose(spreads, spreads.swapaxes(1, 2)):
        raise ValueError(f"covariances must be [k] or symmetric [k, d, d] with (k, d) = {centres.shape}, got {spreads.shape}")
    eigenvalues = np.linalg.eigvalsh(spreads)
    if eigenvalues.min() <= 0 or eigenvalues.max() >= prior_scale**2:
        raise ValueError(
            f"variances of the components must lie between 0 and that of the prior, {prior_scale**2:g}, or the likelihood would "
            f"have no bound; got {eigenvalues.min():g} to {eigenvalues.max():g}: take a larger prior_scale"
        )
    return probabilities / probabilities.sum(), centres, spreads


def _slabs(
    probabilities: np.ndarray, centres: np.ndarray, spreads: np.ndarray, log_evidence: float, direction: ArrayLike | None
) -> Regions:
    axis = np.linalg.svd(centres - centres.mean(0))[2][0] if direction is None else np.asarray(direction, float)
    places, scales = centres @ axis, np.sqrt(np.einsum("i,kij,j->k", axis, spreads, axis))
    order = np.argsort(places)
    lower, upper = order[:-1], order[1:]
    if len(order) > 1 and np.diff(places[order]).min() <= 1e-6 * scales.max():
        raise ValueError(f"components lie in the same place along the direction {np.round(axis, 3)}; name another direction")
    cuts = (places[lower] * scales[upper] + places[upper] * scales[lower]) / (scales[lower] + scales[upper])
    below = ndtr((np.concatenate([cuts, [np.inf]])[:, None] - places) / scales) @ probabilities
    masses = np.empty(len(order))
    masses[order] = np.diff(below, prepend=0.0)

    def classify(position: Position) -> Int[Array, ""]:
        return jnp.asarray(order)[jnp.searchsorted(jnp.asarray(cuts), jnp.dot(position, jnp.asarray(axis)))]

    return Regions(
        tuple(f"mode {index}" for index in range(len(order))),
        classify,
        log_evidence + np.log(masses),
        standard_error=np.zeros(len(order)),
    )
