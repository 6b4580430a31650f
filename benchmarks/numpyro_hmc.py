"""Gradients per second of HMC here and in NumPyro (vectorized and parallel), same model, data, step size and trajectory."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from benchmarks.timing import interleave, report, report_ratio, worker

STEPS = 50
REPEATS = 3
CASES = {
    "here, chain_block 1": 2,
    "here, chain_block 2": 2,
    "NumPyro vectorized": 1,
    "NumPyro vectorized, 2 devices": 2,
    "NumPyro parallel": 4,
}


def here(chain_block: int) -> float:
    """Return seconds a gradient of all four chains."""
    import jax

    import samplers
    from benchmarks.digits import NUM_LEAPFROG, STEP_SIZE, digits_posterior, starts

    posterior = digits_posterior()
    positions = starts(posterior)
    kernel = samplers.hmc(posterior.target, step_size=STEP_SIZE, trajectory_length=STEP_SIZE * NUM_LEAPFROG, jitter=0.0)

    def run(seed: int) -> float:
        began = time.perf_counter()
        result = samplers.sample(
            jax.random.key(seed), kernel, positions, posterior.batch, num_steps=STEPS, chain_block=chain_block
        )
        jax.block_until_ready(result.run.state)
        return time.perf_counter() - began

    run(0)
    return min(run(1), run(2)) / (STEPS * NUM_LEAPFROG)


def numpyro(method: str) -> float:
    """Return seconds a gradient of all four chains."""
    import jax
    import jax.numpy as jnp
    from numpyro import distributions as dist
    from numpyro import sample
    from numpyro.infer import HMC, MCMC

    from bayesnn import data
    from benchmarks.digits import NUM_CHAINS, NUM_LEAPFROG, STEP_SIZE

    digits = data.load("digits")
    x, y = jnp.asarray(digits.x_train), jnp.asarray(digits.y_train)

    def model(x: Any, y: Any) -> None:
        def weights(name: str, *shape: int) -> Any:
            return sample(name, dist.Normal(0, 0.3).expand(shape))

        hidden = jax.nn.silu(x @ weights("k0", 64, 50) + weights("b0", 50))
        sample("y", dist.Categorical(logits=hidden @ weights("k1", 50, 10) + weights("b1", 10)), obs=y)

    kernel = HMC(
        model,
        step_size=STEP_SIZE,
        trajectory_length=STEP_SIZE * NUM_LEAPFROG,
        adapt_step_size=False,
        adapt_mass_matrix=False,
    )
    mcmc = MCMC(kernel, num_warmup=0, num_samples=STEPS, num_chains=NUM_CHAINS, chain_method=method, progress_bar=False)

    def run(seed: int) -> float:
        began = time.perf_counter()
        mcmc.run(jax.random.PRNGKey(seed), x, y)
        jax.block_until_ready(mcmc.get_samples())
        return time.perf_counter() - began

    run(0)
    return min(run(1), run(2)) / (STEPS * NUM_LEAPFROG)


def main() -> None:
    """Print gradients per second and their ratio."""
    figures = interleave({name: worker(__spec__.name, name, devices) for name, devices in CASES.items()}, REPEATS)
    report("A gradient of all 4 chains inside HMC, digits, MLP 64-50-10", figures, "us", 1e6)
    best = min((n for n in figures if n.startswith("NumPyro")), key=lambda n: min(figures[n]))
    for name in ("here, chain_block 1", "here, chain_block 2"):
        report_ratio(f"gradients per second, {name} over {best}", figures, best, name, ">= 2")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        case = sys.argv[1]
        figure = numpyro(case.split()[1].rstrip(",")) if case.startswith("NumPyro") else here(int(case[-1]))
        print(json.dumps(figure))
    else:
        main()
