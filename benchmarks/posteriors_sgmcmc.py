"""Steps per second of SGLD and SGHMC here over those of `posteriors` (PyTorch): one chain, one core, batches of 100 digits.

Both sides run with the same network, prior, data, steps and precision. Peer: updates in place and batches taken by index from
a permutation an epoch, the fastest that it offers; a loader of single examples would cost more than a small gradient.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from benchmarks import peers
from benchmarks.timing import cpu_seconds, interleave, report, report_ratio, serve, server

ALGORITHMS = ("SGLD", "SGHMC")
# Hidden widths by their parameters: steps of one timed call here, steps there, the ratio that is wanted.
SIZES = {
    "3,760": ((50,), 2_000, 300, ">= 5"),
    "106,150": ((290, 290), 200, 100, ">= 1.5"),
    "974,710": ((950, 950), 30, 20, "no bar"),
}
BATCH_SIZE = 100
STEP_SIZE = 1e-5  # of SGLD, ours; small enough to stay where all is finite
MOMENTUM_STEP, FRICTION = 1e-4, 100.0
PRIOR_SCALE = 0.3
REPEATS = 5


def here(algorithm: str, size: str) -> Callable[[], float]:
    """Return what measures seconds a step here."""
    import jax

    import samplers
    from benchmarks.digits import continuing, digits_posterior

    widths, steps, *_ = SIZES[size]
    posterior = digits_posterior(widths)
    if algorithm == "SGLD":
        kernel = samplers.sgld(posterior.target, step_size=STEP_SIZE, batch_size=BATCH_SIZE)
    else:
        kernel = samplers.sghmc(posterior.target, step_size=MOMENTUM_STEP, friction=FRICTION, batch_size=BATCH_SIZE)
    start = posterior.init(jax.random.key(0), 1, "model")
    run = functools.partial(
        samplers.sample, jax.random.key(0), kernel, start, posterior.batch, num_steps=steps, thin=steps, save=None
    )
    more = continuing(run)

    return lambda: cpu_seconds(lambda: jax.block_until_ready(more().run.state)) / steps


def there(algorithm: str, size: str) -> Callable[[], float]:
    """Return what measures seconds a step of `posteriors`, which minimises the log density an example, tempered by 1 / n."""
    import posteriors
    import torch

    from benchmarks import torch_digits

    widths, _, steps, _ = SIZES[size]
    x, y = torch_digits.read(sys.argv[2])
    num_data, network = len(y), torch_digits.network(widths)
    apply = posteriors.model_to_function(network)

    def log_posterior(params: Any, batch: Any) -> Any:
        logits = apply(params, batch[0])
        log_prior = posteriors.diag_normal_log_prob(params, sd_diag=PRIOR_SCALE, normalize=False)
        return log_prior / num_data - torch.nn.functional.cross_entropy(logits, batch[1]), logits

    if algorithm == "SGLD":
        build = functools.partial(posteriors.sgmcmc.sgld.build, lr=STEP_SIZE / 2 * num_data)
    else:
        build = functools.partial(posteriors.sgmcmc.sghmc.build, lr=MOMENTUM_STEP, alpha=FRICTION)
    transform = build(log_posterior, temperature=1 / num_data)
    state = transform.init({name: value.detach().clone() for name, value in network.named_parameters()})

    def move() -> None:
        nonlocal state
        remaining = steps
        while remaining:
            rows = torch.randperm(num_data).split(BATCH_SIZE)[:remaining]
            remaining -= len(rows)
            for batch in rows:
                state, _ = transform.update(state, (x[batch], y[batch]), inplace=True)
        assert all(torch.isfinite(value).all() for value in state.params.values())

    return lambda: cpu_seconds(move) / steps


@functools.cache
def prepared(side: str, algorithm: str, size: str) -> Callable[[], float]:
    """Return what measures a case, compiled and warm."""
    return (here if side == "here" else there)(algorithm, size)


def main() -> None:
    """Print steps per second and their ratios."""
    from benchmarks.digits import hand_over

    if (python := peers.interpreter(".venv-torch")) is None:
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        server(__spec__.name, "here", core=0) as ours,
        server(__spec__.name, "posteriors", hand_over(folder), core=0, python=python) as theirs,
    ):
        for size, (*_, bar) in SIZES.items():
            cases = {
                f"{algorithm}, {side}": functools.partial(measure, f"{algorithm} {size}")
                for algorithm in ALGORITHMS
                for side, measure in (("here", ours), ("posteriors", theirs))
            }
            figures = interleave(cases, REPEATS)
            report(f"CPU time of a step of one chain on one core, batch {BATCH_SIZE}, {size} parameters", figures, "us", 1e6)
            for algorithm in ALGORITHMS:
                report_ratio(
                    f"{algorithm} steps per second over posteriors",
                    figures,
                    f"{algorithm}, posteriors",
                    f"{algorithm}, here",
                    bar,
                )


if __name__ == "__main__":
    serve(lambda case: prepared(sys.argv[1], *case.split())()) if len(sys.argv) > 1 else main()
