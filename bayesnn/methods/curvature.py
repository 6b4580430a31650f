r"""The generalised Gauss-Newton matrix of a network's likelihood, in structures that can be inverted and drawn from.

What is predicted of an example, class probabilities or a Gaussian, is written in coordinates in which its Fisher information is
the identity; with J their Jacobian by the weights, the matrix is :math:`\sum_n J_n^\top J_n`. For class probabilities and for
Gaussian noise of fixed scale it equals the Gauss-Newton matrix with the Hessian of the loss by the outputs; for a predicted or
learned scale, where that Hessian is not positive, it is the Fisher information.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Key, PyTree

from bayesnn.density import Constants, Form
from bayesnn.models import Params, layer_of, named, nest

# Jacobians of this many bytes are held at a time.
CHUNK_BYTES = 64 * 2**20
# Shares of the precision lost in a product of matrices are shares of an eigenvalue lost in the inverse: no reduced precision.
PRECISION = "highest"

type Leaves = dict[str, Any]  # arrays by dotted path
type Rows = dict[str, Float[Array, "n row ..."]]


class Structure(NamedTuple):
    """A shape of the matrix, and how to draw from the Gaussian with it as precision.

    Attributes:
        contribution: (Jacobian rows of some examples) -> pytree that is added up over the data.
        factorise: (its sum, prior precision of every weight, number of examples) -> factors of the covariance.
        perturb: (key, factors, arrays of the right shapes) -> a draw around zero, arrays by path.
    """

    contribution: Callable[[Rows], PyTree]
    factorise: Callable[[PyTree, Leaves, int], PyTree]
    perturb: Callable[[Key[Array, ""], PyTree, Leaves], Leaves]


def jacobian_rows(form: Form, position: Params, free: tuple[str, ...], x: Array, constants: Constants) -> Rows:
    """Return the derivatives of what is predicted by the free weights, one example at a time, in isometric coordinates."""
    leaves = named(position)

    def of_example(example: Array) -> Leaves:
        def coordinates(chosen: Leaves) -> Float[Array, " row"]:
            outputs, extra = form.outputs(nest(leaves | chosen), example[None], constants)
            return _isometric(form.functions(outputs, extra))

        return jax.jacrev(coordinates)({name: leaves[name] for name in free})

    return jax.vmap(of_example)(x)


def num_rows(functions: dict[str, Any]) -> int:
    """Return the number of coordinates of what is predicted of an example: backward passes of its Jacobian."""
    return functions["probability"].shape[-1] if "probability" in functions else 2


def _isometric(functions: dict[str, Array]) -> Float[Array, " row"]:
    """Coordinates of one prediction whose derivatives have the Fisher information as their sum of squares."""
    if "probability" in functions:  # sum of dp^2 / p
        probability = functions["probability"][0]
        tiny = jnp.finfo(probability.dtype).tiny
        return probability / jnp.sqrt(jnp.maximum(jax.lax.stop_gradient(probability), tiny))
    mean, scale = functions["mean"][0], functions["scale"][0]  # (dm^2 + 2 ds^2) / s^2
    return jnp.stack([mean, math.sqrt(2) * scale]) / jax.lax.stop_gradient(scale)


def sum_over_data(
    form: Form,
    structure: Structure,
    position: Params,
    free: tuple[str, ...],
    x: Float[Array, "n ..."],
    weight: Float[Array, " n"],
    constants: Constants,
) -> PyTree:
    """Add up the contributions of all examples, some at a time, so that memory does not grow with the data."""

    def contribution(x: Array, weight: Array) -> PyTree:
        rows = jacobian_rows(form, position, free, x, constants)
        scaled = jax.tree.map(lambda j: j * jnp.sqrt(weight).astype(j.dtype).reshape(-1, *[1] * (j.ndim - 1)), rows)
        return structure.contribution(scaled)

    example = jax.eval_shape(lambda x: jacobian_rows(form, position, free, x, constants), x[:1])
    example_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(example))
    size = min(max(CHUNK_BYTES // example_bytes, 1), x.shape[0])
    missing = -x.shape[0] % size
    x, weight = jnp.concatenate([x, jnp.repeat(x[:1], missing, axis=0)]), jnp.pad(weight, (0, missing))
    chunks = x.reshape(-1, size, *x.shape[1:]), weight.reshape(-1, size)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(contribution, x[:size], weight[:size]))

    def add(total: PyTree, chunk: tuple[Array, Array]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, contribution(*chunk)), None

    return jax.lax.scan(add, zeros, chunks)[0]


@functools.cache  # one object a structure, so that nothing recompiles
def dense() -> Structure:
    """Return the whole matrix: d^2 numbers and an inversion of order d^3."""

    def contribution(rows: Rows) -> Float[Array, "d d"]:
        leaves = jax.tree.leaves(rows)
        flat = jnp.concatenate([leaf.reshape(leaf.shape[0] * leaf.shape[1], -1) for leaf in leaves], axis=1)
        return jnp.matmul(flat.T, flat, precision=PRECISION)

    def factorise(total: Float[Array, "d d"], prior: Leaves, num_data: int) -> Float[Array, "d d"]:
        return jnp.linalg.cholesky(total + jnp.diag(_flat(prior)))

    def perturb(key: Key[Array, ""], factor: Float[Array, "d d"], like: Leaves) -> Leaves:
        z = jax.random.normal(key, factor.shape[:1], factor.dtype)
        return _unflatten(solve_triangular(factor, z, lower=True, trans=1), like)

    return Structure(contribution, factorise, perturb)


@functools.cache
def diagonal() -> Structure:
    """Return the diagonal alone: weights are independent."""

    def contribution(rows: Rows) -> Leaves:
        return jax.tree.map(lambda j: jnp.sum(j**2, axis=(0, 1)), rows)

    def factorise(total: Leaves, prior: Leaves, num_data: int) -> Leaves:
        return jax.tree.map(lambda g, p: 1 / jnp.sqrt(g + p), total, prior)

    def perturb(key: Key[Array, ""], scales: Leaves, like: Leaves) -> Leaves:
        z = jax.random.normal(key, _flat(scales).shape, _flat(scales).dtype)
        return jax.tree.map(jnp.multiply, scales, _unflatten(z, like))

    return Structure(contribution, factorise, perturb)


class KroneckerFactors(NamedTuple):
    """Covariance of the rows [kernel; bias] of a dense layer: that of scale * (left (z / root) right').

    Attributes:
        scale: [in + 1, 1] prior standard deviation of each row.
        left: [in + 1, in + 1] eigenvectors of the second moments of the inputs, in units of the prior.
        right: [out, out] eigenvectors of those of the derivatives by the layer's outputs.
        root: [in + 1, out] square root of the posterior precision in these directions, in units of the prior.
    """

    scale: Float[Array, "inputs 1"]
    left: Float[Array, "inputs inputs"]
    right: Float[Array, "outputs outputs"]
    root: Float[Array, "inputs outputs"]


@functools.cache
def kronecker(layers: tuple[str, ...]) -> Structure:
    """Return a Kronecker product for each of these dense layers (kernel and bias), and the diagonal for all other weights.

    The Jacobian of a layer that an example passes once is an outer product of its inputs, with a 1 for the bias, and of the
    derivatives by its outputs; both are read off from it, so that the network need not be taken apart.

    References:
        Martens & Grosse 2015, arXiv 1503.05671; Ritter et al. 2018, ICLR (as a posterior). The prior enters exactly, where
        theirs is split between the two factors.
    """
    others = diagonal()

    def rest(leaves: Leaves) -> Leaves:
        return {name: leaf for name, leaf in leaves.items() if layer_of(name) not in layers}

    def contribution(rows: Rows) -> PyTree:
        moments = {}
        for layer in layers:
            inputs, slopes = outer_factors(rows, layer)
            left = jnp.matmul(inputs.T, inputs, precision=PRECISION)
            moments[layer] = left, jnp.einsum("nro,nrp->op", slopes, slopes, precision=PRECISION)
        return moments, others.contribution(rest(rows))

    def factorise(total: PyTree, prior: Leaves, num_data: int) -> PyTree:
        factors = {}
        for layer, (left, right) in total[0].items():
            precision = jnp.concatenate([prior[f"{layer}.kernel"], prior[f"{layer}.bias"][None]]).mean(axis=1, keepdims=True)
            scale = 1 / jnp.sqrt(precision)
            left_values, left_vectors = jnp.linalg.eigh(scale * left * scale.T / num_data)
            right_values, right_vectors = jnp.linalg.eigh(right)
            curvature = jnp.maximum(left_values, 0)[:, None] * jnp.maximum(right_values, 0)
            factors[layer] = KroneckerFactors(scale, left_vectors, right_vectors, jnp.sqrt(curvature + 1))
        return factors, others.factorise(total[1], rest(prior), num_data)

    def perturb(key: Key[Array, ""], factors: PyTree, like: Leaves) -> Leaves:
        *layer_keys, rest_key = jax.random.split(key, len(layers) + 1)
        drawn = others.perturb(rest_key, factors[1], rest(like)) if factors[1] else {}
        for layer, layer_key in zip(layers, layer_keys, strict=True):
            f = factors[0][layer]
            z = jax.random.normal(layer_key, f.root.shape, f.root.dtype) / f.root
            both = f.scale * jnp.linalg.multi_dot([f.left, z, f.right.T], precision=PRECISION)
            drawn |= {f"{layer}.kernel": both[:-1], f"{layer}.bias": both[-1]}
        return drawn

    return Structure(contribution, factorise, perturb)


def outer_factors(rows: Rows, layer: str) -> tuple[Float[Array, "n inputs"], Float[Array, "n row outputs"]]:
    """Split the Jacobians of a dense layer into its inputs, with a 1 for the bias, and the derivatives by its outputs.

    Where no prediction depends on a layer's outputs (all units behind it are off) the inputs are not seen, and count as zero.
    """
    slopes = rows[f"{layer}.bias"]
    both = jnp.concatenate([rows[f"{layer}.kernel"], slopes[:, :, None]], axis=2)
    norm = jnp.sum(slopes**2, axis=(1, 2))[:, None]
    inputs = jnp.einsum("nrio,nro->ni", both, slopes, precision=PRECISION)
    return jnp.where(norm > 0, inputs / jnp.where(norm > 0, norm, 1), 0), slopes


def _flat(leaves: Leaves) -> Float[Array, " d"]:
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(leaves)])


def _unflatten(flat: Float[Array, " d"], like: Leaves) -> Leaves:
    leaves, structure = jax.tree.flatten(like)
    ends = [sum(int(leaf.size) for leaf in leaves[: i + 1]) for i in range(len(leaves))]
    parts = [flat[end - leaf.size : end].reshape(leaf.shape) for end, leaf in zip(ends, leaves, strict=True)]
    return jax.tree.unflatten(structure, parts)
