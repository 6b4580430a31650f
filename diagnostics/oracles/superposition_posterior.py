"""The posterior of the toy model of superposition, cut into the basins of its polygons."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key
from scipy.special import ndtr

from diagnostics.oracles.oracle import Oracle, Position, Regions, check_positive
from diagnostics.oracles.quadrature import panel_rule
from diagnostics.oracles.superposition import FEWEST_CORNERS, Polygon, corner, polygons, superposition_loss

IS_CORNER = 0.7  # columns of corners are 1 to 1.32 long; that of a feature left out next to a pentagon is free up to 0.30
EDGES = np.array([0, 1 / 16, 1 / 4, 1])  # of panels that are finer where a feature that is left out begins to cost
WIDEST = 8.0  # standard deviations of the prior: passed with probability 1e-15
FLAT = 1e-9  # eigenvalues of Hessians below this are rounding: the smallest of the others is above 1e-3
STEP = 2e-4  # of differences of Hessians: kinks are 0.1 away; truncation and rounding are then 1e-6 of the derivatives


def superposition(num_features: int, num_data: float, *, noise_scale: float = 1.0, prior_scale: float = 1.0) -> Oracle:
    r"""Return the posterior of the toy model of superposition, of log likelihood :math:`-n H / (2 \sigma^2)`.

    Regions are told by the number of columns longer than 0.7 and the signs of the biases of the other features: "6", "5+", "5-",
    "4++" and so on, and "other". Their learning coefficients are exact. Evidence is that of the basins of the polygons, by
    Laplace's method over the orbit of rotations, with the term of order 1 / n, and times the number of labelled copies
    (`basin_log_evidence`, which says how far it is off). It is NaN, and with it the masses, for squares, at which the loss has
    kinks.

    Args:
        num_features: c, from 4 to 6.
        num_data: n, > 0.
        noise_scale: Sigma, of each output, > 0; 1 and a loss of H / 2 an example by default.
        prior_scale: Standard deviation of every parameter, > 0.

    Returns:
        Oracle over positions {"weights": [2, c], "biases": [c]}.

    Raises:
        ValueError: An argument out of range.
    """
    kinds = polygons(num_features)
    check_positive(num_data=num_data, noise_scale=noise_scale, prior_scale=prior_scale)
    like = {"biases": jnp.zeros(num_features), "weights": jnp.zeros((2, num_features))}
    unravel = ravel_pytree(like)[1]

    def log_prior(position: Position) -> Float[Array, ""]:
        return jnp.sum(jax.scipy.stats.norm.logpdf(ravel_pytree(position)[0], scale=prior_scale))

    def log_likelihood(position: Position, data: Float[Array, " n"]) -> Float[Array, " n"]:
        return -data * superposition_loss(position) / (2 * noise_scale**2)

    def draw_prior(key: Key[Array, ""], num_draws: int) -> Position:
        return jax.vmap(unravel)(prior_scale * jax.random.normal(key, (num_draws, 3 * num_features)))

    place = np.full((num_features + 1, num_features + 1), len(kinds))  # by corners and positive biases
    for index, kind in enumerate(kinds):
        place[kind.num_corners, kind.num_positive] = index

    def classify(position: Position) -> Int[Array, ""]:
        is_corner = jnp.sum(position["weights"] ** 2, axis=0) > IS_CORNER**2
        return jnp.asarray(place)[jnp.sum(is_corner), jnp.sum(~is_corner & (position["biases"] > 0))]

    precision = num_data / noise_scale**2
    return Oracle(
        log_prior,
        log_likelihood,
        jnp.full(1, num_data, jnp.float32),
        draw_prior,
        "Loss in closed form; learning coefficients by counting directions; evidence of basins to first order in 1 / n.",
        regions=Regions(
            (*(kind.name for kind in kinds), "other"),
            classify,
            np.array([*(basin_log_evidence(kind, precision, prior_scale) for kind in kinds), np.nan]),
            standard_error=np.full(len(kinds) + 1, np.nan),
            llc=np.array([*(kind.llc for kind in kinds), np.nan]),
            multiplicity=np.array([*[1] * len(kinds), 0]),
        ),
    )


def basin_log_evidence(polygon: Polygon, precision: float, prior_scale: float) -> float:
    r"""Return the log evidence of all copies of a polygon, to first order in 1 / N, N being the precision.

    What is left out is of second order. By importance sampling, with a prior scale of 1, the basins of six features are heavier
    than this by

    ======  ========  ========  =========
    basin   N = 1000  N = 3000  N = 10000
    ======  ========  ========  =========
    "6"     0.19      0.04      0.00 nats
    "5+"    0.76      0.25      0.03 nats
    ======  ========  ========  =========

    and than the leading order alone by 0.93, 0.29, 0.08 and 1.78, 0.59, 0.13 nats. At N = 300 both are off by nats.

    A feature that is left out moves freely, and beyond that where it costs little. The loss rises with the cube of the excess, so
    that the edge is N^(-1/3) wide; its prior mass is integrated together with what the data leave of it. By tempered SMC the
    region "5-" is heavier than this by 0.3 nats at N = 1000, and than the leading order by 2.6. Some of that is the foot of "5+",
    where biases are just negative and the loss is lower; with many more data that foot outweighs the basin.

    Args:
        polygon: The kind of critical point.
        precision: n over the variance of the noise.
        prior_scale: Standard deviation of every parameter.

    Returns:
        Nats; NaN for squares.
    """
    leading = laplace_log_evidence(polygon, precision, prior_scale)
    if np.isnan(leading):
        return leading
    if polygon.num_negative:
        leading += np.log(_held_mass(polygon, precision, prior_scale) / _free_mass(polygon.num_corners, prior_scale))
    return float(leading + _next_order(polygon, prior_scale) / precision)


def laplace_log_evidence(polygon: Polygon, precision: float, prior_scale: float) -> float:
    r"""Return the log evidence of all copies of a polygon, to leading order in the number of data.

    .. math:: Z \approx \#\mathrm{copies} \cdot 2 \pi \lVert W \rVert_F \cdot \varphi(w^*) e^{-N H / 2}
        \prod_i \left(\frac{2 \pi}{N h_i / 2}\right)^{1/2}

    over the eigenvalues h of the Hessian of H that are not 0, N being the precision; times the prior mass of what is flat.

    Args:
        polygon: As in `basin_log_evidence`.
        precision: Likewise.
        prior_scale: Likewise.

    Returns:
        Nats; NaN for squares.
    """
    if polygon.num_corners == FEWEST_CORNERS:
        return np.nan
    position = polygon.position()
    bound = polygon.num_features - polygon.num_negative  # features that the data hold in place
    squares = np.sum(position["weights"][:, :bound] ** 2) + np.sum(position["biases"][:bound] ** 2)
    log_prior = -squares / (2 * prior_scale**2) - 3 * bound * np.log(prior_scale * np.sqrt(2 * np.pi))
    log_evidence = (
        np.log(polygon.num_copies)
        + np.log(2 * np.pi * np.linalg.norm(position["weights"]))
        + log_prior
        - precision * polygon.loss() / 2
        + 0.5 * np.sum(np.log(4 * np.pi / (precision * curvatures(polygon))))
    )
    return float(log_evidence + polygon.num_negative * np.log(_free_mass(polygon.num_corners, prior_scale)))


@functools.cache
def curvatures(polygon: Polygon) -> Float[np.ndarray, " direction"]:
    """Return the eigenvalues of the Hessian of H at a polygon that are not 0."""
    eigenvalues = np.linalg.eigvalsh(_hessian(polygon.num_features)(_flat(polygon)))
    return eigenvalues[eigenvalues > FLAT]


def _flat(polygon: Polygon) -> Float[np.ndarray, " parameter"]:
    """Return a polygon as one vector: biases, then weights."""
    position = polygon.position()
    return np.concatenate([position["biases"], position["weights"].ravel()])


@functools.cache
def _hessian(num_features: int) -> Callable[[Float[np.ndarray, " parameter"]], Float[np.ndarray, "parameter parameter"]]:
    """Return the Hessian of H, a function of the parameters as one vector, in double precision."""

    def loss(x: Float[Array, " parameter"]) -> Float[Array, ""]:
        return superposition_loss({"biases": x[:num_features], "weights": x[num_features:].reshape(2, num_features)})

    hessian = jax.jit(jax.hessian(loss))

    def evaluated(x: Float[np.ndarray, " parameter"]) -> Float[np.ndarray, "parameter parameter"]:
        with jax.enable_x64(True):
            return np.asarray(hessian(jnp.asarray(x)))

    return evaluated


@functools.cache
def _next_order(polygon: Polygon, prior_scale: float) -> float:
    r"""Return c, where c / N is what follows the leading order of Laplace's method.

    .. math:: c = -\tfrac18 f_{iijj} + \tfrac18 f_{iij} f_{jkk} + \tfrac1{12} f_{ijk} f_{ijk}
        + \tfrac12 (g_{ii} + g_i g_i - g_i f_{ijj})

    in coordinates across the orbit in which f = H / 2 has the Hessian 1; g is the log of the prior and of the orbit's length.
    Derivatives of the Hessian are central differences.
    """
    hessian, flat = _hessian(polygon.num_features), _flat(polygon)
    weights = np.where(np.arange(flat.size) < polygon.num_features, 0, flat)
    values, vectors = np.linalg.eigh(hessian(flat) / 2)
    axes, sizes = vectors[:, values > FLAT], np.sqrt(values[values > FLAT])
    units = axes / sizes
    ahead, behind = (np.stack([units.T @ hessian(flat + sign * STEP * axis) @ units / 2 for axis in axes.T]) for sign in (1, -1))
    third = (ahead - behind) / (2 * STEP * sizes[:, None, None])
    fourth = (ahead + behind - 2 * np.eye(sizes.size)) / (STEP * sizes[:, None, None]) ** 2
    longer = units.T @ weights / np.sum(weights**2)
    slope = longer - units.T @ flat / prior_scale**2
    curve = -np.sum(longer**2) - np.sum(units**2) / prior_scale**2
    trace = np.einsum("iij->j", third)
    return float(
        -np.einsum("ijj->", fourth) / 8 + trace @ trace / 8 + np.sum(third**2) / 12 + (curve + slope @ slope - slope @ trace) / 2
    )


def _free_mass(num_corners: int, prior_scale: float) -> float:
    """Integrate the prior over columns and biases of a feature left out that change no output at all.

    In polar coordinates of the column, over half the sector of one corner: there the corner's own bias bounds its length, and the
    projection on the corner, which exceeds the column's own square, bounds its bias from above.
    """
    length, bias = corner(num_corners)
    angle, angle_weight = panel_rule(np.linspace(0, np.pi / num_corners, 2))
    share, share_weight = panel_rule(np.linspace(0, 1, 2))
    projection = length * np.cos(angle)[:, None]
    radius = share * -bias / projection
    density = (
        np.exp(-(radius**2) / (2 * prior_scale**2)) / (2 * np.pi * prior_scale**2) * ndtr(-projection * radius / prior_scale)
    )
    return float(2 * num_corners * angle_weight @ (density * radius * -bias / projection) @ share_weight)


def _held_mass(polygon: Polygon, precision: float, prior_scale: float) -> float:
    """Integrate the prior times exp(-N (H - H*) / 2) over column and bias of the one feature left out, the corners held still.

    Over half the sector of one corner, the classifier's range of lengths, and negative biases; but not where the loss is lower
    than at the polygon: that is the foot of another basin, of the polygon with a positive bias.
    """
    position, last = polygon.position(), polygon.num_features - 1
    angle, angle_weight = panel_rule(np.linspace(0, np.pi / polygon.num_corners, 2))
    radius, radius_weight = panel_rule(IS_CORNER * EDGES)
    bias, bias_weight = panel_rule(-WIDEST * prior_scale * EDGES[::-1])
    places = np.stack(np.meshgrid(angle, radius, bias, indexing="ij"), -1).reshape(-1, 3)

    def loss(place: Float[Array, " 3"]) -> Float[Array, ""]:
        column = place[1] * jnp.stack([jnp.cos(place[0]), jnp.sin(place[0])])
        weights, biases = jnp.asarray(position["weights"]), jnp.asarray(position["biases"])
        return superposition_loss({"weights": weights.at[:, last].set(column), "biases": biases.at[last].set(place[2])})

    with jax.enable_x64(True):
        rise = np.asarray(jax.jit(jax.vmap(loss))(jnp.asarray(places))) - polygon.loss()
    log_density = -(places[:, 1] ** 2 + places[:, 2] ** 2) / (2 * prior_scale**2) - 3 * np.log(prior_scale * np.sqrt(2 * np.pi))
    density = np.where(rise < -FLAT, 0, np.exp(log_density - precision / 2 * np.maximum(rise, 0)) * places[:, 1])
    cube = density.reshape(angle.size, radius.size, bias.size)
    return float(2 * polygon.num_corners * np.einsum("arb,a,r,b->", cube, angle_weight, radius_weight, bias_weight))
