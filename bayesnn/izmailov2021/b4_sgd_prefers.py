r"""B4: SGD prefers regions of low learning coefficient.

Run: HMC on a small network, and the masses of the regions of its posterior (`bayesnn measure FOLDER basins`); 200 solutions of
SGD on minibatches, from the network's own initialisation, labelled by the same classifier.

Compared: log odds of SGD's share of a region against the region's mass, as a linear function of the region's learning
coefficient and of the mean training loss of SGD's solutions there, over the regions that both reach. Masses come from tempered
SMC and coefficients from parallel tempering, so that no error enters both. The interval of the slope resamples solutions, systems
of particles and ladders, and is wider where regions scatter about the plane by more than that. Errors of coefficients draw the
slope towards 0.

The coefficient of a region is Cov(n L, U) over the posterior's draws in it, U = n L - log prior: by how much n L grows with the
temperature of the whole posterior, the limit of the two-temperature form. With the likelihood alone tempered it would be
Var(n L), which counts how far the prior pulls from the minimum of the loss as well. Around one minimum with curvatures h it is
the sum of h / (h + prior precision) / 2, half the effective number of parameters (MacKay 1992); the spread of depths of
several minima adds.

Decides: supported if the interval of the slope on the coefficient lies below 0, contradicted if above; inconclusive otherwise,
and where SGD and the posterior have fewer than 3 regions in common.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from bayesnn.izmailov2021.b1_region_weights import BASINS
from bayesnn.izmailov2021.scales import Scale
from bayesnn.measure.classify import label_run
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement, Planned
from diagnostics.claims import interval_text
from diagnostics.estimates import NUM_RESAMPLES, SEED, Estimate, interval
from diagnostics.hypotheses import hypothesis, inconclusive
from diagnostics.regions import masses_from_weights
from diagnostics.regions.masses import few_systems_factor

TITLE = "SGD prefers regions of low learning coefficient"
SOURCE = "the critique of Izmailov et al. 2021"
SOLUTIONS = 200  # of SGD: the share of a region that has a quarter of them is known to 12 %
BATCH = 32  # the largest of the batches that Masters & Luschi 2018, arXiv 1804.07612, find to generalise best
FEWEST_LADDERS = 4  # that reach a region: the spread of fewer tells no error, as of masses
FEWEST_REGIONS = 3  # a slope and the loss's share in it

type Rows = Float[np.ndarray, "row region"]  # the estimate first, then what it might as well have been


class Compared(NamedTuple):
    """What is compared, by region; the rows of all but `loss_posterior` are resampled independently.

    Attributes:
        solutions: Number of SGD's solutions.
        loss: Their mean training loss, nats an example; NaN where there are none.
        mass: Posterior probability.
        coefficient: Learning coefficient; NaN where too few ladders have been.
        loss_posterior: Mean training loss of the posterior's draws, nats an example.
    """

    solutions: Rows
    loss: Rows
    mass: Rows
    coefficient: Rows
    loss_posterior: Rows

    @property
    def in_common(self) -> Bool[np.ndarray, " region"]:
        """Regions that SGD and both methods have reached."""
        return (self.solutions[0] > 0) & (self.mass[0] > 0) & np.isfinite(self.coefficient[0])

    @property
    def log_odds(self) -> Rows:
        """SGD's share against the mass, nats; half a solution is added to each region, so that resamples without any have one."""
        mass = np.maximum(self.mass, self.mass[0] / 10)  # errors may pass 0, where there is no logarithm
        return np.log(self.solutions + 0.5) - np.log(self.solutions.sum(1, keepdims=True)) - np.log(mass)


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    small = dataclasses.replace(scale.small, sgd=scale.small.sgd.model_copy(update={"batch_size": BATCH}))
    runs = {"network": scale.weighed(), "minibatch-sgd": Planned(small.optimised(SOLUTIONS))}
    return Hypothesis("B4", TITLE, SOURCE, __doc__ or "", runs, {"B4": judge})


def judge(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Regress SGD's preferences on learning coefficients."""
    whole = compared(trees["network"], trees["minibatch-sgd"])
    exhibits = exhibits_of(whole)
    known = whole.in_common
    if known.sum() < FEWEST_REGIONS:
        reason = f"SGD and the posterior have {known.sum()} regions in common, a slope at equal loss needs {FEWEST_REGIONS}."
        return Judgement(inconclusive("B4", reason), exhibits)
    common = Compared(*(rows[:, known] for rows in whole))
    fair, crude = slope(common, at_equal_loss=True), slope(common, at_equal_loss=False)
    verdict = "supported" if fair.upper < 0 else "contradicted" if fair.lower > 0 else "inconclusive"
    note = (
        f"SGD's share against mass changes by {interval_text(*fair)} nats a unit of the learning coefficient at equal training "
        f"loss, over {known.sum()} of {known.size} regions, which hold all but {int(whole.solutions[0, ~known].sum())} of "
        f"{int(whole.solutions[0].sum())} solutions; without regard to the loss by {interval_text(*crude)}."
    )
    first = Exhibit(
        "How the log odds of SGD's share against mass change with the learning coefficient; left of zero SGD prefers low ones.",
        "nats a unit",
        {"at equal training loss": fair, "whatever the loss": crude},
    )
    return Judgement(hypothesis("B4", verdict, fair, note, 0.0), (first, *exhibits))


def compared(network: xr.DataTree, sgd: xr.DataTree) -> Compared:
    """Return what is compared, from a network with the measure `basins` and from SGD's solutions, one a chain.

    Raises:
        ValueError: The regions are no clusters of functions.
    """
    basins, num_data = network.children[BASINS], sgd.attrs["num_data"]
    particles, replicas, evidence = (basins[name].to_dataset() for name in ("particles", "replicas", "evidence"))
    num_regions = basins["regions"].sizes["region"]
    mass = masses_from_weights(
        "tempered SMC", particles["label"].values, particles["log_weight"].values, evidence["by_system"].values, num_regions
    )
    losses = -sgd["sample_stats"].to_dataset()["log_likelihood"].values.reshape(-1, 1)
    count, loss, _ = moments(label_run(basins, sgd).reshape(-1, 1), losses, losses, num_regions)
    places, total = replicas["label"].values, -replicas["log_likelihood"].values
    _, mean, covariance = moments(places, total, total - replicas["log_prior"].values, num_regions, widened=True)
    reached = (places[..., None] == np.arange(num_regions)).any(1).sum(0) >= FEWEST_LADDERS
    return Compared(
        count,
        loss / num_data,
        np.vstack([mass.share, mass.resamples]),
        np.where(reached, covariance, np.nan),
        mean / num_data,
    )


def moments(
    labels: Int[np.ndarray, "unit draw"],
    loss: Float[np.ndarray, "unit draw"],
    potential: Float[np.ndarray, "unit draw"],
    num_regions: int,
    *,
    widened: bool = False,
) -> tuple[Rows, Rows, Rows]:
    """Return the number of draws in each region, their mean loss, and the covariance of loss and potential.

    Whole units (solutions, ladders) are resampled; rows in which a region is empty repeat its estimate.

    Args:
        labels: Regions of the draws.
        loss: Of the draws.
        potential: Of the draws.
        num_regions: Number of regions.
        widened: Whether to widen the spread of the rows, as few units ask for.
    """
    num_units, centre = len(loss), float(loss.mean())
    one, other = np.asarray(loss - centre, float), np.asarray(potential - potential.mean(), float)  # products keep their digits
    inside = labels[..., None] == np.arange(num_regions)
    sums = [(inside * values[..., None]).sum(1) for values in (np.ones_like(one), one, other, one * other)]
    drawn = np.random.default_rng(SEED).multinomial(num_units, np.full(num_units, 1 / num_units), NUM_RESAMPLES)
    count, *totals = (np.vstack([np.ones(num_units), drawn]) @ each for each in sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, of_potential, product = (each / count for each in totals)
    factor = few_systems_factor(num_units) if widened else 1.0
    mean, covariance = (
        rows[0] + factor * (np.where(count > 0, rows, rows[0]) - rows[0]) for rows in (mean, product - mean * of_potential)
    )
    return count, mean + centre, covariance


def slope(common: Compared, *, at_equal_loss: bool) -> Estimate:
    """Estimate how log odds change with the learning coefficient, by least squares weighted by the errors of the log odds."""
    covariates = [common.coefficient, common.loss][: 1 + at_equal_loss]
    log_odds = common.log_odds
    weight = 1 / log_odds[1:].var(0)
    weight /= weight.sum()
    design = np.stack([rows - (rows @ weight)[:, None] for rows in covariates], -1)
    response = log_odds - (log_odds @ weight)[:, None]
    root = np.sqrt(weight)
    slopes = np.einsum("rpk,rk->rp", np.linalg.pinv(design * root[:, None]), response * root)
    residual = response - design @ slopes[0]
    degrees = residual.shape[1] - 1 - len(covariates)
    scatter = float(np.sum(np.square(residual[0]) / residual[1:].var(0)) / degrees) if degrees else 1.0
    value, reach = slopes[0, 0], np.sqrt(max(1.0, scatter))  # the scale factor of the Particle Data Group
    return interval(value, value + reach * (slopes[1:, 0] - value))


def exhibits_of(whole: Compared) -> tuple[Exhibit, ...]:
    """Return learning coefficients, preferences and losses of the regions that are known."""
    known = np.flatnonzero(whole.in_common)
    if not known.size:
        return ()
    mean = float(np.average(whole.coefficient[0, known], weights=whole.mass[0, known]))
    losses = {
        f"region {region}, {who}": by_region(rows, region)
        for region in known
        for who, rows in (("SGD", whole.loss), ("posterior", whole.loss_posterior))
    }
    rows = [{f"region {region}": by_region(values, region) for region in known} for values in (whole.coefficient, whole.log_odds)]
    lowest = min(one.value for one in losses.values())
    return (
        Exhibit(
            "Learning coefficients of the regions; the line is their mean by mass.", "learning coefficient", rows[0], (mean,)
        ),
        Exhibit("Log odds of SGD's share against the mass; right of zero SGD prefers the region.", "nats", rows[1]),
        Exhibit("Mean training loss; the line is the lowest.", "nats an example", losses, (lowest,)),
    )


def by_region(rows: Rows, region: np.intp) -> Estimate:
    """Return the estimate of one region."""
    return interval(rows[0, region], rows[1:, region])
