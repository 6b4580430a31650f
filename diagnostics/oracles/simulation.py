r"""Tests of samplers on data that their own model simulates: nothing need be known but how to draw from the prior and simulate.

Parameters drawn from the prior are, given the data that are then drawn from them, an exact draw of the posterior. Simulation-
based calibration, the teacher start and the joint test each turn that into a test. Weights of networks are not identified: give
these tests quantities that symmetries leave alone, such as predictions, the log likelihood, and norms of layers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.ecdf_utils import compute_ecdf, get_pointwise_confidence_band, simulate_confidence_bands
from jaxtyping import Array, Float, Int, Key, PyTree
from scipy.special import ndtri

from diagnostics.claims import Finding
from diagnostics.convergence import mcse_mean
from diagnostics.oracles.oracle import Draw, Position

type Simulate = Callable[[Key[Array, ""], Position], PyTree]
type Quantities = Mapping[str, Callable[[Position, PyTree], Float[Array, ""]]]

FALSE_ALARM = 0.01  # of a whole test, over all its quantities, which share it equally (Bonferroni)
NUM_BANDS = 2000  # simulations of a band: its level is then known to 0.2 %
SEED = 20211


class Calibration(NamedTuple):
    """Ranks of the parameters that made the data among the draws that a sampler made from the data.

    Attributes:
        ranks: By quantity; from 0 to `num_draws`, uniform for an exact sampler.
        num_draws: Draws of each simulation.
        findings: By quantity; its value is the largest distance between the ranks' distribution function and the uniform one.
    """

    ranks: dict[str, Int[np.ndarray, " simulation"]]
    num_draws: int
    findings: dict[str, Finding]


def simulation_based_calibration(
    key: Key[Array, ""],
    draw_prior: Draw,
    simulate: Simulate,
    sample: Callable[[Key[Array, ""], PyTree], Position],
    quantities: Quantities,
    *,
    num_simulations: int = 200,
) -> Calibration:
    """Test a sampler on many simulated data sets: is the truth ranked uniformly among its draws?

    Detects posteriors that are too narrow, too wide or displaced, averaged over the prior. Blind to a sampler that returns the
    prior, unless a quantity depends on the data, as the log likelihood does.

    Args:
        key: For everything random.
        draw_prior: (key, n) -> n draws, with a leading axis; that of an `Oracle`, say.
        simulate: (key, position) -> data.
        sample: (key, data) -> draws of the posterior, with a leading axis; thinned until they are nearly independent, or ranks
            pile up at both ends.
        quantities: Scalars of (position, data), by name; must trace under `jit`.
        num_simulations: Data sets; 200 notice a standard deviation that is a quarter too small four times in five.

    Returns:
        Ranks, and a verdict on each quantity: its distribution function must stay within a band that holds those of uniform ranks
        at all points at once.

    Raises:
        ValueError: A quantity is not finite.

    References:
        Talts, Betancourt, Simpson, Vehtari & Gelman 2018, arXiv 1804.06788; Säilynoja, Bürkner & Vehtari 2022, arXiv 2103.10522
        (bands); Modrák et al. 2023, arXiv 2211.02383 (quantities that depend on the data).
    """
    key_prior, key = jax.random.split(key)
    truths = draw_prior(key_prior, num_simulations)

    @jax.jit
    def measure(truth: Position, draws: Position, data: PyTree) -> dict[str, Float[Array, " draw"]]:
        positions = jax.tree.map(lambda one, many: jnp.concatenate([one[None], many]), truth, draws)
        return {
            name: jax.vmap(lambda w, quantity=quantity: quantity(w, data))(positions) for name, quantity in quantities.items()
        }

    rng = np.random.default_rng(SEED)
    ranks: dict[str, list[int]] = {name: [] for name in quantities}
    num_draws = 0
    for simulation in range(num_simulations):
        key_data, key_sample = jax.random.split(jax.random.fold_in(key, simulation))
        truth = jax.tree.map(lambda leaf, simulation=simulation: leaf[simulation], truths)
        data = simulate(key_data, truth)
        for name, values in jax.device_get(measure(truth, sample(key_sample, data), data)).items():
            expected, values = values[0], values[1:]
            if not (np.isfinite(expected) and np.isfinite(values).all()):
                raise ValueError(f"{name} is not finite in simulation {simulation}; take a quantity that is defined everywhere")
            num_draws = len(values)
            ties = int((values == expected).sum())
            ranks[name].append(int((values < expected).sum()) + int(rng.integers(ties + 1)))
    arrays = {name: np.array(values) for name, values in ranks.items()}
    findings = {name: _uniformity(name, values, num_draws, len(arrays), rng) for name, values in arrays.items()}
    return Calibration(arrays, num_draws, findings)


def teacher_start(
    key: Key[Array, ""],
    draw_prior: Draw,
    simulate: Simulate,
    sample: Callable[[Key[Array, ""], PyTree, Position], Position],
    quantities: Quantities,
    *,
    num_chains: int = 4,
) -> dict[str, Finding]:
    """Test on one simulated data set whether chains that start at the parameters that made it agree with chains that do not.

    The teacher is an exact draw of the posterior, so its chains are in equilibrium from the first step. Chains from the prior
    that disagree with them have not arrived there.

    Args:
        key: For everything random.
        draw_prior: (key, n) -> n draws, with a leading axis.
        simulate: (key, position) -> data.
        sample: (key, data, start) -> draws of one chain, with a leading axis, without its warm-up.
        quantities: Scalars of (position, data), by name.
        num_chains: From the teacher, and as many from other draws of the prior.

    Returns:
        A finding for each quantity and its square: the difference of means, in standard errors, against what chains in
        equilibrium would show.

    References:
        Piccioli, Troiani & Zdeborová 2023, arXiv 2306.02729.
    """
    keys = jax.random.split(key, 2 * num_chains + 2)
    starts = draw_prior(keys[0], num_chains + 1)
    start_at = [0] * num_chains + list(range(1, num_chains + 1))
    teacher = jax.tree.map(lambda leaf: leaf[0], starts)
    data = simulate(keys[1], teacher)
    values: dict[str, list[np.ndarray]] = {name: [] for name in quantities}
    for chain_key, index in zip(keys[2:], start_at, strict=True):
        draws = sample(chain_key, data, jax.tree.map(lambda leaf, index=index: leaf[index], starts))
        for name, quantity in quantities.items():
            values[name].append(np.asarray(jax.vmap(lambda draw, quantity=quantity: quantity(draw, data))(draws), np.float64))
    chains = {name: np.stack(one) for name, one in values.items()}
    return _agreement(
        "chains from the teacher and from the prior agree",
        {name: one[:num_chains] for name, one in chains.items()},
        {name: one[num_chains:] for name, one in chains.items()},
    )


def joint_test(
    key: Key[Array, ""],
    draw_prior: Draw,
    simulate: Simulate,
    transition: Callable[[Key[Array, ""], Position, PyTree], Position],
    quantities: Quantities,
    *,
    num_draws: int = 2000,
    num_chains: int = 4,
) -> dict[str, Finding]:
    """Test a kernel and a density by sampling parameters and data together in two ways.

    One draws parameters from the prior and data given them. The other alternates between the kernel, given the data, and new
    data, given the parameters. Both have the same law if the kernel leaves the posterior of that prior and that simulator
    invariant. Detects a wrong temperature, scale, prior or Jacobian; blind to slow mixing, which widens the error bars.

    Args:
        key: For everything random.
        draw_prior: (key, n) -> n draws, with a leading axis.
        simulate: (key, position) -> data; must trace under `jit`.
        transition: (key, position, data) -> position, one or several steps of the kernel; must trace under `jit`.
        quantities: Scalars of (position, data), by name.
        num_draws: Of each chain, of both kinds.
        num_chains: Of each kind.

    Returns:
        A finding for each quantity and its square: the difference of means, in standard errors, against what two ways with
        the same law would show.

    References:
        Geweke 2004, Journal of the American Statistical Association 99, 799-804.
    """
    key_start, key_independent, key_chains = jax.random.split(key, 3)

    def measure(position: Position, data: PyTree) -> dict[str, Array]:
        return {name: jnp.asarray(quantity(position, data), jnp.float32) for name, quantity in quantities.items()}

    def independent(key: Key[Array, ""]) -> dict[str, Array]:
        key_position, key_data = jax.random.split(key)
        position = jax.tree.map(lambda leaf: leaf[0], draw_prior(key_position, 1))
        return measure(position, simulate(key_data, position))

    def chain(key: Key[Array, ""], start: Position) -> dict[str, Array]:
        def step(position: Position, key: Key[Array, ""]) -> tuple[Position, dict[str, Array]]:
            key_data, key_move = jax.random.split(key)
            data = simulate(key_data, position)
            position = transition(key_move, position, data)
            return position, measure(position, data)

        return jax.lax.scan(step, start, jax.random.split(key, num_draws))[1]

    starts = draw_prior(key_start, num_chains)
    first = jax.jit(jax.vmap(jax.vmap(independent)))(jax.random.split(key_independent, (num_chains, num_draws)))
    second = jax.jit(jax.vmap(chain))(jax.random.split(key_chains, num_chains), starts)
    return _agreement("both ways of sampling parameters and data agree", *map(jax.device_get, (first, second)))


def _agreement(
    claim: str, first: Mapping[str, Float[np.ndarray, "chain draw"]], second: Mapping[str, Float[np.ndarray, "chain draw"]]
) -> dict[str, Finding]:
    """Compare means of quantities and of their squares, with Monte Carlo standard errors of both sides."""
    bound = float(-ndtri(FALSE_ALARM / (2 * 2 * len(first))))
    findings = {}
    for name, power in ((name, power) for name in first for power in (1, 2)):
        both = [np.asarray(values[name], np.float64) ** power for values in (first, second)]
        errors = [float(mcse_mean(values)) for values in both]
        difference = float((both[1].mean() - both[0].mean()) / np.hypot(errors[0], errors[1]))
        label = name if power == 1 else f"{name} squared"
        verdict = "inconclusive" if np.isnan(difference) else "pass" if abs(difference) <= bound else "fail"
        note = f"Means of {label} are {both[0].mean():.4g} and {both[1].mean():.4g}, {difference:.1f} standard errors apart."
        findings[label] = Finding(f"{claim}: {label}", "health", verdict, value=difference, bound=bound, note=note)
    return findings


@functools.cache
def _band(num_ranks: int, level: float) -> tuple[Float[np.ndarray, " point"], ...]:
    """Return points, and the lower and upper end of ArviZ's simultaneous band of uniform distribution functions there."""
    points = np.arange(1, num_ranks) / num_ranks
    pointwise = simulate_confidence_bands(num_ranks, 1, points, level, NUM_BANDS, np.random.default_rng(SEED))
    return points, *get_pointwise_confidence_band(pointwise, num_ranks, points)


def _uniformity(
    name: str, ranks: Int[np.ndarray, " simulation"], num_draws: int, num_quantities: int, rng: np.random.Generator
) -> Finding:
    """Hold the distribution function of ranks, made continuous by a uniform deviate, against a simultaneous band."""
    points, lower, upper = _band(len(ranks), 1 - FALSE_ALARM / num_quantities)
    distribution = compute_ecdf((ranks + rng.random(len(ranks))) / (num_draws + 1), points)
    worst = int(np.argmax(np.maximum(lower - distribution, distribution - upper)))
    is_inside = bool(((distribution >= lower) & (distribution <= upper)).all())
    note = (
        f"{len(ranks)} simulations: {distribution[worst]:.3f} of the ranks of {name} lie in the lowest {points[worst]:.3f} of "
        f"their range, and {lower[worst]:.3f} to {upper[worst]:.3f} are expected."
    )
    distance = float(np.abs(distribution - points).max())
    return Finding(f"ranks of {name} are uniform", "health", "pass" if is_inside else "fail", value=distance, note=note)
