"""What is counted, and said, of the chunks of a run."""

from __future__ import annotations

import io

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from bayesnn.meter import Meter
from bayesnn.progress import Reporter
from samplers import Health, Info, Result, Run

NEVER = Health.zeros(3)


def run_with(health):
    return Run(jax.random.key(0), jnp.arange(4, 7), jnp.int32(1), jnp.int32(0), (), (), (), health)


def chunk(health):
    return Result(None, Info(*[np.ones((3, 2))] * 7), run_with(health), False)


def test_a_chain_that_is_lost_is_told_once():
    console = Console(file=io.StringIO(), width=400)
    meter = Meter(Reporter("run", console), run_with(NEVER), "sampling", 10, 0, per_step=1)
    lost = NEVER._replace(num_nonfinite=jnp.array([0, 1, 0]), first_nonfinite=jnp.array([-1, 17, -1]))
    lost_more = lost._replace(num_nonfinite=jnp.array([1, 9, 0]), first_nonfinite=jnp.array([23, 17, -1]))
    for health in (NEVER, lost, lost, lost_more):
        meter.show(chunk(health))
    Meter(Reporter("run", console), run_with(lost_more), "sampling", 10, 8, per_step=1).show(chunk(lost_more))  # resumed
    told = [line for line in console.file.getvalue().splitlines() if "left the finite numbers" in line]
    assert len(told) == 2
    assert "chain 5 at step 17. The run goes on" in told[0]
    assert "chain 4 at step 23. The run" in told[1]
    assert meter.take()[0] == 4 * 3 * 2  # a gradient a step and chain
