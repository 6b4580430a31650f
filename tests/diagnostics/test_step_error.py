"""Orders of energy errors, acceptance, tails of noise and resonance: known answers, and what must not pass for them."""

import numpy as np
import pytest

from diagnostics.hypotheses import simultaneous_level
from diagnostics.resonance import resonance_finding, resonance_table
from diagnostics.step_error import acceptance_finding, energy_order, reversibility_finding, smoothness_finding
from diagnostics.tails import TailIndex, _inverted, noise_finding, tail_index

SIZES = 0.1 * 0.5 ** np.arange(4)


def leapfrog_errors(gradient, potential, dimension, num_starts=64, length=1.6, seed=0):
    """Energy errors of paths of one length through a potential in float64, [step size, start]."""
    rng = np.random.default_rng(seed)
    q0, p0 = rng.normal(size=(2, num_starts, dimension))
    errors = []
    for size in SIZES:
        q, p = q0.copy(), p0.copy()
        p -= size / 2 * gradient(q)
        num_steps = round(length / size)
        for step in range(num_steps):
            q += size * p
            p -= size * gradient(q) * (1 if step < num_steps - 1 else 0.5)
        errors.append(potential(q) + 0.5 * np.sum(p**2, 1) - potential(q0) - 0.5 * np.sum(p0**2, 1))
    return np.array(errors)


def smooth(q):
    return np.sum(q**4 / 4 + q**2 / 2, 1)


def kinked(q):
    return np.sum(2 * np.abs(q) + q**2 / 2, 1)


def test_orders_of_a_smooth_and_of_a_kinked_potential():
    found = energy_order(SIZES, leapfrog_errors(lambda q: q**3 + q, smooth, 5))
    assert (found.verdict, smoothness_finding(found).verdict) == ("smooth", "supported")
    # The next term is of relative order size^2 < 0.01 times a few, so the slope is 2 to better than 0.1.
    assert abs(found.order.value - 2) < 0.1
    found = energy_order(SIZES, leapfrog_errors(lambda q: 2 * np.sign(q) + q, kinked, 5))
    assert (found.verdict, smoothness_finding(found).verdict) == ("non-smooth", "contradicted")
    # Where in a step the kink lies is random: a few hundred crossings at each size, slope to 0.1.
    assert abs(found.order.value - 1) < 0.3


def test_the_interval_of_an_order_of_few_starts_holds_it():
    """Four starts, the fewest: resampled alone they would hold the order in three cases of four."""
    hits = 0
    for seed in range(200):
        errors = SIZES[:, None] ** 2 * np.exp(np.random.default_rng(seed).normal(size=(4, 4)))
        order = energy_order(SIZES, errors).order
        hits += order.lower < 2 < order.upper
    assert hits / 200 >= 0.95 - 4 * 0.015  # four binomial standard deviations


def test_an_order_between_is_inconclusive():
    rng = np.random.default_rng(0)
    found = energy_order(SIZES, SIZES[:, None] ** 1.5 * np.exp(rng.normal(size=(4, 8))))
    assert found.verdict == "inconclusive"
    assert smoothness_finding(found).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("sizes", "errors", "message"),
    [
        (SIZES, np.ones((3, 8)), "step size, start"),
        (SIZES[:2], np.ones((2, 8)), "3 step sizes"),
        (SIZES, np.ones((4, 3)), "4 starts"),
        ([0.1, 0.1, 0.2], np.ones((3, 8)), "different"),
        (SIZES, np.zeros((4, 8)), "not all zero"),
        (SIZES, np.full((4, 8), np.nan), "finite"),
    ],
)
def test_errors_without_an_order_are_refused(sizes, errors, message):
    with pytest.raises(ValueError, match=message):
        energy_order(sizes, errors)


def test_reversibility_is_judged_in_the_precision_of_the_run():
    errors = {"float32": np.array([1e-5, 1e-2]), "float64": np.array([1e-12, 1e-11])}
    assert reversibility_finding(errors, "float64").verdict == "pass"
    found = reversibility_finding(errors, "float32")
    assert (found.verdict, found.value) == ("fail", 1e-2)
    assert "in float64, by 1e-11" in found.note
    assert reversibility_finding({"float64": np.array([1e-5])}, "float64").verdict == "fail"
    assert reversibility_finding({"float32": np.array([1e-5, np.nan])}, "float32").verdict == "fail"


@pytest.mark.parametrize(
    ("centre", "spread", "verdict"), [(0.95, 0.05, "pass"), (0.7, 0.2, "fail"), (0.9, 0.2, "inconclusive"), (0.0, 0.0, "fail")]
)
def test_an_accept_step_says_that_steps_are_small_or_large(centre, spread, verdict):
    rates = np.clip(centre + spread * np.random.default_rng(0).normal(size=(4, 16)), 0, 1)
    found = acceptance_finding(rates)
    assert found.verdict == verdict
    assert found.value == pytest.approx(rates.mean())


def stable(rng, index, shape):
    """Symmetric stable values (Chambers, Mallows & Stuck 1976)."""
    angle, exponential = rng.uniform(-np.pi / 2, np.pi / 2, shape), rng.exponential(size=shape)
    return np.sin(index * angle) / np.cos(angle) ** (1 / index) * (np.cos((1 - index) * angle) / exponential) ** (1 / index - 1)


@pytest.mark.parametrize("index", [1.2, 1.6, 2.0])
def test_index_of_stable_noise(index):
    noise = stable(np.random.default_rng(1), index, (400, 300)) * np.geomspace(1e-3, 1e3, 300)
    found = tail_index(noise)
    assert found.num_coordinates == 300
    # 95 % interval with twice its width: 10 groups, so one in three hundred fails by chance and the seed is fixed.
    half = found.stable.upper - found.stable.value
    assert abs(found.stable.value - index) < 2 * half < 0.2
    if index < 2:
        assert found.hill.lower < 2


def test_noise_of_finite_variance_is_light_where_a_power_tail_is_not():
    rng = np.random.default_rng(2)
    assert tail_index(rng.normal(size=(400, 200))).hill.lower > 2.5
    # A power tail of index 1.5 is heavy, and Hill's estimator finds it.
    heavy = tail_index(rng.standard_t(1.5, size=(2000, 100))).hill
    assert heavy.upper < 2
    assert heavy.value == pytest.approx(1.5, abs=0.2)  # bias of second order at a tenth of the values


def test_pooling_coordinates_would_make_gaussian_noise_heavy():
    """The negative control: scales that differ by coordinate, taken for one law."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(400, 100)) * np.exp(2 * rng.normal(size=100))
    pooled = rng.permutation(noise.ravel()).reshape(400, 100)
    apart, together = tail_index(noise), tail_index(pooled)
    assert abs(apart.stable.value - 2) < 0.1 < 0.3 < 2 - together.stable.value
    assert together.hill.upper < 2 < apart.hill.lower
    assert (noise_finding([apart]).verdict, noise_finding([together]).verdict) == ("supported", "contradicted")


def power_tail(rng, index, shape):
    """Values that are uniform up to 1, for half of them, and from there on have exactly a power tail."""
    size = np.where(rng.uniform(size=shape) < 0.5, rng.uniform(size=shape), rng.uniform(size=shape) ** (-1 / index))
    return size * rng.choice([-1, 1], shape)


def test_the_heaviest_of_many_places_is_not_too_heavy():
    """32 places of one index, of which each group of minibatches has an estimate with normal noise, in 400 repeats.

    Intervals of 95 % that hold together miss 20 times, with a standard deviation of 4.4.
    """
    rng, index = np.random.default_rng(5), 3.0
    missed = chosen = 0
    for groups in rng.normal(1 / index, 0.05, (400, 32, 10)):
        together, alone = (
            [TailIndex(*[_inverted(row.mean(), row, level)] * 2, 1) for row in groups] for level in (simultaneous_level(32), 0.95)
        )
        lower, upper = noise_finding(together).interval
        missed += not lower <= index <= upper
        # The negative control: the interval of the place with the heaviest tail, as if it had not been chosen.
        lower, upper = min((one.hill for one in alone), key=lambda hill: hill.value)[1:]
        chosen += not lower <= index <= upper
    assert missed <= 20 + 3 * 4.4 < 100 < chosen


def test_intervals_that_hold_together_are_wider():
    noise = np.random.default_rng(6).normal(size=(400, 20))
    for alone, together in zip(tail_index(noise)[:2], tail_index(noise, simultaneous_level(4))[:2], strict=True):
        # In the inverse, Student's quantiles with 9 degrees of freedom: 3.111 of 98.75 % and 2.262 of 95 %.
        widths = [1 / one.lower - 1 / one.upper for one in (together, alone)]
        assert widths[0] / widths[1] == pytest.approx(3.111 / 2.262, rel=1e-3)


def test_one_heavy_place_among_many_is_found():
    rng = np.random.default_rng(6)
    places = [tail_index(power_tail(rng, index, (400, 100)), simultaneous_level(3)) for index in (4.0, 1.5, 3.0)]
    found = noise_finding(places)
    assert found.verdict == "contradicted"
    assert found.value == places[1].hill.value
    assert "of 3 places" in found.note
    assert noise_finding([places[0], places[2]]).verdict == "supported"
    assert noise_finding([tail_index(power_tail(rng, 2.0, (400, 10)))]).verdict == "inconclusive"
    with pytest.raises(ValueError, match="at least one place"):
        noise_finding([])


def test_noise_that_is_none_is_refused():
    rare = np.zeros((100, 3))
    rare[:15] = np.random.default_rng(4).normal(size=(15, 3))  # a tail of a tenth would be two thirds of what noise there is
    for noise, message in (
        (rare, "no coordinate has noise in 20%"),
        (np.zeros((100, 3)), "no coordinate"),
        (np.ones((10, 3)), "40 rows"),
        (np.full((100, 3), np.inf), "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=message):
            tail_index(noise)
    mixed = np.random.default_rng(4).normal(size=(100, 3))
    mixed[:, 1] = 0
    assert tail_index(mixed).num_coordinates == 2


def oscillators(rng, scales, jitter, num_chains=4, num_draws=300, length=np.pi / 2):
    """Exact HMC on independent Gaussians: each trajectory turns a direction by length / scale."""
    position = rng.normal(size=(num_chains, len(scales))) * scales
    draws = np.empty((num_chains, num_draws, len(scales)))
    for draw in range(num_draws):
        angle = length * (1 + jitter * rng.uniform(-1, 1)) / scales
        position = position * np.cos(angle) + rng.normal(size=position.shape) * scales * np.sin(angle)
        draws[:, draw] = position
    return draws


def test_resonance_is_found_and_jitter_removes_it():
    rng = np.random.default_rng(5)
    scales = np.exp(rng.uniform(np.log(0.02), 0, 400))
    table = resonance_table({"directions": oscillators(rng, scales, 0.0)}, {"directions": oscillators(rng, scales, 0.2)})
    row = table.sel(direction="directions", threshold=1.1)
    fixed, jittered = (float(row["share"].sel(trajectory=name)) for name in ("fixed", "jittered"))
    assert fixed > 0.05
    assert jittered < 0.01
    assert float(row["removed"]) == pytest.approx(fixed - jittered)
    assert float(row["removed_lower"]) > 0.01
    finding = resonance_finding(table, "directions")
    assert (finding.verdict, finding.value) == ("supported", pytest.approx(fixed - jittered))


def test_basins_are_not_put_down_to_resonance():
    """The negative control: chains that sit in different places look bad both ways, and jitter removes nothing."""
    rng = np.random.default_rng(6)
    places = 5 * rng.normal(size=(4, 1, 300))
    runs = [rng.normal(size=(4, 300, 300)) + places for _ in range(2)]
    finding = resonance_finding(resonance_table({"weights": runs[0]}, {"weights": runs[1]}), "weights")
    assert finding.verdict == "contradicted"
    assert abs(finding.value) < 0.01
    few = [draws[..., :3] for draws in runs]
    assert resonance_finding(resonance_table({"weights": few[0]}, {"weights": few[1]}), "weights").verdict == "inconclusive"


def test_where_no_rhat_is_bad_there_is_nothing_to_explain():
    """And where one is, there is, whatever jitter does."""
    fixed, jittered = np.random.default_rng(8).normal(size=(2, 4, 300, 50))
    finding = resonance_finding(resonance_table({"weights": fixed}, {"weights": jittered}), "weights")
    assert (finding.verdict, finding.value) == ("not applicable", None)
    assert finding.note.startswith("Of the weights, 0 % have an R-hat above 1.1")
    assert finding.note.endswith("There is nothing to explain.")
    fixed[0, :, 0] += 5
    assert resonance_finding(resonance_table({"weights": fixed}, {"weights": jittered}), "weights").verdict != "not applicable"


def test_runs_that_are_not_alike_are_refused():
    draws = np.random.default_rng(7).normal(size=(2, 20, 3))
    with pytest.raises(ValueError, match="same directions"):
        resonance_table({"weights": draws}, {"functions": draws})
    with pytest.raises(ValueError, match="run both alike"):
        resonance_table({"weights": draws}, {"weights": draws[:, 1:]})
