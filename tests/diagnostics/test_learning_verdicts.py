"""Every way in which an estimate goes wrong gets its verdict, and a good one none of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diagnostics.learning import LossDraws, PredictedBias, Sampling, estimate_all, judge

H = np.array([4.0, 2.0, 1.0, 1.0])
NUM_DATA, BETAS, LOCALISATION, BASELINE = 1000, (0.1, 0.15), 1.0, 2.0
EXACT = [0.5 * np.sum(NUM_DATA * beta * H / (NUM_DATA * beta * H + LOCALISATION)) for beta in BETAS]
GOOD = Sampling(PredictedBias(EXACT[0], step=0.01), step_size=1e-4, precisions=np.full(4, 401.0))
NAMES = ("learning coefficient", "chains", "minimum", "convergence", "step", "localiser")


def draws(*, baseline=BASELINE, h=H, localisation=LOCALISATION, num_draws=1000, chains=4, betas=BETAS, change=None):
    """Independent draws around a quadratic minimum."""
    rng, losses, distances = np.random.default_rng(0), [], []
    for beta in betas:
        w = rng.normal(size=(chains, num_draws, len(h))) / np.sqrt(NUM_DATA * beta * h + localisation)
        losses.append((h * w**2).sum(-1) / 2 + BASELINE)
        distances.append((w**2).sum(-1))
    losses = np.array(losses)
    return LossDraws(losses if change is None else change(losses), np.array(distances), NUM_DATA, betas, localisation, baseline)


def verdicts(some, sampling=GOOD):
    return {finding.claim: finding for finding in judge(some, sampling)}


def failing(found):
    return {name for name, finding in found.items() if finding.verdict != "pass"} - {"learning coefficient"}


def test_a_good_estimate_passes_everything():
    found = verdicts(draws())
    assert tuple(found) == NAMES
    assert failing(found) == set()
    first = found["learning coefficient"]
    assert first.verdict == "pass"
    assert first.interval[0] < EXACT[0] < first.interval[1]
    assert "n beta = 100 (n = 1000, inverse temperature 0.1)" in first.note


def test_the_corrected_form_takes_the_predicted_biases_away():
    forms = estimate_all(draws(), GOOD._replace(bias=PredictedBias(EXACT[0], step=0.3, burn_in=-0.1)))
    assert forms["corrected"].value == pytest.approx(forms["mean"].value - 0.2)
    assert set(estimate_all(draws())) == {"mean", "variance", "two_temperature"}


@pytest.mark.parametrize("baseline", [BASELINE + 0.05, BASELINE + 0.008, BASELINE - 0.02])
def test_a_wrong_baseline_is_no_minimum(baseline):
    """By 5, 0.8 and -2 units of the estimate: the two-temperature form, 1.98, does not know it."""
    found = verdicts(draws(baseline=baseline))
    assert failing(found) == {"minimum"}
    assert found["minimum"].note.startswith("Not a minimum")
    assert found["learning coefficient"].verdict == "fail"
    assert estimate_all(draws(baseline=baseline))["two_temperature"] == estimate_all(draws())["two_temperature"]


def test_a_gradient_at_the_centre_is_no_minimum():
    found = verdicts(draws(), GOOD._replace(bias=PredictedBias(EXACT[0], centre=-0.5)))
    assert failing(found) == {"minimum"}
    assert "the gradient at the centre" in found["minimum"].note


def test_one_temperature_cannot_tell_a_wrong_baseline():
    assert verdicts(draws(betas=(0.1,)))["minimum"].verdict == "inconclusive"


def test_a_lost_chain_counts_for_nothing_and_is_named():
    def lose(losses):
        losses[1, 2, 600:] = math.nan  # finite before, and far too large
        losses[1, 2, :600] += 50.0
        return losses

    some = draws(change=lose)
    found = verdicts(some)
    assert failing(found) == {"chains"}
    assert found["chains"].verdict == "fail"
    assert found["chains"].note.startswith("Chain lost: 1 of 8")
    assert some.whole().losses.shape == (2, 3, 1000)
    assert estimate_all(some)["two_temperature"].value < 10


def test_when_all_chains_are_lost_there_is_no_estimate():
    found = verdicts(draws(change=lambda losses: losses * math.nan))
    assert list(found) == ["chains"]
    assert found["chains"].value == 8
    with pytest.raises(ValueError, match="lower the step size"):
        draws(change=lambda losses: losses * math.inf).whole()


def test_a_burn_in_that_is_too_short_is_not_converged():
    found = verdicts(draws(), GOOD._replace(bias=PredictedBias(EXACT[0], burn_in=-0.16 * EXACT[0])))
    assert failing(found) == {"convergence"}
    assert found["convergence"].note.startswith("Not converged")
    assert found["convergence"].value == pytest.approx(0.16)


def test_a_drift_is_not_converged():
    found = verdicts(draws(change=lambda losses: losses + 0.02 * np.linspace(0, 1, losses.shape[-1])))
    assert found["convergence"].verdict == "fail"
    assert "first to the second half" in found["convergence"].note


def test_chains_that_disagree_are_not_converged():
    found = verdicts(draws(change=lambda losses: losses + 0.01 * np.arange(4)[:, None]))
    assert found["convergence"].verdict == "fail"
    assert "R-hat" in found["convergence"].note


@pytest.mark.parametrize("some", [draws(num_draws=20, chains=2), draws(chains=1)])
def test_few_draws_are_inconclusive(some):
    found = verdicts(some)
    assert found["convergence"].verdict == "inconclusive"
    assert found["learning coefficient"].verdict == "inconclusive"


@pytest.mark.parametrize(
    "sampling",
    [
        GOOD._replace(bias=PredictedBias(EXACT[0], step=0.2)),
        GOOD._replace(bias=PredictedBias(EXACT[0], batch=0.2)),
        GOOD._replace(bias=PredictedBias(EXACT[0], step=math.inf)),
        GOOD._replace(precisions=np.array([401.0, math.nan, 3e4, 401.0])),
    ],
    ids=["step", "batch", "unstable", "stiffer where the chains went"],
)
def test_a_hot_step_is_told(sampling):
    found = verdicts(draws(), sampling)
    assert failing(found) == {"step"}
    assert found["step"].verdict == "fail"
    assert found["step"].note.startswith("Step too hot")


def test_where_the_loss_is_not_quadratic_the_step_is_judged_by_what_chains_met():
    sampling = GOOD._replace(bias=PredictedBias(0.01, step=1e-5))
    assert verdicts(draws(), sampling)["step"].verdict == "pass"  # 1e-4 * 401 adds 1 %
    assert verdicts(draws(), sampling._replace(step_size=1e-3))["step"].verdict == "inconclusive"  # 11 %
    assert verdicts(draws(), sampling._replace(precisions=None))["step"].verdict == "inconclusive"


def test_divergences_of_exact_samplers_count():
    sampling = Sampling(PredictedBias(EXACT[0]), num_divergent=0, num_steps=100)
    assert verdicts(draws(), sampling)["step"].verdict == "pass"
    assert verdicts(draws(), sampling._replace(num_divergent=20))["step"].verdict == "fail"


def test_a_localiser_that_dominates_is_told():
    found = verdicts(draws(localisation=200.0), Sampling(PredictedBias(1.0), num_steps=1))
    assert "localiser" in failing(found)
    assert found["localiser"].note.startswith("Localiser-dominated")
    assert verdicts(draws(localisation=0.0))["localiser"].verdict == "not applicable"


def test_where_draws_cannot_tell_about_the_localiser_the_spectrum_does():
    few = draws(h=np.append(H, np.zeros(100)), num_draws=20, chains=2)  # flat directions are noise to the identity
    known = PredictedBias(EXACT[0], localiser=0.01 * EXACT[0])
    assert verdicts(few, GOOD._replace(bias=None))["localiser"].verdict == "inconclusive"
    assert verdicts(few, GOOD._replace(bias=known))["localiser"].verdict == "pass"
    assert verdicts(few, GOOD._replace(bias=known._replace(localiser=0.2 * EXACT[0])))["localiser"].verdict == "fail"
    assert verdicts(few, GOOD._replace(bias=PredictedBias(0.1)))["localiser"].verdict == "inconclusive"  # hardly quadratic


def test_parameters_without_influence_have_no_verdict_and_no_error():
    found = verdicts(draws(h=np.zeros(3), betas=(0.1, 0.15, 0.2)), GOOD._replace(bias=PredictedBias(0.0)))
    assert found["learning coefficient"].value == 0
    assert found["convergence"].verdict == "inconclusive"
    assert "never change" in found["convergence"].note


def test_a_baseline_that_nobody_could_find_wrong_is_not_found_right():
    """Off by the estimate itself, at errors of half of it: the draws are too few, and that is the verdict."""
    found = verdicts(draws(num_draws=10, chains=2, baseline=BASELINE - 0.02))
    assert found["minimum"].verdict == "inconclusive"
    assert found["minimum"].note.startswith("Too few draws")
