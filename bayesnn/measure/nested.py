"""A third road to a posterior's evidence and regions: nested sampling, for networks of some tens of weights."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

import samplers
from bayesnn.measure.tempered import Particles, spent_gradients
from samplers import Batch, Target, Tempering
from samplers.types import Position

MOVES_A_WEIGHT = 3  # slices for a new point, in the middle of the advice of `samplers.nested_sampling`
POINTS_A_DEATH = 10  # the live points of which one dies in a step
MAX_STEPS = 100_000  # it ends by itself after POINTS_A_DEATH times the information in nats, and a few more
CHUNK = 32  # steps between two looks at whether all systems are done


def run_nested(
    key: Key[Array, ""],
    target: Target,
    batch: Batch,
    prior_draws: Position,
    *,
    tempering: Tempering,
    num_draws: int,
) -> Particles:
    """Carry systems of live points to the posterior by nested sampling, and draw from the points that died on the way.

    Args:
        key: Key.
        target: The target.
        batch: The data.
        prior_draws: [system, point, ...] independent draws of the prior; more than 10/9 as many points as weights.
        tempering: Temperatures of the posterior.
        num_draws: Draws of each system, by its weights, so that they weigh the same afterwards.

    Raises:
        ValueError: Too few points for so many weights.
    """
    num_systems, num_points = jax.tree.leaves(prior_draws)[0].shape[:2]
    num_weights = sum(x[0, 0].size for x in jax.tree.leaves(prior_draws))
    result = samplers.sample(
        key,
        samplers.nested_sampling(
            target,
            num_moves=MOVES_A_WEIGHT * num_weights,
            num_deaths=max(1, num_points // POINTS_A_DEATH),
            tempering=tempering,
        ),
        prior_draws,
        batch,
        num_steps=MAX_STEPS,
        until=lambda run: bool(run.state.done.all()),
        save=samplers.Save(_dead_and_live),
        chunk_draws=CHUNK,
    )
    dead, num_live = result.draws
    state, rng = result.run.state, np.random.default_rng(np.asarray(jax.random.key_data(key)))
    found = [
        samplers.nested_evidence(dead.log_likelihood[system], num_live[system], state.log_likelihood[system])
        for system in range(num_systems)
    ]
    chosen = [_systematic(rng, one.log_weights, num_draws) for one in found]

    def drawn(died: Any, live: Any) -> np.ndarray:
        rows = zip(np.asarray(died), np.asarray(live), chosen, strict=True)
        return np.stack([np.concatenate([a.reshape(-1, *b.shape[1:]), b])[places] for a, b, places in rows])

    position = jax.tree.map(drawn, dead.position, state.position)
    log_weights = np.full((num_systems, num_draws), -np.log(num_draws))
    return Particles(position, log_weights, np.array([one.log_evidence for one in found]), spent_gradients(result))


def _dead_and_live(state: Any, arrays: PyTree) -> Any:
    return state.dead, state.num_live


def _systematic(rng: np.random.Generator, log_weights: Float[np.ndarray, " point"], count: int) -> np.ndarray:
    """Return the places of so many points, each as often as its weight asks for, to less than one."""
    shares = np.cumsum(np.exp(log_weights))
    return np.searchsorted(shares / shares[-1], (np.arange(count) + rng.uniform()) / count)
