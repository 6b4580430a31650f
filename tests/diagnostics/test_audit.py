"""Every health claim passes a healthy run and fails the run that it is there to catch; a bad posterior never raises."""

import warnings

import numpy as np
import pytest
import xarray as xr

from diagnostics.claims import VERDICTS, Finding
from diagnostics.costs import efficiency
from diagnostics.energy import energy_summary
from diagnostics.health import MIN_BFMI, _bfmi
from diagnostics.standard import HEALTH, audit, overall
from diagnostics.summary import TOTAL, summarise
from diagnostics.trees import make_tree

COPIES = "copies-visited-equally"  # simulated runs know of no symmetries; see test_symmetry_census
REQUIRED = [name for name, claim in HEALTH.items() if claim.required]


def verdicts(tree):
    return {finding.claim: finding.verdict for finding in audit(tree)}


def displace(arrays, chain, distance=1):
    """Start a chain so far away that it never comes back: other weights, and other classes are probable."""
    for values in arrays["posterior"].values():
        values[chain] += 10
    probability = arrays["functions"]["probability"]
    probability[chain] = np.roll(probability[chain], distance, -1)


def test_a_healthy_run_passes_everything(simulate):
    findings = audit(simulate.healthy_tree())
    assert {finding.verdict for finding in findings if finding.claim != COPIES} == {"pass"}
    assert [finding.claim for finding in findings] == list(HEALTH)
    assert overall(findings) == "pass"
    assert all(finding.note.endswith(".") and "nan" not in finding.note for finding in findings)


def test_a_stuck_chain_fails(simulate):
    arrays = simulate.healthy_arrays()
    for group in ("posterior", "functions"):
        for values in arrays[group].values():
            values[2] = values[2, 50]
    result = verdicts(make_tree(**arrays))
    assert result["chains-move"] == "fail"
    assert result["enough-draws"] == "inconclusive"
    assert result["functions-converge"] in ("fail", "inconclusive")


def test_a_chain_stuck_for_a_third_of_its_draws_fails(simulate):
    arrays = simulate.healthy_arrays()
    for values in arrays["posterior"].values():
        values[1, 100:240] = values[1, 100]
    finding = HEALTH["chains-move"]({"run": make_tree(**arrays)})
    assert finding.verdict == "fail"
    assert finding.value == pytest.approx(139 / 399)
    assert "Chain 1 did not change a single weight in 139 consecutive steps" in finding.note


def test_rejections_in_a_row_of_few_draws_settle_nothing(simulate):
    """Four of eleven steps: at an acceptance of one half a run as long comes in one chain of four."""
    arrays = simulate.healthy_arrays(num_draws=12)
    for values in arrays["posterior"].values():
        values[1, 3:8] = values[1, 3]
    finding = HEALTH["chains-move"]({"run": make_tree(**arrays)})
    assert finding.verdict == "inconclusive"
    assert "rejections in a row" in finding.note


def test_a_creeping_chain_fails(simulate):
    arrays = simulate.healthy_arrays()
    for values in arrays["posterior"].values():
        values[3] = values[3].mean(0) + 0.01 * (values[3] - values[3].mean(0))
    finding = HEALTH["chains-move"]({"run": make_tree(**arrays)})
    assert finding.verdict == "fail"
    assert finding.value == pytest.approx(0.01, rel=0.5)


def test_ordinary_rejections_pass(simulate):
    arrays = simulate.healthy_arrays()
    rng = np.random.default_rng(0)
    for chain in range(4):
        kept = np.maximum.accumulate(np.where(rng.random(400) < 0.6, np.arange(400), 0))
        for group in ("posterior", "functions"):
            for values in arrays[group].values():
                values[chain] = values[chain, kept]
    assert verdicts(make_tree(**arrays)) == dict.fromkeys(HEALTH, "pass") | {COPIES: "not applicable"}


@pytest.mark.parametrize("num_draws", [400, 30])
def test_a_chain_started_far_away_fails_however_few_the_draws(simulate, num_draws):
    arrays = simulate.healthy_arrays(num_draws=num_draws)
    displace(arrays, 1)
    result = verdicts(make_tree(**arrays))
    assert result["functions-converge"] == "fail"
    assert result["weights-converge"] == ("fail" if num_draws == 400 else result["weights-converge"])


def test_a_chain_stuck_far_away_fails_in_function_space_too(simulate):
    """It has no effective draws at all, and must not pass for slow."""
    arrays = simulate.healthy_arrays()
    displace(arrays, 1)
    for group in ("posterior", "functions"):
        for values in arrays[group].values():
            values[1] = values[1, 0]
    assert verdicts(make_tree(**arrays))["functions-converge"] == "fail"


def test_too_few_draws_are_inconclusive(simulate):
    findings = audit(simulate.healthy_tree(num_draws=60))
    result = {finding.claim: finding.verdict for finding in findings}
    assert result["enough-draws"] == result["functions-converge"] == "inconclusive"
    assert overall(findings) == "inconclusive"
    assert "times as many" in findings[4].note


def test_a_slow_run_with_enough_draws_does_not_fail(simulate):
    """More than a tenth of its function values exceed an R-hat of 1.01, as a stationary run of that speed must."""
    findings = audit(simulate.healthy_tree(num_draws=1200, largest_phi=0.85))
    result = {finding.claim: finding.verdict for finding in findings}
    assert result["enough-draws"] == "pass"
    assert result["functions-converge"] == "pass"


def test_weights_that_disagree_do_not_fail_a_run(simulate):
    arrays = simulate.healthy_arrays()
    for values in arrays["posterior"].values():
        values[0] *= -1
        values[0] += 5
    findings = audit(make_tree(**arrays))
    assert {finding.claim: finding.verdict for finding in findings}["weights-converge"] == "fail"
    assert overall(findings) == "pass"


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "pass"), (1.01, "pass"), (1.1, "fail"), (0.9, "fail"), (8.0, "fail")])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_temperature(simulate, factor, verdict, temperature):
    arrays = simulate.healthy_arrays(temperature=temperature)
    arrays["sample_stats"]["virial"] *= factor
    finding = HEALTH["temperature"]({"run": make_tree(**arrays)})
    assert finding.verdict == verdict
    # A mean of 1,600 chi-square variables with 150 degrees of freedom, four standard errors.
    assert finding.value == pytest.approx(factor * temperature, rel=4 * np.sqrt(2 / 150 / 1600))
    assert finding.bound == temperature


def test_temperature_of_one_layer(simulate):
    arrays = simulate.healthy_arrays()
    arrays["sample_stats"]["virial"] *= np.array([0.95, 1.2])  # right in total
    finding = HEALTH["temperature"]({"run": make_tree(**arrays)})
    assert finding.verdict == "fail"
    assert "layer_1 furthest with 1.2" in finding.note


@pytest.mark.slow
def test_false_alarms_of_the_temperature_are_as_rare_as_those_of_other_claims():
    """Exact draws of a small network; intervals of 95 % would have failed one run in forty."""
    rng, sizes = np.random.default_rng(7), {"layer_0": 3, "layer_1": 2}
    verdicts = []
    for _ in range(300):
        virial = np.stack([rng.chisquare(size, (4, 100)) for size in sizes.values()], -1)
        tree = make_tree(
            attrs={"kind": "mcmc", "task": "density"},
            posterior={"layer_0.kernel": np.zeros((4, 100, 3)), "layer_1.kernel": np.zeros((4, 100, 2))},
            sample_stats={"virial": virial},
        )
        verdicts.append(HEALTH["temperature"]({"run": tree}).verdict)
    # At most 0.002 of 300: more than 4 have a probability below 0.001.
    assert verdicts.count("fail") <= 4
    assert verdicts.count("pass") > 240


def test_temperature_of_too_few_draws_is_inconclusive(simulate):
    arrays = simulate.healthy_arrays(num_draws=6, num_chains=2)
    arrays["sample_stats"]["virial"] = 150 * np.random.default_rng(0).chisquare(1, (2, 6, 2)) / 2
    assert HEALTH["temperature"]({"run": make_tree(**arrays)}).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("diverging", lambda values: values | (np.arange(400) < 10), "diverged"),
        ("acceptance_rate", lambda values: 0.05 * values, "step size, for the energy errors are too large"),
        ("energy", lambda values: 75 + 0.1 * np.cumsum(values - 75, 1), "longer trajectories"),
    ],
)
def test_energy_negative_controls(simulate, name, change, words):
    arrays = simulate.healthy_arrays()
    arrays["sample_stats"][name] = change(arrays["sample_stats"][name])
    finding = HEALTH["energy"]({"run": make_tree(**arrays)})
    assert finding.verdict == "fail"
    assert words in finding.note


def test_the_lowest_of_many_chains_is_not_too_low(simulate):
    """A hundred chains whose energies have exactly the fraction that is asked for, an AR(1) process, in 100 repeats.

    Intervals that hold together fail 2.5 runs, with a standard deviation of 1.6.
    """
    energies = simulate.autoregressive(np.random.default_rng(0), np.full(100, 1 - MIN_BFMI / 2), 100, 200)
    failed = alone = 0
    for repeat in range(100):
        summary = energy_summary(xr.Dataset({"energy": (("chain", "draw"), energies[..., repeat])}))
        failed += _bfmi(summary).verdict == "fail"
        alone += (summary.bfmi + 1.96 * summary.bfmi_error < MIN_BFMI).any()  # the negative control
    assert failed <= 2.5 + 3 * 1.6 < 50 < alone


@pytest.mark.parametrize("name", ["energy", "acceptance_rate"])
def test_a_chain_without_energies_is_not_left_out(simulate, name):
    arrays = simulate.healthy_arrays()
    arrays["sample_stats"][name][2, 7] = np.nan
    finding = HEALTH["energy"]({"run": make_tree(**arrays)})
    assert finding.verdict == "inconclusive"
    assert "of chain 2 cannot be computed" in finding.note


def test_energy_of_a_sampler_that_does_not_report_it(simulate):
    arrays = simulate.healthy_arrays()
    for name in ("energy", "energy_error", "acceptance_rate"):
        arrays["sample_stats"][name] = np.full((4, 400), np.nan)
    assert HEALTH["energy"]({"run": make_tree(**arrays)}).verdict == "pass"  # divergences are still reported
    del arrays["sample_stats"]["diverging"]
    assert HEALTH["energy"]({"run": make_tree(**arrays)}).verdict == "not applicable"


def test_non_finite_draws_fail_and_are_named(simulate):
    arrays = simulate.healthy_arrays()
    arrays["posterior"]["layer_0.bias"][2, 30:33, 0] = np.nan
    finding = HEALTH["finite"]({"run": make_tree(**arrays)})
    assert finding.verdict == "fail"
    assert finding.value == 3
    assert "3 of 400 of chain 2 (first at draw 30)" in finding.note


def test_a_probability_of_zero_is_a_value(simulate):
    arrays = simulate.healthy_arrays()
    arrays["functions"]["log_likelihood"][0, 0, 0] = -np.inf
    assert HEALTH["finite"]({"run": make_tree(**arrays)}).verdict == "pass"


def test_steps_that_the_sampler_counted_fail(simulate):
    arrays = simulate.healthy_arrays()
    arrays["attrs"]["num_nonfinite"] = [0, 0, 7, 0]
    finding = HEALTH["finite"]({"run": make_tree(**arrays)})
    assert (finding.verdict, finding.value) == ("fail", 7)


@pytest.mark.parametrize("kind", ["ensemble", "approximation"])
def test_runs_without_a_chain(simulate, kind):
    arrays = simulate.healthy_arrays(num_chains=10, num_draws=1)
    arrays["attrs"]["kind"] = kind
    findings = audit(make_tree(**arrays))
    assert {finding.claim: finding.verdict for finding in findings} == dict.fromkeys(HEALTH, "not applicable") | {
        "finite": "pass"
    }
    assert overall(findings) == "pass"


def test_stochastic_gradient_runs_have_no_energy_but_a_temperature(simulate):
    arrays = simulate.healthy_arrays()
    arrays["attrs"]["kind"] = "sgmcmc"
    arrays["sample_stats"]["virial"] *= 1.3
    result = verdicts(make_tree(**arrays))
    assert result["energy"] == "not applicable"
    assert result["temperature"] == "fail"


def test_a_density_without_functions(simulate):
    arrays = simulate.healthy_arrays()
    arrays["attrs"]["task"] = "density"
    del arrays["functions"], arrays["observed_data"]
    findings = audit(make_tree(**arrays))
    result = {finding.claim: finding.verdict for finding in findings}
    assert result["enough-draws"] == result["functions-converge"] == "not applicable"
    assert overall(findings) == "pass"
    for values in arrays["posterior"].values():
        values[1] += 5  # what such a run is for are averages of these
    assert overall(audit(make_tree(**arrays))) == "fail"


def bad_trees(simulate):
    """Trees that a broken or interrupted run may leave behind."""
    shapes = {"one chain": (1, 400), "one draw": (4, 1), "three draws": (4, 3), "one of each": (1, 1), "two draws": (2, 2)}
    for name, (num_chains, num_draws) in shapes.items():
        yield name, simulate.healthy_arrays(num_chains=num_chains, num_draws=num_draws)
    for name, value in (("all NaN", np.nan), ("all infinite", np.inf), ("all zero", 0.0), ("all huge", 1e300)):
        arrays = simulate.healthy_arrays(num_draws=50)
        for group in ("posterior", "functions", "sample_stats"):
            arrays[group] = {key: np.full(np.shape(values), value) for key, values in arrays[group].items()}
        yield name, arrays
    for name, value in (("a NaN chain", np.nan), ("an infinite chain", np.inf), ("a huge chain", 1e200)):
        arrays = simulate.healthy_arrays(num_draws=50)
        for group in ("posterior", "functions", "sample_stats"):
            for key, values in arrays[group].items():
                arrays[group][key] = values.astype(float)
                arrays[group][key][1] = value
        yield name, arrays
    arrays = simulate.healthy_arrays(num_draws=50)
    for group in ("posterior", "functions"):
        for values in arrays[group].values():
            values[:] = values[:, :1]
    yield "all stuck", arrays
    arrays = simulate.healthy_arrays(num_draws=50)
    yield "weights alone", {key: arrays[key] for key in ("posterior", "attrs")}


def test_a_bad_posterior_is_a_verdict(simulate):
    for name, arrays in bad_trees(simulate):
        tree = make_tree(**arrays)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            findings = audit(tree)
        assert all(finding.verdict in VERDICTS["health"] and finding.note for finding in findings), name
        assert all("nan" not in finding.note.lower().replace("nan or", "") for finding in findings), name
        if name != "weights alone":
            assert overall(findings) != "pass", name


def test_what_is_not_a_run_is_refused():
    with pytest.raises(ValueError, match="no group posterior"):
        audit(xr.DataTree(xr.Dataset(attrs={"kind": "mcmc", "task": "density"})))


def test_health_claims_take_a_single_run(simulate):
    tree = simulate.healthy_tree(num_draws=10)
    with pytest.raises(ValueError, match="single run, got 2: a, b"):
        HEALTH["finite"]({"a": tree, "b": tree})


def test_other_claims_get_the_run_by_its_name(simulate):
    def named(runs):
        return Finding("named", "hypothesis", "supported", note=", ".join(runs))

    findings = audit(simulate.healthy_tree(num_draws=10), [HEALTH["finite"], named])
    assert [finding.note for finding in findings][1] == "simulated"


def test_overall_counts_what_is_required():
    def health(claim, verdict):
        return Finding(claim, "health", verdict)

    assert overall([]) == "pass"
    assert overall([health("finite", "pass"), health("energy", "inconclusive")]) == "inconclusive"
    assert overall([health("finite", "fail"), health("energy", "inconclusive")]) == "fail"
    assert overall([health("weights-converge", "fail"), Finding("c1", "hypothesis", "contradicted")]) == "pass"
    assert overall([health("my own claim", "fail")]) == "fail"


def test_a_given_summary_is_used(simulate):
    arrays = simulate.healthy_arrays()
    tree = make_tree(**arrays)
    displace(arrays, 0)
    findings = audit(tree, [HEALTH["functions-converge"]], summary=summarise(make_tree(**arrays)))
    assert findings[0].verdict == "fail"
    assert audit(tree, [HEALTH["functions-converge"]], summary=summarise(tree)) == audit(tree, [HEALTH["functions-converge"]])


def test_summary_labels(simulate):
    tree = simulate.healthy_tree(num_draws=60)
    summary = summarise(tree)
    assert summary["posterior"]["layer_0.kernel"].dims == ("statistic", *tree["posterior"]["layer_0.kernel"].dims[2:])
    assert summary["functions"]["probability"].dims == ("statistic", "point", "class")
    table = summary["posterior_layers"].to_dataset()
    assert table["layer"].values.tolist() == ["layer_0", "layer_1", TOTAL]
    assert table["num_scalars"].values.tolist() == [120, 30, 150]
    rhat = np.concatenate([v.sel(statistic="rhat").values.ravel() for v in summary["posterior"].data_vars.values()])
    np.testing.assert_allclose(table["share"].sel(layer=TOTAL), [np.mean(rhat > 1.01), np.mean(rhat > 1.1)])
    assert summary.attrs == tree.attrs


def test_constant_scalars_are_counted_and_left_out(simulate):
    arrays = simulate.healthy_arrays(num_draws=100)
    arrays["posterior"]["layer_1.kernel"][..., :12] = 0.5
    table = summarise(make_tree(**arrays))["posterior_layers"].to_dataset().sel(layer="layer_1")
    assert int(table["num_constant"]) == 12
    assert np.isfinite(float(table["rhat_median"]))


def test_efficiency(simulate):
    summary = summarise(simulate.healthy_tree())
    costs = efficiency(summary)["functions"]
    assert costs.ess == pytest.approx(float(summary["functions_layers"].to_dataset().sel(layer=TOTAL)["ess_bulk_median"]))
    assert costs.per_gradient == pytest.approx(costs.ess / 16_000)
    assert costs.per_second == pytest.approx(costs.ess / 20)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"num_draws": 800, "largest_phi": 0.75}, {"num_chains": 2, "num_draws": 600}])
def test_false_alarms(simulate, settings):
    """Of 40 healthy runs, at most one may miss an overall pass: each comparison with a stationary run errs once in a thousand."""
    results = []
    for seed in range(40):
        tree = simulate.healthy_tree(100 + seed, num_points=30, **settings)
        results.append(overall(audit(tree, [HEALTH[name] for name in REQUIRED])))
    assert results.count("pass") >= 39


@pytest.mark.parametrize(("shift", "least"), [(0.5, 13), (1.0, 20)])
def test_power(simulate, shift, least):
    """A chain displaced by half a standard deviation of every logit is found in 36 of 40 runs of 400 draws (measured)."""
    found = 0
    for seed in range(20):
        arrays = simulate.healthy_arrays(seed, num_points=30)
        logits = np.log(arrays["functions"]["probability"])
        logits[1] += shift * logits[0].std(0)
        probability = np.exp(logits)
        arrays["functions"]["probability"] = probability / probability.sum(-1, keepdims=True)
        found += HEALTH["functions-converge"]({"run": make_tree(**arrays)}).verdict == "fail"
    assert found >= least  # 18 of 20 expected at half a standard deviation, less four binomial standard errors of 1.3
