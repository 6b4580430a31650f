"""The Laplace approximation: a Gaussian around a MAP estimate, with the curvature there."""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from bayesnn.methods import curvature
from bayesnn.methods.approximation import Approximation, FitState, Gather, approximation
from bayesnn.methods.curvature import Leaves, Structure
from bayesnn.models import Params, layer_of, named, nest
from bayesnn.posteriors import Posterior
from samplers import Batch, Kernel
from samplers.types import Position, Tuning

type StructureName = Literal["full", "kronecker", "diagonal", "last-layer"]
# Weights with a dense matrix, whose d^2 numbers are a quarter of a GiB a chain in float32, in memory and in every checkpoint.
MAX_DENSE = 8192
# By this share, affine outputs may differ from a straight line, and Jacobians of a dense layer from outer products: hundreds of
# roundings in float32; curved networks differ by a tenth and more.
ROUNDING = 1e-3


class LaplaceTuning(NamedTuple):
    """The fitted Gaussian: the MAP estimate, and factors of the covariance in the structure's own form."""

    mean: Position
    factors: PyTree


def laplace(
    trainer: Kernel, posterior: Posterior, *, num_steps: int, structure: StructureName = "kronecker", linearised: bool = False
) -> Approximation:
    r"""Fit a Gaussian to a mode: mean where the trainer ends, precision the Gauss-Newton matrix there plus that of the prior.

    .. math:: \Lambda = \Big(\tfrac{1}{T_\ell} \sum_n J_n^\top H_n J_n + \mathrm{diag}(-\partial^2 \log p(\theta))\Big) / T

    The curvature costs one full-data gradient for every output, counted at the last step. Priors are taken to be independent by
    weight. Their curvature at the MAP estimate counts, but no less than the inverse of their largest variance, since it vanishes
    at kinks and is negative in heavy tails.

    Args:
        trainer: An optimiser of the posterior, made by `samplers.optimise`.
        posterior: Network, prior, likelihood and data.
        num_steps: Steps of the trainer; the curvature is that at the end of the last one.
        structure: "full"; "diagonal"; "kronecker", a Kronecker product for every dense layer and the diagonal for the rest;
            "last-layer", full in the output layer, all other weights fixed: the largest layer in which the outputs are affine.
        linearised: Draws predict by the network linearised at the mean, of which the Gaussian is the posterior if the likelihood
            is Gaussian of fixed scale. Otherwise by the network itself, which the Gaussian fits worse (Immer et al. 2021).

    Raises:
        ValueError: An unknown structure, counts, a prior without variance, more weights than a dense matrix can have, or a
            network without the layers that the structure needs.

    References:
        MacKay 1992, Neural Computation 4(3); Daxberger et al. 2021, arXiv 2106.14806; Immer et al. 2021, arXiv 2008.08400
        (linearised predictions).
    """
    if structure not in get_args(StructureName.__value__):
        raise ValueError(f"structure must be one of {', '.join(get_args(StructureName.__value__))}, got {structure!r}")
    if posterior.dataset.task == "counts":
        raise ValueError("the curvature here is that of classes and of normal targets, not of counts: use swag or mean-field-vi")
    if (scales := posterior.prior_scales()) is None:
        raise ValueError("a Laplace approximation needs a prior with a variance for every weight; this one has none")
    least = 1 / max(float(jnp.max(leaf)) for leaf in jax.tree.leaves(scales)) ** 2
    shape, free = _structure(structure, posterior)
    num_gradients = curvature.num_rows(jax.eval_shape(posterior.functions, posterior.like, posterior.batch.data[0][:1]))
    factors_at, gather, draw = _functions(posterior.form, posterior.target, shape, free, num_steps, least, num_gradients)
    example = (posterior.like, posterior.batch, trainer.initial_tuning)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), LaplaceTuning(posterior.like, jax.eval_shape(factors_at, *example))
    )
    return approximation(trainer, _tuning_of, draw, zeros, gather=gather, is_linearised=linearised)


def _structure(name: StructureName, posterior: Posterior) -> tuple[Structure, tuple[str, ...]]:
    """Return the structure of the curvature, and the weights that are drawn."""
    leaves = named(posterior.like)
    if name == "diagonal":
        return curvature.diagonal(), tuple(leaves)
    if name == "kronecker":
        return curvature.kronecker(_dense_layers(posterior)), tuple(leaves)
    layer = _output_layer(posterior) if name == "last-layer" else None
    free = tuple(path for path in leaves if layer in (None, layer_of(path)))
    num_free = sum(leaves[path].size for path in free)
    if num_free > MAX_DENSE:
        others = "kronecker or diagonal" if layer else "kronecker, diagonal or last-layer"
        raise ValueError(f"a dense matrix of {num_free} weights is too large (at most {MAX_DENSE}): use structure {others}")
    return curvature.dense(), free


def _tuning_of(state: FitState, tuning: Tuning) -> LaplaceTuning:
    return LaplaceTuning(state.position, state.gathered)


@functools.lru_cache(maxsize=64)  # the same functions for the same posterior, so that nothing recompiles
def _functions(
    form: Any, target: Any, structure: Structure, free: tuple[str, ...], num_steps: int, least: float, num_gradients: int
) -> tuple[Any, Gather, Any]:
    def factors_at(position: Position, batch: Batch, tuning: Any) -> PyTree:
        if batch.weight.shape[0] < target.num_data:
            raise ValueError(f"a device has {batch.weight.shape[0]} of {target.num_data} examples; Laplace needs them all")
        dtype, tempering = jnp.result_type(*jax.tree.leaves(position)), tuning.tempering
        temperature = tempering.temperature.astype(dtype)
        weight = batch.weight / (temperature * tempering.likelihood_temperature.astype(dtype))
        total = curvature.sum_over_data(form, structure, position, free, batch.data[0], weight, batch.constants)
        prior = named(prior_precision(position, batch.constants))
        return structure.factorise(total, {name: prior[name] / temperature for name in free}, target.num_data)

    def prior_precision(position: Position, constants: PyTree) -> Position:
        slope = jax.grad(lambda p: target.log_prior(p, constants))
        _, hessian = jax.jvp(slope, (position,), (jax.tree.map(jnp.ones_like, position),))  # a diagonal times ones
        return jax.tree.map(lambda h: jnp.maximum(-h, least), hessian)

    def begin(position: Position, batch: Batch, tuning: Any) -> PyTree:
        shapes = jax.eval_shape(factors_at, position, batch, tuning)
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def update(
        gathered: PyTree, position: Position, batch: Batch, tuning: Any, step: Int[Array, ""]
    ) -> tuple[PyTree, Float[Array, ""]]:
        is_last = step == num_steps - 1
        factors = jax.lax.cond(is_last, lambda: factors_at(position, batch, tuning), lambda: gathered)
        return factors, jnp.where(is_last, jnp.float32(num_gradients), 0)

    def draw(key: Key[Array, ""], position: Position, tuning: LaplaceTuning) -> Position:
        mean = named(tuning.mean)
        change = structure.perturb(key, tuning.factors, {name: mean[name] for name in free})
        return nest(mean | {name: mean[name] + change[name] for name in free})

    return factors_at, Gather(begin, update), draw


def _typical(posterior: Posterior) -> Params:
    """Return weights to look at the network with."""
    return jax.tree.map(lambda x: x[0], posterior.init(jax.random.key(0), 1, "model"))


def _output_layer(posterior: Posterior) -> str:
    """Return the largest layer in which the outputs are affine, by second differences along a large random step."""
    position = _typical(posterior)
    x, constants = posterior.batch.data[0][:8], posterior.batch.constants

    @jax.jit
    def outputs(position: Params) -> Array:
        return posterior.form.outputs(position, x, constants)[0]

    def is_affine(layer: str) -> bool:
        rng = np.random.default_rng(0)
        step: Leaves = {
            name: rng.normal(size=leaf.shape).astype(leaf.dtype) for name, leaf in leaves.items() if layer_of(name) == layer
        }
        ahead, behind = (outputs(nest(leaves | {name: leaves[name] + sign * step[name] for name in step})) for sign in (1, -1))
        here = outputs(position)
        slope = float(jnp.abs(ahead - behind).max())
        return slope > 0 and float(jnp.abs(ahead + behind - 2 * here).max()) < ROUNDING * slope

    leaves, sizes = named(position), posterior.layers
    affine = [layer for layer in sizes if is_affine(layer)]
    if not affine:
        raise ValueError("the network has no output layer, in which its outputs are affine: use structure kronecker or diagonal")
    return max(affine, key=lambda layer: sizes[layer])


def _dense_layers(posterior: Posterior) -> tuple[str, ...]:
    """Return the layers of a kernel [in, out] and a bias [out], which every example must pass once."""
    position = _typical(posterior)
    leaves = named(position)
    layers = []
    for layer in posterior.layers:
        own = {name.rpartition(".")[2]: leaf for name, leaf in leaves.items() if layer_of(name) == layer}
        if own.keys() == {"kernel", "bias"} and own["kernel"].ndim == 2 and own["bias"].shape == own["kernel"].shape[1:]:
            layers.append(layer)
    if not layers:
        raise ValueError("the network has no dense layer of a kernel [in, out] and a bias [out]: use structure diagonal")
    rows = curvature.jacobian_rows(
        posterior.form, position, tuple(leaves), posterior.batch.data[0][:1], posterior.batch.constants
    )
    for layer in layers:
        inputs, slopes = curvature.outer_factors(rows, layer)
        kernel = rows[f"{layer}.kernel"]
        error = float(jnp.abs(kernel - inputs[:, None, :-1, None] * slopes[:, :, None]).max())
        if error > ROUNDING * float(jnp.abs(kernel).max()):
            raise ValueError(f"an example passes layer {layer} more than once: use structure diagonal")
    return tuple(layers)
