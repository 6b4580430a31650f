"""ResNet-20 on 50,000 images: the full-batch gradient and HMC at each precision, on whatever device JAX finds.

`python -m benchmarks resnet20`; `python -m benchmarks.resnet20 --help` shows sizes. The images are CIFAR-10's where so many are
at hand, else random pixels: times, throughput and memory do not depend on which.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from benchmarks.timing import interleave, ratios, seconds

if TYPE_CHECKING:
    from bayesnn.data import Dataset
    from bayesnn.problem import Problem

type Precision = Literal["float32", "TF32", "bfloat16"]
# Of Izmailov et al. 2021, table 3.
STEP_SIZE = 1e-5
# Matrix products that are timed in one go, so that none is too short for the clock.
PRODUCTS = 8


@dataclass(frozen=True)
class Size:
    """What to measure."""

    images: int = 50_000
    """Training images."""
    side: int = 32
    """Their height and width."""
    depth: int = 20
    """Of the network, 6 k + 2."""
    width: int = 16
    """Channels of its first stack."""
    microbatches: tuple[int, ...] = (250, 1000, 5000)
    """Images whose gradient is computed at a time; HMC uses the last."""
    leapfrogs: int = 10
    """Of a trajectory."""
    trajectories: int = 3
    """In a timed round of HMC."""
    descent: int = 500
    """Steps of Adam, on 500 images each, from the network's own initialisation to where HMC starts."""
    matrix: int = 4096
    """Rows of the square matrices whose product is the measured peak."""
    repeats: int = 3
    """Timed rounds."""


class Cost(NamedTuple):
    """Of one full-batch gradient: seconds, and bytes of the temporary arrays of the compiled program."""

    seconds: float
    temporary: float


class Trajectories(NamedTuple):
    """Of HMC: time a leapfrog over that of a bare gradient, absolute energy error in nats, and acceptance, means."""

    overhead: float
    energy_error: float
    acceptance: float


def images(size: Size) -> tuple[Dataset, str]:
    """Return a data set, and what it is."""
    from bayesnn import data

    resized = None if size.side == 32 else size.side
    try:
        return data.load("cifar10", num_train=size.images, size=resized), "of CIFAR-10"
    except ValueError:  # not at hand, or not as many
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (size.images + 1, size.side, size.side, 3), np.uint8)
        labels = rng.integers(0, 10, size.images + 1)
        known = data.from_arrays(pixels[1:], labels[1:], pixels[:1], labels[:1], num_classes=10, inputs="images")
        return known, "of random pixels"


def problem(size: Size, dataset: Dataset, precision: Precision, microbatch: int) -> Problem:
    """Return the posterior of Izmailov et al. 2021 on these images."""
    from bayesnn import likelihoods, models, priors
    from bayesnn.izmailov2021.scales import IMAGE_PRIOR
    from bayesnn.posteriors import posterior
    from bayesnn.problem import network_problem

    compute_dtype: Any = "bfloat16" if precision == "bfloat16" else None
    network = models.resnet(10, depth=size.depth, width=size.width, compute_dtype=compute_dtype)
    prior, likelihood = priors.gaussian(IMAGE_PRIOR), likelihoods.categorical()
    return network_problem(posterior(network, prior, likelihood, dataset, microbatch=microbatch), test_points=1)


def products_in(precision: Precision) -> Any:
    """Return the context in which float32 products have a precision; those of bfloat16 arrays are as they are."""
    import jax

    return jax.default_matmul_precision("tensorfloat32" if precision == "TF32" else "highest")


def peak(size: Size, precision: Precision) -> float:
    """Measure the throughput of large matrix products, FLOP/s."""
    import jax
    import jax.numpy as jnp

    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    # Products with a matrix of such entries keep their size.
    matrix = (jax.random.normal(jax.random.key(0), (size.matrix, size.matrix)) / size.matrix**0.5).astype(dtype)
    multiply = jax.jit(lambda a, b: jax.lax.fori_loop(0, PRODUCTS, lambda _, x: x @ b, a))
    times = interleave({"product": lambda: seconds(lambda: multiply(matrix, matrix))}, size.repeats)["product"]
    return 2 * size.matrix**3 * PRODUCTS / statistics.median(times)


def gradient(problem: Problem, position: Any, repeats: int) -> tuple[Any, Cost]:
    """Compile and time the gradient of one chain; return it, too."""
    import jax

    import samplers

    def bare(position: Any, batch: Any) -> Any:
        return jax.grad(samplers.log_density(problem.target, batch, problem.tempering))(position)

    compiled = jax.jit(bare, compiler_options=samplers.compiler_options()).lower(position, problem.batch).compile()
    times = interleave({"gradient": lambda: seconds(lambda: compiled(position, problem.batch))}, repeats)["gradient"]
    memory = compiled.memory_analysis()
    temporary = float(memory.temp_size_in_bytes) if memory is not None else float("nan")
    return compiled, Cost(statistics.median(times), temporary)


def trajectories(size: Size, problem: Problem, position: Any, compiled: Any) -> Trajectories:
    """Time HMC of one chain beside bare gradients, and look at its energy errors."""
    import jax

    import samplers

    length = STEP_SIZE * (size.leapfrogs - 0.5)  # rounded up to whole steps
    kernel = samplers.hmc(problem.target, step_size=STEP_SIZE, trajectory_length=length, jitter=0.0)
    positions = jax.tree.map(lambda x: x[None], position)
    sample = functools.partial(
        samplers.sample, jax.random.key(0), kernel, positions, problem.batch,
        num_steps=size.trajectories, save=None, chunk_draws=size.trajectories, chunk_seconds=1e9, throw=False,
    )  # fmt: skip
    first = sample()
    count = size.trajectories * size.leapfrogs
    times = interleave(
        {
            "leapfrog": lambda: seconds(lambda: sample(run=first.run).run.state) / count,
            "gradient": lambda: seconds(lambda: compiled(position, problem.batch)),
        },
        size.repeats,
    )
    info = first.info
    assert info is not None
    return Trajectories(
        ratios(times, "leapfrog", "gradient")[0], float(np.abs(info.energy_error).mean()), float(info.acceptance_rate.mean())
    )


def descended(size: Size, problem: Problem) -> Any:
    """Return a position with a likelihood well above that of the network's initialisation."""
    import jax
    import optax

    import samplers

    kernel = samplers.optimise(problem.target, optax.adam(1e-3), batch_size=min(500, size.images))
    begun = problem.init(jax.random.key(0), 1, "model")
    run = samplers.sample(jax.random.key(1), kernel, begun, problem.batch, num_steps=size.descent, save=None).run
    return jax.tree.map(lambda x: x[0], run.state.position)


def table(size: Size) -> Iterator[str]:
    """Yield the lines of the report."""
    import jax

    import samplers
    from bayesnn.plan import gradient_flops

    dataset, what = images(size)
    first = problem(size, dataset, "float32", size.microbatches[0])
    position, flops = descended(size, first), gradient_flops(first)
    device = jax.devices()[0]
    yield (
        f"\nResNet-{size.depth}, {samplers.num_params(first.like):,} parameters; {size.images:,} images {what}, "
        f"{size.side} x {size.side}; {device.device_kind}; a gradient is {flops / 1e12:.3g} TFLOP\n"
    )
    yield "| products in | images at a time | s a gradient | TFLOP/s | share of the peak | temporary arrays, GB |"
    yield "|---|---|---|---|---|---|"
    of_hmc = []
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if device.platform == "cpu" else ("float32", "TF32", "bfloat16")
    for precision in precisions:
        with products_in(precision):
            best = peak(size, precision)
            for microbatch in size.microbatches:
                one = problem(size, dataset, precision, microbatch)
                compiled, cost = gradient(one, position, size.repeats)
                rate = flops / cost.seconds
                cells = f"{cost.seconds:.3g} | {rate / 1e12:.3g} | {rate / best:.1%} of {best / 1e12:.3g}"
                yield f"| {precision} | {microbatch:,} | {cells} | {cost.temporary / 1e9:.3g} |"
            found = trajectories(size, one, position, compiled)
        of_hmc.append(
            f"| {precision} | {found.overhead:.3f} (<= 1.10) | {found.energy_error:.2g} nats | {found.acceptance:.3f} |"
        )
    yield f"\nHMC, one chain, {size.leapfrogs} leapfrogs of step size {STEP_SIZE:g}, {size.microbatches[-1]:,} images at a time\n"
    yield "| products in | leapfrog / bare gradient | energy error | acceptance |\n|---|---|---|---|"
    yield from of_hmc


def main(size: Size | None = None) -> None:
    """Print the tables."""
    for line in table(size or Size()):
        print(line, flush=True)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Size))
