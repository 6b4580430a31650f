"""Gradients of fully connected networks: [unit, example] as `models.mlp` computes, against examples in rows as `x @ kernel` does.

Ten steps of gradient descent in one compiled loop on one core, as a leapfrog trajectory has them; log likelihood of ten classes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.timing import interleave, report, report_ratio, seconds, serve, server

if TYPE_CHECKING:
    from jaxtyping import Array

UNITS, ROWS = "units first", "examples in rows"
REPEATS = 7
BUDGET = 2_000_000_000  # multiplications of a repeat, about
STEPS = 10
OUTPUTS = 10
# (examples, inputs, units of hidden layers); the second is a minibatch.
SHAPES = (
    (1437, 64, (50,)),
    (100, 64, (50,)),
    (455, 13, (50,)),
    (1437, 64, (256, 256)),
    (1437, 64, (900, 900)),
)


def in_rows(params: Any, inputs: Array) -> Array:
    """Return the outputs of the network that `models.mlp` builds, examples in rows all the way."""
    import jax

    *hidden, last = params.values()
    for layer in hidden:
        inputs = jax.nn.silu(inputs @ layer["kernel"] + layer["bias"])
    return inputs @ last["kernel"] + last["bias"]


def descents(examples: int, features: int, widths: tuple[int, ...]) -> dict[str, Callable[[], Any]]:
    """Return, by layout, a compiled descent of `STEPS` gradients."""
    import jax
    import jax.numpy as jnp

    from bayesnn import models
    from samplers import compiler_options

    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(examples, features)), jnp.float32)
    is_label = jax.nn.one_hot(rng.integers(0, OUTPUTS, examples), OUTPUTS, dtype=bool)
    network = models.mlp(widths, OUTPUTS)
    start = network.init(jax.random.key(0), x)

    def descent(apply: Callable[..., Array]) -> Callable[[], Any]:
        def loss(params: Any, inputs: Array) -> Array:
            return -jnp.sum(jnp.where(is_label, jax.nn.log_softmax(apply(params, inputs)), 0))

        @functools.partial(jax.jit, compiler_options=compiler_options())
        def run(params: Any, inputs: Array) -> Any:
            def body(_: Any, now: Any) -> Any:
                return jax.tree.map(lambda a, b: a - 1e-6 * b, now, jax.grad(loss)(now, inputs))

            return jax.lax.fori_loop(0, STEPS, body, params)

        return lambda: run(start, x)

    return {UNITS: descent(network.apply), ROWS: descent(in_rows)}


@functools.cache
def measured(shape: int) -> dict[str, Callable[[], Any]]:
    """Return the descents of one of `SHAPES`, kept with what they compile."""
    return descents(*SHAPES[shape])


def measure(case: str) -> float:
    """Return the microseconds of a gradient."""
    layout, shape = json.loads(case)
    examples, features, widths = SHAPES[shape]
    calls = max(1, BUDGET // (examples * (features + widths[-1]) * widths[0] * STEPS))
    run = measured(shape)[layout]
    return seconds(lambda: [run() for _ in range(calls)]) / calls / STEPS * 1e6


def main() -> None:
    """Print the microseconds of a gradient in both layouts, and their ratio, by shape."""
    print("\nGradients of fully connected networks, one core, microseconds")
    with server(__spec__.name, core=0) as ask:
        for shape, (examples, features, widths) in enumerate(SHAPES):
            cases = {name: functools.partial(ask, json.dumps([name, shape])) for name in (UNITS, ROWS)}
            figures = interleave(cases, REPEATS)
            name = "-".join(map(str, (features, *widths, OUTPUTS)))
            report(f"{name}, {examples:,} examples", figures, "us")
            report_ratio(f"{UNITS} / {ROWS}", figures, UNITS, ROWS, "< 1")


if __name__ == "__main__":
    serve(measure)
