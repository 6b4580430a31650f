"""Boolean networks: probabilities of functions against solid angles, symmetries and the number of threshold functions."""

import functools
import itertools

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from diagnostics.oracles import boolean_network

MAX_STANDARD_ERRORS = 5.0
NUM_DRAWS = 2**17
INPUTS = list(itertools.product([0, 1], repeat=3))


@functools.cache
def prior(hidden):
    return boolean_network(jax.random.key(1), hidden=hidden, num_draws=NUM_DRAWS).regions


def symmetric_functions(index):
    """Functions that swapping and negating inputs, and negating the output, make of one."""
    labels = [(index >> row) & 1 for row in range(8)]
    found = set()
    for order in itertools.permutations(range(3)):
        for flips in itertools.product([0, 1], repeat=4):
            row_of = {x: row for row, x in enumerate(INPUTS)}
            moved = [labels[row_of[tuple(x[order[i]] ^ flips[i] for i in range(3))]] ^ flips[3] for x in INPUTS]
            found.add(sum(label << row for row, label in enumerate(moved)))
    return sorted(found)


def test_a_perceptron_computes_the_threshold_functions():
    # Of three variables there are 104 (Muroga 1971), and the 152 others never occur.
    assert np.sum(prior(()).masses > 0) == 104
    assert prior(()).masses.sum() == pytest.approx(1)


def test_a_perceptron_is_constant_with_the_probability_of_a_solid_angle():
    # Constant and positive: the bias exceeds the sum of three absolute weights. Their density, by two convolutions on a grid.
    step = 0.002
    grid = np.arange(0, 14, step) + step / 2
    half = 2 * scipy.stats.norm.pdf(grid)
    total = np.convolve(np.convolve(half, half), half)[: len(grid)] * step**2
    # A sum of three midpoints lies one step beyond the midpoint of its own place.
    expected = float(np.sum(total * scipy.stats.norm.sf(grid + step)) * step)
    inputs = np.array(INPUTS)
    constants = [0, 255] + [sum(int(row[i] == value) << r for r, row in enumerate(inputs)) for i in range(3) for value in (0, 1)]
    for index in constants:  # and, by symmetry of weights and bias, the functions of a single input
        assert abs(prior(()).masses[index] - expected) < MAX_STANDARD_ERRORS * prior(()).standard_error[index]


@pytest.mark.slow
def test_functions_that_a_symmetry_relates_are_equally_probable():
    seen = set()
    for index in range(256):
        orbit = symmetric_functions(index)
        if orbit[0] in seen:
            continue
        seen.add(orbit[0])
        masses, errors = prior((8,)).masses[orbit], prior((8,)).standard_error[orbit]
        if masses.sum() * NUM_DRAWS > 10 * len(orbit):
            # Counts of one orbit, given their sum: chi-square with one degree of freedom less than functions.
            statistic = np.sum((masses - masses.mean()) ** 2) / masses.mean() * NUM_DRAWS
            assert scipy.stats.chi2(len(orbit) - 1).sf(statistic) > 1e-5 if len(orbit) > 1 else True
            assert np.allclose(errors, np.sqrt(masses * (1 - masses) / NUM_DRAWS), rtol=1e-4)
    assert len(seen) == 14  # classes of functions of three inputs under these symmetries


def test_a_wide_layer_given_its_features_is_an_orthant():
    # Independent of the tally: outputs are Gaussian given the hidden layer, and a constant function is an orthant of their law.
    rng = np.random.default_rng(0)
    signs = 2 * np.array(INPUTS) - 1.0
    share = np.empty(60)
    for draw in range(len(share)):
        features = np.maximum(signs @ rng.normal(size=(3, 8)) + rng.normal(size=8), 0)
        covariance = features @ features.T + 1 + 1e-6 * np.eye(8)
        share[draw] = scipy.stats.multivariate_normal.cdf(
            np.zeros(8), np.zeros(8), covariance, maxpts=20_000, abseps=1e-4, rng=draw
        )
    error = np.hypot(share.std() / np.sqrt(len(share)), prior((8,)).standard_error[0])
    assert abs(share.mean() - prior((8,)).masses[0]) < MAX_STANDARD_ERRORS * error


def test_posterior_is_the_prior_on_what_fits():
    observed, labels = [0, 3, 5, 6], [0, 1, 1, 0]
    posterior = boolean_network(jax.random.key(2), observed, labels, num_draws=NUM_DRAWS)
    fits = np.array(
        [all((index >> row) & 1 == label for row, label in zip(observed, labels, strict=True)) for index in range(256)]
    )
    assert fits.sum() == 16
    expected = np.where(fits, prior((8,)).masses, 0) / prior((8,)).masses[fits].sum()
    error = np.hypot(posterior.regions.standard_error, prior((8,)).standard_error / prior((8,)).masses[fits].sum())
    assert (posterior.regions.masses[~fits] == 0).all()
    assert (np.abs(posterior.regions.masses - expected)[fits] < MAX_STANDARD_ERRORS * error[fits] + 1e-12).all()
    assert posterior.log_evidence == pytest.approx(np.log(prior((8,)).masses[fits].sum()), abs=5 * 0.02)


@pytest.mark.slow
def test_draws_and_a_smooth_likelihood_agree_with_the_answers(check):
    sharp = boolean_network(jax.random.key(3), [0, 7], [0, 1], sharpness=2.0, num_draws=NUM_DRAWS)
    num_draws = 2**13
    draws = sharp.draw(jax.random.key(4), num_draws)
    counts = np.bincount(np.asarray(jax.vmap(sharp.regions.classify)(draws)), minlength=256) / num_draws
    masses = sharp.regions.masses
    error = np.sqrt(masses * (1 - masses) / num_draws + sharp.regions.standard_error**2)
    frequent = masses > 20 / num_draws
    assert (np.abs(counts - masses)[frequent] < MAX_STANDARD_ERRORS * error[frequent]).all()
    # Functions that are wrong on a row keep some probability, unlike under the sharp likelihood.
    assert masses[0] > 0


@pytest.mark.parametrize(("observed", "labels"), [([8], [0]), ([0], [2]), ([0, 1], [0])])
def test_bad_rows_are_refused(observed, labels):
    with pytest.raises(ValueError, match="rows from 0 to 7"):
        boolean_network(jax.random.key(0), observed, labels)


def test_functions_that_never_occur_are_refused():
    parity = [sum(x) % 2 for x in INPUTS]
    with pytest.raises(ValueError, match="take more"):
        boolean_network(jax.random.key(0), range(8), parity, hidden=(), num_draws=2**14)
