"""Function-space ESS a second, warm-up included, of HMC here over that of NumPyro's NUTS with its defaults, on UCI regression.

Both sides sample the same posterior, an MLP with 50 hidden units whose two outputs are mean and scale of a Gaussian, in
float32, from the same starts, with as many chains and steps of warm-up and for about as long; what is compiled is compiled
before. Of the chains' predictions of the test points, mean and log scale, every one has its bulk ESS; a low quantile of these
tells of the predictions that mix worst. Time is the CPU time of all threads, which other processes on the cores hardly lengthen,
and wall time beside it. The figure means something only where both sides find the same predictive means, so those are compared.
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

# Posteriors on which both sides mix within a minute. On UCI yacht, whose noise is small, NumPyro's R-hat was 2.9 after two.
SETS = {"uci_concrete": 400, "uci_boston": 455}  # training examples
NUM_CHAINS, WARMUP, SEEDS = 2, 150, 5
# As many of ours take about the time of NumPyro's, whose trees have 500 to 1,023 leapfrogs.
DRAWS, NUMPYRO_DRAWS = 500, 150
WIDTH, PRIOR_SCALE = 50, 0.3
# One device a chain: NumPyro's default. Its vectorized chains, which wait for the longest tree of all, were not timed.
CHAIN_METHOD = "parallel"
# Ours: a quarter period of directions that the metric has given the scale 1, and the most leapfrogs of a trajectory.
TRAJECTORY, MAX_NUM_STEPS = math.pi / 2, 400
QUANTILES = (0.05, 0.25, 0.5)


def problem(name: str) -> Any:
    """Return the posterior of a set."""
    import bayesnn
    from bayesnn import data, likelihoods, models, priors

    return bayesnn.posterior(
        models.mlp((WIDTH,), 2),
        priors.gaussian(PRIOR_SCALE),
        likelihoods.heteroscedastic(),
        data.load(name, num_train=SETS[name]),
    )


def here(posterior: Any) -> Callable[[int], Any]:
    """Return seed -> draws of HMC with delayed rejection, its step size and diagonal metric from a window warm-up."""
    import jax

    import samplers

    kernel = samplers.hmc(
        posterior.target,
        step_size=0.01,
        trajectory_length=TRAJECTORY,
        max_num_steps=MAX_NUM_STEPS,
        delayed_rejection=True,  # without, one chain of ten on Boston did not move
    )
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
        NUTS(model),
        num_warmup=WARMUP,
        num_samples=NUMPYRO_DRAWS,
        num_chains=NUM_CHAINS,
        chain_method=CHAIN_METHOD,
        progress_bar=False,
    )
    names = {f"{kind}_{layer}": (f"layer_{layer}", kind) for layer in (0, 1) for kind in ("kernel", "bias")}

    def run(seed: int, far: float = 0.0) -> Any:
        begun = jax.tree.map(lambda x: x + far, starts(posterior, seed))
        mcmc.run(jax.random.PRNGKey(seed), x, y, init_params={name: begun[layer][kind] for name, (layer, kind) in names.items()})
        draws = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
        return {f"layer_{i}": {kind: draws[f"{kind}_{i}"] for kind in ("kernel", "bias")} for i in (0, 1)}

    run(0, far=1e30)  # compiles: every trajectory from there diverges at once
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
    """Run a seed; return its CPU and wall seconds, and of every function ESS, mean, the mean's Monte-Carlo error and R-hat."""
    import jax
    import numpy as np

    from diagnostics import convergence

    name, seed = case.split()
    run = prepared(side, name)
    began = time.perf_counter(), time.process_time()
    draws = jax.block_until_ready(run(int(seed)))
    wall, spent = time.perf_counter() - began[0], time.process_time() - began[1]
    functions = np.asarray(predictions(name)(draws), np.float64)
    found = {
        "ess": convergence.ess_bulk(functions),
        "mean": functions.mean((0, 1)),
        "error": convergence.mcse_mean(functions),
        "rhat": convergence.rhat(functions),
    }
    return {"seconds": spent, "wall": wall, **{key: value.tolist() for key, value in found.items()}}


def main() -> None:
    """Print ESS a second of both sides, their ratios, and whether they agree."""
    if not all(map(peers.has_data, SETS)):
        return
    print(
        f"\nESS a second of test predictions: {NUM_CHAINS} chains, {WARMUP} steps of warm-up, then {DRAWS} draws here and "
        f"{NUMPYRO_DRAWS} of NumPyro; {SEEDS} seeds"
    )
    with (
        server(__spec__.name, "here", devices=2) as ours,
        server(__spec__.name, "numpyro", devices=NUM_CHAINS) as theirs,
    ):
        seeds = range(1, SEEDS + 1)
        by_set = [compare(name, [(ours(f"{name} {seed}"), theirs(f"{name} {seed}")) for seed in seeds]) for name in SETS]
    overall = [statistics.geometric_mean(ratios) for ratios in zip(*by_set, strict=True)]
    print(f"  => all sets and quantiles of ESS a CPU second, ratio {geometric(overall)}; wanted >= 3, lower end >= 1.5")


def compare(name: str, pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[float]:
    """Print a set's figures; return the ratio of each seed by CPU time, a geometric mean over quantiles."""
    import numpy as np

    print(f"  {name}")
    for side, runs in zip(("here", "NumPyro"), zip(*pairs, strict=True), strict=True):
        rhats = np.array([run["rhat"] for run in runs])
        cpu, wall = (statistics.median(run[clock] for run in runs) for clock in ("seconds", "wall"))
        ess = np.median([np.quantile(run["ess"], QUANTILES) for run in runs], axis=0)
        print(
            f"    {side:<8} {cpu:6.1f} CPU s ({wall:.0f} s) a seed; ESS {', '.join(f'{x:.0f}' for x in ess)} at the quantiles; "
            f"R-hat median {np.median(rhats):.3f}, largest {rhats.max():.2f}"
        )
    of_seeds = {}
    for clock, label in (("wall", "second"), ("seconds", "CPU second")):
        rates = [[np.quantile(run["ess"], QUANTILES) / run[clock] for run in pair] for pair in pairs]
        of_seeds[clock] = [ours / theirs for ours, theirs in rates]  # seed by quantile
        for quantile, ratios in zip(QUANTILES, zip(*of_seeds[clock], strict=True), strict=True):
            print(f"    => {quantile:.0%} quantile of ESS a {label}, ratio {geometric(ratios)}")
    z = [(np.subtract(a["mean"], b["mean"]) / np.hypot(a["error"], b["error"])) for a, b in pairs]
    print(f"    differences of predictive means in standard errors: {np.square(z).mean() ** 0.5:.2f} (rms; 1 if they agree)")
    return [statistics.geometric_mean(ratios) for ratios in of_seeds["seconds"]]


if __name__ == "__main__":
    serve(functools.partial(measure, sys.argv[1])) if len(sys.argv) > 1 else main()
