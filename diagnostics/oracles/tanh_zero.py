r"""Networks of tanh units that learn the function zero, the most singular task there is.

.. math:: K(a, b) = \tfrac{1}{2} E_x \Big(\sum_{k=1}^{H} b_k \tanh(a_k x)\Big)^2, \qquad x \sim U(-1, 1)

the loss of a regression with unit noise. It is quadratic in the outer weights b, which integrate out under a Gaussian prior; with
one or two hidden units what is left is an integral over a that is done by quadrature.

References:
    Aoyagi & Watanabe 2006, "Resolution of singularities and the generalization error with Bayesian estimation for layered neural
    network", for the learning coefficient.
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from diagnostics.oracles.coefficients import ExactCoefficient
from diagnostics.oracles.oracle import Oracle, Position, check_positive, rejection_sampler
from diagnostics.oracles.quadrature import graded_rule

NUM_INPUTS = 12  # of x > 0, at Gauss-Legendre nodes; tanh is odd. More than twice the hidden units that are allowed
MAX_HIDDEN = 5
MAX_STANDARD_DEVIATIONS = 12.0  # of an inner weight: passed with probability 1e-33
NUM_PANELS = 24  # the last has 7e-7 of the inner weights: narrow enough for n up to 1e10


def tanh_zero_coefficient(num_hidden: int) -> ExactCoefficient:
    r"""Return learning coefficient and multiplicity of H tanh units, scalar in and out, at the function zero.

    .. math:: \lambda = \frac{H + i^2 + i}{4 i + 2}, \qquad i = \lfloor \sqrt{H} \rfloor, \qquad
        m = 2 \text{ if } i^2 = H \text{, else } 1

    Args:
        num_hidden: H, at least 1.

    Raises:
        ValueError: No hidden unit.

    Example:
        >>> [str(tanh_zero_coefficient(units).llc) for units in (1, 2, 3, 4)]
        ['1/2', '2/3', '5/6', '1']
    """
    if num_hidden < 1:
        raise ValueError(f"num_hidden must be at least 1, got {num_hidden}")
    root = isqrt(num_hidden)
    return ExactCoefficient(Fraction(num_hidden + root**2 + root, 4 * root + 2), 2 if root**2 == num_hidden else 1)


def tanh_zero(num_hidden: int, num_data: float, *, prior_scale: float = 1.0) -> Oracle:
    """Return the posterior of a tanh network that learns the function zero from n data.

    The expectation over inputs is a quadrature rule of 24 points, which is part of the definition.

    Args:
        num_hidden: H, from 1 to 5.
        num_data: n, > 0; multiplies the potential. At the inverse temperature beta, pass n beta.
        prior_scale: Standard deviation of every weight, > 0.

    Returns:
        Oracle over positions {"inner": [H], "outer": [H]}; evidence and excess loss are known for one and two hidden units.

    Raises:
        ValueError: An argument out of range.
    """
    if not 1 <= num_hidden <= MAX_HIDDEN:
        raise ValueError(f"num_hidden must be from 1 to {MAX_HIDDEN}, got {num_hidden}")
    check_positive(num_data=num_data, prior_scale=prior_scale)
    coefficient = tanh_zero_coefficient(num_hidden)
    inputs, weights = _inputs()

    def log_prior(position: Position) -> Float[Array, ""]:
        return jnp.sum(jax.scipy.stats.norm.logpdf(ravel_pytree(position)[0], scale=prior_scale))

    def log_likelihood(position: Position, data: Float[Array, " n"]) -> Float[Array, " n"]:
        outputs = jnp.tanh(jnp.outer(inputs, position["inner"])) @ position["outer"]
        return -0.5 * data * jnp.sum(weights * outputs**2)

    def draw_prior(key: Key[Array, ""], num_draws: int) -> Position:
        inner, outer = prior_scale * jax.random.normal(key, (2, num_draws, num_hidden))
        return {"inner": inner, "outer": outer}

    log_evidence, excess_loss = None, None
    if num_hidden <= 2:
        log_evidence, excess_loss = _integrals(num_hidden, num_data * prior_scale**2, prior_scale)
    data = jnp.full(1, num_data, jnp.float32)
    return Oracle(
        log_prior,
        log_likelihood,
        data,
        draw_prior,
        "Learning coefficient by a theorem; evidence and excess loss by quadrature, to 1e-6 up to n = 1e10; draws by rejection.",
        draw=rejection_sampler(draw_prior, log_likelihood, data),
        log_evidence=log_evidence,
        reference={"inner": jnp.zeros(num_hidden), "outer": jnp.zeros(num_hidden)},
        excess_loss=excess_loss,
        llc=float(coefficient.llc),
        multiplicity=coefficient.multiplicity,
    )


def _inputs() -> tuple[Float[np.ndarray, " input"], Float[np.ndarray, " input"]]:
    """Return positive inputs with weights that add up to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(NUM_INPUTS)
    return (1 + nodes) / 2, weights / 2


def _integrals(num_hidden: int, precision: float, prior_scale: float) -> tuple[float, float]:
    """Integrate det(1 + N G)^(-1/2), G being the second moments of the units' outputs, and the excess loss given a."""
    inner, mass = graded_rule(MAX_STANDARD_DEVIATIONS, NUM_PANELS)
    mass = mass * np.exp(-(inner**2) / 2)
    inner = prior_scale * inner
    if num_hidden == 1:
        trace, determinant = _moments(inner, np.zeros(1), np.zeros(1))[0], np.zeros(1)
    else:
        # |a_2| = (1 - gap) |a_1|, resolved where the second unit vanishes and where both are alike.
        half, half_mass = graded_rule(0.5, NUM_PANELS)
        gap, ratio = np.concatenate([half, 1 - half]), np.concatenate([1 - half, half])
        second = np.exp(-((inner[:, None] / prior_scale * ratio) ** 2) / 2) * np.concatenate([half_mass, half_mass])
        mass = (mass * inner)[:, None] * second
        trace, determinant = _moments(inner[:, None], ratio, gap)
    likelihood = mass / np.sqrt(1 + precision * trace + precision**2 * determinant)
    loss = (precision * trace / 2 + precision**2 * determinant) / (1 + precision * trace + precision**2 * determinant)
    return float(np.log(likelihood.sum() / mass.sum())), float((likelihood * loss).sum() / likelihood.sum())


def _moments(inner: np.ndarray, ratio: np.ndarray, gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return trace and determinant of the outputs' second moments, the latter as a sum of squares that does not cancel."""
    inputs, weights = _inputs()
    outputs, differences = [], []
    for x in inputs:
        first, other = np.tanh(inner * x), np.tanh(inner * ratio * x)
        outputs.append((first, other))
        differences.append(np.tanh(inner * gap * x) * (1 - first * other))  # tanh p - tanh q = tanh(p - q) (1 - tanh p tanh q)
    trace = sum(weight * (first**2 + other**2) for weight, (first, other) in zip(weights, outputs, strict=True))
    determinant = np.zeros(np.shape(trace))
    for i in range(len(inputs)):
        for j in range(i):
            determinant += weights[i] * weights[j] * (outputs[i][0] * differences[j] - outputs[j][0] * differences[i]) ** 2
    return trace, determinant
