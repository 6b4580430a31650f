"""What window warm-ups find, here and by BlackJAX: acceptance beside the 0.8 aimed at, and gradients that a draw then takes.

Both warm up the same chains of NUTS, for as many steps from the same starts. Then our NUTS draws with what each has found, from
where ours ended. Of the chains' predictions of the test points every one has its bulk ESS; the 5 % quantile of these is told.
"""

from __future__ import annotations

from typing import Any

import blackjax
import jax
import numpy as np

import bayesnn
import samplers
from bayesnn import data, likelihoods, models, priors
from diagnostics.convergence import ess_bulk

NUM_CHAINS, DRAWS = 16, 200
STEPS = (100, 300, 1000)


def here(posterior: Any, kernel: Any, positions: Any, num_steps: int) -> Any:
    """Return our run after its warm-up."""
    warmup = samplers.window_adaptation(kernel, num_steps=num_steps)
    key = jax.random.key(0)
    return samplers.finish(
        warmup, samplers.sample(key, warmup.kernel, positions, posterior.batch, num_steps=num_steps, save=None).run
    )


def by_blackjax(posterior: Any, positions: Any, num_steps: int) -> tuple[jax.Array, jax.Array]:
    """Return the step sizes and the diagonal metrics that BlackJAX finds."""

    def log_density(position: Any) -> jax.Array:
        return sum(samplers.log_density_terms(posterior.target, position, posterior.batch))

    def chain(key: jax.Array, position: Any) -> tuple[jax.Array, jax.Array]:
        warmup = blackjax.window_adaptation(blackjax.nuts, log_density, initial_step_size=0.01)
        found = warmup.run(key, position, num_steps)[0].parameters
        return found["step_size"], found["inverse_mass_matrix"]

    return jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(0), NUM_CHAINS), positions)


def main() -> None:
    """Print a row for each length of the warm-up and each side."""
    posterior = bayesnn.posterior(
        models.mlp((20,), 2), priors.gaussian(0.3), likelihoods.heteroscedastic(), data.load("diabetes")
    )
    kernel = samplers.nuts(posterior.target, step_size=0.01)
    positions = posterior.init(jax.random.key(0), NUM_CHAINS)
    points = posterior.dataset.standardise(posterior.dataset.x_test)
    predict = jax.jit(jax.vmap(jax.vmap(lambda draw: posterior.functions(draw, points)["mean"])))
    print(f"\nNUTS on diabetes, {posterior.num_params} parameters, {NUM_CHAINS} chains; acceptance aimed at: 0.8\n")
    print("| steps of warm-up | | acceptance | of the worst chain | gradients a draw | ESS of 1,000 gradients |")
    print("|---|---|---|---|---|---|")
    for num_steps in STEPS:
        run = here(posterior, kernel, positions, num_steps)
        step_size, metric = by_blackjax(posterior, positions, num_steps)
        theirs = run.tuning.tuning._replace(step_size=step_size, inverse_mass_matrix=metric)
        for side, begun in {"here": run, "BlackJAX": run._replace(tuning=samplers.PerChain(theirs))}.items():
            result = samplers.sample(jax.random.key(1), kernel, positions, posterior.batch, num_steps=DRAWS, run=begun)
            rates, gradients = (np.asarray(x) for x in (result.info.acceptance_rate, result.info.num_gradients))
            ess = np.quantile(ess_bulk(np.asarray(predict(result.draws))), 0.05)
            cells = (
                f"{rates.mean():.2f} | {rates.mean(1).min():.2f} | {gradients.mean():.0f} | {ess / gradients.sum() * 1000:.2f}"
            )
            print(f"| {num_steps} | {side} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
