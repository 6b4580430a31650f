"""Time to equal held-out log-likelihood: MCLMC from ensemble starts (MILE) here, and in `sklearn-contrib-bde`, UCI concrete.

The settings are those of the peer's README: eight members of two layers of 16 units, 200 steps of Adam, then MCLMC whose step
size is tuned to an energy variance of 0.1 a dimension. That is 200 times looser than BlackJAX's recommendation: both sides are
biased alike, and what is compared is speed. Every run is in a process of its own, and its time is the CPU time of all threads,
compilation included, which the peer repeats at every fit.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.timing import geometric, serve, server

SET, SEEDS = "uci_concrete", 5
MEMBERS, WIDTHS, PRIOR_SCALE = 8, (16, 16), 1.0
LEARNING_RATE, EPOCHS, WARMUP, STEPS, THIN = 1e-3, 200, 5_000, 2_000, 2
ENERGY_VARIANCE = 0.1


def here(seed: int) -> list[tuple[float, float]]:
    """Return seconds since the beginning, and mean test log-likelihood of the mixture so far, for every chunk of draws."""
    began = time.process_time()
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import bayesnn
    import samplers
    from bayesnn import data, likelihoods, models, priors
    from diagnostics.predictive import mixture_log_likelihood

    posterior = bayesnn.posterior(
        models.mlp(WIDTHS, 2, "relu"), priors.gaussian(PRIOR_SCALE), likelihoods.heteroscedastic(), data.load(SET)
    )
    target, batch, key = posterior.target, posterior.batch, jax.random.key(seed)
    climber = samplers.optimise(target, optax.adam(LEARNING_RATE))
    starts = posterior.init(key, MEMBERS, "model")
    members = samplers.sample(key, climber, starts, batch, num_steps=EPOCHS, save=None).run.state.position
    kernel = samplers.mclmc(target, step_size=LEARNING_RATE, decoherence_length=math.sqrt(posterior.num_params))
    warmup = samplers.mclmc_adaptation(kernel, num_steps=WARMUP, energy_variance=ENERGY_VARIANCE)
    warm = samplers.sample(key, warmup.kernel, members, batch, num_steps=WARMUP, save=None).run
    test = (jnp.asarray(posterior.dataset.x_test), jnp.asarray(posterior.dataset.y_test), batch.constants)
    save = samplers.Save(lambda state, arrays: target.log_likelihood(state.position, arrays[:2], arrays[2]), test)
    kept: list[Any] = []
    found = []

    def look(result: Any) -> None:
        kept.append(result.draws)
        so_far = mixture_log_likelihood(np.concatenate(kept, axis=1))
        found.append((time.process_time() - began, float(np.mean(so_far))))

    samplers.sample(
        key,
        kernel,
        members,
        batch,
        num_steps=STEPS,
        thin=THIN,
        save=save,
        on_chunk=look,
        run=samplers.finish(warmup, warm),
        chunk_seconds=0.1,
    )
    return found


def there(seed: int, file: str) -> list[tuple[float, float]]:
    """Return the same of `sklearn-contrib-bde`: one pair, at its end."""
    began = time.process_time()
    import jax
    import jax.numpy as jnp
    import numpy as np
    from bde import BdeRegressor
    from bde.loss import GaussianNLL

    with np.load(file) as arrays:
        x, y, x_test, y_test = (arrays[name] for name in ("x", "y", "x_test", "y_test"))
    regressor = BdeRegressor(
        n_members=MEMBERS,
        hidden_layers=list(WIDTHS),
        seed=seed,
        loss=GaussianNLL(),
        epochs=EPOCHS,
        patience=10,
        lr=LEARNING_RATE,
        warmup_steps=WARMUP,
        n_samples=STEPS,
        n_thinning=THIN,
        desired_energy_var_end=ENERGY_VARIANCE,
        prior_family="normal",
        prior_kwargs={"scale": PRIOR_SCALE},
    )
    outputs = regressor.fit(x=x, y=y).predict(x_test, raw=True)
    outputs = outputs["raw"] if isinstance(outputs, dict) else outputs
    scale = jax.nn.softplus(outputs[..., 1]) + 1e-6  # the peer's floor
    densities = jax.scipy.stats.norm.logpdf(y_test, outputs[..., 0], scale)
    mixture = jax.scipy.special.logsumexp(densities, axis=(0, 1)) - math.log(densities[..., 0].size)
    return [(time.process_time() - began, float(jnp.mean(mixture)))]


def hand_over(folder: str) -> str:
    """Write the standardised split where the peer reads it."""
    import numpy as np

    from bayesnn import data

    split, file = data.load(SET), Path(folder) / "split.npz"
    x, y, x_test, y_test = (a.astype(np.float32) for a in (split.x_train, split.y_train, split.x_test, split.y_test))
    np.savez(file, x=x, y=y, x_test=x_test, y_test=y_test)
    return str(file)


def main() -> None:
    """Print both sides' times and log-likelihoods, and the ratio of the times to the lower of the two."""
    if (python := peers.interpreter(".venv-bde")) is None or not peers.has_data(SET):
        return
    print(f"\nMCLMC from {MEMBERS} ensemble members on {SET}: CPU seconds, mean test log-likelihood in standardised units")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        file = hand_over(folder)
        for seed in range(SEEDS):
            with (
                server(__spec__.name, "here", devices=2) as ours,
                server(__spec__.name, file, devices=2, python=python) as theirs,
            ):
                (their_seconds, reached), *_ = theirs(str(seed))
                found = ours(str(seed))
            first = next((seconds for seconds, value in found if value >= reached), None)
            print(
                f"  seed {seed}: bde {their_seconds:6.1f} s to {reached:.3f}; here {found[-1][0]:6.1f} s to {found[-1][1]:.3f}, "
                + (f"bde's after {first:.1f} s" if first else "bde's never")
            )
            if first:
                ratios.append(their_seconds / first)
    if len(ratios) == SEEDS:
        print(f"  => time of bde over ours to the same log-likelihood: {geometric(ratios)}; no bar")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(lambda case: here(int(case)) if sys.argv[1] == "here" else there(int(case), sys.argv[1]))
    else:
        main()
