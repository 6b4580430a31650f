"""The samplers that keep the contract, one row each, and the target on which they do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from samplers import (
    Batch,
    Kernel,
    Sampler,
    Target,
    Tempering,
    adjusted_mclmc,
    barker,
    control_from_start,
    cross_chain_adaptation,
    cyclical,
    dynamic_hmc,
    ghmc,
    hmc,
    ladder_adaptation,
    mala,
    mclmc,
    mclmc_adaptation,
    minibatch,
    nested_sampling,
    nuts,
    optimise,
    pad_batch,
    parallel_tempering,
    rmsprop,
    sghmc,
    sgld,
    sgnht,
    skip_exploration,
    tempered_smc,
    window_adaptation,
)

# Fields of Info that a kernel without a Metropolis step leaves NaN.
NO_METROPOLIS = frozenset({"acceptance_rate", "energy", "energy_error", "kinetic_temperature"})


def halve_step_size(tuning: Any) -> Any:
    return tuning._replace(step_size=tuning.step_size / 2)


def halve_temperature(tuning: Any) -> Any:
    return tuning._replace(tempering=tuning.tempering._replace(temperature=tuning.tempering.temperature / 2))


@dataclasses.dataclass(frozen=True)
class Row:
    """A sampler and what it promises.

    Attributes:
        make: (target, step size, tempering) -> kernel, or sampler of all chains.
        is_exact: Its stationary law is the target, whatever the step size.
        step_size: At which it moves well on the contract's target.
        step_size_at: The same on a target whose smallest scale is given.
        num_gradients: Cost of a step in full-data gradients; None where it varies.
        nan: Fields of Info that are always NaN.
        num_hidden: Hidden units of the network that it samples in the contract.
        num_particles: Of each chain, where a chain is a system of particles.
        learns_together: It is a sampler of all chains, which learn from each other.
        has_whole_data: It sees all data at every step, and so can share them between devices.
        thin: Steps for a draw in tests of its stationary law: one for trajectories, more for random walks.
        is_random: Its draws depend on the key.
        change: A change of the tuning that changes the draws.
    """

    make: Callable[[Target, float, Tempering], Kernel | Sampler]
    is_exact: bool = False
    step_size: float = 1e-2
    step_size_at: Callable[[float], float] = lambda scale: scale
    num_gradients: float | None = 1.0
    nan: frozenset[str] = NO_METROPOLIS
    num_hidden: int = 64
    num_particles: int | None = None
    learns_together: bool = False
    has_whole_data: bool = True
    thin: int = 1
    is_random: bool = True
    change: Callable[[Any], Any] = halve_step_size

    def kernel(self, target: Target, step_size: float | None = None, tempering: Tempering | None = None) -> Any:
        return self.make(target, step_size or self.step_size, tempering or Tempering.at())

    def positions(self, num_chains: int, dtype: Any = jnp.float32) -> Any:
        """Starts of the contract's network."""
        if self.num_particles is None:
            return network_positions(num_chains, dtype, self.num_hidden)
        together = network_positions(num_chains * self.num_particles, dtype, self.num_hidden)
        return jax.tree.map(lambda x: x.reshape(num_chains, self.num_particles, *x.shape[1:]), together)


def make_hmc(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return hmc(target, step_size=step_size, trajectory_length=4 * step_size, tempering=tempering)


def make_delayed_rejection(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    """Steps so long that trajectories fail, on the contract's network about half of them, and are tried again."""
    return hmc(target, step_size=3 * step_size, trajectory_length=24 * step_size, tempering=tempering, delayed_rejection=True)


def make_nuts(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return nuts(target, step_size=step_size, max_num_doublings=4, tempering=tempering)


def make_mala(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return mala(target, step_size=step_size, tempering=tempering)


def make_barker(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return barker(target, step_size=step_size, tempering=tempering)


def make_ghmc(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return ghmc(target, step_size=step_size, tempering=tempering)


def make_dynamic_hmc(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return dynamic_hmc(target, step_size=step_size, trajectory_length=4 * step_size, tempering=tempering)


def make_adjusted_mclmc(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return adjusted_mclmc(target, step_size=step_size, trajectory_length=4 * step_size, tempering=tempering)


def make_ladder(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return parallel_tempering(make_hmc(target, step_size, tempering), target, [0.0, 0.3, 1.0])


def make_mclmc(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return mclmc(target, step_size=step_size, decoherence_length=10 * step_size, tempering=tempering)


def make_sghmc(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return sghmc(target, step_size=step_size, friction=1.0, tempering=tempering)


def make_sgnht(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return sgnht(target, step_size=step_size, friction=1.0, tempering=tempering)


def make_sgld(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return sgld(target, step_size=step_size, tempering=tempering)


def make_cyclical_sgld(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return skip_exploration(sgld(target, step_size=step_size, schedule=cyclical(4), tempering=tempering), 4)


def make_controlled_sgld(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return control_from_start(lambda t: sgld(t, step_size=step_size, batch_size=8, tempering=tempering), target)


def make_particles(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    # A share near 1, so that the last stage is none of the contract's; resampled at every stage.
    moves = make_mala(target, step_size, tempering)
    return tempered_smc(moves, target, num_moves=2, conditional_ess=0.99, resample_below=1.0)


def make_nested(target: Target, step_size: float, tempering: Tempering) -> Kernel:
    return nested_sampling(target, num_moves=2, num_deaths=2, tempering=tempering)


def make_cross_chain(make: Any, metric: Any) -> Callable[[Target, float, Tempering], Kernel | Sampler]:
    return lambda *args: cross_chain_adaptation(make(*args), num_steps=WARM_UP, metric=metric).kernel


WARM_UP = 24  # steps: enough for a window of the metric
# Made once: a new optax transformation is a new program.
ADAM, SGD = optax.adam(1e-2), optax.sgd(1e-2)

ROWS = {
    "hmc": Row(make_hmc, is_exact=True, step_size=0.1, num_gradients=None, nan=frozenset()),
    "hmc, delayed rejection": Row(
        make_delayed_rejection, is_exact=True, step_size=0.025, num_gradients=None, nan=frozenset(), thin=4
    ),
    "nuts": Row(
        make_nuts,
        is_exact=True,
        step_size=0.1,
        num_gradients=None,
        nan=frozenset({"energy_error", "kinetic_temperature"}),
    ),
    "hmc warm-up": Row(
        lambda *args: window_adaptation(make_hmc(*args), num_steps=WARM_UP).kernel,
        step_size=0.1,
        num_gradients=None,
        nan=frozenset(),
    ),
    "nuts warm-up": Row(
        lambda *args: window_adaptation(make_nuts(*args), num_steps=WARM_UP).kernel,
        step_size=0.1,
        num_gradients=None,
        nan=frozenset({"energy_error", "kinetic_temperature"}),
    ),
    "mala": Row(make_mala, is_exact=True, step_size=0.1, nan=frozenset(), thin=10),
    "barker": Row(
        make_barker,
        is_exact=True,
        step_size=0.1,
        nan=frozenset({"energy", "energy_error", "kinetic_temperature"}),
        thin=10,
    ),
    "ghmc": Row(make_ghmc, is_exact=True, step_size=0.1, nan=frozenset(), thin=10),
    "dynamic hmc": Row(make_dynamic_hmc, is_exact=True, step_size=0.1, num_gradients=None, nan=frozenset()),
    "adjusted mclmc": Row(
        make_adjusted_mclmc,
        is_exact=True,
        step_size=0.5,
        num_gradients=None,
        nan=frozenset({"energy", "kinetic_temperature"}),
        thin=4,
    ),
    "parallel tempering": Row(make_ladder, is_exact=True, step_size=0.1, num_gradients=None, nan=frozenset()),
    "parallel tempering warm-up": Row(
        lambda target, *args: ladder_adaptation(make_ladder(target, *args), target, num_steps=WARM_UP).kernel,
        step_size=0.1,
        num_gradients=None,
        nan=frozenset(),
    ),
    "hmc, cross-chain warm-up": Row(
        make_cross_chain(make_hmc, "diagonal"), step_size=0.1, num_gradients=None, nan=frozenset(), learns_together=True
    ),
    "dynamic hmc, cross-chain warm-up": Row(
        make_cross_chain(make_dynamic_hmc, "identity"), step_size=0.1, num_gradients=None, nan=frozenset(), learns_together=True
    ),
    "tempered smc": Row(
        make_particles,
        num_gradients=16 * (2 + 1),  # of every particle a gradient a move, and one to start
        nan=NO_METROPOLIS - {"acceptance_rate"},
        num_particles=16,
    ),
    "nested sampling": Row(
        make_nested,
        num_gradients=None,
        nan=NO_METROPOLIS - {"acceptance_rate"},
        num_hidden=52,
        num_particles=400,  # well above 260 scalars and 2 deaths, for a covariance that is far from singular
        change=halve_temperature,
    ),
    "mclmc": Row(
        make_mclmc,
        step_size=0.5,
        num_gradients=2.0,
        nan=frozenset({"acceptance_rate", "energy", "kinetic_temperature"}),
    ),
    "mclmc warm-up": Row(
        lambda *args: mclmc_adaptation(make_mclmc(*args), num_steps=WARM_UP).kernel,
        step_size=0.5,
        num_gradients=2.0,
        nan=frozenset({"acceptance_rate", "energy", "kinetic_temperature"}),
    ),
    "sghmc": Row(make_sghmc, step_size=0.1, nan=NO_METROPOLIS - {"kinetic_temperature"}),
    "sgnht": Row(make_sgnht, step_size=0.1, nan=NO_METROPOLIS - {"kinetic_temperature"}),
    "sgld": Row(make_sgld),
    "sgld, minibatch": Row(
        lambda target, step_size, tempering: sgld(target, step_size=step_size, batch_size=8, tempering=tempering),
        num_gradients=8 / 21,
        has_whole_data=False,
    ),
    "sgld, cyclical": Row(make_cyclical_sgld, num_gradients=None),
    "sgld, control variates": Row(make_controlled_sgld, num_gradients=2 * 8 / 21, has_whole_data=False),
    "sgld, rmsprop": Row(
        lambda target, step_size, tempering: sgld(
            target, step_size=step_size, preconditioner=rmsprop(num_data=21), tempering=tempering
        ),
        num_gradients=3.0,
    ),
    "sgld, rmsprop without divergence": Row(
        lambda target, step_size, tempering: sgld(
            target, step_size=step_size, preconditioner=rmsprop(num_data=21, without_divergence=True), tempering=tempering
        ),
    ),
    "sghmc, minibatch": Row(
        lambda target, step_size, tempering: sghmc(target, step_size=step_size, friction=1.0, batch_size=8, tempering=tempering),
        step_size=0.1,
        num_gradients=8 / 21,
        nan=NO_METROPOLIS - {"kinetic_temperature"},
        has_whole_data=False,
    ),
    "sgnht, minibatch": Row(
        lambda target, step_size, tempering: sgnht(target, step_size=step_size, friction=1.0, batch_size=8, tempering=tempering),
        step_size=0.1,
        num_gradients=8 / 21,
        nan=NO_METROPOLIS - {"kinetic_temperature"},
        has_whole_data=False,
    ),
    "optimise": Row(lambda target, step_size, tempering: optimise(target, ADAM, tempering=tempering), is_random=False),
    "optimise, minibatch": Row(
        lambda target, step_size, tempering: minibatch(optimise(target, SGD, tempering=tempering), 21, 8),
        num_gradients=8 / 21,
        has_whole_data=False,
    ),
}


# Of each kind one, which the quick suite runs; the slow suite runs all.
QUICK = {"hmc", "nuts warm-up", "sgld, minibatch", "sgld, rmsprop"}

# One entry for each time that JAX traces the network's prior.
TRACES: list[None] = []


def _log_prior(position: Any, constants: Any) -> Any:
    TRACES.append(None)
    return -0.5 * sum(jnp.sum((x / constants) ** 2) for x in jax.tree.leaves(position))


def _log_likelihood(position: Any, data: Any, constants: Any) -> Any:
    hidden = jnp.tanh(data["x"] @ position["hidden"]["kernel"] + position["hidden"]["bias"])
    return -0.5 * (data["y"] - hidden @ position["out"][0]) ** 2


# 21 examples and 3 of padding; 8 blocks, so that 1, 2, 4 or 8 devices can share them.
NETWORK = Target(_log_prior, _log_likelihood, num_data=21, data_blocks=8)


def network_batch(dtype: Any = jnp.float32) -> Batch:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(21, 3))
    y = np.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + 0.3 * rng.normal(size=21)
    batch = Batch({"x": jnp.asarray(x, dtype), "y": jnp.asarray(y, dtype)}, jnp.ones(21, dtype), jnp.asarray(1.5, dtype))
    return pad_batch(batch, 24)


def network_positions(num_chains: int, dtype: Any = jnp.float32, num_hidden: int = 64) -> Any:
    """Starts of a network of 3 inputs, a nested pytree of 5 numbers for each hidden unit.

    The 1280 bytes of 64 units matter: XLA compiles loops over less than a kilobyte into one function if nothing in them waits for
    other devices, and then rounds otherwise than where devices share the data.
    """
    rng = np.random.default_rng(2)
    shapes = {"hidden": {"kernel": (3, num_hidden), "bias": (num_hidden,)}, "out": [(num_hidden,)]}
    return jax.tree.map(
        lambda shape: jnp.asarray(0.3 * rng.normal(size=(num_chains, *shape)), dtype),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
