"""Step sizes that change over a run of a stochastic-gradient sampler."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from samplers.arguments import require_positive


def _always(step: Int[Array, ""]) -> Bool[Array, ""]:
    return jnp.ones_like(step, bool)


class Schedule(NamedTuple):
    """How the step size changes, and when noise is injected; `Schedule(f)` takes an optax schedule f of initial value 1.

    Attributes:
        multiplier: step -> factor of the step size.
        is_sampling: step -> whether the step injects noise. Draws of steps without it are not draws of the target: drop them,
            with `schedule.is_sampling(numpy.arange(first, last))` as the mask.
    """

    multiplier: Callable[[Int[Array, ""]], Float[Array, ""]]
    is_sampling: Callable[[Int[Array, ""]], Bool[Array, ""]] = _always


def constant() -> Schedule:
    """Keep the step size."""
    return Schedule(*_constant())


def polynomial(offset: float, power: float = 0.55) -> Schedule:
    r"""Let the step size decay as :math:`(1 + t / b)^{-\gamma}`.

    With a power in (1/2, 1] the bias of SGLD vanishes as t grows, if draws are weighted by their step sizes; 1/3 minimises the
    mean squared error of plain averages after a given number of steps.

    Args:
        offset: b, steps after which the decay sets in, > 0.
        power: gamma, > 0.

    Raises:
        ValueError: An argument that is not positive.

    References:
        Welling & Teh 2011; Teh, Thiery & Vollmer 2016, arXiv 1409.0578 (the power 1/3, section 5).
    """
    require_positive(offset=offset, power=power)
    return Schedule(_polynomial(offset, power))


def cyclical(cycle_length: int, exploration: float = 0.5) -> Schedule:
    r"""Let the step size fall from 1 to 0 by a cosine, again and again: each cycle explores first, then samples.

    .. math:: \tfrac{1}{2} \left(\cos \frac{\pi\, (t \bmod c)}{c} + 1\right)

    Args:
        cycle_length: c, steps of a cycle, > 0.
        exploration: Share of each cycle, from its start, without noise; draws of it do not count.

    Raises:
        ValueError: A length that is not positive, a share outside [0, 1), or one that leaves no step to sample.

    References:
        Zhang et al. 2020, arXiv 1902.03932, eq. 1 and algorithm 1.
    """
    require_positive(cycle_length=cycle_length)
    if not 0 <= exploration < 1:
        raise ValueError(f"exploration must be in [0, 1), got {exploration}: the rest of a cycle samples")
    return Schedule(*_cyclical(cycle_length, num_exploring(cycle_length, exploration)))


def num_exploring(cycle_length: int, exploration: float) -> int:
    """Return how many steps of a cycle, from its start, explore.

    Raises:
        ValueError: All of them.
    """
    number = math.ceil(round(exploration * cycle_length, 9))  # in floating point 0.55 * 100 is a little more than 55
    if not 0 <= number < cycle_length:
        raise ValueError(f"no step of a cycle samples: got cycle_length={cycle_length} and exploration={exploration}")
    return number


@functools.lru_cache(maxsize=64)  # the same functions for the same arguments, so that nothing recompiles
def _constant() -> tuple[Callable[..., Array], Callable[..., Array]]:
    return lambda step: jnp.ones_like(step, jnp.float32), _always


@functools.lru_cache(maxsize=64)
def _polynomial(offset: float, power: float) -> Callable[..., Array]:
    return lambda step: (1 + step / offset) ** -power


@functools.lru_cache(maxsize=64)
def _cyclical(cycle_length: int, exploring: int) -> tuple[Callable[..., Array], Callable[..., Array]]:
    def multiplier(step: Int[Array, ""]) -> Float[Array, ""]:
        return 0.5 * (jnp.cos(jnp.pi * (step % cycle_length) / cycle_length) + 1)

    def is_sampling(step: Int[Array, ""]) -> Bool[Array, ""]:
        return (step % cycle_length) >= exploring

    return multiplier, is_sampling
