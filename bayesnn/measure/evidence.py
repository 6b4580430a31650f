"""`bayesnn measure FOLDER evidence`: the log evidence of a run's posterior by two independent methods."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt

from bayesnn.config import Frozen, Seed

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import Console

    from bayesnn.load import LoadedRun
    from bayesnn.measure.tempered import Ladders, Particles, Roads
    from bayesnn.posteriors import Posterior
    from bayesnn.problem import Problem
    from diagnostics.claims import Finding
    from samplers import Kernel

FIRST_STEP = 0.1  # of the leapfrog integrator, in units of the metric's standard deviations; both methods adapt it
COARSEST = 1.0  # nats: odds of 3, the least worth a mention (Kass & Raftery 1995); a wider error settles nothing
INTERVAL = ("log_evidence", "lower", "upper")
INDEPENDENT = ("tempered SMC", "stepping stone", "nested sampling")  # thermodynamic integration shares the ladders' draws


class Evidence(Frozen):
    """Log evidence by tempered SMC, by parallel tempering and, if asked for, by nested sampling, each with its error."""

    systems: Annotated[int, Field(ge=4)] = 8
    """Systems of particles, and as many ladders: their spread gives the errors."""
    particles: Annotated[int, Field(ge=16, multiple_of=2)] = 128
    """Particles of each system."""
    moves: PositiveInt = 3
    """HMC steps of a particle in each stage."""
    conditional_ess: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """How far a stage goes: nearer to 1 makes more of them."""
    rungs: Annotated[int, Field(ge=2)] = 16
    """Replicas of each ladder."""
    ladder_warmup: Annotated[int, Field(ge=16)] = 600
    """Steps of each ladder that adapt its temperatures and step sizes."""
    ladder_draws: Annotated[int, Field(ge=50)] = 600
    """Draws of each ladder."""
    max_num_steps: PositiveInt = 12
    """Upper bound on the leapfrog steps of a trajectory, of SMC and ladders."""
    live_points: Annotated[int, Field(ge=0)] = 0
    """Of each system of nested sampling, a third method for some tens of weights, of which it needs more; 0 leaves it out."""
    seed: Seed = 0
    """Of everything random."""


def measure(run: LoadedRun, settings: Evidence, console: Console) -> tuple[xr.DataTree, list[Finding]]:
    """Estimate the evidence of a run's posterior.

    Returns:
        Group `evidence`, by estimator, nats: `log_evidence`, `standard_error` (of sampling), `discretisation` (what it may be off
        by beyond that, for its rungs), `lower` and `upper` (95 %, with both); `by_system` of SMC; `round_trips` by ladder;
        `gradients` by road. And the finding `evidence-methods-agree`.

    Raises:
        UsageError: The run samples no network, or at a temperature other than 1.
    """
    import jax
    import xarray as xr

    from bayesnn.measure.problem import problem_of

    problem = problem_of(run)
    posterior_of(problem)
    roads = take_roads(jax.random.key(settings.seed), problem, settings, console)
    table = evidence_table(roads, float(problem.tempering.likelihood_temperature))
    return xr.DataTree.from_dict({"evidence": table}), [methods_agree(table)]


def take_roads(key: Any, problem: Problem, settings: Evidence, console: Console) -> Roads:
    """Reach the posterior of a network by every method asked for, each from prior draws of its own."""
    import jax

    from bayesnn.measure.tempered import Roads

    particle_key, ladder_key = jax.random.split(key)
    with console.status(f"{settings.systems} systems of {settings.particles} particles, from the prior to the posterior"):
        particles = sample_particles(particle_key, problem, settings, settings.systems)
    with console.status(f"{settings.systems} ladders of {settings.rungs} replicas"):
        ladders = _sample_ladders(ladder_key, problem, settings)
    if not settings.live_points:
        return Roads(particles, ladders, None)
    with console.status(f"{settings.systems} systems of {settings.live_points} live points"):
        return Roads(particles, ladders, _sample_nested(jax.random.fold_in(key, 2), problem, settings))


def sample_particles(key: Any, problem: Problem, settings: Evidence, num_systems: int) -> Particles:
    """Run systems of particles from prior draws."""
    import jax

    from bayesnn.measure.tempered import run_particles

    start_key, key = jax.random.split(key)
    starts = posterior_of(problem).init(start_key, num_systems * settings.particles, "prior")
    return run_particles(
        key,
        _kernel(problem, settings),
        problem.target,
        problem.batch,
        jax.tree.map(lambda x: x.reshape(num_systems, settings.particles, *x.shape[1:]), starts),
        num_moves=settings.moves,
        conditional_ess=settings.conditional_ess,
    )


def _sample_ladders(key: Any, problem: Problem, settings: Evidence) -> Ladders:
    import jax

    from bayesnn.measure.tempered import run_ladders

    start_key, key = jax.random.split(key)
    return run_ladders(
        key,
        _kernel(problem, settings),
        problem.target,
        problem.batch,
        posterior_of(problem).init(start_key, settings.systems, "prior"),
        num_rungs=settings.rungs,
        num_warmup=settings.ladder_warmup,
        num_draws=settings.ladder_draws,
    )


def _sample_nested(key: Any, problem: Problem, settings: Evidence) -> Particles:
    import jax

    from bayesnn.errors import UsageError
    from bayesnn.measure.nested import run_nested

    start_key, key = jax.random.split(key)
    starts = posterior_of(problem).init(start_key, settings.systems * settings.live_points, "prior")
    try:
        return run_nested(
            key,
            problem.target,
            problem.batch,
            jax.tree.map(lambda x: x.reshape(settings.systems, settings.live_points, *x.shape[1:]), starts),
            tempering=problem.tempering,
            num_draws=settings.particles,
        )
    except ValueError as error:
        raise UsageError(f"--live-points: {error}") from error


def _kernel(problem: Problem, settings: Evidence) -> Kernel:
    """Return HMC in the metric of the prior, with trajectories of a quarter of its period."""
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    import samplers

    scales = posterior_of(problem).prior_scales()
    return samplers.hmc(
        problem.target,
        step_size=FIRST_STEP,
        trajectory_length=math.pi / 2,
        max_num_steps=settings.max_num_steps,
        inverse_mass_matrix=1.0 if scales is None else jnp.square(ravel_pytree(scales)[0]),
        tempering=problem.tempering,
    )


def posterior_of(problem: Problem) -> Posterior:
    """Return the network's posterior, from whose prior one can draw.

    Raises:
        UsageError: The run samples a density, or at a temperature other than 1.
    """
    from bayesnn.errors import UsageError

    if problem.posterior is None:
        raise UsageError("this run samples a density, whose prior is not known, so there is nothing to start from; use samplers")
    if (temperature := float(problem.tempering.temperature)) != 1:
        raise UsageError(
            f"the run has temperature {temperature:g}, at which its prior is tempered, too, and cannot be drawn from; measure a "
            "run at temperature 1 (its likelihood temperature may differ)"
        )
    return problem.posterior


def evidence_table(roads: Roads, likelihood_temperature: float) -> xr.Dataset:
    """Return the log evidence by every method, with errors from the spread of systems and ladders, and from their rungs."""
    import numpy as np
    import xarray as xr
    from scipy.special import stdtrit

    import samplers
    from bayesnn.measure.tempered import evidence_of_ladders, evidence_of_particles
    from diagnostics.estimates import LEVEL

    particles, ladders, nested = roads
    found = {"tempered SMC": evidence_of_particles(particles)} | evidence_of_ladders(ladders, likelihood_temperature)
    gradients = {"tempered SMC": particles.gradients, "parallel tempering": ladders.gradients}
    if nested is not None:
        found["nested sampling"] = samplers.mean_log_evidence(nested.log_evidence)
        gradients["nested sampling"] = nested.gradients
    value, error, discretisation = np.array(list(found.values())).T
    reach = error * stdtrit(len(particles.log_evidence) - 1, (1 + LEVEL) / 2) + discretisation
    by_method = {"log_evidence": value, "standard_error": error, "lower": value - reach, "upper": value + reach}
    by_method["discretisation"] = discretisation
    return xr.Dataset(
        {name: ("estimator", values) for name, values in by_method.items()}
        | {
            "by_system": ("system", particles.log_evidence.astype(float)),
            "round_trips": ("ladder", ladders.round_trips),
            "gradients": ("road", list(gradients.values())),
        },
        {"estimator": list(found), "road": list(gradients)},
    )


def methods_agree(table: xr.Dataset) -> Finding:
    """Check that tempered SMC finds the evidence that stepping stones of parallel tempering, and nested sampling if it ran, find.

    Fail if the interval of a difference leaves out 0, all of them at once at 95 %; inconclusive if one is wider than 1 nat to
    either side, or if a ladder has no round trip; else pass. Value and interval are of the difference largest beside its error.
    """
    import numpy as np
    from scipy.special import stdtrit

    from diagnostics.claims import Finding, interval_text
    from diagnostics.estimates import LEVEL

    smc, *others = (table.sel(estimator=name) for name in INDEPENDENT if name in table["estimator"])
    quantile = stdtrit(table["by_system"].size - 1, 1 - (1 - LEVEL) / 2 / len(others))
    differences = [float(smc["log_evidence"] - other["log_evidence"]) for other in others]
    reaches = [float(quantile * np.hypot(smc["standard_error"], other["standard_error"])) for other in others]
    worst = int(np.argmax(np.abs(differences) / np.maximum(reaches, np.finfo(float).tiny)))
    difference, reach = differences[worst], reaches[worst]
    interval = (difference - reach, difference + reach)
    written = ", ".join(
        f"{estimator} {interval_text(*(float(table[name].sel(estimator=estimator)) for name in INTERVAL))}"
        for estimator in table["estimator"].values
    )
    against = others[worst]["estimator"].item()
    note = f"Log evidence, nats: {written}. SMC less {against}: {interval_text(difference, *interval)}."
    trips = int(table["round_trips"].min())
    if abs(difference) > reach:
        idle = "" if trips else ", and a ladder had no round trip between prior and posterior"
        verdict, more = "fail", f"They contradict each other{idle}: more particles and moves, more rungs and draws."
    elif not trips:
        verdict, more = "inconclusive", "A ladder had no round trip between prior and posterior: more rungs, more draws."
    elif max(reaches) > COARSEST:
        verdict, more = "inconclusive", "They are too noisy to contradict each other: more particles, more draws."
    else:
        verdict, more = "pass", f"The slowest ladder made {trips} round trips."
    return Finding("evidence-methods-agree", "health", verdict, difference, interval, COARSEST, f"{note} {more}")
