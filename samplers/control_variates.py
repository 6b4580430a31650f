"""Control variates: minibatch gradients whose noise vanishes at a reference position."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from samplers.targets import log_density
from samplers.types import Batch, Info, Kernel, Position, State, Target, Tempering, Tuning


class Reference(NamedTuple):
    """What the corrected likelihood needs to know of the reference position.

    Attributes:
        constants: Of the original likelihood.
        position: The reference.
        mean_gradient: Of one example's log likelihood there, averaged over all data.
    """

    constants: PyTree
    position: Position
    mean_gradient: Position


class ControlledState(NamedTuple):
    """State of a kernel whose minibatch gradients are quiet near where its chain began.

    Attributes:
        inner: State of the kernel.
        beginning: Where the chain began, the reference.
        mean_gradient: Of one example's log likelihood there, averaged over all data.
    """

    inner: State
    beginning: Position
    mean_gradient: Position

    @property
    def position(self) -> Position:
        """Position of the kernel."""
        return self.inner.position


def control_variates(target: Target, batch: Batch, position: Position) -> tuple[Target, Batch]:
    r"""Return the same target, with a likelihood whose minibatch gradients are quiet near a reference position.

    Every example's log likelihood loses its linearisation at the reference and gains the average one:

    .. math:: \ell_i(\theta) - \nabla \ell_i(\theta^*)^\top (\theta - \theta^*)
        + \tfrac{1}{n} \textstyle\sum_j \nabla \ell_j(\theta^*)^\top (\theta - \theta^*)

    The sum over all data is what it was, so any sampler may have the result; the noise of a minibatch gradient now grows with the
    distance from the reference, instead of being what it is everywhere. It pays where a chain stays near one mode (large data, a
    sharp posterior), at about twice the cost of a minibatch gradient; far from the reference it makes noise worse. Take a MAP
    estimate, and a new reference now and then (SVRG) between calls of `sample`.

    Args:
        target: The target.
        batch: All its data.
        position: The reference, of one chain.

    Returns:
        The corrected target and its batch.

    Raises:
        ValueError: A target without data.

    References:
        Baker et al. 2019, arXiv 1706.05439 (SGLD-CV); Dubey et al. 2016 (SVRG Langevin dynamics).
    """
    corrected = _corrected_target(target)
    mean_gradient = jax.jit(functools.partial(_mean_gradient, target))(position, batch)
    return corrected, batch._replace(constants=Reference(batch.constants, position, mean_gradient))


def control_from_start(make: Callable[[Target], Kernel], target: Target) -> Kernel:
    """Return a stochastic-gradient kernel with `control_variates`, the reference of each chain being where it begins.

    Begin at MAP estimates. References are part of the state: chains have their own, and a run that is continued keeps them.

    Args:
        make: From a target to the kernel, such as ``lambda target: sgld(target, step_size=1e-5, batch_size=100)``.
        target: The target.

    Returns:
        A kernel whose state is `ControlledState` and whose tuning is that of the kernel. `num_gradients` counts the gradients at
        the reference, too.

    Raises:
        ValueError: A target without data.
    """
    kernel = make(_corrected_target(target))
    return Kernel(*_functions(kernel.init, kernel.step, target), kernel.initial_tuning)


@functools.lru_cache(maxsize=64)  # the same functions for the same kernel, so that nothing recompiles
def _functions(kernel_init: Any, kernel_step: Any, target: Target) -> tuple[Any, Any]:
    def corrected(batch: Batch, position: Position, mean_gradient: Position) -> Batch:
        return batch._replace(constants=Reference(batch.constants, position, mean_gradient))

    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: Tuning) -> ControlledState:
        mean_gradient = _mean_gradient(target, position, batch)
        inner = kernel_init(key, position, corrected(batch, position, mean_gradient), tuning)
        return ControlledState(inner, position, mean_gradient)

    def step(
        key: Key[Array, ""], state: ControlledState, batch: Batch, tuning: Tuning, step: Int[Array, ""]
    ) -> tuple[ControlledState, Info]:
        batch = corrected(batch, state.beginning, state.mean_gradient)
        inner, info = kernel_step(key, state.inner, batch, tuning, step)
        return state._replace(inner=inner), info._replace(num_gradients=2 * info.num_gradients)

    return init, step


def _corrected_target(target: Target) -> Target:
    if target.num_data == 0:
        raise ValueError("control variates correct the gradients of examples, and a density has none")
    return target._replace(log_prior=_original_prior(target.log_prior), log_likelihood=_corrected(target.log_likelihood))


def _mean_gradient(target: Target, position: Position, batch: Batch) -> Position:
    whole = jax.grad(log_density(target, batch, Tempering.at()))(position)
    prior = jax.grad(target.log_prior)(position, batch.constants)
    return jax.tree.map(lambda w, p: (w - p) / target.num_data, whole, prior)


@functools.lru_cache(maxsize=64)  # the same function for the same prior, so that nothing recompiles
def _original_prior(log_prior: Callable[..., Array]) -> Callable[..., Array]:
    return lambda position, reference: log_prior(position, reference.constants)


@functools.lru_cache(maxsize=64)
def _corrected(log_likelihood: Callable[..., Array]) -> Callable[..., Array]:
    def corrected(position: Position, data: PyTree, reference: Reference) -> Float[Array, " n"]:
        def examples(at: Position) -> Float[Array, " n"]:
            return log_likelihood(at, data, reference.constants)

        away = jax.tree.map(jnp.subtract, position, reference.position)
        own: Any = jax.jvp(examples, (reference.position,), (away,))[1]
        average = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (reference.mean_gradient, away)), strict=True))
        return examples(position) - own + average

    return corrected
