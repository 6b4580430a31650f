"""Steps per second of chains for a learning coefficient here over those of `devinterp` 1.3.2 (PyTorch): one core, batches of 100.

The peer notes the loss of the minibatch that a step takes, which costs it nothing; we, the loss of all examples at every tenth
step, which is unbiased; that is timed, and our steps alone beside it. Its loader is timed twice: of single examples, as in its
own examples, and one in its place that indexes whole batches.
"""

from __future__ import annotations

import functools
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import peers
from benchmarks.timing import cpu_seconds, interleave, report, report_ratio, serve, server

# Hidden widths by their parameters: steps of one timed call here, steps there, the ratio that is wanted.
SIZES = {
    "3,760": ((50,), 2_000, 200, ">= 10"),
    "106,150": ((290, 290), 200, 100, ">= 1.8"),
    "974,710": ((950, 950), 30, 20, "no bar"),
}
OURS = ("steps and losses", "steps alone", "normals alone")
THEIRS = ("loader of examples", "loader of batches")
BATCH_SIZE, THIN = 100, 10
STEP_SIZE, LOCALISATION = 1e-6, 1.0
REPEATS = 5


def here(what: str, size: str) -> Callable[[], float]:
    """Return what measures seconds a step here."""
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    import samplers
    from bayesnn.measure.localised import localise, save_loss
    from benchmarks.digits import continuing, digits_posterior
    from samplers.vectors import normals

    widths, steps, *_ = SIZES[size]
    posterior = digits_posterior(widths)
    start = posterior.init(jax.random.key(0), 1, "model")
    centre = jax.tree.map(lambda x: x[0], start)
    target, batch = localise(posterior.target, posterior.batch, centre, LOCALISATION)
    tempering = samplers.Tempering.at(likelihood_temperature=math.log(target.num_data))
    kernel = samplers.sgld(target, step_size=STEP_SIZE, batch_size=BATCH_SIZE, replacement=True, tempering=tempering)
    save, thin = (save_loss(target, batch), THIN) if what == "steps and losses" else (None, steps)
    run: Any = functools.partial(samplers.sample, jax.random.key(0), kernel, start, batch, num_steps=steps, thin=thin, save=save)

    @jax.jit
    def deviates(key: Any, position: Any) -> Any:
        flat, _ = ravel_pytree(position)

        def add(step: Any, x: Any) -> Any:
            return x + normals(jax.random.fold_in(key, step), flat)

        return jax.lax.fori_loop(0, steps, add, jnp.zeros_like(flat))

    run = functools.partial(deviates, jax.random.key(0), centre) if what == "normals alone" else continuing(run)
    jax.block_until_ready(run())  # compiles
    return lambda: cpu_seconds(lambda: jax.block_until_ready(run())) / steps


def there(what: str, size: str) -> Callable[[], float]:
    """Return what measures seconds a step of `devinterp.slt.sampler.sample`, with its defaults but for what both sides share."""
    import torch
    from devinterp.slt.llc import LLCEstimator
    from devinterp.slt.sampler import sample
    from torch.utils.data import DataLoader, TensorDataset

    from benchmarks import torch_digits

    warnings.simplefilter("ignore")
    widths, _, steps, _ = SIZES[size]
    x, y = torch_digits.read(sys.argv[2])
    network = torch_digits.network(widths)

    class Batches(DataLoader):
        """A loader that indexes whole batches instead of calling for every example."""

        def __iter__(self) -> Iterator[Any]:
            for rows in torch.randperm(len(y)).split(BATCH_SIZE):
                yield x[rows], y[rows]

    kind = DataLoader if what == "loader of examples" else Batches
    loader = kind(TensorDataset(x, y), batch_size=BATCH_SIZE, shuffle=True)
    n_beta = len(y) / math.log(len(y))

    def evaluate(model: Any, batch: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    def move() -> None:
        estimator = LLCEstimator(num_chains=1, num_draws=steps, init_loss=torch.tensor(2.3), nbeta=n_beta)
        sample(
            network,
            loader,
            callbacks=[estimator],
            evaluate=evaluate,
            optimizer_kwargs={"lr": STEP_SIZE, "localization": LOCALISATION, "nbeta": n_beta},
            num_draws=steps,
            num_chains=1,
            init_loss=2.3,
            seed=0,
            verbose=False,
        )

    return lambda: cpu_seconds(move) / steps


@functools.cache
def prepared(side: str, what: str, size: str) -> Callable[[], float]:
    """Return what measures a case, compiled and warm."""
    return (here if side == "here" else there)(what, size)


def main() -> None:
    """Print steps per second and their ratios."""
    from benchmarks.digits import hand_over

    if (python := peers.interpreter(".venv-torch")) is None:
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        server(__spec__.name, "here", core=0) as ours,
        server(__spec__.name, "devinterp", hand_over(folder), core=0, python=python) as theirs,
    ):
        for size, (*_, bar) in SIZES.items():
            cases = {f"here, {what}": functools.partial(ours, f"{what}; {size}") for what in OURS}
            cases |= {f"devinterp, {what}": functools.partial(theirs, f"{what}; {size}") for what in THEIRS}
            figures = interleave(cases, REPEATS)
            report(f"CPU time of a chain-step on one core, batch {BATCH_SIZE}, {size} parameters", figures, "us", 1e6)
            for theirs_ in THEIRS:
                for ours_ in OURS[:2]:
                    label = f"steps per second, {ours_} here over devinterp, {theirs_}"
                    report_ratio(label, figures, f"devinterp, {theirs_}", f"here, {ours_}", bar)
            report_ratio("share of normals in our steps", figures, "here, normals alone", "here, steps alone", "no bar")


if __name__ == "__main__":
    serve(lambda case: prepared(sys.argv[1], *case.split("; "))()) if len(sys.argv) > 1 else main()
