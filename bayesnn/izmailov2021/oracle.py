r"""A posterior in which two regions predict the same and hold nine tenths and one tenth of the mass, exactly.

.. math:: p(u, v) \propto \left(0.9\, N(u; -4, 1) + 0.1\, N(u; 4, 1)\right) \prod_j N(v_j; 0, 1)

Predictions depend on v alone. Local moves hardly ever cross from one region to the other: the
density between them is e^8 times lower.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bayesnn.problem import Problem, density_problem

SOURCE = "bayesnn.izmailov2021.oracle:two_regions"
MASSES = (0.9, 0.1)
PLACES = (-4.0, 4.0)
NUM_FUNCTIONS = 20  # predictions


def two_regions(start_shares: tuple[float, float] = (0.5, 0.5)) -> Problem:
    """Return the posterior; chains start at the centres of its regions.

    Args:
        start_shares: Shares of the chains that start in either region.
    """

    def logdensity(position: dict[str, Array]) -> Float[Array, ""]:
        place = jax.scipy.special.logsumexp(jnp.log(jnp.array(MASSES)) - 0.5 * jnp.square(position["region"] - jnp.array(PLACES)))
        return place - 0.5 * jnp.sum(jnp.square(position["function"]))

    def init(key: Key[Array, ""], num_chains: int, start: str, first_chain: int = 0) -> dict[str, Array]:
        is_second = jnp.arange(num_chains) >= round(start_shares[0] * num_chains)
        functions = jax.random.normal(key, (first_chain + num_chains, NUM_FUNCTIONS))
        return {
            "region": jnp.where(is_second, PLACES[1], PLACES[0])[:, None],
            "function": functions[first_chain:],
        }

    return dataclasses.replace(
        density_problem(logdensity, {"region": jnp.zeros(1), "function": jnp.zeros(NUM_FUNCTIONS)}), init=init
    )


def regions_of(place: Float[np.ndarray, "chain draw"]) -> np.ndarray:
    """Return the region of each draw; the boundary at 0 cuts off e^-8 of either."""
    return (place > 0).astype(int)
