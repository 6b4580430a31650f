"""What each kernel costs beside its floor: the gradients and the normal deviates that it needs, timed in the same run."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import samplers
from benchmarks.digits import NUM_CHAINS, continuing, digits_posterior, starts
from benchmarks.timing import interleave, ratios, report, report_ratio, seconds
from samplers import mesh as meshes
from samplers.blocks import map_blocks
from samplers.stochastic import normal_like

# Hidden widths, gradients of one timed call (of each chain) and repeats; 3.8k, 106k and 974k parameters.
SIZES = (((50,), 800, 5), ((290, 290), 40, 5), ((950, 950), 10, 3))
STEP_SIZE = 1e-4  # so small that nothing is rejected and no tree ends early
SMALL = 5  # leapfrogs of HMC at the largest size


class Cost(NamedTuple):
    """What a kernel needs.

    Attributes:
        make: (target, leapfrogs of HMC) -> kernel.
        gradients: leapfrogs of HMC -> gradients of one step.
        normals: Deviates a parameter and step, and as many as it has on paper if that is more.
        bar: What the ratio should be.
    """

    make: Callable[[Any, int], samplers.Kernel]
    gradients: Callable[[int], int]
    normals: tuple[int, ...]
    bar: str

    def floors(self, leapfrogs: int) -> dict[str, int]:
        """Return the normals of each floor, by its name."""
        gradients = self.gradients(leapfrogs)
        return {f"{gradients} gradients and {normals} normals a parameter": normals for normals in self.normals}


def hmc(target: Any, leapfrogs: int) -> samplers.Kernel:
    """Return HMC with so many leapfrogs."""
    length = STEP_SIZE * (leapfrogs - 0.5)
    return samplers.hmc(target, step_size=STEP_SIZE, trajectory_length=length, jitter=0.0)


COSTS = {
    "HMC": Cost(hmc, lambda leapfrogs: leapfrogs, (1,), "<= 1.05"),
    "MALA": Cost(lambda target, _: samplers.mala(target, step_size=STEP_SIZE), lambda _: 1, (1,), "<= 1.10"),
    "SGLD": Cost(lambda target, _: samplers.sgld(target, step_size=STEP_SIZE**2), lambda _: 1, (1,), "<= 1.10"),
    "MCLMC": Cost(
        lambda target, _: samplers.mclmc(target, step_size=STEP_SIZE, decoherence_length=1.0), lambda _: 2, (1, 2), "<= 1.10"
    ),
}


def floor(posterior: Any, gradients: int, normals: int, steps: int, chain_block: int = 1) -> Any:
    """Return a jitted loop of steps of so many gradients and normals of every chain, laid out and compiled as `sample` does.

    Gradients alone: densities, of which HMC, MALA and MCLMC need one a step and NUTS one a gradient, are not in it.
    """

    def chain(position: Any, batch: Any) -> Any:
        density = samplers.log_density(posterior.target, batch, posterior.tempering)

        def add(x: Any, y: Any) -> Any:
            return jax.tree.map(lambda a, b: a + 1e-9 * b, x, y)  # each needs the one before

        def gradient(_: Any, x: Any) -> Any:
            return add(x, jax.grad(density)(x))

        def step(index: Any, x: Any) -> Any:
            for number in range(normals):
                x = add(x, normal_like(jax.random.key(number + index), x))
            return jax.lax.fori_loop(0, gradients, gradient, x)

        return jax.lax.fori_loop(0, steps, step, position)

    def local(positions: Any, batch: Any) -> Any:
        return map_blocks(lambda x: chain(x, batch), chain_block, positions)

    specs = (meshes.BY_CHAIN, meshes.batch_spec())
    on_mesh = meshes.over_mesh(local, meshes.make_mesh(NUM_CHAINS), specs, meshes.BY_CHAIN)
    return jax.jit(on_mesh, compiler_options=samplers.compiler_options())


def timed(call: Callable[[], Any], gradients: int, processor: list[float]) -> Callable[[], float]:
    """Return a case that times a gradient, and notes its processor time, which others that want the cores change less."""

    def case() -> float:
        began = time.process_time()
        elapsed = seconds(call)
        processor.append((time.process_time() - began) / gradients)
        return elapsed / gradients

    return case


def one_size(widths: tuple[int, ...], budget: int, repeats: int) -> None:
    """Time all kernels on a network of one size."""
    posterior = digits_posterior(widths)
    positions = starts(posterior)
    leapfrogs = min(40, max(SMALL, budget // 2))
    cases: dict[str, Callable[[], float]] = {}
    processor: dict[str, list[float]] = {}
    for name, cost in COSTS.items():
        gradients = cost.gradients(leapfrogs)
        steps = max(budget // gradients, 1)
        run = functools.partial(
            samplers.sample,
            jax.random.key(0),
            cost.make(posterior.target, leapfrogs),
            positions,
            posterior.batch,
            num_steps=steps,
            chunk_draws=steps,
            save=None,
            chain_block=1,
        )
        more = continuing(run)
        calls = {name: functools.partial(lambda more: more().run.state, more)}
        for label, normals in cost.floors(leapfrogs).items():
            loop = floor(posterior, gradients, normals, steps)
            calls[f"{name}: {label}"] = functools.partial(loop, positions, posterior.batch)
        for case, call in calls.items():
            processor[case] = []
            cases[case] = timed(call, steps * gradients, processor[case])
    cases["bare gradient"] = functools.partial(
        lambda loop: seconds(lambda: loop(positions, posterior.batch)) / budget, floor(posterior, budget, 0, 1)
    )
    cases["NUTS"] = nuts(posterior, positions, budget)
    figures = interleave(cases, repeats)
    processor = {name: spent[1:] for name, spent in processor.items()}  # without the uncounted round
    report(
        f"MLP 64-{'-'.join(map(str, widths))}-10, {posterior.num_params:,} parameters, a gradient of 4 chains", figures, "us", 1e6
    )
    for name, cost in COSTS.items():
        for label in cost.floors(leapfrogs):
            report_ratio(f"{name} / {label}", figures, name, f"{name}: {label}", cost.bar)
            report_ratio(f"{name} / {label}, processor time", processor, name, f"{name}: {label}", cost.bar)
            gradients, *_ = ratios(figures, "bare gradient", f"{name}: {label}")
            print(f"     random numbers are {1 - gradients:.1%} of that floor")
    report_ratio("NUTS an executed gradient / bare gradient", figures, "NUTS", "bare gradient", "<= 1.20 at 3.7k, 1.35 at 100k")


def nuts(posterior: Any, positions: Any, budget: int) -> Callable[[], float]:
    """Return a case that times NUTS an executed gradient of four chains; chains that wait for others are not counted as work."""
    kernel = samplers.nuts(posterior.target, step_size=STEP_SIZE, max_num_doublings=5)
    steps = max(budget // 32, 1)
    run = functools.partial(
        samplers.sample, jax.random.key(0), kernel, positions, posterior.batch, num_steps=steps, chunk_draws=steps,
        save=None, chain_block=1,
    )  # fmt: skip
    more = continuing(run)
    by_device = len(meshes.make_mesh(NUM_CHAINS).devices.ravel())

    def case() -> float:
        done: list[samplers.Result] = []

        def call() -> Any:
            done.append(more())
            return done[0].run.state

        elapsed, info = seconds(call), done[0].info
        assert info is not None
        gradients = np.asarray(info.num_gradients).sum(axis=1).reshape(by_device, -1).sum(axis=1)
        return elapsed / float(gradients.max()) * NUM_CHAINS / by_device

    return case


def lock_step() -> None:
    """Print how many more gradients chains of NUTS execute that wait for each other's trees, after a warm-up."""
    posterior, steps = digits_posterior(), 100
    kernel, positions = samplers.nuts(posterior.target, step_size=0.01), starts(posterior)
    warmup = samplers.window_adaptation(kernel, num_steps=steps, metric="identity")
    run = functools.partial(
        samplers.sample, jax.random.key(0), positions=positions, batch=posterior.batch, num_steps=steps, save=None
    )
    info = run(kernel, run=samplers.finish(warmup, run(warmup.kernel).run)).info
    assert info is not None
    gradients = np.asarray(info.num_gradients)
    spread = f"{gradients.mean():.0f} gradients a step, {gradients.min():.0f} to {gradients.max():.0f}"
    print(f"\nNUTS on digits, {steps} steps: {spread}")
    for together in (2, NUM_CHAINS):
        executed = gradients.reshape(-1, together, steps).max(axis=1).sum() * together
        times = executed / gradients.sum()
        print(f"  => {together} chains in lock-step would execute {times:.3f} times as many; blocks of 1 do not")


def main() -> None:
    """Print the ratios at three sizes, and what waiting for each other would cost NUTS."""
    print("\nKernels beside their floors: digits, 4 chains, chain_block 1; microseconds a gradient")
    for widths, budget, repeats in SIZES:
        one_size(widths, budget, repeats)
    lock_step()


if __name__ == "__main__":
    main()
