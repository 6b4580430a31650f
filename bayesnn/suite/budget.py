"""What a suite will cost, before it starts: gradients of every run, and seconds from one timed gradient a network."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bayesnn.config import RunConfig
from bayesnn.errors import UsageError
from bayesnn.progress import duration
from bayesnn.suite.suite import Suite

if TYPE_CHECKING:
    from bayesnn.problem import Problem

# Building, tracing and compiling a run and committing its draws, measured here on two cores with a warm compilation cache.
RUN_SECONDS = 5.0
# Gradients are timed for this long for every network, after one that compiles.
TIMED_SECONDS = 0.2
# Of data that come in microbatches, so many are timed.
TIMED_EXAMPLES = 16
# Of a trajectory that the sampler decides on: six doublings.
NUTS_GRADIENTS = 63
# What decides the time of one gradient; the prior's share of it is that of one more example.
PROBLEM = ("data", "model", "likelihood", "density", "precision", "microbatch")


class Budget(NamedTuple):
    """What the runs of a suite cost.

    Attributes:
        gradients: Full-data gradients by run, all chains, warm-up included; NaN where the sampler decides.
        seconds: Expected wall time by run, measures included.
    """

    gradients: dict[str, float]
    seconds: dict[str, float]


def make_budget(suite: Suite) -> Budget:
    """Estimate what every run of a suite costs on this machine.

    Runs whose data or network cannot be built cost nothing: they will be reported as failed.
    """
    gradients: dict[str, float] = {}
    seconds: dict[str, float] = {}
    known: dict[str, tuple[float, float]] = {}  # of runs that differ in split and seed alone
    timed: dict[str, float] = {}
    for name, planned in suite.planned().items():
        config = planned.config
        alike = config.model_copy(update={"data": config.data.model_copy(update={"split": 0}), "seed": 0})
        key = alike.model_dump_json()
        if key not in known:
            known[key] = _cost(alike, timed)
        gradients[name], seconds[name] = known[key]
        seconds[name] += planned.measure_seconds
    return Budget(gradients, seconds)


def _cost(config: RunConfig, timed: dict[str, float]) -> tuple[float, float]:
    """Return gradients and seconds of a run; nothing for one that cannot be built, which will be reported as failed."""
    from bayesnn.build import build_problem
    from bayesnn.plan import gradients_of_run

    try:
        problem = build_problem(config)
        gradients = gradients_of_run(config, problem)
    except UsageError:
        return 0.0, 0.0
    key = json.dumps([config.model_dump(mode="json")[part] for part in PROBLEM])
    if key not in timed:
        timed[key] = _seconds_a_gradient(problem)
    count = gradients if math.isfinite(gradients) else config.chains * config.draws * config.thin * NUTS_GRADIENTS
    return gradients, RUN_SECONDS + count * timed[key]


def _seconds_a_gradient(problem: Problem) -> float:
    """Time the gradient of one chain while every device works on a chain of its own, over the number of devices.

    Of data in microbatches a few examples are timed: a gradient on all may take minutes here, and one microbatch all memory.
    """
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    import samplers

    num_examples = len(problem.batch.weight)
    rows = min(problem.target.microbatch, TIMED_EXAMPLES) if problem.target.microbatch else num_examples
    target = problem.target._replace(microbatch=None, data_blocks=1)
    batch = problem.batch._replace(data=jax.tree.map(lambda x: x[:rows], problem.batch.data), weight=problem.batch.weight[:rows])

    def gradients(positions: Any, batch: Any) -> Any:
        return jax.vmap(jax.grad(samplers.log_density(target, batch, problem.tempering)))(positions)

    devices = jax.devices()
    sharding = NamedSharding(jax.sharding.Mesh(np.array(devices), ("chain",)), PartitionSpec("chain"))
    positions = jax.device_put(problem.init(jax.random.key(0), len(devices), "prior"), sharding)
    compiled = jax.jit(gradients)
    jax.block_until_ready(compiled(positions, batch))
    count, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < TIMED_SECONDS:
        jax.block_until_ready(compiled(positions, batch))
        count += 1
    return spent / (max(count, 1) * len(devices)) * max(num_examples, 1) / max(rows, 1)


def print_budget(console: Console, suite: Suite, budget: Budget) -> None:
    """Print what each hypothesis needs; a run that several share is counted with the first."""
    table = Table(box=None, pad_edge=False, title=f"{suite.name}, {suite.scale}: {suite.description}", title_justify="left")
    table.add_column("hypothesis")
    for column in ("new runs", "gradients", "about"):
        table.add_column(column, justify="right")
    counted: set[str] = set()
    for hypothesis in suite.hypotheses:
        names = set(suite.folder_names(hypothesis).values()) - counted
        counted |= names
        gradients = sum(budget.gradients[name] for name in names)
        cost = f"{gradients:,.0f}" if math.isfinite(gradients) else "the sampler decides"
        words = f"{hypothesis.name}  {hypothesis.title}"
        table.add_row(words, str(len(names)), cost, duration(sum(budget.seconds[name] for name in names)))
    table.add_row("in all", str(len(counted)), "", duration(sum(budget.seconds.values())), style="bold")
    console.print(table)
