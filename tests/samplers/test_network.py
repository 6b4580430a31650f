"""A small network's predictions by HMC and NUTS against NumPyro's NUTS, which shares no code with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from arviz_stats.base import array_stats

from samplers import Batch, Save, Target, finish, hmc, make_mesh, nuts, sample, window_adaptation

NUM_HIDDEN, NUM_DATA, NUM_TEST, NOISE = 4, 40, 15, 0.3
NUM_CHAINS, NUM_WARMUP, NUM_DRAWS = 4, 1000, 4000


def network(position, x):
    hidden = jnp.tanh(x[:, None] * position["kernel"] + position["bias"])
    return hidden @ position["out"]


def log_prior(position, constants):
    return -0.5 * sum(jnp.sum(x**2) for x in jax.tree.leaves(position))


def log_likelihood(position, data, constants):
    x, y = data
    return -0.5 * ((y - network(position, x)) / NOISE) ** 2


def data():
    rng = np.random.default_rng(4)
    x = rng.uniform(-2, 2, NUM_DATA)
    y = np.sin(1.5 * x) + NOISE * rng.normal(size=NUM_DATA)
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)


INPUTS = jnp.linspace(-3, 3, NUM_TEST)  # beyond the data, where the posterior is wide


def numpyro_model(x, y):
    def weights(name):
        return numpyro.sample(name, dist.Normal(0.0, 1.0).expand([NUM_HIDDEN]).to_event(1))

    position = {name: weights(name) for name in ("kernel", "bias", "out")}
    numpyro.sample("y", dist.Normal(network(position, x), NOISE), obs=y)


@pytest.fixture(scope="module")
def reference():
    """Predictions [chain, draw, input] of NumPyro."""
    sampler = numpyro.infer.NUTS(numpyro_model)
    mcmc = numpyro.infer.MCMC(
        sampler,
        num_warmup=NUM_WARMUP,
        num_samples=NUM_DRAWS,
        num_chains=NUM_CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(1), *data())
    return np.asarray(jax.vmap(jax.vmap(network, (0, None)), (0, None))(mcmc.get_samples(group_by_chain=True), INPUTS))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda target: hmc(target, step_size=0.1, trajectory_length=np.pi / 2),
        lambda target: nuts(target, step_size=0.1),
    ],
    ids=["hmc", "nuts"],
)
def test_predictions_agree_with_numpyro(make, reference):
    kernel = make(Target(log_prior, log_likelihood, NUM_DATA))
    batch, mesh = Batch(data(), jnp.ones(NUM_DATA)), make_mesh(NUM_CHAINS, devices=jax.devices()[:2])
    keys = dict(zip(("kernel", "bias", "out"), jax.random.split(jax.random.key(2), 3), strict=True))
    positions = {name: jax.random.normal(key, (NUM_CHAINS, NUM_HIDDEN)) for name, key in keys.items()}
    warmup = window_adaptation(kernel, num_steps=NUM_WARMUP)
    warm = sample(jax.random.key(3), warmup.kernel, positions, batch, num_steps=NUM_WARMUP, mesh=mesh, save=None)
    outputs = Save(lambda state, inputs: network(state.position, inputs), INPUTS)
    predictions = sample(
        jax.random.key(3), kernel, positions, batch, num_steps=NUM_DRAWS, run=finish(warmup, warm.run), mesh=mesh, save=outputs
    ).draws
    for statistic in (lambda f: f, lambda f: (f - reference.mean(axis=(0, 1))) ** 2):
        ours, theirs = (statistic(np.asarray(f, np.float64)) for f in (predictions, reference))
        errors = [array_stats.mcse(f, chain_axis=0, draw_axis=1) for f in (ours, theirs)]
        spread = theirs.std(axis=(0, 1))
        # Small enough to tell: a twentieth of the posterior's own spread.
        assert max(np.max(error / spread) for error in errors) < 1 / 20
        deviation = (ours.mean(axis=(0, 1)) - theirs.mean(axis=(0, 1))) / np.hypot(*errors)
        assert np.abs(deviation).max() < 5, np.round(deviation, 1)
