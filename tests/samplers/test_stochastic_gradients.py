"""Momentum, thermostat, control variates, schedules and preconditioners of the stochastic-gradient kernels."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from samplers import (
    Batch,
    Kernel,
    Schedule,
    Tempering,
    constant,
    control_variates,
    cyclical,
    from_logdensity,
    log_density,
    minibatch,
    polynomial,
    rmsprop,
    sample,
    sghmc,
    sgld,
    sgnht,
)
from samplers.stochastic import stochastic_info
from tests.samplers.analytic import anisotropic, assert_covariance, assert_means, flat, regression

KEY = jax.random.key(21)
NUM_CHAINS = 8
BATCH_SIZE = 2  # of 40 examples: loud gradients


def second_moments(known, draws):
    """(theta - mean)^2 over the exact variance: 1 on average."""
    return (flat(draws) - known.mean) ** 2 / np.diag(known.covariance)


def run(kernel, known, num_steps=20_000, thin=4, batch=None):
    result = sample(KEY, kernel, known.positions(NUM_CHAINS), batch or known.batch, num_steps=num_steps, thin=thin)
    return result.draws[:, result.draws.shape[1] // 10 :], result.info


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("make", [sghmc, sgnht])
def test_full_batch_temperature(make, temperature):
    """At every temperature the exact tempered covariance: BAOAB has no bias on a Gaussian, the thermostat far below 1 %."""
    known = regression(temperature)
    scale = np.sqrt(np.linalg.eigvalsh(known.covariance)[0])
    kernel = make(known.target, step_size=0.3 * scale, friction=0.5 / scale, tempering=Tempering.at(temperature))
    draws, info = run(kernel, known)
    assert_covariance(draws, known.mean, known.covariance)
    if make is sgnht:
        assert_means(np.asarray(info.kinetic_temperature, float), 1.0)


@pytest.mark.parametrize("make", [sghmc, sgnht])
def test_wrong_noise_heats_but_where_a_thermostat_takes_it_out(make, monkeypatch):
    """Noise of 1.3 times the variance: SGHMC has 1.3 times the temperature, and fails; SGNHT, more friction."""
    known, is_right = regression(), make is sgnht
    scale = np.sqrt(np.linalg.eigvalsh(known.covariance)[0])
    # A target of its own, so that the kernel is traced anew.
    target = known.target._replace(log_prior=lambda position, constants: known.target.log_prior(position, constants))
    normal = jax.random.normal
    monkeypatch.setattr(jax.random, "normal", lambda *args, **options: np.sqrt(1.3) * normal(*args, **options))
    draws, _ = run(make(target, step_size=0.3 * scale, friction=0.5 / scale), known)
    assert_covariance(draws, known.mean, (1.0 if is_right else 1.3) * known.covariance)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_covariance(draws, known.mean, (1.3 if is_right else 1.0) * known.covariance)


def test_momentum_is_carried():
    """With little friction successive steps are alike. With so much that no momentum survives a step, they still share the half
    step that each momentum makes on either side of its renewal: a correlation of 1/2."""
    known = anisotropic()

    def correlation(friction):
        draws, _ = run(sghmc(known.target, step_size=0.05, friction=friction), known, num_steps=4_000, thin=1)
        steps = np.diff(flat(draws), axis=1)
        return np.mean(steps[:, 1:] * steps[:, :-1]) / np.mean(steps**2)

    assert correlation(0.1) > 0.9
    assert abs(correlation(1e3) - 0.5) < 0.05


def test_gradient_noise_heats_as_the_formula_says():
    """Minibatches with replacement heat SGHMC by h C / (2 gamma) (C the covariance of the gradient noise, per unit mass)."""
    known = regression()
    x, y = np.asarray(known.batch.data["x"], float), np.asarray(known.batch.data["y"], float)
    h, friction = 0.01, 20.0
    kernel = sghmc(known.target, step_size=h, friction=friction, batch_size=BATCH_SIZE, replacement=True)
    draws, info = run(kernel, known, num_steps=40_000)
    at = flat(draws).reshape(-1, 3)[::50]
    scores = (y - at @ x.T)[..., None] * x / 0.7**2  # [draw, example, d], of one example
    noise = 40**2 / BATCH_SIZE * scores.var(axis=1).mean()
    assert h * noise / (2 * friction) > 0.1  # there is heat to see
    excess = np.asarray(info.kinetic_temperature, float).mean() - 1
    # To leading order in h; the next is of the relative size h gamma = 0.2.
    assert abs(excess / (h * noise / (2 * friction)) - 1) < 0.3


def test_thermostat_takes_gradient_noise_out():
    """At minibatch noise that heats SGHMC, the thermostat keeps the kinetic temperature at 1, by a friction above the nominal."""
    known = regression()
    options = {"step_size": 0.01, "friction": 10.0, "batch_size": BATCH_SIZE, "replacement": True}
    _, hot = run(sghmc(known.target, **options), known)
    kernel = sgnht(known.target, **options, thermostat_time=0.3)
    result = sample(KEY, kernel, known.positions(NUM_CHAINS), known.batch, num_steps=20_000, thin=4)
    kept = np.asarray(result.info.kinetic_temperature, float)[:, 500:]
    assert hot.kinetic_temperature.mean() > 1.4
    # The thermostat holds the average of before and after the renewal at 1; Info tells the one after, lower by h zeta / 2 = 0.09.
    assert abs(kept.mean() - 1) < 0.1
    assert np.mean(result.run.state.inner.friction) > 12


def test_control_variates_leave_the_density_alone():
    """The full-batch density and gradient are the original's to float32 rounding of 40 terms."""
    known = regression()
    reference = jnp.asarray(known.mean + 0.3, jnp.float32)
    target, batch = control_variates(known.target, known.batch, reference)
    for position in jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32):
        new = jax.value_and_grad(log_density(target, batch, Tempering.at()))(position)
        old = jax.value_and_grad(log_density(known.target, known.batch, Tempering.at()))(position)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-3), new, old)


@pytest.mark.slow
def test_control_variates_quieten_minibatches():
    """The bias that gradient noise adds to SGLD's variance falls by more than three quarters, the rest being the step size's."""
    known = regression()
    target, batch = control_variates(known.target, known.batch, jnp.asarray(known.mean, jnp.float32))
    options = {"step_size": 2e-3, "batch_size": BATCH_SIZE, "replacement": True}
    noisy = second_moments(known, run(sgld(known.target, **options), known)[0]).mean()
    quiet = second_moments(known, run(sgld(target, **options), known, batch=batch)[0]).mean()
    exact = second_moments(known, run(sgld(known.target, step_size=2e-3), known)[0]).mean()
    assert noisy - exact > 0.1
    assert quiet - exact < (noisy - exact) / 4


class Seen(NamedTuple):
    """State of a kernel that keeps the rows of the batch it saw."""

    position: jax.Array


@pytest.mark.parametrize("replacement", [False, True])
def test_replacement(replacement):
    """An epoch of five batches sees each of 40 examples once; with replacement some twice (the chance of none is 1e-17)."""
    see = Kernel(
        lambda key, position, batch, tuning: Seen(batch.data),
        lambda key, state, batch, tuning, step: (Seen(batch.data), stochastic_info(batch.data)),
        (),
    )
    kernel = minibatch(see, 40, 8, replacement=replacement)
    batch = Batch(jnp.arange(40.0), jnp.ones(40))
    state, rows = kernel.init(KEY, jnp.zeros(8), batch, ()), []
    for step in range(5):
        state, _ = kernel.step(jax.random.fold_in(KEY, step), state, batch, (), jnp.int32(step))
        rows.append(np.asarray(state.position))
    distinct = np.unique(rows).size
    assert distinct < 40 if replacement else distinct == 40


def test_schedules():
    steps = jnp.arange(20)
    np.testing.assert_array_equal(constant().multiplier(steps), np.ones(20))
    np.testing.assert_allclose(polynomial(5.0, 0.5).multiplier(steps), (1 + np.arange(20) / 5) ** -0.5, rtol=1e-6)
    cycle = cyclical(10, exploration=0.4)
    expected = 0.5 * (np.cos(np.pi * (np.arange(20) % 10) / 10) + 1)
    np.testing.assert_allclose(cycle.multiplier(steps), expected, atol=1e-6)
    np.testing.assert_array_equal(cycle.is_sampling(np.arange(20)), [step % 10 >= 4 for step in range(20)])


def test_bad_schedules():
    for make, *arguments in ((polynomial, 0.0), (polynomial, 1.0, -1.0), (cyclical, 0), (cyclical, 10, 1.0)):
        with pytest.raises(ValueError, match="must be"):
            make(*arguments)
    with pytest.raises(ValueError, match=r"no step of a cycle samples: got cycle_length=10 and exploration=0\.95"):
        cyclical(10, 0.95)


@pytest.mark.parametrize("bad", [{"decay": 1.0}, {"floor": 0.0}, {"num_data": 0}])
def test_bad_preconditioners(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}={next(iter(bad.values()))}"):
        rmsprop(**bad)


@pytest.mark.parametrize("make", [sgld, functools.partial(sghmc, friction=5.0), functools.partial(sgnht, friction=5.0)])
def test_exploration_injects_no_noise(make):
    """Without sampling steps, two keys give the same chain: gradient descent; with them, different ones."""
    known = anisotropic()

    def end(schedule: Schedule, seed: int) -> np.ndarray:
        kernel: Kernel = make(known.target, step_size=0.05, schedule=schedule)
        start = kernel.init(KEY, jnp.ones(10), known.batch, kernel.initial_tuning)
        return np.asarray(kernel.step(jax.random.key(seed), start, known.batch, kernel.initial_tuning, jnp.int32(1))[0].position)

    quiet = Schedule(constant().multiplier, lambda step: jnp.zeros_like(step, bool))
    np.testing.assert_array_equal(end(quiet, 0), end(quiet, 1))
    assert np.abs(end(constant(), 0) - end(constant(), 1)).max() > 0.01


def test_thermostat_answers_with_the_square_of_its_time():
    known = anisotropic()

    def answer(thermostat_time):
        kernel = sgnht(known.target, step_size=0.01, friction=1.0, thermostat_time=thermostat_time)
        state = kernel.init(KEY, jnp.ones(10), known.batch, kernel.initial_tuning)
        hot = state._replace(momentum=3 * state.momentum)
        return kernel.step(KEY, hot, known.batch, kernel.initial_tuning, jnp.int32(0))[0].friction - 1

    # Of a heat of about 8 over a step of 0.01: 0.08. The second half step feels the first one's answer: by 0.01 * 0.04 of itself.
    np.testing.assert_allclose(answer(1.0), 4 * answer(2.0), rtol=1e-3)


def test_thermostat_rests_where_no_noise_is_injected():
    """The chain then rolls to the mode; a thermostat at work would keep it at temperature 1, by a friction below 0."""
    known = anisotropic()
    quiet = Schedule(constant().multiplier, lambda step: jnp.zeros_like(step, bool))
    kernel = sgnht(known.target, step_size=0.05, friction=1.0, thermostat_time=0.1, schedule=quiet)
    state = sample(KEY, kernel, known.positions(NUM_CHAINS), known.batch, num_steps=600, save=None).run.state
    np.testing.assert_array_equal(state.friction, 1.0)
    # A damped oscillator of friction 1 and frequency 1/2 or more shrinks as exp(-t / 2) (1 + t / 2): to 1e-5 of some 5 at t = 30.
    np.testing.assert_allclose(state.position, np.tile(known.mean, (NUM_CHAINS, 1)), rtol=0, atol=1e-3)


def quartic_second_moment(step_size: float, without_divergence: bool) -> float:
    """SGLD on exp(-x^4 / 4) with the preconditioner of the present gradient alone (decay 0): second moment over the exact one."""
    kernel = sgld(QUARTIC[0], step_size=step_size, preconditioner=rmsprop(0.0, 0.5, without_divergence=without_divergence))
    result = sample(KEY, kernel, jnp.ones((NUM_CHAINS, 4)), QUARTIC[1], num_steps=10 * int(600 / step_size), thin=10)
    exact = 2 * scipy.special.gamma(0.75) / scipy.special.gamma(0.25)
    return float(np.mean(np.asarray(result.draws[:, 100:], float) ** 2) / exact)


QUARTIC = from_logdensity(lambda x: -0.25 * jnp.sum(x**4))


@pytest.mark.slow
def test_divergence_term_makes_the_preconditioner_right():
    """With Gamma the bias shrinks with the step; without it the second moment stays near twice the exact one."""
    coarse, fine = quartic_second_moment(0.1, without_divergence=False), quartic_second_moment(0.03, without_divergence=False)
    assert abs(fine - 1) < 0.06 < abs(coarse - 1)
    assert quartic_second_moment(0.03, without_divergence=True) > 1.5


@pytest.mark.slow
def test_memory_of_the_preconditioner_spreads_the_draws_of_short_steps():
    """A Gaussian with exact gradients: the variance goes from 1 to 2, that of pi G^-0.99, as V learns to follow the position."""
    target, batch = from_logdensity(lambda x: -0.5 * jnp.sum(x**2))

    def variance(step_size):
        kernel = sgld(target, step_size=step_size, preconditioner=rmsprop(0.99))
        positions = jax.random.normal(KEY, (NUM_CHAINS, 500))
        steps = int(24 / step_size)
        begun = sample(KEY, kernel, positions, batch, num_steps=steps // 2, save=None).run
        return float(np.mean(np.square(sample(KEY, kernel, positions, batch, num_steps=steps, thin=20, run=begun).draws)))

    # 0.02 is more than the standard error of squares of 2,000 coordinates that each forget themselves several times.
    np.testing.assert_allclose([variance(0.04), variance(0.0025)], [1.21, 1.73], atol=5 * 0.02)


@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_divergence_term_equals_the_derivative(decay):
    """Gamma is the derivative of G for a given memory, here of 1, by finite differences in float64; the target has a diagonal
    Hessian, so that one probe is exact."""
    with jax.enable_x64(True):
        target, batch = from_logdensity(lambda x: jnp.sum(jnp.sin(x) - 0.1 * x**4))
        gradient = jax.grad(log_density(target, batch, Tempering.at()))
        x = jnp.asarray([0.3, -1.2, 0.9])
        apply = rmsprop(decay, 0.3, num_data=7).apply
        drift, scale, _ = apply(KEY, jnp.ones(3), x, gradient)

        def scale_at(x):
            return 1 / (0.3 + jnp.sqrt(decay + (1 - decay) * (gradient(x) / 7) ** 2))

        expected = (scale_at(x + 1e-6) - scale_at(x - 1e-6)) / 2e-6
        np.testing.assert_allclose(drift - scale * gradient(x), expected, rtol=1e-6)
