"""Function-space ESS a second, warm-up included, of HMC here over that of NumPyro's NUTS with its defaults, on UCI regression.

Both sides sample the same posterior, an MLP with 50 hidden units whose two outputs are mean and scale of a Gaussian, in
float32, from the same starts, with as many chains; what is compiled is compiled before. Of the chains' predictions of the test
points, mean and log scale, every one has its bulk ESS; a low quantile of these tells of the predictions that mix worst.
Time is the CPU time of
all threads, which other processes on the cores do not lengthen, and wall time beside it. The figure means something only where
both sides find the same predictive means, so those are compared too.
"""

from __future__ import annotations

import functools
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import peers
from benchmarks.timing import geometric, serve, server

SETS = ("uci_boston", "uci_concrete")
NUM_CHAINS, WARMUP, DRAWS, SEEDS = 4, 200, 200, 5
WIDTH, PRIOR_SCALE = 50, 0.3
# One device a chain: NumPyro's default, and of its modes the faster one for so few chains.
CHAIN_METHOD = "parallel"
# Ours: a quarter period of directions that the metric has given the scale 1, and the most leapfrogs of a trajectory.
TRAJECTORY, MAX_NUM_STEPS = math.pi / 2, 400
QUANTILES = (0.05, 0.25, 0.5)


def problem(name: str) -> Any:
    """Return the posterior."""
    import bayesnn
    from bayesnn import data, likelihoods, models, priors

    return bayesnn.posterior(
        models.mlp((WIDTH,), 2), priors.gaussian(PRIOR_SCALE), likelihoods.heteroscedastic(), data.load(name)
    )


def here(posterior: Any) -> Callable[[int], Any]:
    """Return seed -> draws of HMC, its step size and diagonal metric from Stan's windows."""
    import jax

    import samplers

    kernel = samplers.hmc(posterior.target, step_size=0.01, trajectory_length=TRAJECTORY, max_num_steps=MAX_NUM_STEPS)
    warmup = samplers.window_adaptation(kernel, num_steps=WARMUP)

    def run(seed: int, num_warmup: int = WARMUP, num_draws: int = DRAWS) -> Any:
        key, positions = jax.random.key(seed), starts(posterior, seed)
        warm = samplers.sample(key, warmup.kernel, positions, posterior.batch, num_steps=num_warmup, save=None).run
        return samplers.sample(
            key, kernel, positions, posterior.batch, num_steps=num_draws, run=samplers.finish(warmup, warm)
        ).draws

    run(0, 1, 1)  # compiles; the lengths of runs are arguments of the programs
    return run


def numpyro(posterior: Any) -> Callable[[int], Any]:
    """Return seed -> draws of NumPyro's NUTS."""
    import jax
    from numpyro import distributions as dist
    from numpyro import sample
    from numpyro.infer import MCMC, NUTS

    from bayesnn.likelihoods import MIN_SCALE

    x, y = posterior.batch.data

    def model(x: Any, y: Any) -> None:
        def weights(name: str, *shape: int) -> Any:
            return sample(name, dist.Normal(0, PRIOR_SCALE).expand(shape))

        hidden = jax.nn.silu(x @ weights("kernel_0", x.shape[1], WIDTH) + weights("bias_0", WIDTH))
        outputs = hidden @ weights("kernel_1", WIDTH, 2) + weights("bias_1", 2)
        sample("y", dist.Normal(outputs[:, 0], MIN_SCALE + jax.nn.softplus(outputs[:, 1])), obs=y)

    mcmc = MCMC(
        NUTS(model), num_warmup=WARMUP, num_samples=DRAWS, num_chains=NUM_CHAINS, chain_method=CHAIN_METHOD, progress_bar=False
    )
    names = {f"{kind}_{layer}": (f"layer_{layer}", kind) for layer in (0, 1) for kind in ("kernel", "bias")}

    def run(seed: int) -> Any:
        begun = starts(posterior, seed)
        mcmc.run(jax.random.PRNGKey(seed), x, y, init_params={name: begun[layer][kind] for name, (layer, kind) in names.items()})
        draws = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
        return {f"layer_{i}": {kind: draws[f"{kind}_{i}"] for kind in ("kernel", "bias")} for i in (0, 1)}

    run(0)  # compiles
    return run


def starts(posterior: Any, seed: int) -> Any:
    """Return positions from the prior."""
    import jax

    return posterior.init(jax.random.key(1_000 + seed), NUM_CHAINS)


@functools.cache
def predictions(name: str) -> Callable[[Any], Any]:
    """Return draws -> [chain, draw, function] of the test points: means, then log scales, in standardised units."""
    import jax
    import jax.numpy as jnp

    posterior = problem(name)
    x = jnp.asarray(posterior.dataset.x_test)

    def of_one(position: Any) -> Any:
        found = posterior.form.functions(*posterior.form.outputs(position, x, posterior.batch.constants))
        return jnp.concatenate([found["mean"], jnp.log(found["scale"])])

    return jax.jit(lambda draws: jax.lax.map(lambda chain: jax.lax.map(of_one, chain), draws))


@functools.cache
def prepared(side: str, name: str) -> Callable[[int], Any]:
    """Return seed -> draws, compiled."""
    return (here if side == "here" else numpyro)(problem(name))


def measure(side: str, case: str) -> dict[str, Any]:
    """Run a seed; return its seconds, and of every function ESS, mean, the mean's Monte-Carlo error and R-hat."""
    import jax
    import numpy as np

    from diagnostics import convergence

    name, seed = case.split()
    run = prepared(side, name)
    began = time.perf_counter()
    draws = jax.block_until_ready(run(int(seed)))
    spent = time.perf_counter() - began
    functions = np.asarray(predictions(name)(draws), np.float64)
    found = {
        "ess": convergence.ess_bulk(functions),
        "mean": functions.mean((0, 1)),
        "error": convergence.mcse_mean(functions),
        "rhat": convergence.rhat(functions),
    }
    return {"seconds": spent, **{key: value.tolist() for key, value in found.items()}}


def main() -> None:
    """Print ESS a second of both sides, their ratios, and whether they agree."""
    if not all(map(peers.has_data, SETS)):
        return
    print(f"\nESS a second of test predictions: {NUM_CHAINS} chains, {WARMUP} steps of warm-up and {DRAWS} draws, {SEEDS} seeds")
    with (
        server(__spec__.name, "here", devices=2) as ours,
        server(__spec__.name, "numpyro", devices=NUM_CHAINS) as theirs,
    ):
        for name in SETS:
            pairs = [(ours(f"{name} {seed}"), theirs(f"{name} {seed}")) for seed in range(1, SEEDS + 1)]
            compare(name, pairs)


def compare(name: str, pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Print a set's figures."""
    import numpy as np

    print(f"  {name}")
    for side, runs in zip(("here", "NumPyro"), zip(*pairs, strict=True), strict=True):
        rhats = np.array([run["rhat"] for run in runs])
        speeds = [np.median(np.quantile(run["ess"], QUANTILES) / run["seconds"]) for run in runs]
        print(
            f"    {side:<8} {statistics.median(run['seconds'] for run in runs):6.1f} s a seed; median ESS a second "
            f"{statistics.median(speeds):.2f}; R-hat median {np.median(rhats):.3f}, largest {rhats.max():.2f}"
        )
    for quantile in QUANTILES:
        per_second = [[np.quantile(run["ess"], quantile) / run["seconds"] for run in pair] for pair in pairs]
        print(f"    => {quantile:.0%} quantile of ESS a second, ratio {geometric([a / b for a, b in per_second])}; wanted >= 3")
    z = [(np.subtract(a["mean"], b["mean"]) / np.hypot(a["error"], b["error"])) for a, b in pairs]
    print(f"    differences of predictive means in standard errors: {np.square(z).mean() ** 0.5:.2f} (rms; 1 if they agree)")


if __name__ == "__main__":
    serve(functools.partial(measure, sys.argv[1])) if len(sys.argv) > 1 else main()
