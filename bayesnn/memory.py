"""What a run takes of a device's memory: what rests there, what the chains that move together need, and draws that wait."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from bayesnn.config import ParallelTempering, RunConfig, TemperedSMC
from bayesnn.density import test_predictions
from bayesnn.draw_store import block_length
from bayesnn.problem import Problem

# Copies of a position for each replica of each chain of a device, moving or not: it and a gradient or momentum, before
# a chunk and after it, of which XLA writes none over.
AT_REST = 4
# Copies for each replica that moves, beyond what a gradient takes: as XLA allocated them on a CPU for 300,000 weights. A ladder
# is taken apart for its swaps; NUTS keeps momenta and their sums at every doubling of a trajectory.
MOVING = {"parallel-tempering": 11, "nuts": 76}
MOVING_ELSE = 6
# Copies of data in microbatches, which XLA cuts once for the steps and once more for what is kept of a draw.
CUT_DATA = 2


class Temporaries(NamedTuple):
    """Bytes of the arrays that live while one chain works.

    Attributes:
        gradient: On a microbatch.
        prediction: Of test points, as many at a time as a microbatch has.
    """

    gradient: float
    prediction: float


def device_bytes(config: RunConfig, problem: Problem, temporaries: Temporaries, shape: tuple[int, int], *, on_cpu: bool) -> float:
    """Return about what a run takes of the memory of each device.

    With `chain_block` and `microbatch` set, only resting states grow with the chains, and only data with the examples.

    Args:
        config: The run.
        problem: What it samples.
        temporaries: Of one chain.
        shape: Of the mesh, (chain, data).
        on_cpu: Chains of a device, rungs of a ladder and particles of a system then move one by one, and not together.
    """
    chains, replicas = math.ceil(config.chains / shape[0]), _replicas(config)
    block = config.chain_block or (1 if on_cpu else chains)
    at_once = 1 if on_cpu else replicas
    position = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(problem.like))
    copies = AT_REST * chains + MOVING.get(config.sampler.kind, MOVING_ELSE) * block
    data = sum(x.nbytes for x in jax.tree.leaves(problem.batch)) / shape[1]
    of_draws = jax.tree.leaves(problem.save.arrays, is_leaf=lambda x: x is problem.batch)
    draw = draw_bytes(problem)
    waiting = block_length(config.chains, config.draws, {"draw": ((draw,), np.uint8)}) * draw
    return (
        copies * replicas * position
        + data * (1 + CUT_DATA * (problem.target.microbatch is not None))
        + sum(x.nbytes for x in of_draws if x is not problem.batch)
        + block * max(at_once * temporaries.gradient, temporaries.prediction)
        + waiting * (chains + block * (block < chains))  # a block collects its own draws, then puts them beside the others'
    )


def _replicas(config: RunConfig) -> int:
    """Return how many positions a chain moves."""
    match config.sampler:
        case ParallelTempering(rungs=count) | TemperedSMC(particles=count):
            return count
    return 1


def draw_bytes(problem: Problem) -> int:
    """Return what one draw of one chain takes."""

    class Position(NamedTuple):
        position: Any

    saved = jax.eval_shape(lambda p, a: problem.save.function(Position(p), a), problem.like, problem.save.arrays)
    info = 5 * 4 + 2  # five numbers and two flags
    return info + sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(saved))


def prediction_bytes(problem: Problem) -> float:
    """Return the bytes of the arrays that live while one draw of one chain predicts the test points."""
    if problem.posterior is None:
        return 0.0
    predict = functools.partial(test_predictions, problem.posterior.form, problem.target.microbatch)
    return temporary_bytes(jax.jit(predict).lower(problem.like, problem.save.arrays))


def temporary_bytes(lowered: Any) -> float:
    """Return the bytes of the temporary arrays of a program; NaN where XLA does not tell."""
    memory = lowered.compile().memory_analysis()
    return float(memory.temp_size_in_bytes) if memory else float("nan")
