"""Warm-up: the step size and metric it finds, what it keeps, and that it stops and resumes like anything else."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import (
    PerChain,
    adjusted_mclmc,
    barker,
    dynamic_hmc,
    finish,
    from_logdensity,
    ghmc,
    hmc,
    load_run,
    make_mesh,
    mala,
    mclmc,
    nuts,
    parallel_tempering,
    sample,
    save_run,
    sghmc,
    sgld,
    start,
    window_adaptation,
)
from samplers.warmup import AdaptationState, _stages
from tests.samplers.analytic import anisotropic, assert_covariance

KNOWN = anisotropic()
KEY = jax.random.key(5)
NUM_CHAINS, NUM_STEPS = 4, 1000
MESH = make_mesh(NUM_CHAINS, devices=jax.devices()[:1])
KERNELS = {
    "hmc": hmc(KNOWN.target, step_size=0.01, trajectory_length=np.pi / 2),  # a quarter period once the metric is right
    "nuts": nuts(KNOWN.target, step_size=10.0),
}


def run(kernel, num_steps, **options):
    return sample(KEY, kernel, KNOWN.positions(NUM_CHAINS), KNOWN.batch, num_steps=num_steps, mesh=MESH, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("target_rate", [0.8, 0.9])
def test_finds_step_size_and_metric(name, target_rate):
    kernel = KERNELS[name]
    warmup = window_adaptation(kernel, num_steps=NUM_STEPS, target_acceptance_rate=target_rate)
    finished = finish(warmup, run(warmup.kernel, NUM_STEPS, save=None).run)
    assert isinstance(finished.tuning, PerChain)
    assert int(finished.phase) == 1
    result = run(kernel, 1500, run=finished)
    # Dual averaging averages log step sizes, whose acceptance rate lies above the mean of rates: the lower the target, the more
    # (0.65 ends at 0.75 to 0.78, as in Stan); at 0.8 some 0.05 is left of it.
    assert abs(result.info.acceptance_rate.mean() - target_rate) < 0.1
    # A variance from the last window of some 450 draws has a relative error of sqrt(2 / 450) = 0.07 at the least, times 5; Stan
    # shrinks it towards 1e-3 by 5 / 455.
    ratio = finished.tuning.tuning.inverse_mass_matrix / np.diag(KNOWN.covariance)
    assert np.abs(np.log(ratio)).max() < 5 * np.sqrt(2 / 450) * np.sqrt(2)  # successive draws are correlated, half as many count
    assert_covariance(result.draws, KNOWN.mean, KNOWN.covariance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "target_rate"),
    [
        pytest.param(dynamic_hmc(KNOWN.target, step_size=0.01, trajectory_length=np.pi / 2), 0.8, id="dynamic hmc"),
        pytest.param(adjusted_mclmc(KNOWN.target, step_size=0.01, trajectory_length=4.0), 0.9, id="adjusted mclmc"),
        pytest.param(ghmc(KNOWN.target, step_size=0.01), 0.95, id="ghmc"),
        pytest.param(mala(KNOWN.target, step_size=0.01), 0.574, id="mala"),
        pytest.param(barker(KNOWN.target, step_size=0.01), 0.4, id="barker"),
    ],
)
def test_every_adjusted_kernel_accepts_what_it_was_adapted_to(kernel, target_rate):
    """At the rates that runs aim at by default, which lie at both ends of what is aimed at, and between."""
    warmup = window_adaptation(kernel, num_steps=NUM_STEPS, target_acceptance_rate=target_rate)
    rate = run(kernel, 1500, run=finish(warmup, run(warmup.kernel, NUM_STEPS, save=None).run)).info.acceptance_rate.mean()
    # Averages of log step sizes accept more than is aimed at; Barker, whose acceptance falls slowly with its step size, less.
    assert abs(rate - target_rate) < 0.1


def test_one_variance_for_each_array():
    scales = {"narrow": jnp.asarray([0.1, 0.3]), "wide": jnp.asarray([3.0, 5.0, 9.0])}
    target, batch = from_logdensity(lambda x: -0.5 * sum(jnp.sum((x[name] / scales[name]) ** 2) for name in scales))
    kernel = hmc(target, step_size=0.1, trajectory_length=np.pi / 2)
    warmup = window_adaptation(kernel, num_steps=400, metric="layer")
    positions = {name: jnp.zeros((NUM_CHAINS, x.size)) for name, x in scales.items()}
    finished = finish(warmup, sample(KEY, warmup.kernel, positions, batch, num_steps=400, mesh=MESH, save=None).run)
    found = finished.tuning.tuning.inverse_mass_matrix
    expected = np.concatenate([np.full(x.size, np.mean(np.square(x))) for x in scales.values()])
    # The last window has 145 draws, worth a third: relative errors of variances of sqrt(2 / 48), less for a mean of several.
    assert np.abs(np.log(found / expected)).max() < 5 * np.sqrt(2 / 48)
    assert all(np.ptp(found[:, part]) > 0 and np.ptp(found[:, part], axis=1).max() == 0 for part in (slice(2), slice(2, 5)))


@pytest.mark.slow
def test_identity_metric_adapts_the_step_size_alone():
    kernel = KERNELS["nuts"]
    warmup = window_adaptation(kernel, num_steps=300, metric="identity")
    finished = finish(warmup, run(warmup.kernel, 300, save=None).run)
    np.testing.assert_array_equal(finished.tuning.tuning.inverse_mass_matrix, np.ones(NUM_CHAINS))
    assert abs(run(kernel, 500, run=finished).info.acceptance_rate.mean() - 0.8) < 0.1


def test_functions_made_in_double_precision_serve_single():
    def types(dtype):
        kernel = window_adaptation(KERNELS["hmc"], num_steps=37).kernel  # a length of its own: its functions are not cached yet
        position, tuning = jnp.zeros(KNOWN.mean.size, dtype), kernel.initial_tuning
        state = jax.eval_shape(kernel.init, KEY, position, KNOWN.batch, tuning)
        return jax.eval_shape(kernel.step, KEY, state, KNOWN.batch, tuning, jnp.int32(0))[0].inner.position.dtype

    with jax.enable_x64(True):
        assert types(jnp.float64) == jnp.float64
    assert types(jnp.float32) == jnp.float32


def test_keeps_no_history():
    def state(num_steps):
        kernel = window_adaptation(KERNELS["hmc"], num_steps=num_steps).kernel
        position = jax.tree.map(lambda x: x[0], KNOWN.positions(1))
        return jax.eval_shape(kernel.init, KEY, position, KNOWN.batch, kernel.initial_tuning)

    assert jax.tree.map(jnp.shape, state(100)) == jax.tree.map(jnp.shape, state(10_000))


def test_resumes_from_disk_in_the_middle_and_after_the_end(tmp_path):
    kernel = KERNELS["hmc"]
    warmup = window_adaptation(kernel, num_steps=60)
    whole = run(warmup.kernel, 60)
    half = run(warmup.kernel, 30)
    save_run(tmp_path / "half", half.run)
    like = jax.eval_shape(lambda: start(KEY, warmup.kernel, KNOWN.positions(NUM_CHAINS), KNOWN.batch, mesh=MESH))
    rest = run(warmup.kernel, 30, run=load_run(tmp_path / "half", like))
    np.testing.assert_array_equal(np.concatenate([half.draws, rest.draws], axis=1), whole.draws)
    jax.tree.map(np.testing.assert_array_equal, rest.run.state, whole.run.state)

    sampled = run(kernel, 20, run=finish(warmup, whole.run))
    part = run(kernel, 10, run=finish(warmup, rest.run))
    save_run(tmp_path / "part", part.run)
    continued = run(kernel, 10, run=load_run(tmp_path / "part", jax.eval_shape(lambda: part.run)))
    np.testing.assert_array_equal(np.concatenate([part.draws, continued.draws], axis=1), sampled.draws)
    assert int(continued.run.step) == 80


@pytest.mark.parametrize(("num_steps", "last"), [(20, 6), (100, 30), (149, 44), (150, 45), (1000, 300)])
def test_the_last_step_size_has_steps_enough(num_steps, last):
    """30 % of all; Stan has 50, too few for kernels whose acceptance hardly tells a step size from another."""
    in_window, is_end = _stages(num_steps, "diagonal").T
    ends = np.flatnonzero(is_end)
    assert in_window.size - (ends[-1] + 1) == last
    assert in_window[ends].all()


@pytest.mark.parametrize(("num_steps", "last"), [(1, 1), (19, 19), (20, 10), (100, 50)])
def test_without_a_metric_the_last_step_size_has_half_of_the_steps(num_steps, last):
    in_window, is_end = _stages(num_steps, "identity").T
    ends = np.flatnonzero(is_end)
    assert not in_window.any()
    assert ends.size <= 1
    assert in_window.size - (ends[-1] + 1 if ends.size else 0) == last


@pytest.mark.parametrize("num_steps", [20, 50, 100])
def test_the_step_size_is_of_whole_trajectories(num_steps):
    """Shorter ones, far from the typical set, bear steps a hundred times as long; in an average they would stay for long."""
    kernel, limit = KERNELS["hmc"], 1e-3

    def step(key, state, batch, tuning, step):
        state, info = kernel.step(key, state, batch, tuning, step)
        is_accepted = tuning.step_size < jnp.where(step < num_steps // 2, 100 * limit, limit)
        return state, info._replace(acceptance_rate=is_accepted.astype(jnp.float32))

    warmup = window_adaptation(kernel._replace(step=step), num_steps=num_steps, metric="identity")
    assert limit / 5 < finish(warmup, run(warmup.kernel, num_steps, save=None).run).tuning.tuning.step_size.max() < limit


def test_trajectories_grow_over_the_first_half():
    kernel = hmc(KNOWN.target, step_size=0.1, trajectory_length=1.0, jitter=0.0)
    lengths, sizes = [], []

    def step(key, state, batch, tuning, step):
        lengths.append(float(tuning.trajectory_length))
        sizes.append(float(tuning.step_size))
        return kernel.step(key, state, batch, tuning, step)

    warmup = window_adaptation(kernel._replace(step=step), num_steps=10).kernel
    position, tuning = jax.tree.map(lambda x: x[0], KNOWN.positions(1)), warmup.initial_tuning
    state = warmup.init(KEY, position, KNOWN.batch, tuning)
    for number in range(10):
        state, _ = warmup.step(jax.random.fold_in(KEY, number), state, KNOWN.batch, tuning, jnp.int32(number))
    np.testing.assert_allclose(lengths[4:], 1.0)
    # Of the step size then to the length: a fifth of the way in logarithms at each step.
    shares = np.log(np.array(lengths[:4]) / sizes[:4]) / np.log(1 / np.array(sizes[:4]))
    np.testing.assert_allclose(shares, [0.2, 0.4, 0.6, 0.8], rtol=1e-5)  # roundings of float32
    assert isinstance(state, AdaptationState)
    assert int(state.step) == 10


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_steps": 0}, "at least one step, got num_steps=0"),
        ({"target_acceptance_rate": 1.0}, "target_acceptance_rate must be between 0 and 1, got 1.0"),
        ({"metric": "dense"}, "metric must be one of .*, got 'dense'"),
        ({"kernel": sgld(KNOWN.target, step_size=0.1)}, "this kernel has no inverse_mass_matrix to adapt"),
        ({"kernel": sghmc(KNOWN.target, step_size=0.1, friction=1.0)}, "a kernel with friction has no accept step"),
        (
            {"kernel": mclmc(KNOWN.target, step_size=0.1, decoherence_length=1.0)},
            "a kernel with decoherence_length has no accept step.* mclmc_adaptation",
        ),
        (
            {"kernel": parallel_tempering(KERNELS["hmc"], KNOWN.target, [0.0, 0.5, 1.0])},
            r"one step size is needed, got step_size of shape \(3,\).* ladder_adaptation",
        ),
    ],
)
def test_checks_its_arguments(options, match):
    options = {"kernel": KERNELS["hmc"], "num_steps": 10} | options
    with pytest.raises(ValueError, match=match):
        window_adaptation(options.pop("kernel"), **options)


def test_finishes_nothing_but_the_run_of_a_warm_up():
    kernel = KERNELS["hmc"]
    warmup = window_adaptation(kernel, num_steps=1)
    warm, plain = run(warmup.kernel, 1), run(kernel, 1)
    assert int(finish(warmup, warm.run).phase) == 1
    for wrong, found in ((warm, "Result"), (plain.run, "HMCState")):
        with pytest.raises(TypeError, match=f"result.run; got {found}"):
            finish(warmup, wrong)
