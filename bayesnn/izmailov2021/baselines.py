"""Other ways to a posterior, on the same network, prior and data: what C6 and the fidelity table hold against HMC.

Budgets: SGD's steps are the unit, on minibatches of its size. SWAG, variational inference, Laplace and dropout are fitted for as
many; SG-MCMC chains run ten times as long, as they must also wander, and cyclical ones have a cycle for every draw. The report's
table of runs gives gradients and seconds of each.
"""

from __future__ import annotations

from bayesnn.config import (
    MCLMC,
    SGHMC,
    SGLD,
    SWAG,
    Laplace,
    MCDropout,
    MeanFieldVI,
    ResNet,
    RunConfig,
    WarmUp,
)
from bayesnn.izmailov2021.scales import World

ENSEMBLE, VARIATIONAL, LANGEVIN = "ensemble", "mean-field VI", "SGLD"
# SG-MCMC steps for each step of SGD; half of them are burn-in.
LONGER = 10
CHAINS = 4
# RMSprop stretches flat directions about tenfold: at SGLD's own step size the audit finds a temperature of 1.7 on digits.
PRECONDITIONED = 10
# Of cyclical SGHMC, as in the experiment digits-csghmc, whose audit finds a temperature of 0.95; in shorter cycles it is colder.
CYCLE_PEAK, CYCLE_FRICTION = 0.01, 10.0


def baselines(world: World, seeds: int) -> dict[str, RunConfig]:
    """Return a run for each method, by name."""
    steps, draws = world.sgd_steps, 100
    thin = LONGER * steps // 2 // draws
    size = world.sgd.batch_size
    fit = {"warmup": WarmUp(steps=steps), "start": "model", "draws": draws, "thin": 1}
    wander = {"warmup": WarmUp(steps=LONGER * steps // 2), "draws": draws, "thin": thin, "chains": CHAINS}
    return {
        ENSEMBLE: world.optimised(seeds),
        LANGEVIN: world.vary(sampler=SGLD(step_size=world.sgld_step_size, batch_size=size), **wander),
        "pSGLD": world.vary(
            sampler=SGLD(step_size=world.sgld_step_size / PRECONDITIONED, preconditioner="rmsprop", batch_size=size), **wander
        ),
        "cyclical SGLD": world.vary(
            sampler=SGLD(step_size=4 * world.sgld_step_size, cycle_length=thin, batch_size=size), **wander
        ),
        "SGHMC": world.vary(sampler=SGHMC(batch_size=size), **wander),
        "cyclical SGHMC": world.vary(
            sampler=SGHMC(step_size=CYCLE_PEAK, friction=CYCLE_FRICTION, batch_size=size, cycle_length=thin), **wander
        ),
        "SWAG": world.vary(sampler=SWAG(batch_size=size), chains=1, **fit),
        "multi-SWAG": world.vary(sampler=SWAG(batch_size=size), chains=CHAINS, **fit),
        VARIATIONAL: world.vary(sampler=MeanFieldVI(batch_size=size), chains=1, **fit),
        "Laplace": world.vary(sampler=Laplace(structure="kronecker", batch_size=size), chains=1, **fit),
        "linearised Laplace": world.vary(
            sampler=Laplace(structure="last-layer", linearised=True, batch_size=size), chains=1, **fit
        ),
        "MC dropout": world.vary(sampler=MCDropout(batch_size=size, kernels=dropped(world)), chains=1, **fit),
        "MCLMC": world.vary(sampler=MCLMC(), warmup=WarmUp(steps=1000), chains=CHAINS, start="model", draws=200, thin=25),
    }


def dropped(world: World) -> tuple[str, ...]:
    """Return the kernels that units under dropout feed, where they are not found by themselves.

    In a residual network they lie between the two convolutions of every block, as in Zagoruyko & Komodakis 2016, arXiv
    1605.07146, section 2.4.
    """
    model = world.posterior.model
    blocks = range((model.depth - 2) // 2) if isinstance(model, ResNet) else ()
    return tuple(f"blocks.{block}.second.conv.kernel" for block in blocks)
