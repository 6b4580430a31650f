"""Toy models of superposition: loss by numerical integration, polygons by Hessians, evidence by importance sampling."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree

from diagnostics.oracles import polygons, superposition, superposition_loss
from diagnostics.oracles.superposition_posterior import (
    IS_CORNER,
    _free_mass,
    _held_mass,
    basin_log_evidence,
    laplace_log_evidence,
)

# H, length and bias of the corners, learning coefficient: computed once with another program, to the digits given.
TABLE = {
    (6, "4--"): (0.11111, 1.0, 0.0, 7.5),
    (6, "4+-"): (0.10417, 1.0, 0.0, 8.0),
    (6, "4++"): (0.09722, 1.0, 0.0, 8.5),
    (6, "5-"): (0.06874, 1.17046, -0.28230, 7.0),
    (6, "5+"): (0.06180, 1.17046, -0.28230, 8.5),
    (6, "6"): (0.04819, 1.32053, -0.61814, 8.5),
    (5, "4-"): (0.06667, 1.0, 0.0, 6.5),
    (5, "4+"): (0.05667, 1.0, 0.0, 7.0),
    (5, "5"): (0.01583, 1.17046, -0.28230, 7.0),
}
KINDS = [kind for num_features in range(4, 7) for kind in polygons(num_features)]
SMOOTH = [kind for kind in KINDS if kind.num_corners > 4]
SQUARES = [kind for kind in KINDS if kind.num_corners == 4]
RNG = np.random.default_rng(4)


def name(kind):
    return f"{kind.num_features}:{kind.name}"


def kind_of(num_features, name):
    return next(kind for kind in polygons(num_features) if kind.name == name)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def loss_of(kind):
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, kind.position()))
    return np.asarray(flat), jax.jit(lambda x: superposition_loss(unravel(x)))


def copies(position):
    """The same network, rotated, reflected and with its features in another order."""
    angle, order = RNG.uniform(0, 2 * np.pi), RNG.permutation(len(position["biases"]))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([1, RNG.choice([-1, 1])])
    return {"weights": rotation @ position["weights"][:, order], "biases": position["biases"][order]}


def test_loss_is_the_mean_squared_error():
    # Ten thousand midpoints: off by some 1e-8 times the slopes and kinks of the integrand.
    x = (np.arange(10_000) + 0.5) / 10_000
    for scale in (0.3, 1.0, 3.0):
        weights, biases = scale * RNG.normal(size=(2, 5)), scale * RNG.normal(size=5)
        weights[:, 4] = 0
        total = 0.0
        for feature in range(5):
            inputs = np.eye(5)[feature][:, None] * x
            total += np.sum((inputs - np.maximum(weights.T @ (weights @ inputs) + biases[:, None], 0)) ** 2, 0).mean() / 5
        assert float(superposition_loss({"weights": weights, "biases": biases})) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize(("num_features", "kind"), TABLE)
def test_polygons_equal_the_table(num_features, kind):
    polygon = kind_of(num_features, kind)
    loss, length, bias, llc = TABLE[num_features, kind]
    position = polygon.position()
    assert polygon.loss() == pytest.approx(loss, abs=5.1e-6)
    np.testing.assert_allclose(np.linalg.norm(position["weights"][:, 0]), length, atol=5.1e-6)
    assert position["biases"][0] == pytest.approx(bias, abs=5.1e-6)
    assert polygon.llc == llc


@pytest.mark.parametrize("kind", SMOOTH, ids=name)
def test_polygons_are_minima_with_as_many_flat_directions_as_stated(kind):
    flat, loss = loss_of(kind)
    eigenvalues = np.linalg.eigvalsh(jax.jit(jax.hessian(loss))(flat))
    # Rounding leaves 1e-14; the smallest true eigenvalue is above 1e-3.
    assert np.abs(jax.grad(loss)(flat)).max() < 1e-12
    assert eigenvalues.min() > -1e-12
    assert np.sum(eigenvalues > 1e-9) == 2 * kind.llc


@pytest.mark.parametrize("kind", SQUARES, ids=name)
def test_loss_next_to_squares_is_a_quadratic_cone(kind):
    flat, loss = loss_of(kind)
    at_square = loss(flat)

    def rise(direction, scale=1e-4):
        return (loss(flat + scale * direction) - at_square) / scale**2

    position = kind.position()
    turn = {"weights": np.array([[0, -1], [1, 0]]) @ position["weights"], "biases": np.zeros(kind.num_features)}
    shifts = [
        {"weights": np.zeros((2, kind.num_features)), "biases": np.eye(kind.num_features)[feature]}
        for feature in np.flatnonzero(position["biases"] < 0)
    ]
    level = np.linalg.qr(np.array([np.asarray(ravel_pytree(move)[0]) for move in [turn, *shifts]]).T)[0]
    assert level.shape[1] == 3 * kind.num_features - 2 * kind.llc
    # Flat: under a rotation, by whatever angle, and under a change of negative biases.
    assert float(superposition_loss(copies(position))) == pytest.approx(float(at_square), abs=1e-14)
    assert all(abs(rise(np.asarray(ravel_pytree(shift)[0]))) < 1e-6 for shift in shifts)
    # Rising in all others, by a square: the lowest of the cone over the unit sphere across them, from several starts.
    across = np.linalg.svd(level.T)[2][level.shape[1] :]
    lowest = []
    for direction in RNG.normal(size=(4, len(across))) @ across:
        direction /= np.linalg.norm(direction)
        # The terms of third order are 1e-4 of those of second.
        assert rise(direction, 1e-4) == pytest.approx(float(rise(direction, 1e-5)), rel=2e-3)
        sphere = lambda x: float(rise(x @ across / np.linalg.norm(x)))  # noqa: E731
        lowest.append(scipy.optimize.minimize(sphere, across @ direction, method="Powell", options={"maxiter": 3}).fun)
    assert min(lowest) > 1e-3


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_classifier_knows_copies_and_neighbours(kind):
    regions = superposition(kind.num_features, 10.0).regions
    classify = jax.jit(regions.classify)
    noise = {"weights": 0.02, "biases": 1 / (4 * kind.num_features)}
    for _ in range(5):
        moved = {key: value + noise[key] * RNG.uniform(-1, 1, value.shape) for key, value in copies(kind.position()).items()}
        assert regions.names[int(classify(moved))] == kind.name
    zero = {"weights": jnp.zeros((2, kind.num_features)), "biases": jnp.zeros(kind.num_features)}
    assert regions.names[int(classify(zero))] == "other"


def test_labelled_copies_are_counted():
    # Orders of labels around a circle, by enumeration: up to rotation, mirror images being different.
    for kind in polygons(5):
        arrangements = set()
        for order in itertools.permutations(range(5)):
            corners, rest = order[: kind.num_corners], order[kind.num_corners :]
            start = corners.index(min(corners))
            positive = frozenset(rest[: kind.num_positive])
            arrangements.add((corners[start:] + corners[:start], positive))
        assert len(arrangements) == kind.num_copies
    assert [kind.num_copies for kind in polygons(6)][:2] == [math.factorial(5), 6 * math.factorial(4)]


def test_free_energies_equal_those_computed_elsewhere():
    # Laplace's method, times the orbit and the copies, by another program: hexagon and pentagon with a positive bias.
    for n, *expected in ((100, 23.75, 23.57), (300, 37.91, 39.09), (1000, 65.0, 71.0)):
        for corners, value in zip(("6", "5+"), expected, strict=True):
            assert -laplace_log_evidence(kind_of(6, corners), n, 1.0) == pytest.approx(value, abs=0.051)


def sampled_log_evidence(kind, n, num_draws=40_000, prior_scale=1.0):
    """Log evidence of a basin by importance sampling across the orbit of rotations: exact but for the noise of the draws.

    A displacement orthogonal to the orbit, followed by a rotation, reaches every point near the orbit once; volumes change by the
    component along the orbit of the velocity with which the displaced point is rotated.
    """
    flat, loss = loss_of(kind)
    unravel = ravel_pytree(jax.tree.map(jnp.asarray, kind.position()))[1]
    hessian = np.asarray(jax.jit(jax.hessian(loss))(flat)) * n / 2 + np.eye(len(flat)) / prior_scale**2
    turn = lambda x: ravel_pytree({**unravel(x), "weights": jnp.array([[0.0, -1], [1, 0]]) @ unravel(x)["weights"]})[0]  # noqa: E731
    is_weight = np.asarray(ravel_pytree({"biases": np.zeros(kind.num_features), "weights": np.ones((2, kind.num_features))})[0])
    velocity = np.asarray(turn(flat)) * is_weight
    tangent = velocity / np.linalg.norm(velocity)
    across = np.linalg.svd(tangent[None])[2][1:]
    curvature = across @ hessian @ across.T
    factor = np.linalg.cholesky(np.linalg.inv(curvature))
    # Student's t with 8 degrees of freedom, whose tails are heavier than the posterior's.
    normal, chi = RNG.normal(size=(num_draws, len(curvature))), RNG.chisquare(8, (num_draws, 1)) / 8
    standard = normal / np.sqrt(chi)
    displaced = flat + standard @ factor.T @ across
    d = len(curvature)
    log_proposal = (
        math.lgamma((8 + d) / 2)
        - math.lgamma(4)
        - d / 2 * np.log(8 * np.pi)
        - (8 + d) / 2 * np.log1p((standard**2).sum(1) / 8)
        - np.log(np.diag(factor)).sum()
    )
    losses = np.asarray(jax.jit(jax.vmap(lambda x: superposition_loss(unravel(x))))(displaced))
    log_density = -n / 2 * losses - ((displaced / prior_scale) ** 2 + np.log(2 * np.pi * prior_scale**2)).sum(1) / 2
    jacobian = (np.asarray(jax.vmap(turn)(displaced)) * is_weight) @ tangent
    weights = 2 * np.pi * jacobian * np.exp(log_density - log_proposal - (log_density - log_proposal).max())
    log_mean = np.log(weights.mean()) + (log_density - log_proposal).max()
    return log_mean + np.log(kind.num_copies), weights.std() / weights.mean() / np.sqrt(num_draws)


@pytest.mark.parametrize("n", [1e3, 3e3, 1e4])
@pytest.mark.parametrize("corners", ["6", "5+"])
def test_evidence_is_off_by_what_is_stated(corners, n):
    """By importance sampling, whose error is known; the table in `basin_log_evidence` has two digits."""
    kind, place = kind_of(6, corners), [1e3, 3e3, 1e4].index(n)
    exact, error = sampled_log_evidence(kind, n)
    stated = {"6": ((0.19, 0.93), (0.04, 0.29), (0.0, 0.08)), "5+": ((0.76, 1.78), (0.25, 0.59), (0.03, 0.13))}[corners][place]
    found = exact - basin_log_evidence(kind, n, 1.0), exact - laplace_log_evidence(kind, n, 1.0)
    np.testing.assert_allclose(found, stated, atol=5 * error + 0.01)


def test_with_many_data_evidence_is_exact_and_the_leading_order_is_not():
    exact, error = sampled_log_evidence(kind_of(6, "5+"), 3e4)
    # Terms of second order are a ninth of what they are at 1e4, 0.03 nats.
    assert abs(superposition(6, 3e4).regions.log_evidence[1] - exact) < 5 * error + 0.004
    assert abs(laplace_log_evidence(kind_of(6, "5+"), 3e4, 1.0) - exact) > 5 * error + 0.004


def test_evidence_under_a_narrower_prior():
    """The prior is part of the term of first order: with one half as wide, too, little is left."""
    kind, n = kind_of(5, "5"), 1e4
    exact, error = sampled_log_evidence(kind, n, prior_scale=0.5)
    assert abs(basin_log_evidence(kind, n, 0.5) - exact) < 5 * error + 0.03


def test_a_wrong_number_of_copies_would_be_noticed():
    exact, error = sampled_log_evidence(kind_of(6, "6"), 3e5)
    regions = superposition(6, 3e5).regions
    assert abs(regions.log_evidence[0] + np.log(2) - exact) > 20 * error


def test_prior_mass_of_a_free_feature_by_draws():
    # The evidence of "5-" next to that of a pentagon of five features alone: what is left is the mass, the copies and the loss.
    pentagon, spare = kind_of(5, "5"), kind_of(6, "5-")
    alone, joined = (laplace_log_evidence(kind, 1e3, 1.0) for kind in (pentagon, spare))
    position = spare.position()
    draws = RNG.normal(size=(200_000, 3))

    def same_loss(draw):
        weights = jnp.asarray(position["weights"]).at[:, 5].set(draw[:2])
        return superposition_loss({"weights": weights, "biases": jnp.asarray(position["biases"]).at[5].set(draw[2])})

    free = np.abs(np.asarray(jax.jit(jax.vmap(same_loss))(draws)) - spare.loss()) < 1e-13
    # Losses are means over features: five sixths of the curvature, in 14 directions, and five sixths of the loss plus 1 / 18.
    expected = alone + np.log(spare.num_copies / pentagon.num_copies) + 7 * np.log(6 / 5) - 500 * (spare.loss() - pentagon.loss())
    mass = np.exp(joined - expected)
    assert abs(free.mean() - mass) < 5 * np.sqrt(mass / len(draws))


def test_what_a_free_feature_may_do_at_a_cost():
    """By prior draws of the feature beside the pentagon; and its edge is N^(-1/3) wide, because the loss there is a cube."""
    spare = kind_of(6, "5-")
    position = spare.position()
    draws = RNG.normal(size=(200_000, 3))

    def loss(draw):
        weights = jnp.asarray(position["weights"]).at[:, 5].set(draw[:2])
        return superposition_loss({"weights": weights, "biases": jnp.asarray(position["biases"]).at[5].set(draw[2])})

    rise = np.asarray(jax.jit(jax.vmap(loss))(draws)) - spare.loss()
    counts = (np.hypot(*draws.T[:2]) < IS_CORNER) & (draws[:, 2] < 0) & (rise > -1e-9)
    for n in (300.0, 1e3, 1e4):
        weights = counts * np.exp(-n / 2 * np.maximum(rise, 0))
        assert abs(weights.mean() - _held_mass(spare, n, 1.0)) < 5 * weights.std() / np.sqrt(len(draws))
    few, many = (np.log(_held_mass(spare, n, 1.0) / _free_mass(5, 1.0)) for n in (1e4, 1e6))
    # Of the excess over what is free: -1/3, less what is left of second order; -1/2 it would be, were the edge a parabola's.
    order = np.log(np.expm1(few) / np.expm1(many)) / np.log(100)
    assert 0.3 < order < 0.42


def test_prior_draws_fit_the_density():
    with jax.enable_x64(False):
        oracle = superposition(5, 10.0)
        draws = oracle.draw_prior(jax.random.key(0), 3)
        assert np.isfinite(jax.vmap(oracle.log_density)(draws)).all()
        assert np.isnan(oracle.regions.masses).all()


@pytest.mark.parametrize("arguments", [(3, 10.0), (7, 10.0), (6, 0.0)])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        superposition(*arguments)
