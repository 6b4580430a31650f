"""Samplers with a bias, on every analytic target: extrapolated to no step size at the stated order, nothing is left of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from arviz_stats.base import array_stats

from samplers import Kernel, Target, Tempering, make_mesh, mclmc, rmsprop, sample, sghmc, sgld, sgnht
from tests.samplers.analytic import ANALYTIC, MAX_STANDARD_ERRORS, MIN_EFFECTIVE_DRAWS, Analytic, flat, isotropic, student

pytestmark = pytest.mark.slow

NUM_CHAINS, NUM_DRAWS, BURN_IN = 16, 6000, 200


@dataclasses.dataclass(frozen=True)
class Biased:
    """A sampler and the order of its bias.

    Attributes:
        make: (target, smallest scale of the target, factor on the step size, tempering) -> kernel.
        order: Of the bias in the step size.
        thin: Steps for a draw at the longer step.
    """

    make: Callable[[Target, float, float, Tempering], Kernel]
    order: int
    thin: int = 2


def make_rmsprop(target: Target, scale: float, factor: float, tempering: Tempering, **options: Any) -> Kernel:
    """Without memory, for with one the bias stays."""
    return sgld(target, step_size=0.8 * scale * factor, preconditioner=rmsprop(0.0, 2 / scale, **options), tempering=tempering)


BIASED = {
    "sgld": Biased(
        lambda target, scale, factor, tempering: sgld(target, step_size=0.4 * scale**2 * factor, tempering=tempering),
        order=1,
        thin=8,
    ),
    "sgld, rmsprop": Biased(make_rmsprop, order=1, thin=8),
    "sghmc": Biased(
        lambda target, scale, factor, tempering: sghmc(
            target, step_size=0.8 * scale * factor, friction=0.5 / scale, tempering=tempering
        ),
        order=2,
    ),
    "sgnht": Biased(
        lambda target, scale, factor, tempering: sgnht(
            target, step_size=0.8 * scale * factor, friction=0.5 / scale, tempering=tempering
        ),
        order=2,
    ),
    "mclmc": Biased(
        lambda target, scale, factor, tempering: mclmc(
            target, step_size=2 * scale * factor, decoherence_length=3 * scale, tempering=tempering
        ),
        order=2,
    ),
}
WITHOUT_DIVERGENCE = Biased(lambda *args: make_rmsprop(*args, without_divergence=True), order=1, thin=8)


def moments(
    biased: Biased, known: Analytic, halvings: int, tempering: Tempering, num_draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of first and second moments, in units of the target's scales, and their standard errors."""
    smallest = float(np.sqrt(np.linalg.eigvalsh(known.covariance)[0]))
    thin = biased.thin * 2**halvings
    result = sample(
        jax.random.key(7 + halvings),  # the same would share noise
        biased.make(known.target, smallest, 0.5**halvings, tempering),
        known.positions(NUM_CHAINS),
        known.batch,
        num_steps=num_draws * thin,
        thin=thin,
        mesh=make_mesh(NUM_CHAINS, devices=jax.devices()[:1]),
    )
    scale = np.sqrt(np.diag(known.covariance))
    x = (flat(result.draws)[:, BURN_IN:] - known.mean) / scale
    products = x[..., :, None] * x[..., None, :] - known.covariance / np.outer(scale, scale)
    values = np.concatenate([x, products.reshape(*x.shape[:2], -1)], axis=-1)
    error = array_stats.mcse(values, chain_axis=0, draw_axis=1)
    assert ((values.std(axis=(0, 1)) / error) ** 2).min() > MIN_EFFECTIVE_DRAWS
    return values.mean(axis=(0, 1)), error


def largest_deviations(
    biased: Biased, known: Analytic, temperature: float = 1.0, num_draws: int = NUM_DRAWS
) -> tuple[float, float]:
    """Standard errors by which moments are off at a step size, and extrapolated from it and its half to none.

    A bias of exactly the stated order drops out of the extrapolation; what is left is about the square of the bias.
    """
    (long, long_error), (short, short_error) = (moments(biased, known, k, Tempering.at(temperature), num_draws) for k in (0, 1))
    ratio = 2**biased.order
    extrapolated = (ratio * short - long) / (ratio - 1)
    error = np.hypot(ratio * short_error, long_error) / (ratio - 1)
    return np.abs(long / long_error).max(), np.abs(extrapolated / error).max()


@pytest.mark.parametrize("make_known", ANALYTIC.values(), ids=ANALYTIC.keys())
@pytest.mark.parametrize("biased", BIASED.values(), ids=BIASED.keys())
def test_bias_is_of_the_stated_order(biased, make_known):
    _, extrapolated = largest_deviations(biased, make_known())
    assert extrapolated < MAX_STANDARD_ERRORS


@pytest.mark.parametrize("name", ["sgld", "sgld, rmsprop", "mclmc"])
def test_another_order_fails(name):
    """Of those whose bias on a Gaussian is large enough; `sghmc` and `sgnht` have none there and little elsewhere."""
    stated = BIASED[name]
    other = dataclasses.replace(stated, order=3 - stated.order)
    at_the_step, extrapolated = largest_deviations(other, isotropic(), num_draws=5 * NUM_DRAWS)
    assert min(at_the_step, extrapolated) > MAX_STANDARD_ERRORS
    _, extrapolated = largest_deviations(stated, isotropic(), num_draws=5 * NUM_DRAWS)
    assert extrapolated < MAX_STANDARD_ERRORS


@pytest.mark.parametrize("biased", BIASED.values(), ids=BIASED.keys())
def test_a_temperature_that_is_not_the_targets_fails(biased):
    _, extrapolated = largest_deviations(biased, isotropic(), temperature=1.3)
    assert extrapolated > MAX_STANDARD_ERRORS


def test_without_its_divergence_the_bias_of_a_preconditioner_stays():
    _, extrapolated = largest_deviations(WITHOUT_DIVERGENCE, student())
    assert extrapolated > MAX_STANDARD_ERRORS
