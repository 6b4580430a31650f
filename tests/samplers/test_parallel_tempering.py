"""Parallel tempering: weights of modes, swaps, counts, and the ladder that the warm-up finds."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import (
    Batch,
    Save,
    Target,
    Tempering,
    adjusted_mclmc,
    barker,
    cross_chain_adaptation,
    dynamic_hmc,
    finish,
    ghmc,
    hmc,
    ladder_adaptation,
    log_density,
    log_density_terms,
    mala,
    mclmc,
    nuts,
    parallel_tempering,
    rejection_rates,
    round_trips,
    sample,
    sgld,
    tempered_smc,
)
from samplers.ladder_adaptation import equal_parts
from samplers.parallel_tempering import Exchanges
from tests.samplers.analytic import assert_means

pytestmark = pytest.mark.slow

DIMENSION, PRIOR_SCALE, WEIGHT, SEPARATION = 3, 6.0, 0.7, 12.0
NUM_CHAINS = 4
BETAS = np.linspace(0, 1, 10) ** 3


def _log_prior(position, constants):
    return -0.5 * jnp.sum((position / PRIOR_SCALE) ** 2)


def _log_likelihood(position, centre, constants):
    left, right = (-0.5 * jnp.sum((position - sign * centre) ** 2, axis=-1) for sign in (-1, 1))
    return jnp.logaddexp(jnp.log(1 - WEIGHT) + left, jnp.log(WEIGHT) + right)


# Two Gaussian modes at equal distance from the prior's mean, so that the prior leaves their weights as they are. It draws their
# centres inwards by this share, and makes their variance the same share.
SHRINKAGE = PRIOR_SCALE**2 / (1 + PRIOR_SCALE**2)
MODES = Target(_log_prior, _log_likelihood, num_data=1)
CENTRE = jnp.zeros((1, DIMENSION)).at[0, 0].set(SEPARATION / 2 / SHRINKAGE)
BATCH = Batch(CENTRE, jnp.ones(1))
# All chains in the lighter mode.
START = -jnp.tile(CENTRE, (NUM_CHAINS, 1))
HMC = hmc(MODES, step_size=0.4, trajectory_length=1.6)
LADDER = parallel_tempering(HMC, MODES, BETAS)


def run_ladder(kernel=LADDER, num_steps=6000, **options):
    return sample(jax.random.key(1), kernel, START, BATCH, num_steps=num_steps, **options)


def in_right_mode(draws):
    return (draws[..., :1] > 0).astype(float)


def assert_law_of_modes(draws):
    """Weights of the modes, and the second moments, which do not tell the modes apart."""
    assert_means(in_right_mode(draws), WEIGHT, min_effective_draws=300)
    expected = np.full(DIMENSION, SHRINKAGE)
    expected[0] += (SEPARATION / 2) ** 2
    assert_means(draws.astype(np.float64) ** 2, expected)


@pytest.fixture(scope="module")
def result():
    return run_ladder()


def test_hmc_alone_does_not_leave_its_mode():
    draws = sample(jax.random.key(1), HMC, START, BATCH, num_steps=6000).draws
    assert in_right_mode(draws).max() == 0


def test_finds_the_weights_of_modes(result):
    assert_law_of_modes(result.draws)
    assert round_trips(result.run.state).min() > 50


def test_swaps_without_the_right_acceptance_fail(monkeypatch):
    # A target of its own, so that the kernel is traced anew. Every swap that is tried is made.
    target = MODES._replace(log_prior=lambda position, constants: _log_prior(position, constants))
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape=(), dtype=float: jnp.zeros(shape, dtype))
    ladder = parallel_tempering(hmc(target, step_size=0.4, trajectory_length=1.6), target, BETAS)
    draws = run_ladder(ladder).draws
    with pytest.raises(AssertionError, match="standard errors"):
        assert_law_of_modes(draws)


def keep_rungs(state, arrays):
    return state.rungs.position, state.log_likelihood


def test_every_rung_has_its_own_law():
    """Of a Gaussian likelihood: known variance and mean log likelihood at every temperature, on the prior's rung too."""
    target = Target(_log_prior, lambda position, data, constants: -0.5 * jnp.sum((position - data) ** 2, axis=-1), num_data=1)
    ladder = parallel_tempering(hmc(target, step_size=0.5, trajectory_length=2.0), target, [0.0, 0.02, 0.2, 1.0])
    result = sample(
        jax.random.key(3),
        ladder,
        START,
        Batch(CENTRE, jnp.ones(1)),
        num_steps=8000,
        save=Save(keep_rungs),
    )
    positions, log_likelihood = (x.astype(np.float64)[:, 200:] for x in result.draws)
    betas = np.array([0.0, 0.02, 0.2, 1.0])
    precision = betas + PRIOR_SCALE**-2
    mean = betas[:, None] / precision[:, None] * np.asarray(CENTRE)
    assert_means(positions, mean)
    assert_means((positions - mean) ** 2, np.repeat(1 / precision, DIMENSION).reshape(4, DIMENSION))
    expected = -0.5 * (DIMENSION / precision + np.sum((mean - np.asarray(CENTRE)) ** 2, axis=1))
    assert_means(log_likelihood, expected)


def test_swaps_leave_the_caches_right(result):
    state = result.run.state
    temperatures = LADDER.initial_tuning.tempering.likelihood_temperature

    def at_rung(position, likelihood_temperature):
        tempering = Tempering(jnp.float32(1), likelihood_temperature)
        value, gradient = jax.value_and_grad(log_density(MODES, BATCH, tempering))(position)
        return value, gradient, log_density_terms(MODES, position, BATCH)[1]

    expected = jax.vmap(jax.vmap(at_rung), (0, None))(state.rungs.position, temperatures)
    cached = state.rungs.logdensity, state.rungs.logdensity_grad, state.log_likelihood
    # A hundred float32 roundings of numbers up to 100. The likelihood of a rung is a difference divided by its beta, the
    # smallest of which, on the second rung, is 9^-3.
    bounds = [1e4 * np.finfo(np.float32).eps] * 2 + [1e4 * np.finfo(np.float32).eps * 9**3]
    for one, other, bound in zip(cached, expected, bounds, strict=True):
        np.testing.assert_allclose(one, other, atol=bound)
    np.testing.assert_array_equal(state.position, state.rungs.position[:, -1])


def test_a_replica_keeps_its_name(result):
    assert (np.sort(result.run.state.exchanges.replica, axis=1) == np.arange(BETAS.size)).all()


def test_counts_round_trips_as_by_hand():
    exchanges = Exchanges.none(3, jnp.float32)
    zeros = jnp.zeros(2)
    # Replicas on the rungs after each swap:  102  120  210  201  021  012
    swaps = [(1, 0, 2), (0, 2, 1), (1, 0, 2), (0, 2, 1), (1, 0, 2), (0, 2, 1)]
    # Replica 0 was at the hot end, arrives at the cold one with the 2nd swap and is back with the 5th: one round trip.
    # Replica 2 was at the cold end, arrives at the hot one with the 3rd and is back with the 6th: one. Replica 1 begins at
    # neither; it is first at the hot end, arrives at the cold one with the 4th: one passage.
    passages = [(0, 0, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (2, 1, 1), (2, 1, 2)]
    for source, expected in zip(swaps, passages, strict=True):
        exchanges = exchanges.after(zeros, jnp.array(source))
        np.testing.assert_array_equal(exchanges.passages, expected)
    np.testing.assert_array_equal(exchanges.replica, (0, 1, 2))
    assert np.sum(np.array(exchanges.passages) // 2) == 2


def passages_of(names):
    """Passages of each replica, from the names on the rungs [step, rung], by looking at each replica's whole way."""
    count = []
    for name in range(names.shape[1]):
        rung = np.argwhere(names == name)[:, 1]
        ends = rung[(rung == 0) | (rung == names.shape[1] - 1)]
        count.append(int(np.sum(ends[1:] != ends[:-1])))
    return np.array(count)


def test_counts_are_those_of_a_replay():
    """Under even-odd swaps that are all accepted a replica goes straight on, from end to end in K steps."""
    flat_target = MODES._replace(log_likelihood=lambda position, data, constants: 1e-3 * jnp.sum(position) * jnp.ones(1))
    still = hmc(flat_target, step_size=1e-6, trajectory_length=1e-6)
    ladder = parallel_tempering(still, flat_target, np.linspace(0.1, 1, 5))
    result = sample(
        jax.random.key(0), ladder, START[:1], BATCH, num_steps=200, save=Save(lambda state, arrays: state.exchanges.replica)
    )
    names = np.concatenate([np.arange(5)[None], result.draws[0]])
    np.testing.assert_array_equal(result.run.state.exchanges.passages[0], passages_of(names))
    assert result.run.state.exchanges.passages.sum() >= 5 * (200 // 5 - 2)


def test_adapted_rungs_swap_equally_often():
    num_steps = 4000
    ladder = parallel_tempering(HMC, MODES, np.linspace(0, 1, 8) ** 5)
    warmup = ladder_adaptation(ladder, MODES, num_steps=num_steps)
    warm = finish(warmup, sample(jax.random.key(2), warmup.kernel, START, BATCH, num_steps=num_steps, save=None).run)
    assert (np.diff(1 / warm.tuning.tuning.tempering.likelihood_temperature, axis=1) > 0).all()
    warm = warm._replace(state=warm.state._replace(exchanges=jax.vmap(lambda _: Exchanges.none(8, jnp.float32))(warm.chain)))
    result = sample(jax.random.key(2), ladder, START, BATCH, num_steps=4000, run=warm)
    assert_law_of_modes(result.draws)
    rates = np.asarray(rejection_rates(result.run.state))
    # The last round has num_steps / 4 steps, whose rejections are correlated over about 10: each rate has a relative error of
    # about 1 / sqrt(100), and linear interpolation another of a few per cent. Three of both.
    assert np.ptp(rates, axis=1).max() < 0.35 * rates.mean()
    # On the ladder that it set out from they differ by more than ten times.
    unadapted = rejection_rates(sample(jax.random.key(2), ladder, START, BATCH, num_steps=1000, save=None).run.state)
    assert np.ptp(unadapted, axis=1).min() > 0.5
    np.testing.assert_allclose(result.info.acceptance_rate.mean(), 0.8, atol=0.1)


def test_a_ladder_without_rejections_keeps_its_rungs_apart():
    """A likelihood that is the same everywhere: every swap is made, and the barrier is only what is assumed of each gap."""
    flat_target = MODES._replace(log_likelihood=lambda position, data, constants: jnp.zeros(1))
    ladder = parallel_tempering(hmc(flat_target, step_size=0.4, trajectory_length=0.4), flat_target, [0.0, 0.1, 0.3, 1.0])
    warmup = ladder_adaptation(ladder, flat_target, num_steps=16)
    state = sample(jax.random.key(0), warmup.kernel, START, BATCH, num_steps=16, save=None).run.state
    assert (state.inner.exchanges.rejections == 0).all()
    np.testing.assert_allclose(state.betas, np.tile([0.0, 0.1, 0.3, 1.0], (NUM_CHAINS, 1)), rtol=1e-6)  # some roundings of each


def test_equal_parts_of_a_known_barrier():
    # Lambda(beta) = beta^2 on a ladder that sees it well.
    betas = jnp.linspace(0, 1, 101)
    (new,) = equal_parts(jnp.diff(betas**2), betas)
    # Linear interpolation of a curve of second derivative 2 is off by at most h^2 / 4 in Lambda, in beta by that over 2 beta.
    np.testing.assert_allclose(new[1:], np.sqrt(np.linspace(0, 1, 101))[1:], atol=0.01)


@pytest.mark.parametrize(
    ("betas", "message"), [([1.0], "at least two"), ([0.0, 0.5], "to 1"), ([0.5, 0.2, 1.0], "increase"), ([-0.1, 1.0], "from 0")]
)
def test_refuses_what_is_no_ladder(betas, message):
    with pytest.raises(ValueError, match=message):
        parallel_tempering(HMC, MODES, betas)


def test_refuses_kernels_without_tempering_or_cache():
    with pytest.raises(TypeError, match="tempering"):
        parallel_tempering(HMC._replace(initial_tuning=()), MODES, BETAS)
    no_cache = parallel_tempering(sgld(MODES, step_size=1e-3), MODES, BETAS)
    with pytest.raises(TypeError, match="logdensity"):
        sample(jax.random.key(0), no_cache, START, BATCH, num_steps=1)
    by_array = HMC._replace(init=lambda *args: HMC.init(*args)._replace(logdensity_grad={"x": jnp.zeros(DIMENSION)}))
    with pytest.raises(TypeError, match="as a vector, `logdensity_grad`"):
        sample(jax.random.key(0), parallel_tempering(by_array, MODES, BETAS), START, BATCH, num_steps=1)
    with pytest.raises(ValueError, match="a kernel with decoherence_length has no accept step, and one is needed here"):
        parallel_tempering(mclmc(MODES, step_size=0.5, decoherence_length=2.0), MODES, BETAS)
    with pytest.raises(ValueError, match="divide"):
        parallel_tempering(HMC, MODES, BETAS, rung_block=3)


def test_warm_ups_refuse_kernels_that_they_do_not_suit():
    with pytest.raises(ValueError, match="16 steps"):
        ladder_adaptation(LADDER, MODES, num_steps=15)
    for plain in (HMC, sgld(MODES, step_size=1e-3)):
        with pytest.raises(ValueError, match=r"step_size has shape \(\): make it a ladder with parallel_tempering"):
            ladder_adaptation(plain, MODES, num_steps=16)
    with pytest.raises(ValueError, match=r"no trajectories to adapt.* ladder_adaptation for a ladder"):
        cross_chain_adaptation(LADDER, num_steps=16)
    with pytest.raises(ValueError, match=r"one step size is needed, got step_size of shape \(10,\)"):
        tempered_smc(LADDER, MODES)


OTHERS = {
    "mala": lambda: mala(MODES, step_size=0.8),
    "nuts": lambda: nuts(MODES, step_size=0.5),
    "barker": lambda: barker(MODES, step_size=0.8),
    "ghmc": lambda: ghmc(MODES, step_size=0.6),
    "dynamic hmc": lambda: dynamic_hmc(MODES, step_size=0.4, trajectory_length=1.6),
    "adjusted mclmc": lambda: adjusted_mclmc(MODES, step_size=0.8, trajectory_length=2.8),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS.keys())
def test_any_exact_kernel_will_do(make):
    ladder = parallel_tempering(make(), MODES, BETAS)
    # A metric of its own on each rung, so that momenta that travelled with the positions would be of the wrong size.
    metric = jnp.linspace(2, 1, BETAS.size, dtype=jnp.float32)
    tuning = ladder.initial_tuning._replace(inverse_mass_matrix=metric)
    assert_law_of_modes(run_ladder(ladder, num_steps=24_000, thin=4, tuning=tuning).draws)
