"""B4: SGD prefers regions of low learning coefficient.

Run: HMC on a small network, and the masses of the regions of its posterior (`bayesnn measure FOLDER basins`); 200 solutions of
SGD on minibatches, from the network's own initialisation, labelled by the same classifier.

Compared: log odds of SGD's share of a region against the region's mass, as a linear function of the region's learning
coefficient and of the mean training loss of SGD's solutions there, over the regions that both reach. The coefficient is the
mean form, n (E[L] - L(w*)), of the posterior's draws in the region and SGD's solutions w* there (Lau et al. 2025): the prior is
the localiser, and around one minimum with curvatures h it is the sum of h / (h + prior precision) / 2, half the effective number
of parameters (MacKay 1992). SGD's solutions need not be minima, and no sampler localised at a point enters: `bayesnn measure llc`
is for that, and says where there is no minimum within reach. Masses come from tempered SMC and the losses of draws from parallel
tempering, so that no error enters both.

The interval of the slope holds the errors of all of them, from resampling solutions, systems of particles and ladders, to first
order; it is wider where regions scatter about the plane by more than that. Errors of coefficients draw the slope towards 0.

Decides: supported if the interval of the slope on the coefficient lies below 0, contradicted if above; inconclusive otherwise,
where SGD and the posterior have fewer than 3 regions in common, and where the two methods disagree about the masses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from bayesnn.izmailov2021.b3_right_weights import minibatch_sgd
from bayesnn.izmailov2021.masses import masses_of
from bayesnn.izmailov2021.measured import BASINS
from bayesnn.izmailov2021.scales import Scale
from bayesnn.measure.classify import label_run
from bayesnn.suite.suite import Exhibit, Hypothesis, Judgement
from diagnostics.claims import interval_text
from diagnostics.estimates import NUM_RESAMPLES, SEED, Estimate, few_systems_factor, interval
from diagnostics.hypotheses import hypothesis, inconclusive
from diagnostics.regions.masses import dispute

TITLE = "SGD prefers regions of low learning coefficient"
SOURCE = "the critique of Izmailov et al. 2021"
FEWEST = 4  # solutions, and ladders, that reach a region: the spread of fewer tells no error, as of masses
FEWEST_REGIONS = 3  # a slope and the loss's share in it

type Rows = Float[np.ndarray, "row region"]  # the estimate first, then what it might as well have been


class Compared(NamedTuple):
    """What is compared, by region.

    Attributes:
        num_data: n.
        solutions: Number of SGD's solutions.
        loss: Their mean training loss, nats an example; NaN where there are none.
        mass: Posterior probability.
        posterior_loss: Mean training loss of the posterior's draws, nats an example; NaN where too few ladders have been.
    """

    num_data: int
    solutions: Rows
    loss: Rows
    mass: Rows
    posterior_loss: Rows

    @property
    def coefficient(self) -> Rows:
        """Learning coefficients."""
        return self.num_data * (self.posterior_loss - self.loss)

    @property
    def in_common(self) -> Int[np.ndarray, " common"]:
        """Regions that SGD and both methods have reached, and often enough to tell errors."""
        return np.flatnonzero((self.solutions[0] >= FEWEST) & (self.mass[0] > 0) & np.isfinite(self.posterior_loss[0]))

    @property
    def log_odds(self) -> Rows:
        """SGD's share against the mass, nats; half a solution is added to each region, so that resamples without any have one."""
        with np.errstate(divide="ignore"):  # of regions that are not in common
            mass = np.log(np.maximum(self.mass, self.mass[0] / 10))  # errors may pass 0, where there is no logarithm
        return np.log(self.solutions + 0.5) - np.log(self.solutions.sum(1, keepdims=True)) - mass


def plan(scale: Scale) -> Hypothesis:
    """Return the hypothesis at a scale."""
    runs = {"network": scale.weighed(), "sgd": minibatch_sgd(scale)}
    return Hypothesis("B4", TITLE, SOURCE, __doc__ or "", runs, {"B4": judge})


def judge(trees: Mapping[str, xr.DataTree]) -> Judgement:
    """Regress SGD's preferences on learning coefficients."""
    whole = compared(trees["network"], trees["sgd"])
    exhibits = exhibits_of(whole)
    known = whole.in_common
    if known.size < FEWEST_REGIONS:
        reason = f"SGD and the posterior have {known.size} regions in common, a slope at equal loss needs {FEWEST_REGIONS}."
        return Judgement(inconclusive("B4", reason), exhibits)
    fair, crude = slope(whole, at_equal_loss=True), slope(whole, at_equal_loss=False)
    disputed = dispute(masses_of(trees["network"].children[BASINS]))
    verdict = "inconclusive"
    if not disputed and not fair.lower <= 0 <= fair.upper:
        verdict = "supported" if fair.upper < 0 else "contradicted"
    errors, spread = whole.coefficient[1:, known].std(0), float(whole.coefficient[0, known].std(ddof=1))
    note = (
        f"Learning coefficients of the regions have a standard deviation of {spread:.2g} and errors of "
        f"{np.sqrt(np.mean(errors**2)):.2g}. SGD's share against mass changes by {interval_text(*fair)} nats a unit of the "
        f"learning coefficient at equal training loss, over the {known.size} "
        f"of {whole.mass.shape[1]} regions that SGD and the posterior share, which hold "
        f"{whole.solutions[0, known].sum():.0f} of {whole.solutions[0].sum():.0f} solutions; without regard to the loss by "
        f"{interval_text(*crude)}. {disputed}"
    ).rstrip()
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
    mass, replicas = masses_of(basins)[0], basins["replicas"].to_dataset()
    num_regions = mass.share.size
    losses = -sgd["sample_stats"].to_dataset()["log_likelihood"].values.reshape(-1, 1) / num_data
    solutions, loss = mean_by_region(label_run(basins, sgd).reshape(-1, 1), losses, num_regions)
    _, posterior_loss = mean_by_region(replicas["label"].values, -replicas["log_likelihood"].values / num_data, num_regions)
    posterior_loss = posterior_loss[0] + few_systems_factor(len(replicas["label"])) * (posterior_loss - posterior_loss[0])
    reached = (replicas["label"].values[..., None] == np.arange(num_regions)).any(1).sum(0) >= FEWEST
    return Compared(num_data, solutions, loss, np.vstack([mass.share, mass.resamples]), np.where(reached, posterior_loss, np.nan))


def mean_by_region(
    labels: Int[np.ndarray, "unit draw"], values: Float[np.ndarray, "unit draw"], num_regions: int
) -> tuple[Rows, Rows]:
    """Return the number of draws in each region and the mean of a value over them, whole units (solutions, ladders) resampled.

    Rows in which a region is empty repeat the estimate of its mean, which is NaN for a region that is always empty.
    """
    num_units = len(values)
    inside = labels[..., None] == np.arange(num_regions)
    rng = np.random.default_rng([SEED, num_units])  # a stream other than that of the masses, which would be resampled in step
    drawn = rng.multinomial(num_units, np.full(num_units, 1 / num_units), NUM_RESAMPLES)
    times = np.vstack([np.ones(num_units), drawn])
    count, total = times @ inside.sum(1), times @ (inside * np.asarray(values, float)[..., None]).sum(1)
    with np.errstate(invalid="ignore"):
        mean = total / count
    return count, np.where(count > 0, mean, mean[0])


def slope(whole: Compared, *, at_equal_loss: bool) -> Estimate:
    """Estimate how log odds change with the learning coefficient, by least squares weighted by the errors of the log odds."""
    known = whole.in_common
    covariates = [whole.coefficient[:, known], whole.loss[:, known]][: 1 + at_equal_loss]
    log_odds = whole.log_odds[:, known]
    weight = 1 / log_odds[1:].var(0)
    weight /= weight.sum()
    design = np.stack([rows - (rows @ weight)[:, None] for rows in covariates], -1)
    response = log_odds - (log_odds @ weight)[:, None]
    solve = np.linalg.pinv(design[0] * np.sqrt(weight)[:, None]) * np.sqrt(weight)
    slopes = solve @ response[0]
    # With the slopes held, errors of log odds and of covariates are errors of the residuals. Regressing on covariates that are
    # moved by their errors once more would draw the slopes towards 0 once more.
    residual = response - design @ slopes
    degrees = known.size - 1 - len(covariates)
    scatter = float(np.sum(np.square(residual[0]) / residual[1:].var(0)) / degrees) if degrees else 1.0
    widened = np.sqrt(max(1.0, scatter))  # the scale factor of the Particle Data Group
    return interval(slopes[0], slopes[0] + widened * (residual[1:] @ solve[0]))


def exhibits_of(whole: Compared) -> tuple[Exhibit, ...]:
    """Return learning coefficients, preferences and losses of the regions that are known."""
    known = whole.in_common
    if not known.size:
        return ()
    mean = float(np.average(whole.coefficient[0, known], weights=whole.mass[0, known]))
    losses = {
        f"region {region}, {who}": by_region(rows, region)
        for region in known
        for who, rows in (("SGD", whole.loss), ("posterior", whole.posterior_loss))
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
