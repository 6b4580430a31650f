"""What a run will cost, before anything runs: parameters, FLOPs, bytes, memory and hours on named hardware."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import samplers
from bayesnn.build import build_method, build_problem
from bayesnn.config import APPROXIMATIONS, HMC, AdjustedMCLMC, Approximation, RunConfig, Sampler, TemperedSMC
from bayesnn.errors import UsageError, did_you_mean
from bayesnn.hardware import HARDWARE
from bayesnn.memory import Temporaries, device_bytes, draw_bytes, prediction_bytes, temporary_bytes
from bayesnn.minibatch_kernels import steps_a_step
from bayesnn.notation import with_prefix
from bayesnn.pace import Pace, pace_of_draws
from bayesnn.problem import Problem
from bayesnn.progress import duration
from samplers import Kernel
from samplers.mesh import mesh_shape

HERE = "here"
# A gradient of a small network is a few dozen kernels, which take some microseconds each to launch whatever they compute.
LAUNCH_SECONDS = 1e-4
# Samplers whose trajectories grow to their length over the first half of a warm-up.
GROWING = ("hmc", "dynamic-hmc", "adjusted-mclmc")
# Share of trajectories that fail, and are followed by two more, where that is asked for: on UCI sets 0 to 0.27, 0.1 of all.
SHARE_FAILED = 0.1
# Settings that decide the cost of one gradient; the prior's share of it is that of one more example.
GRADIENT = ("data", "model", "likelihood", "density", "precision", "matmul_precision", "microbatch", "data_blocks")


@dataclass(frozen=True)
class Plan:
    """What a run costs.

    Attributes:
        num_params: Sampled scalars.
        gradient_flops: Of one full-data gradient of one chain.
        gradients_a_draw: Of one chain, in full-data gradients; NaN where the sampler decides.
        gradients: Of the whole run, all chains, warm-up included; NaN likewise.
        draw_bytes: On disk, of one draw of one chain.
        run_bytes: On disk, of the whole run.
        device_bytes: Memory of a device, see `bayesnn.memory`.
        devices: That have work.
        seconds: Estimated wall time; NaN where gradients are.
        efficiency: Share of the devices' peak at which the time was estimated; None where it was timed.
        products: In what matrix products are made at that peak, in words; None where it was timed.
        timed_gradients: Of one chain, in the parts of draws that were timed where whole ones take long; None elsewhere.
        step_size: At which the gradients of trajectories are counted, where a warm-up will find another; None elsewhere.
        tries_again: Whether trajectories that fail are tried again; a share of `SHARE_FAILED` of them is counted so.
    """

    num_params: int
    gradient_flops: float
    gradients_a_draw: float
    gradients: float
    draw_bytes: int
    run_bytes: float
    device_bytes: float
    devices: int
    seconds: float
    efficiency: float | None
    products: str | None = None
    timed_gradients: float | None = None
    step_size: float | None = None
    tries_again: bool = False


class Gradient(NamedTuple):
    """What one full-data gradient of one chain takes.

    Attributes:
        flops: Floating-point operations, as XLA counts them.
        temporary_bytes: Of the arrays that live while a microbatch is worked on.
    """

    flops: float
    temporary_bytes: float


class Known:
    """What runs that are planned together have in common, built and compiled once.

    Only the last problem is kept, since data may take gigabytes: plan runs in the order of `problem_key`.
    """

    def __init__(self) -> None:
        self._key = ""
        self._problem: Problem | None = None
        self._gradients: dict[str, Gradient] = {}
        self._predictions: dict[str, float] = {}

    def problem(self, config: RunConfig) -> Problem:
        """Return what a run samples.

        Raises:
            UsageError: It names what does not exist, or parts that do not fit together.
        """
        key = problem_key(config)
        if self._problem is None or key != self._key:
            self._problem = None  # its data go before others are read
            self._key, self._problem = key, build_problem(config)
        return _tempered(self._problem, config)

    def gradient(self, config: RunConfig) -> Gradient:
        """Return what a gradient of a run takes; raises what `problem` does."""
        key = gradient_key(config)
        if key not in self._gradients:
            lowered, num_parts = _lowered_gradient(self.problem(config))
            self._gradients[key] = Gradient(_flops(lowered) * num_parts, temporary_bytes(lowered))
        return self._gradients[key]

    def temporaries(self, config: RunConfig) -> Temporaries:
        """Return what one chain needs while it works; raises what `problem` does."""
        key = gradient_key(config) + str(config.test_points)
        if key not in self._predictions:
            self._predictions[key] = prediction_bytes(self.problem(config))
        return Temporaries(self.gradient(config).temporary_bytes, self._predictions[key])


def gradient_key(config: RunConfig) -> str:
    """Return what decides the cost of one gradient of a run, as text."""
    return config.model_dump_json(include=set(GRADIENT))


def problem_key(config: RunConfig) -> str:
    """Return what decides what is built for a run, as text; texts sort by data first."""
    return gradient_key(config) + config.model_dump_json(include={"temperature"} if config.density else {"prior", "test_points"})


def _tempered(problem: Problem, config: RunConfig) -> Problem:
    """Return a network's problem at the temperatures of a run, numbers that nothing else is made of."""
    if problem.posterior is None:
        return problem
    tempering = samplers.Tempering.at(config.temperature, config.likelihood_temperature)
    return replace(problem, tempering=tempering, posterior=replace(problem.posterior, tempering=tempering))


def make_plan(
    config: RunConfig, hardware: str = HERE, devices: int = 1, efficiency: float = 0.3, known: Known | None = None
) -> Plan:
    """Plan a run.

    Args:
        config: The run.
        hardware: A key of `HARDWARE`, or "here": draws, or parts of them, are timed for a second on this machine, all its devices
            at work.
        devices: Number of devices, for named hardware.
        efficiency: Share of peak throughput that gradients reach there; small networks reach far less than large ones.
        known: What other runs have in common with it; nothing by default.

    Raises:
        UsageError: Unknown hardware, or a configuration that does not fit together.
    """
    if hardware != HERE and hardware not in HARDWARE:
        names = [HERE, *HARDWARE]
        raise UsageError(f"unknown hardware {hardware!r}{did_you_mean(hardware, names)}")
    if not 0 < efficiency <= 1 or devices < 1:
        raise UsageError(f"efficiency must be in (0, 1] and devices at least 1, got {efficiency} and {devices}")
    known = known or Known()
    problem, gradient = known.problem(config), known.gradient(config)
    a_step = 0.0 if isinstance(config.sampler, APPROXIMATIONS) else _gradients_a_step(config, problem)  # draws of a fit are free
    warmup = _warmup_steps(config, a_step)
    gradients, a_draw, timed_gradients = gradients_of_run(config, problem), a_step * config.thin, None
    num_devices = len(jax.devices()) if hardware == HERE else devices
    shape = mesh_shape(config.chains, config.data_blocks, num_devices)
    chains_a_device = math.ceil(config.chains / shape[0])
    if hardware == HERE:
        seconds_a_draw, timed_gradients = _pace_here(config, problem, shape, a_draw)
        seconds = chains_a_device * (config.draws + warmup / config.thin) * seconds_a_draw
    else:
        of_chain = gradients / config.chains
        busy = chains_a_device * of_chain * gradient.flops / (shape[1] * efficiency * HARDWARE[hardware].peak(config).flops)
        seconds = max(busy, of_chain * LAUNCH_SECONDS)
    on_cpu = hardware == HERE and jax.default_backend() == "cpu"
    draw = draw_bytes(problem)
    return Plan(
        num_params=samplers.num_params(problem.like),
        gradient_flops=gradient.flops,
        gradients_a_draw=a_draw,
        gradients=gradients,
        draw_bytes=draw,
        run_bytes=float(draw) * config.draws * config.chains,
        device_bytes=device_bytes(config, problem, known.temporaries(config), shape, on_cpu=on_cpu),
        devices=math.prod(shape),
        seconds=seconds,
        efficiency=None if hardware == HERE else efficiency,
        products=None if hardware == HERE else HARDWARE[hardware].peak(config).products,
        timed_gradients=timed_gradients,
        step_size=_first_step_size(config),
        tries_again=_tries_again(config.sampler),
    )


def _pace_here(config: RunConfig, problem: Problem, shape: tuple[int, int], num_gradients: float) -> Pace:
    """Time draws of one chain a row of the mesh that a run would have on this machine."""
    mesh = samplers.make_mesh(shape[0], data=shape[1], devices=jax.devices())
    kernel = build_method(config, problem).kernel
    return pace_of_draws(kernel, problem, mesh, start=config.start, thin=config.thin, num_gradients=num_gradients)


def gradients_of_run(config: RunConfig, problem: Problem) -> float:
    """Return the full-data gradients of a run, all chains, warm-up included; NaN where the sampler decides."""
    if isinstance(config.sampler, APPROXIMATIONS):
        return config.chains * config.warmup.steps * _gradients_a_fit_step(config.sampler, problem)
    a_step = _gradients_a_step(config, problem)
    return config.chains * (config.draws * config.thin + _warmup_steps(config, a_step)) * a_step


def _gradients_a_fit_step(sampler: Approximation, problem: Problem) -> float:
    """Full-data gradients of one step of a fit; what Laplace takes for the curvature, once, is left out."""
    share = sampler.batch_size / problem.target.num_data if sampler.batch_size else 1.0
    return share * getattr(sampler, "samples", 1)


def _warmup_steps(config: RunConfig, gradients_a_step: float) -> float:
    """Return as how many steps of sampling a warm-up counts, NaN where the sampler decides on its length.

    Trajectories grow to their length over its first half, in a geometric series; and a step of sampling may skip, and pay for, a
    part of a cycle.
    """
    if isinstance(config.sampler, TemperedSMC) or _finds_lengths(config):
        return float("nan")
    if config.sampler.kind not in GROWING:
        return config.warmup.steps / steps_a_step(config)
    growth = math.log(max(gradients_a_step, 2.0))
    return config.warmup.steps * (1 + (1 - math.exp(-growth)) / growth) / 2


def _finds_lengths(config: RunConfig) -> bool:
    """Return whether the warm-up decides how long trajectories are."""
    return config.warmup.scheme == "cross-chain"


def _first_step_size(config: RunConfig) -> float | None:
    has_lengths = config.sampler.kind in (*GROWING, "parallel-tempering") and not _finds_lengths(config)
    return config.sampler.step_size if has_lengths and config.warmup.steps else None  # type: ignore[union-attr]  # they have one


def print_plan(console: Console, plan: Plan, hardware: str, devices: int) -> None:
    """Print a plan as a table."""
    table = Table(box=None, pad_edge=False, show_header=False)
    unknown = "the sampler decides"
    table.add_row("parameters", f"{plan.num_params:,}")
    table.add_row("one gradient, one chain", with_prefix(plan.gradient_flops, "FLOP"))
    table.add_row("gradients a draw, one chain", f"{plan.gradients_a_draw:,.4g}" if not math.isnan(plan.gradients) else unknown)
    table.add_row("gradients in all", f"{plan.gradients:,.0f}" if not math.isnan(plan.gradients) else unknown)
    table.add_row("a draw on disk", with_prefix(plan.draw_bytes, "B"))
    table.add_row("the run on disk", with_prefix(plan.run_bytes, "B"))
    available = f" of {with_prefix(HARDWARE[hardware].memory, 'B')}" if hardware in HARDWARE else ""
    table.add_row("memory of a device", f"about {with_prefix(plan.device_bytes, 'B')}{available}")
    part = "" if plan.timed_gradients is None else f" on draws of {plan.timed_gradients:.3g} gradients, and scaled"
    where = (
        f"this machine, timed{part}"
        if plan.efficiency is None
        else f"{plan.devices} x {hardware} at {plan.efficiency:.0%} of its {plan.products} peak"
    )
    seconds = duration(plan.seconds) if not math.isnan(plan.seconds) else unknown
    table.add_row(f"time on {where}", seconds)
    console.print(table)
    if plan.efficiency is not None and plan.devices < devices:
        console.print(
            f"{devices - plan.devices} of {devices} devices would be idle: more chains or --data-blocks keep them busy."
        )
    if plan.step_size is not None:
        console.print(f"Counted at the step size with which the warm-up begins, {plan.step_size:g}: at twice that, half as many.")
    if plan.tries_again:
        console.print(
            f"Counted as if {SHARE_FAILED:.0%} of the trajectories failed and were tried again, at three times the cost."
        )


def gradient_flops(problem: Problem) -> float:
    """Return the floating-point operations of one full-data gradient of one chain, as XLA counts them."""
    lowered, num_parts = _lowered_gradient(problem)
    return _flops(lowered) * num_parts


def _lowered_gradient(problem: Problem) -> tuple[Any, float]:
    """Lower the gradient of one chain on one microbatch, and say how many there are: XLA counts the body of a loop once."""
    target, num_examples = problem.target, problem.batch.weight.shape[0]
    rows = target.microbatch or num_examples // target.data_blocks
    one = target._replace(microbatch=None, data_blocks=1)

    def gradient(position: Any, examples: Any, constants: Any, tempering: samplers.Tempering) -> Any:
        data, weight = examples
        batch = samplers.Batch(data, weight, constants)
        return jax.value_and_grad(samplers.log_density(one, batch, tempering))(position)  # as constants, some would be free

    part = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), (problem.batch.data, problem.batch.weight))
    lowered = jax.jit(gradient).lower(problem.like, part, problem.batch.constants, problem.tempering)
    return lowered, num_examples / rows if rows else 1.0


def _flops(lowered: Any) -> float:
    return float(lowered.cost_analysis()["flops"])


def _gradients_a_step(config: RunConfig, problem: Problem) -> float:
    """Full-data gradients of one step of one chain; NaN where the sampler decides."""
    if config.sampler.kind == "nuts" or _finds_lengths(config):
        return float("nan")
    method = build_method(config, problem)
    tuning = method.kernel.initial_tuning
    if hasattr(tuning, "trajectory_length"):
        most = np.minimum(tuning.trajectory_length / tuning.step_size + 0.5, tuning.max_num_steps)  # of each rung of a ladder
        swaps = config.sampler.kind == "parallel-tempering"  # which cost a gradient on the hottest rung
        return float(np.maximum(most, 1).sum()) * _gradients_a_leapfrog(config.sampler) + swaps
    return steps_a_step(config) * _counted_gradients(method.burn_in or method.kernel, problem)


def _gradients_a_leapfrog(sampler: Sampler) -> float:
    """Gradients of a run for each step of its trajectories."""
    if _tries_again(sampler):
        return 1 + 2 * SHARE_FAILED
    return 2.0 if isinstance(sampler, AdjustedMCLMC) else 1.0


def _tries_again(sampler: Sampler) -> bool:
    return isinstance(sampler, HMC) and sampler.delayed_rejection


def _counted_gradients(kernel: Kernel, problem: Problem) -> float:
    """Count the gradients of a kernel's first step."""
    key, tuning = jax.random.key(0), kernel.initial_tuning

    def cost(position: Any, batch: Any) -> Any:
        state = kernel.init(key, position, batch, tuning)
        return kernel.step(key, state, batch, tuning, jax.numpy.int32(0))[1].num_gradients

    # Nothing but the count is asked for, so that nothing else is compiled; data that were closed over would be all the same.
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), problem.like)
    return float(jax.jit(cost)(zeros, problem.batch))
