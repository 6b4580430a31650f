"""Experiments of a user's own, small enough for a second, and the parts that some of them are made of."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from bayesnn import data, likelihoods, priors
from bayesnn.config import HMC, MLP, SGLD, Data, GaussianNoise, Imported, RunConfig, WarmUp

SHORT = RunConfig(
    data=Data(name="wine"),
    model=MLP(widths=(4,)),
    sampler=HMC(step_size=0.05),
    warmup=WarmUp(steps=10),
    chains=2,
    draws=40,
)


def wine() -> RunConfig:
    """Classes, full-batch HMC."""
    return SHORT


def gaussian() -> RunConfig:
    """A density, by HMC."""
    hmc = HMC(step_size=0.3, trajectory_length=1.5)
    return RunConfig(density=Imported.of(standard_normal), sampler=hmc, warmup=WarmUp(steps=10), chains=2, draws=40)


def school() -> RunConfig:
    """A NumPyro model."""
    # A quarter period of a posterior whose standard deviation is 0.56.
    return gaussian().model_copy(update={"density": Imported.of(location), "sampler": HMC(step_size=0.1, trajectory_length=0.9)})


def regression() -> RunConfig:
    """Real targets of the user's own, SGLD on minibatches, in units far from standardised."""
    update = {
        "data": Data(name=f"{Path(__file__)}:line"),
        "likelihood": GaussianNoise(),
        "sampler": SGLD(step_size=1e-3, batch_size=16),
    }
    return SHORT.model_copy(update=update)


def own_parts() -> RunConfig:
    """Everything of the user's own."""
    update = {
        "data": Data(name=f"{Path(__file__)}:line"),
        "model": Imported.of(nnx_network, width=3),
        "prior": Imported.of(narrow_prior, scale=0.5),
        "likelihood": Imported.of(known_noise),
    }
    return SHORT.model_copy(update=update)


def standard_normal():
    return lambda position: -0.5 * jnp.sum(position["x"] ** 2), {"x": jnp.zeros(3)}


def unsummed():
    return lambda position: -0.5 * position["x"] ** 2, {"x": jnp.zeros(3)}


def nowhere_finite():
    return lambda position: jnp.sum(jnp.log(-(position["x"] ** 2))), {"x": jnp.zeros(3)}


def location():
    import numpyro
    from numpyro.distributions import Normal

    def model(y):
        mu = numpyro.sample("mu", Normal(0, 2))
        numpyro.sample("y", Normal(mu, 1), obs=y)

    return model, (np.array([1.0, 2.0, 3.0]),)


def line() -> data.Dataset:
    x = np.random.default_rng(0).normal(5.0, 2.0, (48, 1))
    y = 100 + 30 * x[:, 0]
    return data.from_arrays(x[:40], y[:40], x[40:], y[40:], name="line")


class NNXNetwork(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(1, width, rngs=rngs)
        self.out = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x)))


class LinenNetwork(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3)(jnp.tanh(linen.Dense(4)(x)))


class NNXWithBatchNorm(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(13, rngs=rngs)
        self.out = nnx.Linear(13, 3, rngs=rngs)

    def __call__(self, x):
        return self.out(self.norm(x))


class LinenWithDropout(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3)(linen.Dropout(0.5, deterministic=False)(x))


def nnx_network(width: int):
    return lambda rngs: NNXNetwork(width, rngs)


def linen_network():
    return LinenNetwork()


def functions():
    def init(key, inputs):
        return {"matrix": jax.random.normal(key, (inputs.shape[1], 3))}

    return init, lambda params, inputs: inputs @ params["matrix"]


def batch_norm():
    return lambda rngs: NNXWithBatchNorm(rngs)


def dropout():
    return LinenWithDropout()


def too_few_inputs():
    return lambda rngs: nnx.Linear(12, 3, rngs=rngs)


def too_narrow():
    return lambda key, inputs: {"w": jnp.zeros((13, 2))}, lambda params, inputs: inputs @ params["w"]


def narrow_prior(scale: float):
    return priors.gaussian(scale)


def known_noise():
    return likelihoods.gaussian(0.1)


def wrong_type():
    return {"data": "wine"}


def raising():
    raise RuntimeError("no luck today")


def refusing():
    raise ValueError("no, thanks")


def copied_feature() -> RunConfig:
    """A regression in which two features are one: their weights' difference is left to the prior."""
    update = {
        "data": Data(name=f"{Path(__file__)}:copied"),
        "likelihood": GaussianNoise(noise=0.5),
        "sampler": HMC(step_size=0.05),
        "warmup": WarmUp(steps=200),
        "chains": 4,
        "draws": 400,
    }
    return SHORT.model_copy(update=update)


def copied() -> data.Dataset:
    x = np.random.default_rng(0).normal(size=(48, 3))
    x[:, 2] = x[:, 1]
    y = x[:, 0] + np.tanh(x[:, 1])
    return data.from_arrays(x[:40], y[:40], x[40:], y[40:], name="copied")


def resonant() -> RunConfig:
    """A Gaussian with directions of which half a period, and a whole one, is the length of the trajectories."""
    hmc = HMC(step_size=0.02, trajectory_length=np.pi / 2, max_num_steps=100)
    return RunConfig(density=Imported.of(oscillators), sampler=hmc, warmup=WarmUp(steps=0), chains=4, draws=40)


def oscillators():
    scales = jnp.repeat(jnp.array([0.125, 0.25, 0.5, 0.7, 1.0]), 8)
    return lambda position: -0.5 * jnp.sum((position["x"] / scales) ** 2), {"x": jnp.zeros(40)}
