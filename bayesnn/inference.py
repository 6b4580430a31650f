"""Sampling in a notebook: a posterior and a sampler in, draws as an ArviZ DataTree out, nothing on disk."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import samplers
from bayesnn import config as c
from bayesnn.alarms import PYTHON, alarm
from bayesnn.build import build_method, describe_sampler
from bayesnn.density import Linearised
from bayesnn.draws import by_group, by_name
from bayesnn.posteriors import Posterior
from bayesnn.precision import full_products
from bayesnn.predict import predict, predict_draws
from bayesnn.problem import Problem, network_problem
from bayesnn.shard import Commit
from bayesnn.stopping import BLOCKS, reason_to_stop
from diagnostics.trees import make_tree

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Sampled:
    """Draws in memory.

    Attributes:
        tree: ArviZ DataTree: groups posterior, functions, sample_stats, observed_data, constant_data.
        run: State at the end; `samplers.sample(run=...)` continues it.
        posterior: What was sampled; None for a density without a network.
    """

    tree: xr.DataTree
    run: samplers.Run
    posterior: Posterior | None

    @full_products()
    def predict(self, inputs: Any) -> dict[str, np.ndarray]:
        """Predict on new inputs, in original units; see `bayesnn.predict.predict`."""
        return predict(self._network(), self.tree["posterior"].to_dataset(), inputs)

    @full_products()
    def predict_draws(self, inputs: Any) -> xr.Dataset:
        """Predict on new inputs with every draw on its own; see `bayesnn.predict.predict_draws`."""
        return predict_draws(self._network(), self.tree["posterior"].to_dataset(), inputs)

    def _network(self) -> Posterior:
        if self.posterior is None:
            raise ValueError("a density without a network predicts nothing")
        if isinstance(self.run.state, Linearised):
            raise ValueError("these draws predict by the network linearised at the MAP estimate: make the inputs test data")
        return self.posterior


@full_products()
def sample(
    key: jax.Array,
    what: Posterior | Problem,
    sampler: c.Sampler,
    *,
    chains: int = 4,
    draws: int = 200,
    warmup: c.WarmUp | int = 200,
    thin: int = 1,
    start: str = "prior",
    stop: c.Stop | None = None,
) -> Sampled:
    """Sample a posterior in memory, warm-up included.

    For long runs use a run folder (`bayesnn run`), which survives kills; this keeps everything in memory, shows no progress, and
    warns of draws that no audit would pass. Matrix products are float32 on accelerators, too, unless
    `jax_default_matmul_precision` says otherwise.

    Args:
        key: Of everything random.
        what: A network's posterior (`bayesnn.posteriors`), or a problem (`density_problem`, `numpyro_problem`).
        sampler: `HMC(...)`, `NUTS(...)`, `SGLD(...)`, `Optimise(...)` or another class of settings of `bayesnn.config`.
        chains: Number of chains.
        draws: Draws kept of each chain.
        warmup: Steps before the first draw, or a `WarmUp` with more to say.
        thin: Steps for each draw kept.
        start: "prior", "model", "map", "pathfinder", or a file of weights (`RunConfig.start`).
        stop: What ends the run before it has all its draws, such as `Stop(ess=400, functions=("probability",))`.

    Raises:
        UsageError: Settings that do not fit the problem, or a target on functions that it does not have.
        TypeError: Neither a posterior nor a problem to sample.
        ValueError: Settings outside their range.
        samplers.SamplingError: A chain left the finite numbers.
    """
    problem = network_problem(what) if isinstance(what, Posterior) else what
    if not isinstance(problem, Problem):
        raise TypeError(
            "expected a posterior (bayesnn.posterior) or a problem (bayesnn.density_problem, bayesnn.numpyro_problem) to sample, "
            f"got {what!r:.80}"
        )
    config = c.RunConfig(
        sampler=sampler,
        chains=chains,
        draws=draws,
        thin=thin,
        warmup=c.WarmUp(steps=warmup) if isinstance(warmup, int) else warmup,
        start=start,
        stop=c.Stop() if stop is None else stop,
    )
    method = build_method(config, problem)
    start_key, run_key = jax.random.split(key)
    move = functools.partial(samplers.sample, run_key, positions=problem.init(start_key, chains, start), batch=problem.batch)
    run = None
    if config.warmup.steps:
        run = move(method.first_kernel, num_steps=config.warmup.steps, save=None).run
        run = method.finish(run)
    began = time.monotonic()
    result = _draw(config, functools.partial(move, method.kernel, thin=thin, save=method.save(problem)), run)
    groups = by_group(result)
    has_warmup = method.warmup is not None
    if warning := alarm(groups["sample_stats"], [0] * chains, sampler=sampler, has_warmup=has_warmup, settings=PYTHON):
        warnings.warn(warning, stacklevel=2)
    facts = {**describe_sampler(sampler), "name": sampler.kind}
    spent = {"gradients": float(np.sum(groups["sample_stats"]["num_gradients"])), "seconds": time.monotonic() - began}
    tree = make_tree(
        attrs=problem.description | facts | spent,
        posterior=groups["posterior"],
        functions=groups.get("functions"),
        sample_stats=groups["sample_stats"],
        observed_data=None if problem.y_test is None else {"y_test": problem.y_test},
        layers=problem.layers,
    )
    return Sampled(tree, result.run, problem.posterior)


def _draw(config: c.RunConfig, move: Callable[..., samplers.Result], run: samplers.Run | None) -> samplers.Result:
    """Draw by blocks, until all draws are there or there is a reason to stop."""
    block = config.draws if config.stop == c.Stop() else -(-config.draws // BLOCKS)
    parts: list[samplers.Result] = []
    began, done, reason = time.monotonic(), Commit(), None

    def read(name: str) -> np.ndarray:
        return np.concatenate([by_name(part)[name] for part in parts], axis=1)

    while done.draws < config.draws and reason is None:
        length = min(block, config.draws - done.draws)
        parts.append(move(num_steps=length * config.thin, run=run))
        run, newest = parts[-1].run, by_name(parts[-1])
        gradients = done.gradients + float(np.sum(newest["sample_stats/num_gradients"]))
        done = Commit(draws=done.draws + length, gradients=gradients, seconds=time.monotonic() - began)
        reason = reason_to_stop(config.stop, done, block, newest.keys(), read)
    if len(parts) == 1:
        return parts[0]  # uncopied
    draws, info = jax.tree.map(lambda *x: np.concatenate(x, axis=1), *[(part.draws, part.info) for part in parts])
    return parts[-1]._replace(draws=draws, info=info)
