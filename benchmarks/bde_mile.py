"""Time to equal held-out log-likelihood: MCLMC from ensemble starts (MILE) here, and in `sklearn-contrib-bde`, UCI concrete.

Both sides have one posterior (N(0, 1) on every weight and bias, softplus noise, all training data), network, split and schedule,
the peer's README's: eight members of two layers of 16 units, 200 full-batch steps of Adam, 5,000 steps of warm-up and 2,000 of
MCLMC, of which every other is kept. The energy variance that step sizes are tuned to falls from 0.5 a dimension to 0.1, which is
200 times BlackJAX's recommendation: both sides are biased alike, and their chains are still on their way. What differs: the peer
trains its members on 85 % of the data and keeps the weights that suit the rest best; its noise has a floor of 1e-6, not 1e-3; and
it finds the decoherence length from autocorrelations.

The two sides of a seed have different members, and the log-likelihoods of one side spread more over seeds than the sides differ.
So our mean over seeds, as it rises with time, is held against the mean of the peer, never one seed against one. Every run is in
a process of its own, and its time is the CPU time of all threads, compilation included, which the peer repeats at every fit.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import peers
from benchmarks.timing import geometric, serve, server

SET, SEEDS = "uci_concrete", 5
MEMBERS, WIDTHS, PRIOR_SCALE = 8, (16, 16), 1.0
LEARNING_RATE, EPOCHS, WARMUP, STEPS, THIN = 1e-3, 200, 5_000, 2_000, 2
ENERGY_VARIANCE = 0.1


class Fit(NamedTuple):
    """What one side made of one seed.

    Attributes:
        curve: (CPU seconds since the beginning, mean test log-likelihood of the mixture so far), later and later.
        log_posterior: Log prior plus log likelihood, nats, mean over draws: how far the chains have come.
    """

    curve: list[tuple[float, float]]
    log_posterior: float


def concrete() -> Any:
    """Return the posterior that both sides sample."""
    import bayesnn
    from bayesnn import data, likelihoods, models, priors

    prior, likelihood = priors.gaussian(PRIOR_SCALE), likelihoods.heteroscedastic()
    return bayesnn.posterior(models.mlp(WIDTHS, 2, "relu"), prior, likelihood, data.load(SET))


def here(seed: int) -> Fit:
    """Train, warm up and sample with this package."""
    began = time.process_time()
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import samplers
    from diagnostics.predictive import mixture_log_likelihood

    posterior = concrete()
    target, batch, key = posterior.target, posterior.batch, jax.random.key(seed)
    climber = samplers.optimise(target, optax.adam(LEARNING_RATE))
    starts = posterior.init(key, MEMBERS, "model")
    members = samplers.sample(key, climber, starts, batch, num_steps=EPOCHS, save=None).run.state.position
    kernel = samplers.mclmc(target, step_size=LEARNING_RATE, decoherence_length=math.sqrt(posterior.num_params))
    warmup = samplers.mclmc_adaptation(kernel, num_steps=WARMUP, energy_variance=ENERGY_VARIANCE)
    warm = samplers.sample(key, warmup.kernel, members, batch, num_steps=WARMUP, save=None).run
    test = (jnp.asarray(posterior.dataset.x_test), jnp.asarray(posterior.dataset.y_test), batch.constants)

    def densities(state: Any, arrays: Any) -> Any:
        return target.log_likelihood(state.position, arrays[:2], arrays[2]), state.logdensity

    tests: list[Any] = []
    log_posteriors: list[Any] = []
    curve = []

    def look(result: Any) -> None:
        tests.append(result.draws[0])
        log_posteriors.append(result.draws[1])
        so_far = mixture_log_likelihood(np.concatenate(tests, axis=1))
        curve.append((time.process_time() - began, float(np.mean(so_far))))

    samplers.sample(
        key,
        kernel,
        members,
        batch,
        num_steps=STEPS,
        thin=THIN,
        save=samplers.Save(densities, test),
        on_chunk=look,
        run=samplers.finish(warmup, warm),
        chunk_seconds=0.1,
    )
    return Fit(curve, float(np.mean(np.concatenate(log_posteriors, axis=1))))


def there(seed: int, file: str) -> Fit:
    """Do the same with `sklearn-contrib-bde`, whose curve is one point, its end."""
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
    by_draw = peer_log_likelihood(regressor.fit(x=x, y=y), x_test, y_test)
    mixture = jax.scipy.special.logsumexp(by_draw, axis=(0, 1)) - math.log(by_draw[..., 0].size)
    curve = [(time.process_time() - began, float(jnp.mean(mixture)))]

    def log_density(leaf: Any) -> Any:
        return jnp.sum(jax.scipy.stats.norm.logpdf(leaf, scale=PRIOR_SCALE), axis=tuple(range(2, leaf.ndim)))

    # Training outputs of all draws would take gigabytes: every fiftieth will do.
    regressor.positions_eT_ = jax.tree.map(lambda leaf: leaf[:, ::50], regressor.positions_eT_)
    log_likelihood = jnp.sum(peer_log_likelihood(regressor, x, y), axis=-1)
    log_prior = sum(log_density(leaf) for leaf in jax.tree.leaves(regressor.positions_eT_))
    return Fit(curve, float(jnp.mean(log_likelihood + log_prior)))


def peer_log_likelihood(regressor: Any, inputs: Any, targets: Any) -> Any:
    """Return the log likelihood of every example under the peer's draws, [chain, draw, n], nats."""
    import jax

    outputs = regressor.predict(inputs, raw=True)
    outputs = outputs["raw"] if isinstance(outputs, dict) else outputs
    scale = jax.nn.softplus(outputs[..., 1]) + 1e-6  # the peer's floor
    return jax.scipy.stats.norm.logpdf(targets, outputs[..., 0], scale)


def time_to(level: float, curves: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """Return the time from which the mean of curves first reaches a level, each curve at its last value until then.

    None where it never does; the mean begins when all curves have begun.
    """
    last: dict[int, float] = {}
    for seconds, index, value in sorted((s, i, v) for i, curve in enumerate(curves) for s, v in curve):
        last[index] = value
        if len(last) == len(curves) and statistics.mean(last.values()) >= level:
            return seconds
    return None


def difference(a: Sequence[float], b: Sequence[float]) -> str:
    """Return the difference of two means with its 95 % interval (Welch)."""
    from scipy import stats

    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return f"{statistics.mean(a) - statistics.mean(b):+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def shown(fit: Fit) -> str:
    """Return a fit's end in a line."""
    seconds, value = fit.curve[-1]
    return f"{seconds:.1f} s to {value:.3f} (log posterior {fit.log_posterior:.0f})"


def hand_over(folder: str) -> str:
    """Write the standardised split where the peer reads it."""
    import numpy as np

    from bayesnn import data

    split, file = data.load(SET), Path(folder) / "split.npz"
    x, y, x_test, y_test = (a.astype(np.float32) for a in (split.x_train, split.y_train, split.x_test, split.y_test))
    np.savez(file, x=x, y=y, x_test=x_test, y_test=y_test)
    return str(file)


def main() -> None:
    """Print both sides' times and log-likelihoods, and the time of the peer over ours to the same log-likelihood."""
    if (python := peers.interpreter(".venv-bde")) is None or not peers.has_data(SET):
        return
    print(f"\nMCLMC from {MEMBERS} ensemble members on {SET}: CPU seconds, mean test log-likelihood in standardised units")
    ours: list[Fit] = []
    theirs: list[Fit] = []
    with tempfile.TemporaryDirectory() as folder:
        file = hand_over(folder)
        for seed in range(SEEDS):
            for fits, case, interpreter in ((theirs, file, python), (ours, "here", sys.executable)):
                with server(__spec__.name, case, devices=2, python=interpreter) as fit:
                    fits.append(Fit(*fit(str(seed))))
            print(f"  seed {seed}: bde {shown(theirs[-1])}; here {shown(ours[-1])}", flush=True)
    (their_seconds, their_values), (our_seconds, our_values) = (
        zip(*(fit.curve[-1] for fit in fits), strict=True) for fits in (theirs, ours)
    )
    level, budget = statistics.mean(their_values), statistics.mean(their_seconds)
    reached = time_to(level, [fit.curve for fit in ours])
    print(f"  log-likelihood here minus bde's: {difference(our_values, their_values)}")
    ratios = [t / o for t, o in zip(their_seconds, our_seconds, strict=True)]
    print(f"  time of bde over ours, the same schedule to its end: {geometric(ratios)}")
    answer = f"{reached:.1f} s, {budget / reached:.2f} times faster" if reached else "never"
    print(f"  => our mean reaches bde's mean, {level:.3f} at {budget:.1f} s, at: {answer}; wanted no later")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(lambda case: here(int(case)) if sys.argv[1] == "here" else there(int(case), sys.argv[1]))
    else:
        main()
