"""Can this learning coefficient be trusted? Verdicts on what makes such estimates wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from diagnostics.claims import Finding, percent
from diagnostics.convergence import ess_within, mcse_mean, rhat
from diagnostics.health import MAX_DIVERGENT
from diagnostics.learning.bias import PredictedBias
from diagnostics.learning.draws import LossDraws
from diagnostics.learning.estimators import (
    Coefficient,
    localiser_sensitivity,
    mean_form,
    slope_form,
    two_temperature_form,
    variance_form,
    wbic,
)

# Of the estimate, for each of burn-in, step with batches, and centre: three such biases stay together within the 15 % at which an
# estimate is no longer one.
MAX_BIAS = 0.05
# Deviations count when chance would give them once in 370 cases.
STANDARD_ERRORS = 3.0
# At finite n the forms estimate different things (module docstring of `estimators`), and may differ so much: on the crossing of
# multiplicity 2 at n = 1000 with a localiser of 1 the two-temperature form is 4 % below the mean form, with one of 10 21 %.
MAX_DISAGREEMENT = 0.15
# Vehtari et al. 2021 ask for 1.01 of long chains and Gelman et al. for 1.1; the Monte Carlo error has the rest in it.
MAX_RHAT = 1.05
# Of a chain: the means of half-chains then vary so much that converged chains have an R-hat of 1.02, and more by chance.
MIN_ESS = 50
MAX_RELATIVE_ERROR = 0.1
# A baseline is right where one that is wrong by the size of the estimate, or by what a direction adds, would have been seen.
ONE_DIRECTION = 0.5
# A localiser weaker by a factor e would change the estimate by this share; on one direction that is n beta h = 9 localisers.
MAX_SENSITIVITY = 0.1
# epsilon a: along a direction of precision a SGLD's variance is twice too large; at 4 it diverges.
HOT_STEP = 2.0
# Share of the estimate that comes from quadratic directions above which what is predicted of them is predicted of it.
MIN_EXPLAINED = 0.5
# Standard errors to each side of an interval of 95 %.
INTERVAL = 1.96


class Sampling(NamedTuple):
    """What the verdicts need to know of the sampling beside the draws.

    Attributes:
        bias: Predicted at the first temperature; None where there is no closed form.
        step_size: epsilon of SGLD at the first temperature; None for a sampler that accepts and rejects.
        precisions: [chain] largest curvature of the tempered density at the ends of (some) chains of the first temperature; None
            where it is not known.
        num_divergent: Divergent steps of all chains.
        num_steps: Steps of all chains.
    """

    bias: PredictedBias | None = None
    step_size: float | None = None
    precisions: Float[np.ndarray, " chain"] | None = None
    num_divergent: int = 0
    num_steps: int = 1


def estimate_all(draws: LossDraws, sampling: Sampling | None = None) -> dict[str, Coefficient]:
    """Return every form of the estimate that the draws allow, by name.

    Args:
        draws: The draws; lost chains are left out.
        sampling: Adds the form `corrected`: the mean form less the predicted biases.

    Returns:
        `mean` and `variance` at the first temperature; `two_temperature` of the first and the last; `slope` of three or more,
        where losses change; `wbic`, nats, where the first temperature is 1 / log n; `corrected`.

    Raises:
        ValueError: All chains are lost.
    """
    d = draws.whole()
    first: dict[str, Any] = {"num_data": d.num_data, "inverse_temperature": d.inverse_temperatures[0]}
    forms = {
        "mean": mean_form(d.losses[0], baseline=d.baseline, baseline_error=d.baseline_error, **first),
        "variance": variance_form(d.losses[0], **first),
    }
    if len(d.inverse_temperatures) > 1:
        ends = (d.inverse_temperatures[0], d.inverse_temperatures[-1])
        forms["two_temperature"] = two_temperature_form(d.losses[[0, -1]], num_data=d.num_data, inverse_temperatures=ends)
    if len(d.inverse_temperatures) > 2 and (np.ptp(d.losses, axis=(1, 2)) > 0).all():
        forms["slope"] = slope_form(d.losses, num_data=d.num_data, inverse_temperatures=d.inverse_temperatures).llc
    if d.num_data > 1 and math.isclose(d.inverse_temperatures[0], 1 / math.log(d.num_data), rel_tol=1e-3):
        forms["wbic"] = wbic(d.losses[0], **first)
    if sampling is not None and sampling.bias is not None and math.isfinite(sampling.bias.bias):
        forms["corrected"] = forms["mean"]._replace(value=forms["mean"].value - sampling.bias.bias)
    return forms


def judge(draws: LossDraws, sampling: Sampling) -> list[Finding]:
    """Judge an estimate.

    Args:
        draws: All chains, lost ones too.
        sampling: How they were made.

    Returns:
        Health findings, on the chains, the minimum, convergence, the step and the localiser; first of all the mean form, whose
        verdict is the worst of theirs. When all chains are lost, there is only that.
    """
    lost = _lost(draws)
    if not draws.kept.any():
        return [lost]
    d, forms = draws.whole(), estimate_all(draws, sampling)
    checks: tuple[Callable[[LossDraws, Sampling, dict[str, Coefficient]], Finding], ...]
    checks = (_minimum, _convergence, _step, _localiser)
    findings = [lost, *(check(d, sampling, forms) for check in checks)]
    return [_estimate(d, sampling, forms, findings), *findings]


def _estimate(d: LossDraws, sampling: Sampling, forms: dict[str, Coefficient], findings: list[Finding]) -> Finding:
    verdicts = {finding.verdict for finding in findings}
    mean, half = forms["mean"].value, INTERVAL * forms["mean"].standard_error
    quadratic = ""
    if (bias := sampling.bias) is not None:
        quadratic = (
            f" Expected of the quadratic part: {bias.exact:.4g} with this localiser, {bias.step:+.2g} by the step, "
            f"{bias.batch:+.2g} by batches, {bias.burn_in:+.2g} by the burn-in, {bias.centre:+.2g} by the centre."
        )
    others = "; ".join(f"{name.replace('_', '-')} {f.value:.4g} +- {f.standard_error:.2g}" for name, f in forms.items())
    return _finding(
        "learning coefficient",
        next((verdict for verdict in ("fail", "inconclusive") if verdict in verdicts), "pass"),
        mean,
        f"{mean:.4g} at n beta = {d.n_beta[0]:.6g} (n = {d.num_data}, inverse temperature {d.inverse_temperatures[0]:.4g}), "
        f"localiser {d.localisation:.3g}. Forms: {others}. Errors are of sampling.{quadratic}",
        interval=(mean - half, mean + half),
    )


def _lost(draws: LossDraws) -> Finding:
    count, total = int(draws.is_lost.sum()), draws.is_lost.size
    if count == 0:
        return _finding("chains", "pass", 0, f"All {total} chains stayed finite.", bound=0)
    note = (
        f"Chain lost: {count} of {total} left the finite numbers, and nothing of them is in the estimates. Lower the step size."
    )
    return _finding("chains", "fail", count, note, bound=0)


def _minimum(d: LossDraws, sampling: Sampling, forms: dict[str, Coefficient]) -> Finding:
    name, mean, scale = "minimum", forms["mean"], d.n_beta[0]
    below = float((d.losses[0] < d.baseline).mean())
    seen = f"{percent(below)} of the draws have a smaller loss than the centre."
    if mean.value + STANDARD_ERRORS * mean.standard_error < 0:
        note = f"Not a minimum: the draws' mean loss is below the centre's. {seen} Minimise the loss itself, from a draw."
        return _finding(name, "fail", mean.value, note, bound=0)
    if sampling.bias is not None and -sampling.bias.centre > MAX_BIAS * abs(mean.value):
        note = f"Not a minimum: the gradient at the centre alone lowers the estimate by {-sampling.bias.centre:.3g}. {seen}"
        return _finding(name, "fail", sampling.bias.centre, note, bound=-MAX_BIAS * abs(mean.value))
    if "two_temperature" not in forms:
        return _finding(name, "inconclusive", below, f"{seen} A second temperature would tell whether the baseline is right.")
    difference, error = _disagreement(d)
    free = forms["two_temperature"].value
    note = (
        f"The mean form is {difference:+.3g} +- {error:.2g} beside the two-temperature form, which needs no baseline "
        f"({difference / scale:+.2g} nats an example). {seen}"
    )
    # What the forms may differ by, and what chance adds.
    bound = MAX_DISAGREEMENT * abs(free) + STANDARD_ERRORS * error
    if abs(difference) > bound:
        return _finding(name, "fail", difference, f"Not a minimum, or a wrong baseline: {note}", bound=bound)
    if bound > max(ONE_DIRECTION, abs(free)):
        return _finding(name, "inconclusive", difference, f"Too few draws to tell: {note}", bound=bound)
    return _finding(name, "pass", difference, note, bound=bound)


def _disagreement(d: LossDraws) -> tuple[float, float]:
    """Return mean form less two-temperature form, and its error: both are linear in the same two means."""
    (first, first_error), (last, last_error) = ((float(x.mean()), float(mcse_mean(x))) for x in d.losses[[0, -1]])
    scale = d.num_data / (1 / d.inverse_temperatures[0] - 1 / d.inverse_temperatures[-1])
    difference = d.n_beta[0] * (first - d.baseline) - scale * (first - last)
    error = math.hypot((d.n_beta[0] - scale) * first_error, scale * last_error, d.n_beta[0] * d.baseline_error)
    return float(difference), error


def _convergence(d: LossDraws, sampling: Sampling, forms: dict[str, Coefficient]) -> Finding:
    name, mean = "convergence", forms["mean"]
    if sampling.bias is not None and -sampling.bias.burn_in > MAX_BIAS * sampling.bias.exact:
        share = -sampling.bias.burn_in / sampling.bias.exact
        note = f"Not converged: after this burn-in from the centre {percent(share)} of the estimate is still missing (predicted)."
        return _finding(name, "fail", share, f"{note} Take more steps, or a larger localiser.", bound=MAX_BIAS)
    half = d.losses.shape[-1] // 2
    early, late = d.losses[0, :, :half], d.losses[0, :, -half:]
    drift = d.n_beta[0] * float(late.mean() - early.mean())
    drift_error = d.n_beta[0] * math.hypot(float(mcse_mean(early)), float(mcse_mean(late)))
    if abs(drift) > max(STANDARD_ERRORS * drift_error, MAX_RELATIVE_ERROR * abs(mean.value)):
        note = f"Not converged: from the first to the second half of the chains the estimate moves by {drift:+.3g}."
        return _finding(name, "fail", drift, f"{note} Take more steps.", bound=MAX_RELATIVE_ERROR * abs(mean.value))
    worst = float(np.max(rhat(np.moveaxis(d.losses, 0, -1))))
    words = f"R-hat of the loss {worst:.3f}, standard error {percent(mean.standard_error / _size(forms))} of the estimate."
    if worst > MAX_RHAT and ess_within(d.losses[0]).min() >= MIN_ESS:
        return _finding(name, "fail", worst, f"Not converged: {words} Take more steps.", bound=MAX_RHAT)
    if math.isnan(worst):
        note = "R-hat is not defined for one chain, nor for losses that never change: run several, or let other parameters move."
        return _finding(name, "inconclusive", None, note, bound=MAX_RHAT)
    if worst > MAX_RHAT or mean.standard_error > MAX_RELATIVE_ERROR * abs(mean.value):
        return _finding(name, "inconclusive", worst, f"{words} Take more draws.", bound=MAX_RHAT)
    return _finding(name, "pass", worst, words, bound=MAX_RHAT)


def _step(d: LossDraws, sampling: Sampling, forms: dict[str, Coefficient]) -> Finding:
    name = "step"
    if sampling.step_size is None:
        share = sampling.num_divergent / sampling.num_steps
        note = f"The sampler accepts and rejects; {sampling.num_divergent} of {sampling.num_steps} steps diverged."
        return _finding(name, "fail" if share > MAX_DIVERGENT else "pass", share, note, bound=MAX_DIVERGENT)
    product = math.nan if sampling.precisions is None else sampling.step_size * _largest(sampling.precisions)
    if product >= HOT_STEP:
        note = (
            f"Step too hot: at the ends of the chains step size x largest precision is {product:.3g}; at 4 a chain diverges. "
            f"Lower the step size to {0.25 * HOT_STEP * sampling.step_size / product:.2g}."
        )
        return _finding(name, "fail", product, note, bound=HOT_STEP)
    bias = sampling.bias
    if bias is not None and bias.exact > MIN_EXPLAINED * forms["mean"].value:
        share = (bias.step + bias.batch) / bias.exact
        words = f"Step and batches add {percent(share)} to the estimate (predicted)."
    else:  # what one direction adds at this precision, as if all had the largest one
        share = product / (4 - product)
        words = (
            f"By the curvatures that chains met (the loss is hardly quadratic at the centre) the step adds {share:.2%} at most."
        )
    if math.isnan(share):
        return _finding(name, "inconclusive", None, "The bias of this step is not known: halve it, and see what moves.")
    if share <= MAX_BIAS:
        return _finding(name, "pass", share, words, bound=MAX_BIAS)
    if bias is not None and bias.exact > MIN_EXPLAINED * forms["mean"].value:
        return _finding(name, "fail", share, f"Step too hot: {words} Lower it, or take larger batches.", bound=MAX_BIAS)
    return _finding(name, "inconclusive", share, f"{words} Lower it, and see what moves.", bound=MAX_BIAS)


def _size(forms: dict[str, Coefficient]) -> float:
    """Return the size of the estimate, to divide by: not 0, which parameters without influence have."""
    return max(abs(forms["mean"].value), float(np.finfo(float).tiny))


def _largest(precisions: Float[np.ndarray, " chain"]) -> float:
    """Return the largest that is known; lost chains have none."""
    return float(np.max(precisions[np.isfinite(precisions)], initial=0.0))


def _localiser(d: LossDraws, sampling: Sampling, forms: dict[str, Coefficient]) -> Finding:
    name = "localiser"
    if d.localisation == 0:
        return _finding(name, "not applicable", None, "There is no localiser.")
    sensitivity = localiser_sensitivity(
        d.losses[0],
        d.squared_distances[0],
        num_data=d.num_data,
        inverse_temperature=d.inverse_temperatures[0],
        localisation=d.localisation,
    )
    size = _size(forms)
    share, error, source = sensitivity.value / size, sensitivity.standard_error / size, "by an identity over draws"
    bias = sampling.bias
    if error > MAX_SENSITIVITY / 2 and bias is not None and bias.exact > MIN_EXPLAINED * size:
        share, error, source = bias.localiser / bias.exact, 0.0, "predicted"
    words = f"A localiser weaker by a factor e would change the estimate by {share:+.1%} +- {error:.1%} ({source})."
    if share > MAX_SENSITIVITY and share - INTERVAL * error > MAX_SENSITIVITY / 2:
        note = f"Localiser-dominated: {words} Weaken it, raise n beta, or state the estimate with this localiser."
        return _finding(name, "fail", share, note, bound=MAX_SENSITIVITY)
    is_small = share <= MAX_SENSITIVITY and share + INTERVAL * error < 2 * MAX_SENSITIVITY
    return _finding(name, "pass" if is_small else "inconclusive", share, words, bound=MAX_SENSITIVITY)


def _finding(
    claim: str,
    verdict: str,
    value: float | None,
    note: str,
    *,
    bound: float | None = None,
    interval: tuple[float, float] | None = None,
) -> Finding:
    return Finding(claim, "health", verdict, value, interval, bound, note)
