"""Integration of functions that are singular, or sharply peaked on an unknown scale, at one end of an interval."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

NUM_PANELS = 60  # the last has 2^-59 of the length: peaks as narrow as 1e-17 of the interval are resolved
NODES_PER_PANEL = 24  # exp(-x^6) over one octave to 1e-13, tested


def panel_rule(edges: Float[np.ndarray, " edge"]) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"]]:
    """Return nodes and weights of the Gauss-Legendre rule on each panel between neighbouring edges."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES_PER_PANEL)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + nodes)).ravel(), (half * weights).ravel()


def graded_rule(
    length: float = 1.0, num_panels: int = NUM_PANELS
) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"]]:
    """Return nodes and weights for the integral from 0 to `length`, on panels that halve towards 0."""
    return panel_rule(np.concatenate([[0.0], length * 0.5 ** np.arange(num_panels - 1, -1, -1)]))
