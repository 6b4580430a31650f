r"""Linear networks of two and more layers, whose learning coefficients are known for all widths and ranks.

.. math:: K(W_1, \dots, W_L) = \tfrac{1}{2} \lVert W_L \cdots W_1 - W^* \rVert_F^2

the loss, in expectation over inputs of unit covariance, of a regression with unit noise. Two layers are reduced-rank regression.
With Gaussian weights and a true product of zero one of two layers integrates out, and what is left depends on the singular values
of the other alone, whose law is Wishart's.

References:
    Aoyagi & Watanabe 2005, Neural Networks 18, 924-933 (two layers); Aoyagi 2024, Neural Networks 172, 106132 (any number).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key
from scipy.special import logsumexp

from diagnostics.oracles.coefficients import ExactCoefficient
from diagnostics.oracles.oracle import Oracle, Position, check_positive, rejection_sampler
from diagnostics.oracles.quadrature import graded_rule

MAX_SINGULAR_VALUE = 40.0  # of a matrix of unit normal deviates with up to a hundred columns: passed with probability e^-400
MAX_WIDTH = 100
NUM_PANELS = 32  # the last has 2e-8 of singular values: narrow enough for a precision of 1e14


def reduced_rank_coefficient(inputs: int, hidden: int, outputs: int, rank: int) -> ExactCoefficient:
    """Return learning coefficient and multiplicity of a linear network with one hidden layer and no biases.

    Args:
        inputs: Width M of the input.
        hidden: Width H of the hidden layer.
        outputs: Width N of the output.
        rank: Of the true matrix, from 0 to the smallest width.

    Raises:
        ValueError: An argument out of range.

    References:
        Aoyagi & Watanabe 2005, Neural Networks 18, main theorem.
    """
    _check_widths((inputs, hidden, outputs), rank)
    m, h, n, r = inputs, hidden, outputs, rank
    if m + h < n + r:
        return ExactCoefficient(Fraction(h * m - h * r + n * r, 2), 1)
    if n + h < m + r:
        return ExactCoefficient(Fraction(h * n - h * r + m * r, 2), 1)
    if m + n < h + r:
        return ExactCoefficient(Fraction(m * n, 2), 1)
    is_odd = (m + h + n + r) % 2
    numerator = -((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * (m + n) + 2 * m * n + is_odd
    return ExactCoefficient(Fraction(numerator, 8), 1 + is_odd)


def deep_linear_coefficient(widths: Sequence[int], rank: int) -> ExactCoefficient:
    r"""Return learning coefficient and multiplicity of a linear network of any depth, without biases.

    With :math:`M_s` the widths minus the rank r, :math:`\Sigma` the set of the :math:`\ell + 1` smallest of them for which
    :math:`\ell \max_\Sigma M \le S = \sum_\Sigma M < \ell \min_{\Sigma^c} M`, and
    :math:`a = S - (\lceil S / \ell \rceil - 1) \ell`,

    .. math:: \lambda = \frac{r (M_{in} + M_{out} + r)}{2} + \frac{a (\ell - a)}{4 \ell} - \frac{(\ell - 1) S^2}{4 \ell}
        + \frac{1}{2} \sum_{i < j \in \Sigma} M_i M_j, \qquad m = a (\ell - a) + 1

    Args:
        widths: Of the input, of each hidden layer and of the output.
        rank: Of the true product, from 0 to the smallest width.

    Raises:
        ValueError: An argument out of range.

    References:
        Aoyagi 2024, Neural Networks 172, theorem 1; the first term is r (H_in + H_out) - r^2, halved, of the paper.

    Example:
        >>> deep_linear_coefficient([3, 3, 3, 3], rank=1)
        ExactCoefficient(llc=Fraction(4, 1), multiplicity=3)
    """
    _check_widths(widths, rank)
    excess = sorted(width - rank for width in widths)
    for last in range(1, len(excess)):
        total = sum(excess[: last + 1])
        is_below_rest = last + 1 == len(excess) or (excess[last] < excess[last + 1] and total < last * excess[last + 1])
        if is_below_rest and total >= last * excess[last]:
            break
    remainder = total - (-(-total // last) - 1) * last
    pairs = sum(one * other for one, other in combinations(excess[: last + 1], 2))
    llc = (
        Fraction(rank * (widths[0] + widths[-1] - rank), 2)
        + Fraction(remainder * (last - remainder) - (last - 1) * total**2, 4 * last)
        + Fraction(pairs, 2)
    )
    return ExactCoefficient(llc, remainder * (last - remainder) + 1)


def deep_linear(widths: Sequence[int], num_data: float, *, rank: int = 0, prior_scale: float = 1.0) -> Oracle:
    """Return the posterior of a linear network at n data.

    The true product has `rank` singular values of 1 and otherwise 0. The reference has them in each layer, and zero elsewhere:
    the most singular of all true parameters, where the learning coefficient is smallest.

    Args:
        widths: Of the input, of each hidden layer and of the output, 1 to 100.
        num_data: n, > 0; multiplies the potential. At the inverse temperature beta, pass n beta.
        rank: Of the true product.
        prior_scale: Standard deviation of every weight, > 0.

    Returns:
        Oracle over tuples of matrices, [width, width before], the first layer first. Evidence and excess loss are known for two
        layers, rank 0, and a smallest width of 1 or 2.

    Raises:
        ValueError: An argument out of range.
    """
    coefficient = deep_linear_coefficient(widths, rank)
    check_positive(num_data=num_data, prior_scale=prior_scale)
    shapes = tuple((after, before) for before, after in pairwise(widths))
    reference = tuple(_diagonal(shape, rank) for shape in shapes)
    truth = _diagonal((widths[-1], widths[0]), rank)

    def log_prior(position: Position) -> Float[Array, ""]:
        return jnp.sum(jax.scipy.stats.norm.logpdf(ravel_pytree(position)[0], scale=prior_scale))

    def log_likelihood(position: Position, data: Float[Array, " n"]) -> Float[Array, " n"]:
        product = functools.reduce(lambda before, layer: layer @ before, position)
        return -0.5 * data * jnp.sum((product - truth) ** 2)

    def draw_prior(key: Key[Array, ""], num_draws: int) -> Position:
        keys = jax.random.split(key, len(shapes))
        return tuple(prior_scale * jax.random.normal(one, (num_draws, *shape)) for one, shape in zip(keys, shapes, strict=True))

    data = jnp.full(1, num_data, jnp.float32)
    log_evidence, excess_loss = None, None
    if len(shapes) == 2 and rank == 0 and min(widths) <= 2:
        log_evidence, excess_loss = _two_layers(widths, num_data * prior_scale**4)
    return Oracle(
        log_prior,
        log_likelihood,
        data,
        draw_prior,
        "Learning coefficient by a theorem; evidence and excess loss by quadrature, to 1e-6; draws by rejection.",
        draw=rejection_sampler(draw_prior, log_likelihood, data),
        log_evidence=log_evidence,
        reference=reference,
        excess_loss=excess_loss,
        llc=float(coefficient.llc),
        multiplicity=coefficient.multiplicity,
    )


def _two_layers(widths: Sequence[int], precision: float) -> tuple[float, float]:
    """Integrate over the p singular values of the layer that is left, [p, q]: prod s^(q-p) exp(-s^2/2) prod |s_i^2 - s_j^2|."""
    inputs, hidden, outputs = widths
    left, integrated = (inputs, outputs) if min(hidden, inputs) <= min(hidden, outputs) else (outputs, inputs)
    num_values, power = min(hidden, left), max(hidden, left) - min(hidden, left)
    values, weights = graded_rule(MAX_SINGULAR_VALUE, NUM_PANELS)
    if num_values == 1:
        singular = values[None]
        repulsion = np.zeros_like(values)
    else:
        ratios, ratio_weights = graded_rule(1.0, NUM_PANELS)
        singular = np.stack([np.broadcast_to(values[:, None], (len(values), len(ratios))), values[:, None] * ratios])
        repulsion = 3 * np.log(values)[:, None] + np.log1p(-(ratios**2))  # and the Jacobian of the ratio
        weights = weights[:, None] * ratio_weights
    log_density = repulsion + np.sum(power * np.log(singular) - singular**2 / 2, 0)
    information = precision * singular**2
    log_likelihood = log_density - integrated / 2 * np.log1p(information).sum(0)
    log_evidence = logsumexp(log_likelihood, b=weights) - logsumexp(log_density, b=weights)
    posterior = weights * np.exp(log_likelihood - log_likelihood.max())
    loss = integrated / 2 * (information / (1 + information)).sum(0)
    return float(log_evidence), float((posterior * loss).sum() / posterior.sum())


def _diagonal(shape: tuple[int, int], rank: int) -> Float[Array, "after before"]:
    return jnp.eye(*shape) * (jnp.arange(shape[1]) < rank)


def _check_widths(widths: Sequence[int], rank: int) -> None:
    if len(widths) < 3 or any(not 1 <= width <= MAX_WIDTH or width != int(width) for width in widths):
        raise ValueError(f"widths must be three or more integers from 1 to {MAX_WIDTH}, got {widths}")
    if not 0 <= rank <= min(widths):
        raise ValueError(f"rank must be from 0 to the smallest width, {min(widths)}; got {rank}")
