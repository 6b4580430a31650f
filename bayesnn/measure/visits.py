"""Are the regions of a run's posterior visited in proportion to their mass? What `bayesnn measure FOLDER basins` does.

The regions are fixed on a pilot run of tempered SMC. Their masses come from further systems of particles, from ladders of
replicas, from nested sampling if asked for, and from Laplace's method at the pilot's minima where it applies. None of these knows
anything of the run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int, Key
from rich.console import Console

from bayesnn.errors import UsageError
from bayesnn.load import LoadedRun
from bayesnn.measure.basins import DRAWS_A_CLUSTER, Basins
from bayesnn.measure.classify import Classifier, Reference, by_functions, by_minima, by_own, by_weights, find_minima
from bayesnn.measure.evidence import evidence_table, methods_agree, posterior_of, sample_particles, take_roads
from bayesnn.measure.gradient_flow import MAX_WEIGHTS
from bayesnn.measure.laplace import Laplace, laplace_masses
from bayesnn.measure.problem import problem_of
from bayesnn.measure.tempered import Particles, Roads
from bayesnn.posteriors import Posterior
from diagnostics import regions
from diagnostics.claims import Finding
from diagnostics.regions import Masses
from diagnostics.regions.claims import BOUND
from samplers.types import Position

PILOT_SYSTEMS = 4  # of particles: regions must be found, not weighed
PRIOR_DRAWS = 1000  # for the volume of a region under the prior, to 1.6 % or better, where labels cost no flow
BLOCK = 32  # draws whose test likelihoods are computed at a time
IN_WEIGHT_SPACE = "weights-visited-by-mass"
ONE_REGION = (
    "Nearly all of the mass lies in one region: the minima below pilot draws do not part this posterior, and visits to them tell "
    "nothing. --regions functions, the default, parts it by what it predicts."
)
NOT_OF_MINIMA = Laplace(None, "the regions are not made of minima", xr.Dataset())


class Draws(NamedTuple):
    """Weighted draws of the posterior, labelled.

    Attributes:
        position: [row, column, ...].
        log_weights: [row, column]; equal for Markov chains.
        labels: [row, column].
    """

    position: Position
    log_weights: Float[np.ndarray, "row column"]
    labels: Int[np.ndarray, "row column"]


def measure(run: LoadedRun, settings: Basins, console: Console) -> tuple[xr.DataTree, list[Finding]]:
    """Hold the visits of a run's chains to regions against the masses of these.

    Returns:
        Groups `regions` (`diagnostics.regions.regions_table`); `weights` (the same table, of clusters of weights, what makes
        these, and the run's `label`; where symmetries are declared); `labels` (`run`, of the draws that were labelled);
        `predictions` (`log_predictive` of test targets by region, nats, where the run keeps them); `particles` (`label`,
        `log_weight`) and
        `replicas` (`label`, `log_likelihood` on all training data, untempered), the draws that weigh the regions;
        `classifier` (`mean`, `scale`, `centre`, of clusters of functions: what `label_run` needs); `minima` (below draws of the
        run: `log_density`, `number`; with `--regions minima` also `barrier` between the minima that made the regions,
        `reference_region`, and what Laplace's method says of each, see `bayesnn.measure.laplace`); and `evidence`. Attributes
        `minima_per_100_draws`, NaN if unknown, `classifier`, and `laplace`, why it weighs no region, empty if it does. Findings:
        `regions-mix`, `regions-visited-by-mass`, `light-regions-over-visited`, `predictions-robust-to-region-weights`,
        `weights-visited-by-mass` (where symmetries are declared) and `evidence-methods-agree`.

    Raises:
        UsageError: The run samples no network, or at a temperature other than 1; it has fewer than two chains or draws, or draws
            that are not finite.
    """
    problem = problem_of(run)
    posterior = posterior_of(problem)
    draws = {str(name): array.values for name, array in run.tree["posterior"].data_vars.items()}
    num_chains, num_draws = next(iter(draws.values())).shape[:2]
    if num_chains < 2 or num_draws < 2:
        raise UsageError(f"shares of visits need chains with a history, 8 of them or more; got {num_chains} of {num_draws} draws")
    if lost := [chain for chain in range(num_chains) if not all(np.isfinite(x[chain]).all() for x in draws.values())]:
        raise UsageError(f"draws of the chains {lost} are not finite, and so in no region: audit the run, and sample again")
    pilot_key, choice_key, masses_key, prior_key, laplace_key = jax.random.split(jax.random.key(settings.seed), 5)

    with console.status("minima below draws of the run"):
        minima = _count_minima(posterior, draws, settings.minima)
    with console.status("pilot: particles on which the regions are fixed"):
        pilot, system = _drawn(choice_key, sample_particles(pilot_key, problem, settings, PILOT_SYSTEMS))
        classifier, laplace, references = _classifier(laplace_key, posterior, pilot, system, settings)
        in_weights = _in_weights(posterior, pilot, settings)
    roads = take_roads(masses_key, problem, settings, console)
    with console.status("labels"):
        step = max(1, num_draws // settings.labelled) if settings.regions == "minima" else 1
        kept = np.arange(num_draws)[::step]
        position = posterior.unflatten(draws)
        visits = _labelled(classifier, jax.tree.map(lambda x: x[:, kept], position), None)
        some = _thinned(roads, settings)
        found, replicas, masses = _weighed(classifier, some)
        masses += [] if laplace.masses is None else [laplace.masses]
        volume = _prior_volume(prior_key, posterior, classifier, settings)
        log_predictive = _log_predictive(posterior, run.tree, kept, visits, (found, replicas), classifier.num_regions)
        weights, weight_findings = (xr.Dataset(), []) if in_weights is None else _weights_by_mass(in_weights, position, roads)
    evidence = evidence_table(roads, float(problem.tempering.likelihood_temperature))
    groups = {
        "regions": regions.regions_table(visits.labels, masses, prior_volume=volume),
        "labels": xr.Dataset({"run": (("chain", "draw"), visits.labels)}, {"draw": kept}),
        "predictions": xr.Dataset({} if log_predictive is None else {"log_predictive": (("region", "point"), log_predictive)}),
        **_road_tables(found, replicas, some.ladders.log_likelihood[..., -1]),
        "classifier": classifier.clusters,
        "minima": xr.merge([minima, references]),
        "weights": weights,
        "evidence": evidence,
    }
    tree = xr.DataTree.from_dict({name: group for name, group in groups.items() if group.data_vars})
    tree.attrs = {
        "minima_per_100_draws": minima.attrs["per_100_draws"],
        "classifier": classifier.description,
        "laplace": laplace.reason,
    }
    console.print(_minima_line(minima), markup=False, soft_wrap=True)
    if laplace.reason:
        console.print(f"Laplace's method weighs no region: {laplace.reason}.", markup=False, soft_wrap=True)
    if settings.regions == "minima" and 1 - regions.combined(masses).share.max() < BOUND:
        console.print(ONE_REGION, markup=False, soft_wrap=True)
    return tree, [*_findings(visits.labels, masses, log_predictive), *weight_findings, methods_agree(evidence)]


def _in_weights(posterior: Posterior, pilot: Position, settings: Basins) -> Classifier | None:
    """Return clusters of weights; None for too few particles, and where no symmetry is declared: they might be mere copies."""
    if settings.particles < DRAWS_A_CLUSTER * settings.num_regions or not posterior.model.symmetries(posterior.like):
        return None
    return by_weights(posterior, pilot, settings.num_regions, settings.seed)


def _weights_by_mass(classifier: Classifier, position: Position, roads: Roads) -> tuple[xr.Dataset, list[Finding]]:
    """Hold visits to clusters of weights against their mass; labels cost no flow, so that all draws have one."""
    labels, masses = _labelled(classifier, position, None).labels, _weighed(classifier, roads)[2]
    table = xr.merge([regions.regions_table(labels, masses), classifier.clusters])
    finding = dataclasses.replace(regions.regions_visited_by_mass(labels, masses), claim=IN_WEIGHT_SPACE)
    return table.assign(label=(("chain", "draw"), labels)), [finding]


def _findings(
    labels: Int[np.ndarray, "chain draw"],
    masses: list[Masses],
    log_predictive: Float[np.ndarray, "region point"] | None,
) -> list[Finding]:
    findings = [
        regions.regions_mix(labels, masses[0].share.size, masses),
        regions.regions_visited_by_mass(labels, masses),
        regions.light_regions_over_visited(labels, *masses[:2]),
    ]
    if log_predictive is not None:
        findings.append(regions.predictions_robust(log_predictive, labels, masses))
    return findings


def _count_minima(posterior: Posterior, draws: dict[str, np.ndarray], count: int) -> xr.Dataset:
    """Count distinct minima below draws that are spread evenly over chains and draws; empty where there are too many weights."""
    num_chains, num_draws = next(iter(draws.values())).shape[:2]
    if posterior.num_params > MAX_WEIGHTS:
        return xr.Dataset(attrs={"per_100_draws": np.nan, "followed": 0})
    rows = np.unique(np.linspace(0, num_chains * num_draws - 1, count).astype(int))
    flat = {name: array.reshape(-1, *array.shape[2:])[rows] for name, array in draws.items()}
    found = find_minima(posterior, posterior.unflatten(flat), rows // num_draws)
    if found is None:
        return xr.Dataset(attrs={"per_100_draws": np.nan, "followed": 0, "tried": len(rows)})
    followed, distinct = len(found.number), int(found.number.max()) + 1
    return xr.Dataset(
        {"log_density": ("minimum", found.minima.log_density), "number": ("minimum", found.number)},
        attrs={"per_100_draws": 100 * distinct / followed, "followed": followed, "tried": len(rows)},
    )


def _minima_line(minima: xr.Dataset) -> str:
    if not minima.attrs["followed"]:
        return "Minima were not counted: too many weights, or the density is not smooth."
    distinct = int(minima["number"].max()) + 1
    spread = float(np.ptp(minima["log_density"].values))
    return (
        f"Minima: {distinct} distinct ones below {minima.attrs['followed']} draws ({minima.attrs['per_100_draws']:.0f} per 100), "
        f"log densities within {spread:.2g} nats."
    )


def _classifier(
    key: Key[Array, ""], posterior: Posterior, pilot: Position, system: Int[np.ndarray, " draw"], settings: Basins
) -> tuple[Classifier, Laplace, xr.Dataset]:
    """Return the classifier that was asked for, the masses by the minima that it rests on, and these, if any."""
    if settings.regions == "functions":
        return by_functions(posterior, pilot, settings.num_regions, settings.seed), NOT_OF_MINIMA, xr.Dataset()
    if settings.regions != "minima":
        return by_own(settings.regions, settings.num_regions), NOT_OF_MINIMA, xr.Dataset()
    some = jax.tree.map(lambda x: x[: settings.minima], pilot)
    classifier, reference, heights = by_minima(posterior, some, system[: settings.minima])
    if classifier.num_regions < 2:
        raise UsageError(
            f"all {len(heights)} minima below the pilot draws are joined by barriers below {regions.LOWEST_BARRIER:g} nats: one "
            "region, and nothing to weigh; take --regions functions"
        )
    laplace = laplace_masses(key, posterior, reference)
    return classifier, laplace, xr.merge([_reference_table(reference, heights), laplace.minima])


def _reference_table(reference: Reference, heights: Float[np.ndarray, "minimum minimum"]) -> xr.Dataset:
    return xr.Dataset(
        {
            "barrier": (("reference", "other"), heights),
            "reference_log_density": ("reference", reference.minima.log_density),
            "reference_region": ("reference", reference.number),
        }
    )


def _drawn(key: Key[Array, ""], particles: Particles) -> tuple[Position, Int[np.ndarray, " draw"]]:
    """Draw as many particles as a system has from all systems, by their weights and evidences, and say of which each is."""
    log_weights = particles.log_weights + (particles.log_evidence - particles.log_evidence.max())[:, None]
    chosen = jax.random.categorical(key, jnp.ravel(log_weights), shape=log_weights.shape[1:])
    drawn = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[chosen], particles.position)
    return drawn, np.asarray(chosen) // log_weights.shape[1]


def _labelled(classifier: Classifier, position: Position, log_weights: Float[np.ndarray, "row column"] | None) -> Draws:
    shape = jax.tree.leaves(position)[0].shape[:2]
    labels = classifier.label(_flat(position)).reshape(shape)
    return Draws(position, np.zeros(shape) if log_weights is None else log_weights, labels)


def _thinned(roads: Roads, settings: Basins) -> Roads:
    """Keep so many draws as are to be labelled: some of them where each costs a flow."""
    if settings.regions != "minima":
        return roads
    ladders = roads.ladders
    step = max(1, ladders.log_likelihood.shape[1] // settings.labelled)
    return Roads(
        _some(roads.particles, settings),
        ladders._replace(
            position=jax.tree.map(lambda x: x[:, ::step], ladders.position), log_likelihood=ladders.log_likelihood[:, ::step]
        ),
        None if roads.nested is None else _some(roads.nested, settings),
    )


def _some(particles: Particles, settings: Basins) -> Particles:
    step = max(1, settings.particles // settings.labelled)
    log_weights = np.asarray(particles.log_weights, float)[:, ::step]
    return particles._replace(
        position=jax.tree.map(lambda x: x[:, ::step], particles.position),
        log_weights=log_weights - np.logaddexp.reduce(log_weights, axis=1, keepdims=True),
    )


def _prior_volume(
    key: Key[Array, ""], posterior: Posterior, classifier: Classifier, settings: Basins
) -> Float[np.ndarray, " region"]:
    """Return the share of prior draws in each region; of fewer where each costs a flow."""
    count = settings.systems * settings.labelled if settings.regions == "minima" else PRIOR_DRAWS
    labels = classifier.label(posterior.init(key, count, "prior"))
    return np.bincount(labels, minlength=classifier.num_regions) / count


def _weighed(classifier: Classifier, roads: Roads) -> tuple[Draws, Draws, list[Masses]]:
    """Label the draws of all roads; return particles, replicas, and the masses by each road."""
    count = classifier.num_regions

    def weighted(method: str, particles: Particles) -> tuple[Draws, Masses]:
        draws = _labelled(classifier, particles.position, particles.log_weights)
        return draws, regions.masses_from_weights(method, draws.labels, draws.log_weights, particles.log_evidence, count)

    found, by_particles = weighted("tempered SMC", roads.particles)
    replicas = _labelled(classifier, roads.ladders.position, None)
    masses = [by_particles, regions.masses_from_systems("parallel tempering", regions.visit_shares(replicas.labels, count))]
    if roads.nested is not None:
        masses.append(weighted("nested sampling", roads.nested)[1])
    return found, replicas, masses


def _road_tables(found: Draws, replicas: Draws, log_likelihood: Float[np.ndarray, "ladder replica"]) -> dict[str, xr.Dataset]:
    by_particle = {"label": found.labels, "log_weight": found.log_weights}
    by_replica = {"label": replicas.labels, "log_likelihood": log_likelihood}
    return {
        "particles": xr.Dataset({name: (("system", "particle"), values) for name, values in by_particle.items()}),
        "replicas": xr.Dataset({name: (("ladder", "replica"), values) for name, values in by_replica.items()}),
    }


def _flat(position: Position) -> Position:
    """Join rows and columns of draws."""
    return jax.tree.map(lambda x: jnp.asarray(x.reshape(-1, *x.shape[2:])), position)


def _log_predictive(
    posterior: Posterior,
    run: xr.DataTree,
    kept: Int[np.ndarray, " draw"],
    visits: Draws,
    others: Sequence[Draws],
    count: int,
) -> Float[np.ndarray, "region point"] | None:
    """Return log predictive densities by region: of the run's draws, and of others where the run has none; None without any."""
    if "functions" not in run.children or "log_likelihood" not in run["functions"].to_dataset():
        return None
    log_likelihood = run["functions"].to_dataset()["log_likelihood"].values[:, kept]
    found = regions.region_log_predictive(log_likelihood, visits.labels, count)
    num_points = log_likelihood.shape[-1]
    x = jnp.asarray(posterior.dataset.x_test[:num_points], float)
    y = jnp.asarray(posterior.observed(num_points))

    @jax.jit
    def test_log_likelihood(positions: Position) -> Float[Array, "draw point"]:
        return jax.lax.map(lambda position: posterior.test_log_likelihood(position, x, y), positions, batch_size=BLOCK)

    for draws in others:
        missing = np.isnan(found).all(1)
        if np.isin(draws.labels, np.flatnonzero(missing)).any():
            values = np.asarray(test_log_likelihood(_flat(draws.position))).reshape(*draws.labels.shape, num_points)
            found[missing] = regions.region_log_predictive(values, draws.labels, count, draws.log_weights)[missing]
    return found
