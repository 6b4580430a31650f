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
    from bayesnn.measure.tempered import Ladders, Particles
    from bayesnn.posteriors import Posterior
    from bayesnn.problem import Problem
    from diagnostics.claims import Finding
    from samplers import Kernel

FIRST_STEP = 0.1  # of the leapfrog integrator, in units of the metric's standard deviations; both methods adapt it
COARSEST = 1.0  # nats: odds of 3, the least worth a mention (Kass & Raftery 1995); a wider error settles nothing
INTERVAL = ("log_evidence", "lower", "upper")


class Evidence(Frozen):
    """Log evidence by tempered SMC and by parallel tempering, each with its error."""

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
    """Upper bound on the leapfrog steps of a trajectory, of both methods."""
    seed: Seed = 0
    """Of everything random."""


def measure(run: LoadedRun, settings: Evidence, console: Console) -> tuple[xr.DataTree, list[Finding]]:
    """Estimate the evidence of a run's posterior.

    Returns:
        Group `evidence`: `log_evidence`, `standard_error`, `lower` and `upper` (95 %) by estimator, nats; `by_system` of SMC;
        `round_trips` by ladder; `gradients` of both roads. And the finding `evidence-methods-agree`.

    Raises:
        UsageError: The run samples no network, or at a temperature other than 1.
    """
    import jax
    import xarray as xr

    from bayesnn.measure.problem import problem_of

    problem = problem_of(run)
    posterior_of(problem)
    particles, ladders = sample_both(jax.random.key(settings.seed), problem, settings, console)
    table = evidence_table(particles, ladders, float(problem.tempering.likelihood_temperature))
    return xr.DataTree.from_dict({"evidence": table}), [methods_agree(table)]


def sample_both(key: Any, problem: Problem, settings: Evidence, console: Console) -> tuple[Particles, Ladders]:
    """Run tempered SMC and parallel tempering on the posterior of a network, each from prior draws of its own."""
    import jax

    particle_key, ladder_key = jax.random.split(key)
    with console.status(f"{settings.systems} systems of {settings.particles} particles, from the prior to the posterior"):
        particles = sample_particles(particle_key, problem, settings, settings.systems)
    with console.status(f"{settings.systems} ladders of {settings.rungs} replicas"):
        return particles, _sample_ladders(ladder_key, problem, settings)


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


def evidence_table(particles: Particles, ladders: Ladders, likelihood_temperature: float) -> xr.Dataset:
    """Return the log evidence by every method, with errors from the spread of systems and ladders."""
    import numpy as np
    import xarray as xr
    from scipy.special import stdtrit

    from bayesnn.measure.tempered import evidence_of_ladders, evidence_of_particles
    from diagnostics.estimates import LEVEL

    found = {"tempered SMC": evidence_of_particles(particles)} | evidence_of_ladders(ladders, likelihood_temperature)
    value, error = np.array(list(found.values())).T
    reach = error * stdtrit(len(particles.log_evidence) - 1, (1 + LEVEL) / 2)
    by_method = {"log_evidence": value, "standard_error": error, "lower": value - reach, "upper": value + reach}
    return xr.Dataset(
        {name: ("estimator", values) for name, values in by_method.items()}
        | {
            "by_system": ("system", particles.log_evidence.astype(float)),
            "round_trips": ("ladder", ladders.round_trips),
            "gradients": ("road", [particles.gradients, ladders.gradients]),
        },
        {"estimator": list(found), "road": ["tempered SMC", "parallel tempering"]},
    )


def methods_agree(table: xr.Dataset) -> Finding:
    """Check that tempered SMC and the stepping stones of parallel tempering find the same evidence.

    Fail if the 95 % interval of their difference leaves out 0; inconclusive if it is wider than 1 nat to either side, or if a
    ladder has no round trip; else pass.
    """
    import numpy as np

    from diagnostics.claims import Finding, interval_text

    rows = table.isel(estimator=slice(2))  # tempered SMC, stepping stones
    difference = float(rows["log_evidence"][0] - rows["log_evidence"][1])
    reach = float(np.hypot(*(rows["upper"] - rows["log_evidence"]).values))
    interval = (difference - reach, difference + reach)
    written = ", ".join(
        f"{estimator} {interval_text(*(float(rows[name].sel(estimator=estimator)) for name in INTERVAL))}"
        for estimator in rows["estimator"].values
    )
    note = f"Log evidence, nats: {written}. SMC less stepping stones: {interval_text(difference, *interval)}."
    trips = int(table["round_trips"].min())
    if abs(difference) > reach:
        verdict, more = "fail", "They contradict each other: more particles and moves, more rungs and draws."
    elif not trips:
        verdict, more = "inconclusive", "A ladder had no round trip between prior and posterior: more rungs, more draws."
    elif reach > COARSEST:
        verdict, more = "inconclusive", "They are too noisy to contradict each other: more particles, more draws."
    else:
        verdict, more = "pass", f"The slowest ladder made {trips} round trips."
    return Finding("evidence-methods-agree", "health", verdict, difference, interval, COARSEST, f"{note} {more}")
