r"""Spectra of the Hessian of the loss, by products with vectors alone.

Lanczos' recursion from a vector v gives nodes and weights of a quadrature for :math:`v^T f(H) v`; averaged over random v, for the
trace of f(H). One node is held at 0, where singular models have most of their directions. The rule without that node bounds the
number of directions stiffer than a localiser from the other side, so the recursion ends when the two agree. Its vectors are not
orthogonalised again: rounding makes copies of nodes that share a weight, so sums stay right, and memory does not grow.

References:
    Golub & Meurant 2010, Matrices, Moments and Quadrature, chapters 6 (bounds, prescribed nodes) and 11; Ubaru, Chen & Saad 2017,
    SIAM J. Matrix Anal. 38 (random vectors).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

import samplers
from diagnostics.learning import Spectrum
from samplers import Batch, Target, Tempering

# Up to so many scalars the Hessian is made whole and every sum is exact: 256 products are the work of one or two recursions.
DENSE = 256
# Random vectors: with d directions they know a trace to sqrt(2 / d) of itself over the square root of their number, so that two
# are enough from some thousand directions on.
PROBES, MIN_PROBES, PROBED = 8, 2, 8000
# Minibatches whose gradients stand for all; in many dimensions each alone knows the noise.
NOISE_PROBES = 8
# The two rules are compared every so many steps, and must agree to this share, a fifth of what a verdict lets pass. That takes
# about the square root of largest curvature over resolution in steps, which single precision limits to a thousand.
CHECK_EVERY, AGREEMENT, MAX_ORDER = 10, 0.01, 600
# A residual below this share of the largest coefficient is rounding: the recursion has found all it can.
BREAKDOWN = 1e-6


class Spectra(NamedTuple):
    """Spectral measures at a centre.

    Attributes:
        hessian: Of the Hessian of the mean loss; weights add up to the number of directions.
        gradient: Of the gradient of the mean loss under it.
        batch_noise: Of the deviation of a minibatch's gradient, as an expectation; None without minibatches.
    """

    hessian: Spectrum
    gradient: Spectrum
    batch_noise: Spectrum | None


def loss_spectra(
    key: Key[Array, ""],
    target: Target,
    batch: Batch,
    centre: PyTree,
    *,
    resolution: float,
    batch_size: int | None = None,
) -> Spectra:
    """Compute the measures that `diagnostics.learning.predict_bias` needs.

    Args:
        key: Of random vectors and minibatches.
        target: Whose likelihood is the loss; its prior does not count.
        batch: Its data.
        centre: Position of one chain.
        resolution: Curvature that must be told from 0, nats an example: that of a localiser, gamma / (n beta).
        batch_size: Of minibatches drawn with replacement; None without.
    """
    flat, unravel = ravel_pytree(centre)
    probe_key, noise_key = jax.random.split(key)
    product, gradient = _products(target)
    slope = ravel_pytree(gradient(centre, batch))[0]
    noise: list[Array] = []
    if batch_size is not None:
        for one in jax.random.split(noise_key, NOISE_PROBES):
            drawn = jax.random.randint(one, (batch_size,), 0, target.num_data)
            part = Batch(jax.tree.map(lambda x, drawn=drawn: x[drawn], batch.data), batch.weight[drawn], batch.constants)
            whole = target._replace(microbatch=None, data_blocks=1)
            noise.append((ravel_pytree(_products(whole)[1](centre, part))[0] - slope) / np.sqrt(NOISE_PROBES))
    if flat.size <= DENSE:
        rows = [ravel_pytree(product(centre, batch, unravel(row)))[0] for row in jnp.eye(flat.size, dtype=flat.dtype)]
        hessian = np.asarray(jnp.stack(rows), np.float64)
        nodes, vectors = np.linalg.eigh((hessian + hessian.T) / 2)

        def measure(starts: list[Array]) -> Spectrum:
            return Spectrum(nodes, sum((np.asarray(v, np.float64) @ vectors) ** 2 for v in starts))  # type: ignore[arg-type]

        trace = Spectrum(nodes, np.ones(flat.size))
    else:

        def measure(starts: list[Array]) -> Spectrum:
            parts = [lanczos(lambda v: product(centre, batch, v), unravel(v), resolution) for v in starts]
            return Spectrum(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

        num_probes = int(np.clip(PROBED // flat.size, MIN_PROBES, PROBES))
        signs = [jax.random.rademacher(k, flat.shape, flat.dtype) for k in jax.random.split(probe_key, num_probes)]
        trace = measure([sign / np.sqrt(num_probes) for sign in signs])
    return Spectra(trace, measure([slope]), measure(noise) if noise else None)


def largest_curvature(key: Key[Array, ""], target: Target, batch: Batch, position: PyTree, *, order: int = 12) -> float:
    """Return about the largest eigenvalue of the Hessian of the mean loss, from below; NaN where it is not finite."""
    flat, unravel = ravel_pytree(position)
    product, _ = _products(target)
    start = unravel(jax.random.normal(key, flat.shape, flat.dtype))
    nodes = lanczos(lambda v: product(position, batch, v), start, max_order=min(order, flat.size)).nodes
    return float(np.max(nodes))


def lanczos(
    product: Callable[[PyTree], PyTree], start: PyTree, resolution: float = 0.0, *, max_order: int = MAX_ORDER
) -> Spectrum:
    """Return the spectral measure of a positive operator seen from a vector.

    Args:
        product: v -> H v.
        start: v, of any length.
        resolution: Eigenvalue that must be told from 0; with 0 the recursion goes on to `max_order`.
        max_order: Steps at most.

    Returns:
        Nodes, and weights that add up to the squared length of v; all NaN if the operator is not finite.
    """
    length = float(jnp.sqrt(_dot(start, start)))
    if length == 0:
        return Spectrum(np.zeros(1), np.zeros(1))
    vector = jax.tree.map(lambda x: x / length, start)
    before, beta = jax.tree.map(jnp.zeros_like, start), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        residual, alpha = _advance(product(vector), vector, before, beta)
        diagonal.append(float(alpha))
        beta = float(jnp.sqrt(_dot(residual, residual)))
        if not np.isfinite([diagonal[-1], beta]).all():
            return Spectrum(np.full(1, np.nan), np.full(1, np.nan))
        if beta <= BREAKDOWN * max(map(abs, [*diagonal, *beside])):
            return _rule(diagonal, beside, length)
        is_last = len(diagonal) >= max_order
        if is_last or (resolution > 0 and len(diagonal) % CHECK_EVERY == 0):
            free = _rule(diagonal, beside, length)
            held = _rule_with_zero(diagonal, [*beside, beta], float(free.nodes[0]), length)
            above, below = (_count(measure, resolution) for measure in (free, held))
            if is_last or abs(above - below) <= AGREEMENT * above:
                return held
        beside.append(beta)
        before, vector = vector, jax.tree.map(lambda x, beta=beta: x / beta, residual)


def _rule(diagonal: list[float], beside: list[float], length: float) -> Spectrum:
    """Return the quadrature of a tridiagonal matrix."""
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    return Spectrum(nodes, length**2 * vectors[0] ** 2)


def _rule_with_zero(diagonal: list[float], beside: list[float], smallest: float, length: float) -> Spectrum:
    """Return the quadrature of one node more, which lies below 0 by no more than what rounding makes of the smallest node."""
    zero = 2 * min(smallest, 0.0) - BREAKDOWN * max(map(abs, [*diagonal, *beside]))
    matrix = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1) - zero * np.eye(len(diagonal))
    last = beside[-1] ** 2 * np.linalg.solve(matrix, np.eye(len(diagonal))[-1])[-1]
    return _rule([*diagonal, zero + last], beside, length)


def _count(measure: Spectrum, resolution: float) -> float:
    """Return the weight of nodes above the resolution, those near it in part."""
    nodes = np.maximum(measure.nodes, 0)
    return float(measure.weights @ (nodes / np.maximum(nodes + resolution, np.finfo(float).tiny)))


@jax.jit
def _advance(image: PyTree, vector: PyTree, before: PyTree, beta: Any) -> tuple[PyTree, Array]:
    alpha = _dot(image, vector)
    return jax.tree.map(lambda w, v, b: w - alpha * v - beta * b, image, vector, before), alpha


@jax.jit
def _dot(left: PyTree, right: PyTree) -> Float[Array, ""]:
    return jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, left, right))


@functools.lru_cache(maxsize=64)  # the same programs for the same target, so that nothing recompiles
def _products(target: Target) -> tuple[Callable[..., PyTree], Callable[..., PyTree]]:
    """Return (position, batch, v) -> H v and (position, batch) -> gradient, of the mean loss."""
    likelihood = target._replace(log_prior=_flat)

    def gradient(position: PyTree, batch: Batch) -> PyTree:
        slope = jax.grad(samplers.log_density(likelihood, batch, Tempering.at()))(position)
        return jax.tree.map(lambda g: -g / target.num_data, slope)

    def product(position: PyTree, batch: Batch, vector: PyTree) -> PyTree:
        return jax.grad(lambda p: _dot(gradient(p, batch), vector))(position)

    return jax.jit(product), jax.jit(gradient)


def _flat(position: PyTree, constants: PyTree) -> Float[Array, ""]:
    return jnp.zeros((), jax.tree.leaves(position)[0].dtype)
