r"""Normal crossings: the form that every singular potential takes after resolution, exact at every n.

.. math:: K(w) = \prod_i w_i^{2 k_i}, \qquad \varphi(w) \propto \prod_i |w_i|^{h_i}, \qquad w \in [-1, 1]^d

Under the prior, :math:`-2 k_i \log |w_i|` is exponential with rate :math:`(h_i + 1) / (2 k_i)`, so that -log K is the time that
a chain of d exponential stages takes, and every integral of a function of K is one over that time, in any dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Key

from diagnostics.oracles.coefficients import monomial_coefficient
from diagnostics.oracles.oracle import Oracle, Position, check_positive, rejection_sampler
from diagnostics.oracles.quadrature import panel_rule

PANEL = 0.5  # of -log K, in which exp(-n K) changes over unit distances
DECAY = 45.0  # nats by which the tail has fallen where it is cut off: e^-45 = 3e-20


def normal_crossing(orders: Sequence[int], num_data: float, prior_orders: Sequence[int] | None = None) -> Oracle:
    """Return a normal crossing at n data, with its evidence and its excess loss at that n.

    The excess loss is what an estimator of the learning coefficient must be held against: it tends to lambda only as
    lambda - (m - 1) / log n, and at n = 1000 a perfect sampler is 29 % low on w1^2 w2^2.

    Args:
        orders: k, one a parameter; integers >= 0, not all 0.
        num_data: n, > 0; multiplies the potential. At the inverse temperature beta, pass n beta.
        prior_orders: h, one a parameter, integers >= 0; by default 0, the uniform prior.

    Returns:
        Oracle over positions of shape [d].

    Raises:
        ValueError: An argument out of range.

    References:
        Watanabe 2009, Algebraic Geometry and Statistical Learning Theory, section 4.
    """
    check_positive(num_data=num_data)
    coefficient = monomial_coefficient(orders, prior_orders)
    powers = np.asarray(orders, int)
    exponents = np.zeros(len(powers), int) if prior_orders is None else np.asarray(prior_orders, int)
    log_constant, weighted = float(np.log((exponents + 1) / 2).sum()), exponents > 0

    def log_prior(position: Position) -> Float[Array, ""]:
        density = log_constant + jnp.sum(exponents[weighted] * jnp.log(jnp.abs(position[weighted])))
        return jnp.where(jnp.all(jnp.abs(position) <= 1), density, -jnp.inf)

    def log_likelihood(position: Position, data: Float[Array, " n"]) -> Float[Array, " n"]:
        return -data * jnp.prod(position ** (2 * powers))

    def draw_prior(key: Key[Array, ""], num_draws: int) -> Position:
        signed = jax.random.uniform(key, (num_draws, len(powers)), minval=-1.0)
        return jnp.sign(signed) * jnp.abs(signed) ** (1 / (exponents + 1))

    evidence, loss = _integrals(powers, exponents, num_data)
    # The mean square of a parameter is an evidence too, under a prior with two orders more in that parameter.
    squares = [
        _integrals(powers, exponents + 2 * unit, num_data)[0] / evidence * np.prod((exponents + 1) / (exponents + 2 * unit + 1))
        for unit in np.eye(len(powers), dtype=int)
    ]
    data = jnp.full(1, num_data, jnp.float32)
    return Oracle(
        log_prior,
        log_likelihood,
        data,
        draw_prior,
        "One-dimensional integrals by quadrature, to 1e-10 of themselves, at any n and in any dimension; draws by rejection.",
        draw=rejection_sampler(draw_prior, log_likelihood, data),
        mean=np.zeros(len(powers)),
        covariance=np.diag(squares),
        log_evidence=float(np.log(evidence)),
        reference=jnp.zeros(len(powers)),
        excess_loss=loss / evidence,
        llc=float(coefficient.llc),
        multiplicity=coefficient.multiplicity,
    )


def _integrals(orders: np.ndarray, prior_orders: np.ndarray, num_data: float) -> tuple[float, float]:
    """Integrate exp(-n K) and n K exp(-n K) over the prior, over panels of -log K."""
    rates = ((prior_orders + 1) / (2 * np.maximum(orders, 1)))[orders > 0]
    generator = np.diag(-rates) + np.diag(rates[:-1], 1)  # of the stages, last to be left at its own rate
    nodes, weights = panel_rule(np.array([0.0, PANEL]))
    within = scipy.linalg.expm(generator * nodes[:, None, None])[:, :, -1] * rates[-1]
    across = scipy.linalg.expm(generator * PANEL)
    num_panels = int(np.ceil((np.log1p(num_data) + DECAY / rates.min()) / PANEL))
    stage = np.empty((num_panels, len(rates)))
    stage[0] = np.eye(len(rates))[0]
    for panel in range(1, num_panels):
        stage[panel] = stage[panel - 1] @ across
    time = PANEL * np.arange(num_panels)[:, None] + nodes
    mass = (stage @ within.T) * weights
    loss = num_data * np.exp(-time)
    return float((mass * np.exp(-loss)).sum()), float((mass * np.exp(-loss) * loss).sum())
