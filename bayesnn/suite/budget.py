"""What a suite will cost, before it starts: gradients of every run, and seconds from one timed gradient a network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from rich.console import Console
from rich.table import Table

import samplers
from bayesnn.config import RunConfig
from bayesnn.errors import UsageError
from bayesnn.notation import number
from bayesnn.plan import Known, gradient_key, gradients_of_run, problem_key
from bayesnn.problem import Problem
from bayesnn.progress import duration
from bayesnn.suite.suite import Planned, Suite

# What a run takes besides its gradients, measured in a suite at scale laptop on two cores with a cold compilation cache: to be
# built, to commit its draws and to write its report; and the first run of a compiled program some seconds more, and so many times
# what a gradient takes to compile.
RUN_SECONDS, PROGRAM_SECONDS, COMPILATIONS = 3.0, 6.0, 2.5
# Gradients of every network are timed until they take so long in one go.
TIMED_SECONDS = 0.2
# Of data that come in microbatches, so many are timed.
TIMED_EXAMPLES = 16
# Of a trajectory that the sampler decides on: six doublings.
NUTS_GRADIENTS = 63
YEAR = 365.25 * 24 * 3600.0  # seconds


class Timed(NamedTuple):
    """Seconds of a full-data gradient of one chain, and of its compilation."""

    gradient: float
    compilation: float


class Cost(NamedTuple):
    """Gradients of a run, seconds that it takes for them, and seconds that one of them takes to compile."""

    gradients: float
    sampling: float
    compilation: float


class Budget(NamedTuple):
    """What the runs of a suite cost.

    Attributes:
        gradients: Full-data gradients by run, all chains, warm-up included; NaN where the sampler decides.
        seconds: Expected wall time by run, measures included.
    """

    gradients: dict[str, float]
    seconds: dict[str, float]


def make_budget(planned: Mapping[str, Planned]) -> Budget:
    """Estimate what runs of a suite, by the names of their folders, cost on this machine.

    Runs whose data or network cannot be built cost nothing: they will be reported as failed.
    """
    known, timed = Known(), dict[str, Timed]()
    costs = each_once(planned, lambda config: _cost(config, known, timed))
    seconds: dict[str, float] = {}
    programs: set[tuple[object, ...]] = set()
    for name, one in planned.items():
        cost, program = costs[name], _program(one.config)
        is_first = program not in programs
        programs.add(program)
        begun = RUN_SECONDS + is_first * (PROGRAM_SECONDS + COMPILATIONS * cost.compilation) if cost.gradients else 0.0
        seconds[name] = cost.sampling + one.measure_seconds + begun
    return Budget({name: cost.gradients for name, cost in costs.items()}, seconds)


def each_once[T](planned: Mapping[str, Planned], cost: Callable[[RunConfig], T]) -> dict[str, T]:
    """Return a cost of every run by name, computed once for runs that differ in split and seed alone.

    Runs on the same problem come one after the other, as `bayesnn.plan.Known` asks.
    """
    alike: dict[str, RunConfig] = {}
    keys: dict[str, str] = {}
    for name, one in planned.items():
        data = one.config.data.model_copy(update={"split": 0})
        config = one.config.model_copy(update={"data": data, "seed": 0})
        keys[name] = problem_key(config) + config.model_dump_json()
        alike[keys[name]] = config
    costs = {key: cost(alike[key]) for key in sorted(alike)}
    return {name: costs[key] for name, key in keys.items()}


def _cost(config: RunConfig, known: Known, timed: dict[str, Timed]) -> Cost:
    """Return what a run costs; nothing for one that cannot be built, which will be reported as failed."""
    try:
        problem = known.problem(config)
        gradients = gradients_of_run(config, problem)
    except UsageError:
        return Cost(0.0, 0.0, 0.0)
    key = gradient_key(config)
    if key not in timed:
        timed[key] = _time_gradient(problem)
    count = gradients if math.isfinite(gradients) else config.chains * config.draws * config.thin * NUTS_GRADIENTS
    rounds = math.ceil(config.chains / len(jax.devices()))
    return Cost(gradients, rounds * count / config.chains * timed[key].gradient, timed[key].compilation)


def _program(config: RunConfig) -> tuple[object, ...]:
    """Return what is compiled into the program of a run, the most of it: numbers such as scales and step sizes are arguments."""
    unsplit = config.model_copy(update={"data": config.data.model_copy(update={"split": 0})})
    chosen = [(name, value) for part in (config.prior, config.sampler) for name, value in part if not isinstance(value, float)]
    return (gradient_key(unsplit), str(chosen), config.chains)


def _time_gradient(problem: Problem) -> Timed:
    """Time a gradient of one chain in a compiled loop, as samplers take it, while every device works on a chain of its own.

    Of data in microbatches a few examples are timed: a gradient on all may take minutes here, and one microbatch all memory.
    """
    num_examples = len(problem.batch.weight)
    rows = min(problem.target.microbatch, TIMED_EXAMPLES) if problem.target.microbatch else num_examples
    target = problem.target._replace(microbatch=None, data_blocks=1)
    batch = problem.batch._replace(data=jax.tree.map(lambda x: x[:rows], problem.batch.data), weight=problem.batch.weight[:rows])

    def descend(count: Any, step_size: Any, positions: Any, batch: Any) -> Any:
        gradient = jax.grad(samplers.log_density(target, batch, problem.tempering))

        def move(_: Any, position: Any) -> Any:
            return jax.tree.map(lambda x, slope: x + step_size * slope, position, gradient(position))

        moved = jax.lax.fori_loop(0, count, move, jax.tree.map(lambda x: x[0], positions))
        return jax.tree.map(lambda x: x[None], moved)

    num_devices = len(jax.devices())
    mesh, chain, whole = samplers.make_mesh(num_devices), PartitionSpec("chain"), PartitionSpec()
    by_chain = jax.shard_map(descend, mesh=mesh, in_specs=(whole, whole, chain, whole), out_specs=chain, check_vma=False)
    compiled = jax.jit(by_chain, compiler_options=samplers.compiler_options())
    positions = jax.tree.map(lambda x: jnp.zeros((num_devices, *x.shape), x.dtype), problem.like)

    def seconds(count: int) -> float:
        began = time.perf_counter()
        jax.block_until_ready(compiled(count, 0.0, positions, batch))  # steps of no length: the chain stays at its start
        return time.perf_counter() - began

    compilation, count = seconds(0), 1
    while (spent := seconds(count)) < TIMED_SECONDS:
        count *= 4
    return Timed(spent / count * max(num_examples, 1) / max(rows, 1), compilation)


def print_budget(console: Console, suite: Suite, budget: Budget) -> None:
    """Print what each hypothesis still needs; a run that several share is counted with the first."""
    table = Table(box=None, pad_edge=False, title=f"{suite.name}, {suite.scale}: {suite.description}", title_justify="left")
    table.add_column("hypothesis")
    for column in ("new runs", "gradients", "about"):
        table.add_column(column, justify="right")
    counted: set[str] = set()
    for hypothesis in suite.hypotheses:
        names = budget.seconds.keys() & set(suite.folder_names(hypothesis).values()) - counted
        counted |= names
        gradients = sum(budget.gradients[name] for name in names)
        cost = f"{gradients:,.0f}" if math.isfinite(gradients) else "the sampler decides"
        words = f"{hypothesis.name}  {hypothesis.title}"
        table.add_row(words, str(len(names)), cost, _about(sum(budget.seconds[name] for name in names)))
    table.add_row("in all", str(len(counted)), "", _about(sum(budget.seconds.values())), style="bold")
    console.print(table)


def _about(seconds: float) -> str:
    return f"{number(seconds / YEAR)} years" if seconds >= YEAR else duration(seconds)
