"""What is sampled, in the one form that runs and notebooks need: a network's posterior, any log density, or a NumPyro model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import samplers
from bayesnn.models import layer_sizes, named
from bayesnn.posteriors import Posterior
from bayesnn.weights import load_positions
from diagnostics.units import to_json
from samplers import Batch, Save, Target, Tempering

# Of the climb from the prior to a MAP start: full-batch Adam at the learning rate that the Optimise settings begin with.
MAP_STEPS, MAP_LEARNING_RATE = 1000, 1e-2


class Starts(Protocol):
    """Gives the positions from which chains start, each decided by its chain's index in the run."""

    def __call__(self, key: Any, num_chains: int, start: str, first_chain: int = 0) -> Any:
        """Return positions of so many chains, of which the first has this index."""
        ...


@dataclass(frozen=True)
class Problem:
    """What is sampled.

    Attributes:
        target: The distribution.
        batch: Its data.
        tempering: Its temperatures.
        init: Where chains start.
        like: Shapes and types of the position of one chain.
        save: What is kept of a draw: {"posterior": ..., "functions": ..., statistics ...}.
        description: Attributes of the run's tree, plain data.
        layers: Number of scalars of each layer, in the order of the virials.
        y_test: [point] test targets that belong to the functions, original units; None without functions.
        posterior: The network's posterior; None for a density without one.
    """

    target: Target
    batch: Batch
    tempering: Tempering
    init: Starts
    like: Any
    save: Save
    description: dict[str, Any]
    layers: dict[str, int]
    y_test: np.ndarray | None
    posterior: Posterior | None


def network_problem(posterior: Posterior, test_points: int | None = None) -> Problem:
    """Return a network's posterior as a problem.

    Args:
        posterior: The posterior.
        test_points: Keep the predictions of this many test points with each draw; all by default.
    """

    def init(key: Any, num_chains: int, start: str, first_chain: int = 0) -> Any:
        if start == "prior" or start == "model":
            return posterior.init(key, num_chains, start, first_chain)  # type: ignore[arg-type]  # not narrowed to literals
        if start == "map" or start == "pathfinder":
            begun = posterior.init(key, num_chains, "prior", first_chain)
            return (_climbed if start == "map" else _found)(key, posterior, begun, first_chain)
        return load_positions(Path(start), posterior.like, num_chains, first_chain)

    dataset = posterior.dataset
    described = _description(dataset.task, posterior.tempering, posterior.target.num_data, posterior.layers)
    return Problem(
        target=posterior.target,
        batch=posterior.batch,
        tempering=posterior.tempering,
        init=init,
        like=posterior.like,
        save=posterior.save(test_points),
        description=described | {"data": dataset.name, "data_sha256": dataset.hash} | _symmetries(posterior),
        layers=posterior.layers,
        y_test=posterior.observed(test_points),
        posterior=posterior,
    )


def _symmetries(posterior: Posterior) -> dict[str, str]:
    """Return what the network declares, for audits, which see no network."""
    architecture = posterior.model.symmetries(posterior.form.split(posterior.like)[0])
    return {"architecture": to_json(architecture)} if architecture else {}


def _climbed(key: Any, posterior: Posterior, positions: Any, first_chain: int) -> Any:
    """Return the ends of Adam's ways up the posterior density from these positions."""
    adam = optax.adam(optax.cosine_decay_schedule(MAP_LEARNING_RATE, MAP_STEPS))
    kernel = samplers.optimise(posterior.target, adam, tempering=posterior.tempering)
    climbed = samplers.sample(
        key, kernel, positions, posterior.whole_batch, num_steps=MAP_STEPS, save=None, first_chain=first_chain, throw=False
    )
    return jax.tree.map(np.asarray, climbed.run.state.position)


def _found(key: Any, posterior: Posterior, positions: Any, first_chain: int) -> Any:
    chains = first_chain + jnp.arange(jax.tree.leaves(positions)[0].shape[0])
    # No chain has the key 2^32 - 1, from which nothing else is drawn.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, 2**32 - 1), chains)
    return samplers.pathfinder_starts(keys, posterior.target, positions, posterior.whole_batch, tempering=posterior.tempering)


def density_problem(logdensity: Callable[[Any], Any], position: Any, *, temperature: float = 1.0) -> Problem:
    """Return any log density on a pytree as a problem.

    Args:
        logdensity: position -> log density, nats.
        position: A pytree of arrays; chains start a standard normal away from it, so that R-hat can see where they come from.
        temperature: Of the density.

    Raises:
        ValueError: Log densities that are no scalars.
    """
    target, batch = samplers.from_logdensity(logdensity)
    like = jax.tree.map(lambda x: jnp.asarray(x, float), position)
    value = jax.eval_shape(logdensity, like)
    if getattr(value, "shape", None) != ():
        shape = getattr(value, "shape", type(value).__name__)
        raise ValueError(f"the log density gives {shape} at the start, expected a scalar: sum over all terms")

    def init(key: Any, num_chains: int, start: str, first_chain: int = 0) -> Any:
        flat, unravel = ravel_pytree(like)
        away = jax.random.normal(key, (first_chain + num_chains, flat.size), flat.dtype)[first_chain:]
        return jax.vmap(unravel)(flat + away)

    return _without_network(target, batch, init, like, temperature)


def numpyro_problem(model: Callable[..., Any], *args: Any, **kwargs: Any) -> Problem:
    """Return the posterior of a NumPyro model, on the unconstrained coordinates that NumPyro itself samples, as a problem."""
    from bayesnn.models import from_numpyro

    target, batch, starts, _ = from_numpyro(model, *args, **kwargs)

    def init(key: Any, num_chains: int, start: str, first_chain: int = 0) -> Any:
        return starts(key, num_chains, first_chain)

    like = jax.tree.map(lambda x: x[0], starts(jax.random.key(0), 1))
    return _without_network(target, batch, init, like, 1.0)


def _without_network(target: Target, batch: Batch, init: Any, like: Any, temperature: float) -> Problem:
    tempering = Tempering.at(temperature)
    layers = layer_sizes(like) if isinstance(like, dict) else {"x": samplers.num_params(like)}
    return Problem(
        target=target,
        batch=batch,
        tempering=tempering,
        init=init,
        like=like,
        save=Save(_draw_function(target), (batch, tempering)),
        description=_description("density", tempering, 0, layers),
        layers=layers,
        y_test=None,
        posterior=None,
    )


def _draw_function(target: Target) -> Callable[[Any, Any], Any]:
    def draw(state: Any, arrays: Any) -> Any:
        batch, tempering = arrays
        lp, gradient = jax.value_and_grad(samplers.log_density(target, batch, tempering))(state.position)
        position, slopes = _by_name(state.position), _by_name(gradient)
        layers = dict.fromkeys(layer_sizes(position) if isinstance(state.position, dict) else ["x"], jnp.zeros(()))
        for name, value in position.items():
            layers[name.rpartition(".")[0] or name] -= jnp.sum(value * slopes[name])
        return {"posterior": position, "lp": lp, "virial": jnp.stack(list(layers.values()))}

    return draw


def _by_name(position: Any) -> dict[str, Any]:
    """Return a position's leaves by dotted path; those of an unnamed pytree are x.0, x.1 ..."""
    if isinstance(position, dict):
        return named(position)
    leaves = jax.tree.leaves(position)
    return {"x": leaves[0]} if len(leaves) == 1 else {f"x.{i}": leaf for i, leaf in enumerate(leaves)}


def _description(task: str, tempering: Tempering, num_data: int, layers: dict[str, int]) -> dict[str, Any]:
    return {
        "task": task,
        "temperature": float(tempering.temperature),
        "likelihood_temperature": float(tempering.likelihood_temperature),
        "num_data": num_data,
        "num_params": sum(layers.values()),
        "layers": list(layers),
    }
