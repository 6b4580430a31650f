r"""Other ways to a posterior, on the same network, prior and data: what C6 and the fidelity table hold against HMC.

Budgets: SGD's steps are the unit, on minibatches of its size. SWAG, variational inference, Laplace and dropout are fitted for as
many; SG-MCMC chains run fifty times as long, as they must also wander. The report's table of runs gives gradients and seconds of
each.

Cyclical samplers have one draw at the end of every cycle. The first half of a cycle, without noise, brings the weights to a mode,
and the second must warm them up again: in a direction of curvature k, where the prior's precision is the least, SGLD gets to the
temperature

.. math:: T = \frac{1 - e^{-k s}}{1 - e^{-k (s + e)}}, \quad s = (1/4 - 1/2\pi)\, c\, \epsilon_0, \quad
    s + e = c\, \epsilon_0 / 2,

e and s being the sums of the step sizes in the first and second half of a cycle of c steps, the largest of which is
:math:`\epsilon_0`. Where k c :math:`\epsilon_0` is small that is s / (s + e) = 0.18, however many cycles there are. So cycles
begin with the step that takes them to 99 %, at every scale.
"""

from __future__ import annotations

import math

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
# SG-MCMC steps for each step of SGD; half of them are burn-in. On digits, at ten times, SGLD had 16 effective draws.
LONGER = 50
CHAINS = 4
# RMSprop stretches flat directions about tenfold: at SGLD's own step size the audit finds a temperature of 1.7 on digits, at a
# tenth of it 1.08 and at a fiftieth 1.09, for what is left is the preconditioner's, whose memory follows the weights.
PRECONDITIONED = 10
# SGHMC moves by the square of its step a gradient, SGLD by half of its own: 0.003 on digits, where the audit passes.
MOMENTUM = 0.3
# Of the cyclical samplers: cycles, of which the first is burn-in, and the length of a cycle times its largest step, in units of
# the prior's variance (SGLD) and of its standard deviation (SGHMC, critically damped), which get to 0.990 and 0.991 of the
# temperature.
LANGEVIN_CYCLES, LANGEVIN_REACH = 25, 51.0
MOMENTUM_CYCLES, MOMENTUM_REACH = 50, 46.0


def baselines(world: World, seeds: int) -> dict[str, RunConfig]:
    """Return a run for each method, by name."""
    steps, draws, sd = world.sgd_steps, 100, world.prior_scale
    thin = LONGER * steps // 2 // draws
    size = world.sgd.batch_size
    fit = {"warmup": WarmUp(steps=steps), "start": "model", "draws": draws, "thin": 1}
    wander = {"warmup": WarmUp(steps=LONGER * steps // 2), "draws": draws, "thin": thin, "chains": CHAINS}
    langevin, momentum = world.sgld_step_size, MOMENTUM * math.sqrt(world.sgld_step_size)
    return {
        ENSEMBLE: world.optimised(seeds),
        LANGEVIN: world.vary(sampler=SGLD(step_size=langevin, batch_size=size), **wander),
        "pSGLD": world.vary(
            sampler=SGLD(step_size=langevin / PRECONDITIONED, preconditioner="rmsprop", batch_size=size), **wander
        ),
        "cyclical SGLD": cyclical(world, SGLD(batch_size=size), LANGEVIN_CYCLES, LANGEVIN_REACH * sd**2),
        "SGHMC": world.vary(sampler=SGHMC(step_size=momentum, batch_size=size), **wander),
        # Friction that damps the prior's directions critically warms them up in the fewest steps.
        "cyclical SGHMC": cyclical(world, SGHMC(friction=2 / sd, batch_size=size), MOMENTUM_CYCLES, MOMENTUM_REACH * sd),
        "SWAG": world.vary(sampler=SWAG(batch_size=size), chains=1, **fit),
        "multi-SWAG": world.vary(sampler=SWAG(batch_size=size), chains=CHAINS, **fit),
        VARIATIONAL: world.vary(sampler=MeanFieldVI(batch_size=size), chains=1, **fit),
        "Laplace": world.vary(sampler=Laplace(batch_size=size), chains=1, **fit),
        # The network linearised at the same estimate, with the same curvature: Immer et al. 2021, arXiv 2008.08400.
        "linearised Laplace": world.vary(sampler=Laplace(linearised=True, batch_size=size), chains=1, **fit),
        "last-layer Laplace": world.vary(sampler=Laplace(structure="last-layer", batch_size=size), chains=1, **fit),
        "MC dropout": world.vary(sampler=MCDropout(batch_size=size, kernels=dropped(world)), chains=1, **fit),
        # Each chain from a MAP estimate of its own, whose 1,000 steps no account holds: members of an ensemble, as in MILE.
        "MCLMC": world.vary(sampler=MCLMC(), warmup=WarmUp(steps=1000), chains=CHAINS, start="map", draws=200, thin=25),
    }


def cyclical(world: World, sampler: SGLD | SGHMC, cycles: int, reach: float) -> RunConfig:
    """Return a cyclical run of as many steps as one without cycles, with a draw at the end of every cycle but the first.

    Args:
        world: Where it runs.
        sampler: Whose length of cycles and step size are set.
        cycles: Number of cycles of a chain.
        reach: Length of a cycle times its largest step.
    """
    length = LONGER * world.sgd_steps // cycles
    sampler = sampler.model_copy(update={"cycle_length": length, "step_size": reach / length})
    return world.vary(sampler=sampler, warmup=WarmUp(steps=length), draws=cycles - 1, thin=length, chains=CHAINS)


def dropped(world: World) -> tuple[str, ...]:
    """Return the kernels that units under dropout feed, where they are not found by themselves.

    In a residual network they lie between the two convolutions of every block, as in Zagoruyko & Komodakis 2016, arXiv
    1605.07146, section 2.4.
    """
    model = world.posterior.model
    blocks = range((model.depth - 2) // 2) if isinstance(model, ResNet) else ()
    return tuple(f"blocks.{block}.second.conv.kernel" for block in blocks)
