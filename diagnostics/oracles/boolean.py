"""Networks of three binary inputs, and the 256 functions that they can compute: prior and posterior by direct sampling.

The function that a network computes is known exactly from its eight outputs, so that basins are functions, and the probability of
each is a number to compare chains, ensembles and optimisers with.

References:
    Valle-Perez, Camargo & Louis 2019, arXiv 1805.08522 (priors over Boolean functions); Mingard, Valle-Perez, Skalse & Louis
    2021, JMLR 22:79 (posteriors by prior draws, and optimisers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, product

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key

from diagnostics.oracles.oracle import Draw, Oracle, Position, Regions, check_positive, rejection_sampler

INPUTS = np.array(list(product([-1.0, 1.0], repeat=3)), np.float32)  # row i holds the bits of i
NUM_FUNCTIONS = 2 ** len(INPUTS)
BLOCK = 2**14  # prior draws evaluated at a time


def boolean_network(
    key: Key[Array, ""],
    observed: Sequence[int] = (),
    labels: Sequence[int] = (),
    *,
    hidden: Sequence[int] = (8,),
    prior_scale: float = 1.0,
    sharpness: float = np.inf,
    num_draws: int = 2**20,
) -> Oracle:
    r"""Return the posterior of a ReLU network that has seen some of the eight rows of a truth table.

    .. math:: \log p(y \mid x, w) = \log \mathrm{sigmoid}(\mathrm{sharpness} \cdot y f(x; w)), \qquad y = \pm 1

    At infinite sharpness the likelihood is 1 for networks that are right on all rows seen, and 0 for others. A finite one is for
    samplers that need gradients, and has probabilities of its own.

    Args:
        key: For the prior draws that the answers rest on.
        observed: Rows seen, from 0 to 7, whose bits are the inputs, -1 for a bit of 0; none for the prior.
        labels: 0 or 1 of each row seen.
        hidden: Widths of the hidden layers; none for a perceptron.
        prior_scale: Standard deviation of every weight and bias, > 0.
        sharpness: Of the likelihood, > 0.
        num_draws: Prior draws.

    Returns:
        Oracle over tuples of (kernel, bias), with the data {"x": [rows, 3], "y": [rows]}. Its regions are the 256 functions: in
        the number of one, bit i is the label of row i. Masses have standard errors; one that no draw fell upon has mass 0
        and no error, and may weigh about 3 / num_draws.

    Raises:
        ValueError: Rows or labels that do not exist, or no draw that has any likelihood.
    """
    rows, bits = np.asarray(observed, int), np.asarray(labels, int)
    if rows.shape != bits.shape or not np.isin(rows, np.arange(8)).all() or not np.isin(bits, (0, 1)).all():
        raise ValueError(f"observed must be rows from 0 to 7 with a label of 0 or 1 each, got {observed} and {labels}")
    check_positive(prior_scale=prior_scale, num_draws=num_draws)
    if not sharpness > 0:
        raise ValueError(f"sharpness must be positive, got {sharpness}")
    shapes = tuple(pairwise((3, *hidden, 1)))

    def log_prior(position: Position) -> Float[Array, ""]:
        return jnp.sum(jax.scipy.stats.norm.logpdf(ravel_pytree(position)[0], scale=prior_scale))

    def log_likelihood(position: Position, data: dict[str, Array]) -> Float[Array, " n"]:
        margin = data["y"] * _network(position, data["x"])
        return jnp.where(margin > 0, 0.0, -jnp.inf) if np.isinf(sharpness) else jax.nn.log_sigmoid(sharpness * margin)

    def draw_prior(key: Key[Array, ""], num_draws: int) -> Position:
        keys = jax.random.split(key, 2 * len(shapes))
        return tuple(
            (
                prior_scale * jax.random.normal(keys[2 * layer], (num_draws, before, after)),
                prior_scale * jax.random.normal(keys[2 * layer + 1], (num_draws, after)),
            )
            for layer, (before, after) in enumerate(shapes)
        )

    data = {"x": jnp.asarray(INPUTS[rows]), "y": jnp.asarray(2.0 * bits - 1, jnp.float32)}

    num_blocks = -(-num_draws // BLOCK)
    sums = _tally(key, draw_prior, lambda position: jnp.sum(log_likelihood(position, data)), num_blocks)
    if not sums[0].any():
        raise ValueError(f"none of {num_blocks * BLOCK} prior draws is right on all rows {observed}; take more of them")
    return Oracle(
        log_prior,
        log_likelihood,
        data,
        draw_prior,
        f"Masses from {num_blocks * BLOCK} prior draws, with their standard errors.",
        draw=rejection_sampler(draw_prior, log_likelihood, data),
        log_evidence=float(np.log(sums[0].sum() / (num_blocks * BLOCK))),
        regions=_functions(sums, num_blocks * BLOCK),
    )


def function_index(position: Position) -> Int[Array, ""]:
    """Return the number of the Boolean function that a network computes: bit i is whether its output for row i is positive."""
    return jnp.sum((_network(position, jnp.asarray(INPUTS)) > 0) * 2 ** np.arange(len(INPUTS)))


def _network(position: Position, inputs: Float[Array, "n input"]) -> Float[Array, " n"]:
    values = inputs
    for kernel, bias in position[:-1]:
        values = jax.nn.relu(values @ kernel + bias)
    kernel, bias = position[-1]
    return (values @ kernel + bias)[:, 0]


def _tally(
    key: Key[Array, ""], draw_prior: Draw, log_likelihood: Callable[[Position], Float[Array, ""]], num_blocks: int
) -> Float[np.ndarray, "2 function"]:
    """Return the sums over prior draws of the likelihoods, and of their squares, of each function."""

    @jax.jit
    def block_sums(key: Key[Array, ""]) -> Float[Array, "2 function"]:
        positions = draw_prior(key, BLOCK)
        weight = jnp.exp(jax.vmap(log_likelihood)(positions))
        return jnp.zeros((2, NUM_FUNCTIONS)).at[:, jax.vmap(function_index)(positions)].add(jnp.stack([weight, weight**2]))

    return np.sum([jax.device_get(block_sums(jax.random.fold_in(key, block))) for block in range(num_blocks)], 0, np.float64)


def _functions(sums: Float[np.ndarray, "2 function"], num_draws: int) -> Regions:
    """Return masses from sums of weights and of their squares, with standard errors of a ratio of means."""
    total, mass = sums[0].sum(), sums[0] / sums[0].sum()
    variance = (sums[1] * (1 - 2 * mass) + mass**2 * sums[1].sum()) / total**2
    with np.errstate(divide="ignore"):
        log_evidence = np.log(sums[0] / num_draws)
    return Regions(
        tuple(f"{index:08b}" for index in range(NUM_FUNCTIONS)), function_index, log_evidence, standard_error=np.sqrt(variance)
    )
