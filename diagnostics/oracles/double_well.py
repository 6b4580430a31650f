r"""A potential of one parameter with two wells of different degeneracy: equal losses, unequal volumes.

.. math:: K(w) = (w + 1)^{2 a} (w - 1)^{2 b}, \qquad w \sim U(-2, 2)

Both wells have K = 0. The left one has the learning coefficient 1 / (2 a), the right one 1 / (2 b), so the mass of the more
degenerate one tends to 1, slowly, as n grows; and the barrier between them, at w = (a - b) / (a + b), grows in proportion to n. A
sampler must get the masses right, and a Markov chain that does not cross the barrier cannot.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diagnostics.oracles.oracle import Oracle, Position, Regions, box, check_positive, rejection_sampler
from diagnostics.oracles.quadrature import graded_rule

EDGE = 2.0  # of the prior


def double_well(num_data: float, orders: tuple[int, int] = (1, 2)) -> Oracle:
    """Return the double well at n data, with the masses, learning coefficients and excess losses of both wells.

    Args:
        num_data: n, > 0; multiplies the potential.
        orders: a and b, integers >= 1. With (1, 2) Markov chains with local moves mix at n <= 3 and are stuck beyond n = 10.

    Returns:
        Oracle over positions of shape [1], with the regions "left" and "right" of the top of the barrier.

    Raises:
        ValueError: An argument out of range.

    References:
        Watanabe 2018, Mathematical Theory of Bayesian Statistics, for the free energy of each well.
    """
    check_positive(num_data=num_data)
    if len(orders) != 2 or any(order < 1 or order != int(order) for order in orders):
        raise ValueError(f"orders must be two integers of at least 1, got {orders}")
    left, right = orders
    saddle = (left - right) / (left + right)

    def log_likelihood(position: Position, data: Float[Array, " n"]) -> Float[Array, " n"]:
        return -data * (position[0] + 1) ** (2 * left) * (position[0] - 1) ** (2 * right)

    def classify(position: Position) -> Int[Array, ""]:
        return (position[0] > saddle).astype(jnp.int32)

    moments = np.array([_moments(num_data, left, right, saddle), _moments(num_data, right, left, -saddle)])
    moments[1, 1] *= -1  # integrated in the mirror image
    integral, first, second, loss = moments.T
    mean = first.sum() / integral.sum()
    log_prior, draw_prior = box(np.array([EDGE]))
    data = jnp.full(1, num_data, jnp.float32)
    return Oracle(
        log_prior,
        log_likelihood,
        data,
        draw_prior,
        "Integrals by quadrature, to 1e-10 of themselves; draws by rejection.",
        draw=rejection_sampler(draw_prior, log_likelihood, data),
        mean=np.array([mean]),
        covariance=np.array([[second.sum() / integral.sum() - mean**2]]),
        log_evidence=float(np.log(integral.sum())),
        reference=jnp.ones(1),
        excess_loss=float(loss.sum() / integral.sum()),
        llc=1 / (2 * max(orders)),
        multiplicity=1,
        regions=Regions(
            ("left", "right"),
            classify,
            np.log(integral),
            standard_error=np.zeros(2),
            excess_loss=loss / integral,
            llc=1 / (2 * np.array(orders)),
            multiplicity=np.ones(2, int),
        ),
    )


def _moments(num_data: float, own: int, other: int, saddle: float) -> Float[np.ndarray, " moment"]:
    """Integrate 1, w, w^2 and n K over prior x likelihood, from the edge on the left, over the well at -1, to the saddle."""
    total = np.zeros(4)
    for direction, length in ((-1, EDGE - 1), (1, saddle + 1)):
        distance, weight = graded_rule(length)
        w = direction * distance - 1
        loss = num_data * distance ** (2 * own) * (w - 1) ** (2 * other)
        total += np.stack([np.ones_like(w), w, w**2, loss]) @ (weight * np.exp(-loss)) / (2 * EDGE)
    return total
