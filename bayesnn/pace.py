"""How long a draw takes on this machine: timed, or, where it has thousands of gradients, told from those of a part of it."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import samplers
from bayesnn.problem import Problem
from samplers import Kernel, Run
from samplers.chains import CHAIN_AXIS

# What is timed grows by this factor until it takes as long as this.
GROWTH = 4
TIMED_SECONDS = 1.0
# Starts that take a whole fit; where chains begin does not decide what a gradient costs.
FITTED_STARTS = ("map", "pathfinder")


class Pace(NamedTuple):
    """What draws take.

    Attributes:
        seconds: Wall time of one draw.
        gradients: Of one chain, in full-data gradients, in the part of a draw that was timed; None if whole draws were.
    """

    seconds: float
    gradients: float | None


def pace_of_draws(kernel: Kernel, problem: Problem, mesh: Mesh, *, start: str, thin: int, num_gradients: float) -> Pace:
    r"""Time draws, each kept as the run will keep it, of one chain a row of the mesh, so that all its devices work.

    Parts of a draw are timed that grow until one takes a second: shorter trajectories, or fewer steps; and once they are whole,
    ever more of them. What a part leaves out costs as much a gradient as what the longest part has and the first one has not:

    .. math:: t = t_2 + \frac{t_2 - t_1}{g_2 - g_1} (g - g_2)

    Args:
        kernel: It draws.
        problem: What it samples.
        mesh: Of devices.
        start: Of the chains, see `RunConfig.start`.
        thin: Steps of a draw.
        num_gradients: g, of a draw of one chain; where it is not known (NaN), or at most 1, whole draws are timed.
    """
    key = jax.random.key(0)
    positions = problem.init(key, mesh.shape[CHAIN_AXIS], "prior" if start in FITTED_STARTS else start)
    run = samplers.start(key, kernel, positions, problem.batch, mesh=mesh)

    def timed(share: float, num_draws: int) -> tuple[float, float]:
        part, steps = _part_of_a_draw(run, thin, share)

        def draw() -> Any:
            return samplers.sample(
                key,
                kernel,
                positions,
                problem.batch,
                num_steps=num_draws * steps,
                thin=steps,
                save=problem.save,
                run=part,
                mesh=mesh,
                throw=False,
            ).info

        draw()  # compiles
        began = time.perf_counter()
        info = draw()
        seconds = time.perf_counter() - began
        return seconds / num_draws, float(np.mean(info.num_gradients))

    share, num_draws = (1 / num_gradients if num_gradients > 1 else 1.0), 1
    first = seconds, gradients = timed(share, num_draws)
    while seconds * num_draws < TIMED_SECONDS or (share < 1 and gradients < 2 * first[1]):
        if share < 1:
            share = min(1.0, GROWTH * share)
        else:
            num_draws *= GROWTH
        seconds, gradients = timed(share, num_draws)
    if share == 1:
        return Pace(seconds, None)
    a_gradient = (seconds - first[0]) / (gradients - first[1])
    return Pace(seconds + a_gradient * (num_gradients - gradients), gradients)


def _part_of_a_draw(run: Run, thin: int, share: float) -> tuple[Run, int]:
    """Return a run whose draws have about a share of the gradients of a whole one, and the steps of such a draw."""
    steps, tuning = math.ceil(share * thin), run.tuning
    if share < 1 and hasattr(tuning, "trajectory_length"):
        longest = jnp.minimum(tuning.trajectory_length, tuning.max_num_steps * tuning.step_size)
        length = jnp.maximum(share * thin / steps * longest, tuning.step_size)
        tuning = tuning._replace(trajectory_length=length.astype(tuning.trajectory_length.dtype))
    return run._replace(tuning=tuning), steps
