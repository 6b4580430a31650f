"""Visits against mass where the masses are known: chains that mix pass, chains that do not never do, tempering repairs them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import samplers
from bayesnn.measure.evidence import methods_agree
from bayesnn.measure.nested import run_nested
from bayesnn.measure.tempered import (
    Ladders,
    Particles,
    evidence_of_ladders,
    evidence_of_particles,
    run_ladders,
    run_particles,
)
from bayesnn.measure.visits import _drawn
from diagnostics import regions
from diagnostics.oracles import double_well, gaussian_mixture, superposition
from samplers import Target

pytestmark = pytest.mark.slow

CHAINS, SYSTEMS, PARTICLES = 8, 8, 256
MIXING, STUCK = 1.5, 30.0  # n of the double well: barriers of 2 and of 42 nats


def target_of(oracle, num_data=1):
    target = Target(lambda w, _: oracle.log_prior(w), lambda w, data, _: oracle.log_likelihood(w, data), num_data)
    return target, samplers.Batch(oracle.data, jnp.ones(num_data))


def exact(oracle):
    return regions.masses_from_logs("quadrature", oracle.regions.log_evidence)


def labels_of(oracle, positions):
    return np.asarray(jax.vmap(jax.vmap(oracle.regions.classify))(jax.tree.map(jnp.asarray, positions)))


def visits(oracle, kernel, starts, num_steps, thin=1, seed=1):
    target, batch = target_of(oracle)
    draws = samplers.sample(
        jax.random.key(seed), kernel(target), starts, batch, num_steps=num_steps, thin=thin, throw=False
    ).draws
    return labels_of(oracle, draws)


def hmc(step_size=0.1, trajectory_length=0.8):
    return lambda target: samplers.hmc(target, step_size=step_size, trajectory_length=trajectory_length, max_num_steps=16)


def particles_of(oracle, seed=2, particles=PARTICLES, moves=5):
    """Systems of particles, and the masses by them."""
    target, batch = target_of(oracle)
    starts = oracle.draw_prior(jax.random.key(seed), SYSTEMS * particles)
    starts = jax.tree.map(lambda x: x.reshape(SYSTEMS, particles, *x.shape[1:]), starts)
    found = run_particles(jax.random.key(seed), hmc(0.2, 1.0)(target), target, batch, starts, num_moves=moves)
    labels = labels_of(oracle, found.position)
    count = len(oracle.regions.names)
    return found, regions.masses_from_weights("tempered SMC", labels, found.log_weights, found.log_evidence, count)


def ladders_of(oracle, seed=13, rungs=10, warmup=400, draws=1000):
    """Ladders, the labels of their coldest rungs, and the masses by them."""
    target, batch = target_of(oracle)
    starts = oracle.draw_prior(jax.random.key(seed), SYSTEMS)
    kernel = hmc(0.2, 1.0)(target)
    found = run_ladders(jax.random.key(seed), kernel, target, batch, starts, num_rungs=rungs, num_warmup=warmup, num_draws=draws)
    labels = labels_of(oracle, found.position)
    count = len(oracle.regions.names)
    return found, labels, regions.masses_from_systems("parallel tempering", regions.visit_shares(labels, count))


@pytest.fixture(scope="module")
def well():
    return double_well(STUCK)


@pytest.fixture(scope="module")
def roads(well):
    return particles_of(well), ladders_of(well)


def test_hmc_passes_where_it_mixes():
    oracle = double_well(MIXING)
    labels = visits(oracle, hmc(), oracle.draw_prior(jax.random.key(0), CHAINS), 8000, thin=4)
    assert regions.regions_mix(labels, 2).verdict == "pass"
    finding = regions.regions_visited_by_mass(labels, [exact(oracle)])
    assert finding.verdict == "pass", finding.note


def test_hmc_never_passes_where_it_is_stuck(well):
    starts = {
        "prior": well.draw_prior(jax.random.key(0), CHAINS),
        "light": jnp.full((CHAINS, 1), -1.0),
        "posterior": well.draw(jax.random.key(5), CHAINS),
    }
    # Steep walls: leapfrog is stable everywhere only at small steps, and what is unstable throws chains across the barrier.
    for name, start in starts.items():
        labels = visits(well, hmc(0.01, 0.15), start, 1000)[:, 50:]  # the first steps fall from the prior into a well
        assert (labels == labels[:, :1]).all(), name  # they are stuck
        finding = regions.regions_visited_by_mass(labels, [exact(well)])
        assert finding.verdict in ("fail", "inconclusive"), f"{name}: {finding.note}"
        assert name != "light" or finding.verdict == "fail"
        assert regions.regions_mix(labels, 2, [exact(well)]).verdict == "fail"
        entered = regions.first_entry_shares(labels, np.zeros(CHAINS, int), 2)[0]
        np.testing.assert_array_equal(entered, regions.visit_shares(labels, 2).mean(0))  # the weights of the start for ever


def test_tempering_finds_the_masses_and_repairs_the_visits(well, roads):
    (_, by_particles), (ladders, labels, by_ladders) = roads
    for masses in (by_particles, by_ladders):
        # Errors are widened for 8 systems: 4 of them have probability 0.002 by Student's t.
        assert regions.agreement(masses, exact(well))[0] < 4, masses
    assert ladders.round_trips.min() > 10
    assert regions.regions_mix(labels, 2).verdict == "pass"
    finding = regions.regions_visited_by_mass(labels, [by_particles, by_ladders])
    assert finding.verdict == "pass", finding.note


def test_both_roads_find_the_evidence(well, roads):
    (particles, _), (ladders, _, _) = roads
    found = {"smc": evidence_of_particles(particles), **evidence_of_ladders(ladders)}
    for name in ("smc", "stepping stone"):
        # Student's t with 7 degrees of freedom: 4.8 standard errors have probability 0.002.
        assert abs(found[name].log_evidence - well.log_evidence) < 4.8 * found[name].standard_error, name
    # The trapezoids of the third have an error that is not in its standard error; on this ladder below 0.1 nats.
    integral = found["thermodynamic integration"]
    assert abs(integral.log_evidence - well.log_evidence) < 0.1 + 4.8 * integral.standard_error
    assert 0.1 < integral.discretisation < 5


def test_evidences_of_ladders_are_averaged_and_not_their_logarithms():
    """Ladders of likelihoods that hardly vary have evidences of 1 and of 3: the mean is 2, that of the logarithms log(3) / 2."""
    of_ladder = np.log([1.0, 1.0, 3.0, 3.0])[:, None, None]
    log_likelihood = of_ladder + 1e-6 * np.random.default_rng(4).normal(size=(4, 8, 3))
    ladders = Ladders(None, log_likelihood, np.tile([0.0, 0.2, 1.0], (4, 1)), np.ones(4, int), 0.0)
    assert evidence_of_ladders(ladders)["stepping stone"].log_evidence == pytest.approx(np.log(2), abs=1e-5)
    hot = ladders._replace(log_likelihood=3 * log_likelihood)  # log likelihoods are kept untempered
    assert evidence_of_ladders(hot, 3.0)["stepping stone"].log_evidence == pytest.approx(np.log(2), abs=1e-5)


def evidences(*values, error=0.1, round_trips=12):
    """What `evidence_table` holds, of tempered SMC, stepping stones and, if there are three, nested sampling."""
    names = [*["tempered SMC", "stepping stone", "nested sampling"][: len(values)], "thermodynamic integration"]
    value = np.array([*values, 1e4])  # no verdict rests on the last
    columns = {"log_evidence": value, "standard_error": np.full(len(value), error), "lower": value - 1, "upper": value + 1}
    by_system = {"by_system": ("system", np.zeros(SYSTEMS)), "round_trips": ("ladder", np.full(SYSTEMS, round_trips))}
    return xr.Dataset({name: ("estimator", column) for name, column in columns.items()} | by_system, {"estimator": names})


@pytest.mark.parametrize(
    ("table", "verdict", "words"),
    [
        (evidences(-50.0, -50.2), "pass", "12 round trips"),
        (evidences(-50.0, -52.0), "fail", "contradict each other"),
        (evidences(-52.0, -50.0, round_trips=0), "fail", "contradict each other, and a ladder had no round trip"),
        (evidences(-50.0, -50.2, round_trips=0), "inconclusive", "no round trip"),
        (evidences(-50.0, -50.2, error=0.5), "inconclusive", "too noisy"),
        (evidences(-50.0, -50.2, -53.0), "fail", "SMC less nested sampling"),
        # 2.6 standard errors of a difference: Student's quantile with 7 degrees is 2.36 for one, and 2.84 for both of two.
        (evidences(-50.0, -50.0 - 0.26 * np.sqrt(2)), "fail", "contradict each other"),
        (evidences(-50.0, -50.0 - 0.26 * np.sqrt(2), -50.0), "pass", "SMC less stepping stone"),
    ],
)
def test_every_verdict_on_evidences_can_come_out(table, verdict, words):
    finding = methods_agree(table)
    assert finding.verdict == verdict
    assert words in finding.note


def test_the_pilot_is_drawn_by_weights_and_evidences():
    """Two systems of two kinds of particles: three quarters come from the second, and four fifths of these are of its second."""
    position = {"w": np.repeat(np.arange(4.0).reshape(2, 2), 4000, 1)}
    log_weights = np.repeat(np.log([[0.5, 0.5], [0.2, 0.8]]), 4000, 1) - np.log(4000)
    pilot, system = _drawn(jax.random.key(0), Particles(position, log_weights, np.log([1.0, 3.0]), 0.0))
    drawn = np.asarray(pilot["w"]).astype(int)
    expected = np.array([0.125, 0.125, 0.15, 0.6])
    found = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_array_equal(system, drawn // 2)
    assert (np.abs(found - expected) < 4 * np.sqrt(expected / len(drawn))).all()


def nested_of(oracle, starts_scale=1.0, seed=3, points=300):
    target, batch = target_of(oracle)
    starts = starts_scale * oracle.draw_prior(jax.random.key(seed), SYSTEMS * points).reshape(SYSTEMS, points, -1)
    found = run_nested(jax.random.key(seed), target, batch, starts, tempering=samplers.Tempering.at(), num_draws=PARTICLES)
    labels = labels_of(oracle, found.position)
    return found, regions.masses_from_weights("nested sampling", labels, found.log_weights, found.log_evidence, 2)


def test_nested_sampling_is_a_third_road(well, roads):
    found, masses = nested_of(well)
    evidence = samplers.mean_log_evidence(found.log_evidence)
    assert abs(evidence.log_evidence - well.log_evidence) < 4.8 * evidence.standard_error  # Student's t as above
    assert regions.agreement(masses, exact(well))[0] < 4, masses
    assert regions.agreement(masses, roads[0][1])[0] < 4
    narrow = samplers.mean_log_evidence(nested_of(well, starts_scale=0.8)[0].log_evidence)  # no draws of the prior
    assert abs(narrow.log_evidence - well.log_evidence) > 4.8 * narrow.standard_error


def heated(oracle, temperature, num_draws=2000):
    """Chains on a density that has another temperature in the region on the left, labelled by the right classifier."""

    def density(w):
        is_left = oracle.regions.classify(w) == 0
        return oracle.log_density(w) / jnp.where(is_left, temperature, 1.0)

    target, batch = samplers.from_logdensity(density)
    starts = oracle.draw_prior(jax.random.key(0), CHAINS)
    draws = samplers.sample(jax.random.key(1), hmc()(target), starts, batch, num_steps=4 * num_draws, thin=4).draws
    return labels_of(oracle, draws)


def test_a_wrong_temperature_in_one_basin_fails():
    oracle = gaussian_mixture([0.5, 0.5], [[-1.0], [1.0]], [0.3, 0.3], prior_scale=2.0)
    fair = regions.regions_visited_by_mass(heated(oracle, 1.0), [exact(oracle)])
    assert fair.verdict == "pass", fair.note
    hot = regions.regions_visited_by_mass(heated(oracle, 3.0), [exact(oracle)])
    assert hot.verdict == "fail", hot.note


def test_a_missing_accept_step_fails():
    """Langevin steps without it, near the limit of stability of the narrow mode, leave that too often."""
    oracle = gaussian_mixture([0.7, 0.3], [[-1.0], [1.5]], [0.05, 0.6], prior_scale=2.0)
    starts = oracle.draw(jax.random.key(0), CHAINS)
    small = visits(oracle, lambda target: samplers.sgld(target, step_size=0.01), starts, 60_000, thin=20)
    assert regions.regions_visited_by_mass(small, [exact(oracle)]).verdict == "pass"
    large = visits(oracle, lambda target: samplers.sgld(target, step_size=0.19), starts, 20_000, thin=10)
    finding = regions.regions_visited_by_mass(large, [exact(oracle)])
    assert finding.verdict == "fail", finding.note
    right = visits(oracle, lambda target: samplers.mala(target, step_size=0.4), starts, 40_000, thin=20)
    assert regions.regions_visited_by_mass(right, [exact(oracle)]).verdict == "pass"


def test_a_step_that_is_too_large_fails():
    """Steps across the well are nearly all refused; 32 such chains tell it under every one of six keys, 8 under some."""
    oracle = double_well(MIXING)
    labels = visits(oracle, hmc(step_size=6.0, trajectory_length=6.0), jnp.full((4 * CHAINS, 1), -1.0), 2000)
    assert regions.regions_visited_by_mass(labels, [exact(oracle)]).verdict == "fail"


def test_superposition_mixes_when_data_are_few_and_is_stuck_when_they_are_many():
    """18 parameters, six features: at n = 10 HMC passes; at n = 1000 it does not, and both roads agree with each other."""
    few = superposition(6, 10.0)
    count = len(few.regions.names)
    _, by_particles = particles_of(few, particles=512, moves=8)
    _, _, by_ladders = ladders_of(few, rungs=6, warmup=200, draws=1500)
    starts = few.draw_prior(jax.random.key(0), CHAINS)
    labels = visits(few, hmc(0.2, 1.5), starts, 8000, thin=4)
    assert regions.regions_visited_by_mass(labels, [by_particles, by_ladders]).verdict == "pass"

    many = superposition(6, 1000.0)
    found, by_particles = particles_of(many, particles=512, moves=8)
    whole = evidence_of_particles(found)
    # What `basin_log_evidence` says that it is off by, to 0.01; Student's t with 7 degrees of freedom: 4.8 errors have 0.002.
    for name, off in (("6", 0.19), ("5+", 0.76), ("5-", 0.33)):
        place = many.regions.names.index(name)
        share, relative = by_particles.share[place], by_particles.standard_error[place] / by_particles.share[place]
        error = np.hypot(whole.standard_error, relative)
        assert abs(whole.log_evidence + np.log(share) - many.regions.log_evidence[place] - off) < 0.01 + 4.8 * error, name
    _, ladder_labels, by_ladders = ladders_of(many, rungs=16, warmup=800, draws=3000)
    starts = many.draw_prior(jax.random.key(0), CHAINS)
    labels = visits(many, hmc(0.05, 0.8), starts, 4000, thin=4)
    masses = [by_particles, by_ladders]
    assert regions.regions_mix(labels, count, masses).verdict != "pass"
    assert regions.regions_visited_by_mass(labels, masses).verdict in ("fail", "inconclusive")
    assert regions.regions_visited_by_mass(ladder_labels, masses).verdict != "fail"
