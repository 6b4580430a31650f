"""How the cost of a leapfrog step of HMC grows with examples, parameters and chains, as a figure."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import samplers
from benchmarks.digits import NUM_CHAINS, continuing, digits_posterior
from benchmarks.kernels import hmc
from benchmarks.timing import interleave, seconds

COPIES = (1, 2, 4, 8, 16)  # of the 1,437 digits
WIDTHS = (50, 100, 200, 400, 800)  # of two hidden layers; 6k to 700k parameters
CHAINS = (2, 4, 8, 16, 32)
# Steps timed at the sizes of a panel: fewer of the larger ones, but so many that the call of `sample` costs nothing beside them.
STEPS = (64, 32, 16, 8, 4)
LEAPFROGS, REPEATS = 10, 5
ROOT = Path(__file__).parents[1]
FIGURE = ROOT / "docs" / "_static" / "scaling.svg"

type Point = tuple[int, Callable[[], float]]


def leapfrog(posterior: Any, num_steps: int, copies: int = 1, num_chains: int = NUM_CHAINS) -> Callable[[], float]:
    """Return a case that times a leapfrog step of all chains, over so many steps, on so many copies of the data."""
    target = posterior.target._replace(num_data=copies * posterior.target.num_data)
    data, weight = jax.tree.map(lambda x: jnp.concatenate([x] * copies), (posterior.batch.data, posterior.batch.weight))
    run = functools.partial(
        samplers.sample,
        jax.random.key(0),
        hmc(target, LEAPFROGS),
        posterior.init(jax.random.key(0), num_chains, "model"),
        posterior.batch._replace(data=data, weight=weight),
        num_steps=num_steps,
        chunk_draws=num_steps,
        save=None,
        chain_block=1,
    )
    more = continuing(run)
    return lambda: seconds(lambda: more().run.state) / (num_steps * LEAPFROGS)


def panels() -> dict[str, list[Point]]:
    """Return sizes and cases of each panel."""
    small, wider = digits_posterior((50,)), [digits_posterior((width, width)) for width in WIDTHS]
    return {
        f"examples ({small.num_params:,} parameters, {NUM_CHAINS} chains)": [
            (copies * small.target.num_data, leapfrog(small, steps, copies=copies))
            for copies, steps in zip(COPIES, STEPS, strict=True)
        ],
        f"parameters ({small.target.num_data:,} examples, {NUM_CHAINS} chains)": [
            (posterior.num_params, leapfrog(posterior, steps)) for posterior, steps in zip(wider, STEPS, strict=True)
        ],
        f"chains ({small.num_params:,} parameters, {small.target.num_data:,} examples)": [
            (number, leapfrog(small, steps, num_chains=number)) for number, steps in zip(CHAINS, STEPS, strict=True)
        ],
    }


def slope(sizes: Sequence[int], costs: Sequence[Sequence[float]]) -> float:
    """Return the exponent of a power law: least squares through the logarithms of the medians."""
    return float(np.polyfit(np.log(sizes), np.log([statistics.median(values) for values in costs]), 1)[0])


def draw(costs: Mapping[str, tuple[list[int], list[list[float]]]]) -> None:
    """Write the figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, len(costs), sharey=True)
    for axis, (name, (sizes, values)) in zip(axes, costs.items(), strict=True):
        milliseconds = 1e3 * np.array(values)
        middle, low, high = np.median(milliseconds, 1), milliseconds.min(1), milliseconds.max(1)
        axis.errorbar(sizes, middle, (middle - low, high - middle), fmt="o-", capsize=3)
        axis.plot(sizes, middle[-1] * np.array(sizes) / sizes[-1], "--", color="grey", label="slope 1")
        axis.set(xscale="log", yscale="log", xlabel=name, title=f"slope {slope(sizes, values):.2f}")
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize="small")
        axis.minorticks_off()
    axes[0].set_ylabel("ms a leapfrog step of all chains")
    axes[0].legend()
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE)


def main() -> None:
    """Print costs and slopes, and write the figure."""
    print(f"\nCost of a leapfrog step: digits, MLP 64-50-10 or with two hidden layers, {len(jax.devices())} devices")
    points = panels()
    cases = {f"{size} {name}": case for name, ends in points.items() for size, case in ends}
    figures = interleave(cases, REPEATS)
    costs = {name: ([size for size, _ in ends], [figures[f"{size} {name}"] for size, _ in ends]) for name, ends in points.items()}
    for name, (sizes, values) in costs.items():
        shown = ", ".join(f"{size:,}: {1e3 * statistics.median(x):.2f}" for size, x in zip(sizes, values, strict=True))
        print(f"  ms by {name}: {shown}  => slope {slope(sizes, values):.2f}")
    draw(costs)
    print(f"  {FIGURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
