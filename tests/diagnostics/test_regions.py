"""Visits, masses and the claims about them, on chains that jump between regions in a known way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from diagnostics import regions
from diagnostics.estimates import NUM_RESAMPLES
from diagnostics.regions.claims import BOUND, resampled_visits

MASS = np.array([0.6, 0.3, 0.1])
SYSTEMS = 16


def jumping(rng, share, *, stay=0.9, num_chains=8, num_draws=1000, start=None):
    """Chains that stay where they are or jump to a region drawn from `share`, which is their stationary law."""
    jumps = rng.random((num_chains, num_draws)) > stay
    fresh = rng.choice(len(share), p=share, size=(num_chains, num_draws))
    fresh[:, 0] = fresh[:, 0] if start is None else start
    jumps[:, 0] = True
    last = np.maximum.accumulate(np.where(jumps, np.arange(num_draws), 0), axis=1)
    return np.take_along_axis(fresh, last, 1)


def estimated(rng, share=MASS, concentration=400.0, method="smc", systems=SYSTEMS):
    """Masses by independent systems, each of which is right on average."""
    return regions.masses_from_systems(method, rng.dirichlet(concentration * np.asarray(share), systems))


def two_methods(rng, share=MASS):
    return [estimated(rng, share), estimated(rng, share, method="parallel tempering")]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_shares_and_transitions_by_hand():
    labels = np.array([[0, 0, 1, 1, 0], [2, 2, 2, 2, 2]])
    np.testing.assert_array_equal(regions.visit_shares(labels, 4), [[0.6, 0.4, 0, 0], [0, 0, 1, 0]])
    counts = regions.transition_counts(labels, 4)
    assert counts.shape == (2, 4, 4)
    np.testing.assert_array_equal(counts[0, :2, :2], [[1, 1], [1, 1]])
    matrix = regions.transition_matrix(labels, 4)
    np.testing.assert_array_equal(matrix[:3, :3], [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    assert np.isnan(matrix[3]).all()
    np.testing.assert_array_equal(
        regions.transition_matrix([[0, 1, 2, 2]], 3), [[0, 1, 0], [0, 0, 1], [0, 0, 1]]
    )  # rows are from
    assert regions.round_trips(labels, np.array([True, False, False, False])) == 1
    np.testing.assert_array_equal(regions.first_entry_shares(labels, [0, 1], 4), [[1, 0, 0, 0], [0, 0, 1, 0]])


def test_shares_by_length_end_at_the_shares(rng):
    labels = jumping(rng, MASS)
    lengths, curve = regions.shares_by_length(labels, 3)
    assert lengths[0] == 1
    assert lengths[-1] == labels.shape[1]
    np.testing.assert_allclose(curve[-1], regions.visit_shares(labels, 3), rtol=1e-12)  # rounding of quotients
    np.testing.assert_array_equal(curve[5], regions.visit_shares(labels[:, : lengths[5]], 3))


@pytest.mark.parametrize(
    "labels", [np.zeros(3, int), np.zeros((2, 3)), np.full((2, 3), 2), np.full((2, 3), -1), np.ones((2, 0), int)]
)
def test_labels_are_checked(labels):
    with pytest.raises(ValueError, match="labels"):
        regions.visit_shares(labels, 2)


def test_pairs_that_mix_within_themselves_do_not_mix(rng):
    # Four regions, each left and entered hundreds of times; but no chain goes from the first two to the last two.
    first = jumping(rng, [0.5, 0.5], num_chains=4)
    labels = np.concatenate([first, first + 2])
    assert regions.fewest_round_trips(labels, np.full(4, 0.25), 0.05) == (0, (0, 1))
    assert regions.regions_mix(labels, 4).verdict == "fail"


def test_fewest_round_trips_is_that_of_the_cut(rng):
    labels = jumping(rng, MASS, stay=0.99)
    trips, part = regions.fewest_round_trips(labels, MASS, 0.0)
    assert trips == regions.round_trips(labels, np.isin(np.arange(3), part))
    assert trips == min(regions.round_trips(labels, np.arange(3) == k) for k in range(3))
    assert regions.fewest_round_trips(labels, MASS, 0.2)[1] != (2,)
    with pytest.raises(ValueError, match="at most 12"):
        regions.fewest_round_trips(labels, np.full(13, 1 / 13), 0.0)


def test_regions_mix_passes_mixing_chains_and_fails_stuck_ones(rng):
    assert regions.regions_mix(jumping(rng, MASS), 3).verdict == "pass"
    few = regions.regions_mix(jumping(rng, [0.5, 0.5], stay=0.997), 2)  # 12 passages are expected
    assert few.verdict == "inconclusive"
    assert 0 < few.value < 10
    assert regions.regions_mix(jumping(rng, MASS, stay=1.0, start=np.arange(8) % 3), 3).verdict == "fail"


def test_a_heavy_region_that_nobody_visits_fails_regions_mix(rng):
    labels = np.zeros((8, 100), int)
    assert regions.regions_mix(labels, 3).verdict == "inconclusive"
    assert regions.regions_mix(labels, 3, [estimated(rng)]).verdict == "fail"
    light = regions.masses_from_logs("exact", np.log([0.97, 0.03, 0.0001]))
    assert regions.regions_mix(labels, 3, [light]).verdict == "inconclusive"


def test_masses_have_the_error_of_their_systems(rng):
    # 16 systems, each of variance p (1 - p) / 401, widened by 1.12 for being few; the error of an estimated sd is 1 / sqrt(30).
    errors = np.mean([estimated(np.random.default_rng(seed)).standard_error for seed in range(40)], 0)
    expected = np.sqrt(MASS * (1 - MASS) / 401 / SYSTEMS) * 1.12
    np.testing.assert_allclose(errors, expected, rtol=4 / np.sqrt(30 * 40))


def test_intervals_of_masses_cover():
    inside = 0
    for seed in range(400):
        found = estimated(np.random.default_rng(seed), systems=8)
        low, high = np.quantile(found.resamples[:, 0], [0.025, 0.975])
        inside += low < MASS[0] < high
    # 400 intervals of 95 %; a bootstrap of 8 systems is good to 2 %: 92 to 98 %, and 2.9 standard errors (1.1 %) around.
    assert 0.89 <= inside / 400 <= 0.985


def test_weighted_systems_by_hand():
    labels = np.array([[0, 1], [0, 0], [1, 1], [0, 1]])
    log_weights = np.log(np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.25, 0.75]]))
    masses = regions.masses_from_weights("smc", labels, log_weights, np.log([1.0, 2.0, 3.0, 4.0]), 3)
    np.testing.assert_allclose(masses.share, [(0.5 + 2 + 0 + 1) / 10, (0.5 + 0 + 3 + 3) / 10, 0], rtol=1e-12)
    assert masses.standard_error[2] == 0
    assert not masses.is_exact
    with pytest.raises(ValueError, match="at least 4"):
        regions.masses_from_systems("smc", np.ones((3, 2)))


def test_laplace_is_exact_for_gaussians_on_a_circle():
    # Along the orbit flat, across it Gaussian with precision 1e4 on a circle of radius 2: the correction is of order 1e-5.
    radius, precision = 2.0, 1e4
    log_mass = regions.laplace_log_mass(0.0, np.diag([0.0, precision]), num_flat=1, orbit_volume=2 * np.pi * radius)
    place = np.linspace(radius - 0.1, radius + 0.1, 20001)
    exact = np.log(np.trapezoid(2 * np.pi * place * np.exp(-0.5 * precision * (place - radius) ** 2), place))
    assert abs(log_mass - exact) < 1e-5
    assert regions.laplace_log_mass(0.0, np.eye(2), num_copies=6) == pytest.approx(np.log(2 * np.pi * 6), rel=1e-12)
    with pytest.raises(ValueError, match="positive curvatures"):
        regions.laplace_log_mass(0.0, np.diag([0.0, 1.0]))


def test_what_is_missed_at_minima_of_one_region_does_not_average_out():
    """A region made of 16 like minima has the error of one minimum as heavy as they are together."""
    everywhere = np.ones((4, 17), bool)
    one = regions.masses_from_minima("Laplace", np.log([0.6, 0.4]), np.full(2, 0.1), np.arange(2), everywhere[:, :2])
    logs, place = np.log([0.6, *[0.4 / 16] * 16]), np.array([0] + [1] * 16)
    many = regions.masses_from_minima("Laplace", logs, np.full(17, 0.1), place, everywhere)
    # The logarithm of the odds has an error of 0.1 sqrt(2); a spread of 1,000 resamples one of 2 %.
    for masses in (one, many):
        np.testing.assert_allclose(masses.standard_error, 0.6 * 0.4 * 0.1 * np.sqrt(2), rtol=0.07)
    # The negative control: errors of their own would average out, 0.1 and 0.025 instead of twice 0.1.
    apart = regions.masses_from_logs("Laplace", logs, 0.1).resamples @ np.eye(2)[place]
    assert apart[:, 0].std() < 0.8 * many.standard_error[0]


WORLDS = {  # masses of minima, and the region of each
    "heavy and light": (np.array([0.3, 0.3, *[0.05] * 8]), np.array([0, 0] + [1] * 8)),
    "one and many": (np.array([0.5, *[0.01] * 50]), np.array([0] + [1] * 50)),
    "of all sizes": (0.8 ** np.arange(30) / np.sum(0.8 ** np.arange(30)), np.arange(30) % 2),
}


def searched(rng, mass, region, ancestors):
    """Masses by the minima that four systems find, each of whose draws have so many ancestors; and which systems found them."""
    found = np.zeros((4, len(mass)), bool)
    for row in found:
        row[rng.choice(len(mass), ancestors, p=mass)] = True
    seen = found.any(0)
    region, found = region[seen], found[:, seen]
    return (
        regions.masses_from_minima("Laplace", np.log(mass[seen]), np.zeros(seen.sum()), region, found),
        mass[seen],
        region,
        found,
    )


@pytest.mark.parametrize("ancestors", [6, 12, 40])
@pytest.mark.parametrize("world", WORLDS)
def test_intervals_hold_what_the_search_missed(world, ancestors):
    """With 24 draws as many as two thirds of the minima are missed, and they are not of the kind that was found."""
    mass, region = WORLDS[world]
    right, blind = [], []
    for seed in range(300):
        masses, seen, places, found = searched(np.random.default_rng(seed), mass, region, ancestors)
        lower, upper = np.quantile(masses.resamples[:, 1], [0.025, 0.975])
        right.append(lower <= mass[region == 1].sum() <= upper)
        # The negative control: systems drawn again, and with them the minima that they found, as if there were no others.
        drawn = np.random.default_rng(seed).multinomial(4, np.full(4, 0.25), 500) @ found > 0
        shares = drawn * seen @ (places == 1) / (drawn @ seen)
        blind.append(np.quantile(shares, 0.025) <= mass[region == 1].sum() <= np.quantile(shares, 0.975))
    # Of 600 such searches each 95 to 99 % were held, of minima of all sizes 91 to 93 %; three binomial standard errors of 300.
    assert np.mean(right) > (0.91 if world == "of all sizes" else 0.95) - 3 * 0.016
    assert np.mean(blind) < 0.84


def test_minima_that_no_system_found_are_refused():
    arguments = np.zeros(2), np.zeros(2), np.arange(2)
    with pytest.raises(ValueError, match=r"counts \[4, 0\]"):
        regions.masses_from_minima("Laplace", *arguments, np.array([[True, False]] * 4))
    with pytest.raises(ValueError, match=r"and \(4, 3\)"):
        regions.masses_from_minima("Laplace", *arguments, np.ones((4, 3), bool))


def test_agreement_sees_a_method_that_missed_a_region(rng):
    units, most = regions.agreement(*two_methods(rng))
    assert units < most
    units, most = regions.agreement(estimated(rng), estimated(rng, [0.7, 0.3, 0.0]))
    assert units > most


def test_agreement_of_several_pairs_holds_together(rng):
    _, alone = regions.agreement(*two_methods(rng))
    _, of_three = regions.agreement(*two_methods(rng), num_pairs=3)
    # Normal quantiles for three regions: 0.05 / 6 and 0.05 / 18 in the upper tail.
    assert (alone, of_three) == (pytest.approx(2.394, abs=1e-3), pytest.approx(2.773, abs=1e-3))


def test_combined_masses_are_closer(rng):
    one, other = estimated(rng, concentration=100), estimated(rng, method="pt")
    both = regions.combined([one, other])
    assert both.standard_error.sum() < min(one.standard_error.sum(), other.standard_error.sum())
    assert regions.combined([one, regions.masses_from_logs("exact", np.log(MASS))]).method == "exact"


def test_the_distance_by_hand():
    labels = np.tile([0, 0, 0, 1, 2], (8, 40))
    found = regions.visit_distance(labels, regions.masses_from_logs("exact", np.log([0.4, 0.4, 0.2])))
    assert found.value == pytest.approx(0.2)  # 0.6, 0.2, 0.2 of the visits: half the sum of two differences of 0.2


def test_visits_by_mass_passes_chains_that_mix(rng):
    finding = regions.regions_visited_by_mass(jumping(rng, MASS), two_methods(rng))
    assert finding.verdict == "pass"
    assert finding.interval[1] < BOUND


@pytest.mark.parametrize(
    ("share", "reason"),
    [
        ([0.3, 0.3, 0.4], "wrong weights"),
        ([0.6, 0.4, 0.0], "a region never visited"),
        ([0.9, 0.05, 0.05], "one region too cold"),
    ],
)
def test_visits_by_mass_fails_planted_biases(rng, share, reason):
    masses = two_methods(rng, [0.4, 0.3, 0.3]) if share[2] == 0 else two_methods(rng)
    finding = regions.regions_visited_by_mass(jumping(rng, share, num_draws=4000), masses)
    assert finding.verdict == "fail", f"{reason}: {finding.note}"
    assert finding.interval[0] > BOUND


def test_visits_by_mass_never_passes_stuck_chains(rng):
    all_in_one = regions.regions_visited_by_mass(np.zeros((8, 500), int), two_methods(rng))
    assert all_in_one.verdict == "fail"
    # By luck in proportion to the mass: their own spread says that this means nothing.
    lucky = np.repeat([0, 0, 0, 0, 0, 1, 1, 1, 1, 2], 500).reshape(10, 500)
    assert regions.regions_visited_by_mass(lucky, two_methods(rng, [0.5, 0.4, 0.1])).verdict == "inconclusive"


def test_no_verdict_where_the_masses_are_not_settled(rng):
    labels = jumping(rng, MASS)
    assert regions.regions_visited_by_mass(labels, [estimated(rng)]).verdict == "inconclusive"
    disagreeing = [estimated(rng), estimated(rng, [0.8, 0.15, 0.05])]
    finding = regions.regions_visited_by_mass(labels, disagreeing)
    assert finding.verdict == "inconclusive"
    assert "disagree" in finding.note
    assert regions.regions_visited_by_mass(labels[:7], two_methods(rng)).verdict == "inconclusive"
    assert regions.regions_visited_by_mass(labels, [regions.masses_from_logs("exact", np.log(MASS))]).verdict == "pass"
    with pytest.raises(ValueError, match="same regions"):
        regions.regions_visited_by_mass(labels, [])


@pytest.mark.parametrize("distance", [0.0, BOUND])
def test_false_verdicts_are_rare(distance):
    """Chains at a distance of 0 must not fail, and at the bound neither verdict may come in more than a few percent of cases."""
    share = MASS + distance * np.array([-1, 0, 1])
    verdicts = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        labels = jumping(rng, share, stay=0.95, num_draws=400)
        verdicts.append(regions.regions_visited_by_mass(labels, two_methods(rng)).verdict)
    wrong = verdicts.count("fail") + (verdicts.count("pass") if distance else 0)
    # Nominal 2.5 % at each end: more than 10 wrong of 100 would come up with probability 0.01 at 5 %.
    assert wrong <= binom.ppf(0.99, 100, 0.05)


def test_light_regions(rng):
    share = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
    flattened = np.sqrt(share) / np.sqrt(share).sum()
    pair = two_methods(rng, share)
    fair = regions.light_regions_over_visited(jumping(rng, share, stay=0.5, num_draws=4000), *pair)
    assert fair.verdict == "contradicted"
    biased = regions.light_regions_over_visited(jumping(rng, flattened, stay=0.5, num_draws=4000), *pair)
    assert biased.verdict == "supported"
    # v ~ m^(1/2): the slope is -1/2, up to three standard errors of the shares.
    assert biased.value == pytest.approx(-0.5, abs=0.1)
    assert biased.interval[0] < -0.5 < biased.interval[1]


def test_a_slope_that_may_matter_is_not_contradicted(rng):
    """Fair chains, but short: the interval holds 0, and slopes at which a region ten times lighter is visited twice as often."""
    share = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
    finding = regions.light_regions_over_visited(jumping(rng, share, stay=0.9, num_draws=300), *two_methods(rng, share))
    assert -0.5 < finding.interval[0] < -0.1 < 0 < finding.interval[1]
    assert finding.verdict == "inconclusive"


@pytest.mark.slow
def test_one_estimate_in_both_roles_is_refused_and_would_find_noise():
    share, slopes = np.full(5, 0.2) * np.array([0.8, 0.9, 1.0, 1.1, 1.2]), {"one": [], "two": []}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        labels = jumping(rng, share, stay=0.0, num_draws=400)
        noisy = estimated(rng, share, concentration=3), estimated(rng, share, concentration=3)
        copy = noisy[0]._replace(method="copy")
        slopes["one"].append(regions.light_regions_over_visited(labels, noisy[0], copy).value)
        slopes["two"].append(regions.light_regions_over_visited(labels, *noisy).value)
    one, two = (np.array([value for value in slopes[name] if value is not None]) for name in ("one", "two"))
    assert one.mean() < -0.2
    assert abs(two.mean()) < 4 * two.std() / np.sqrt(len(two))
    with pytest.raises(ValueError, match="cannot be regressor and denominator"):
        regions.light_regions_over_visited(labels, noisy[0], noisy[0])


def test_light_regions_by_masses_in_dispute_are_inconclusive(rng):
    """One of the methods has missed most of a light region, which then looks as if it were visited too often."""
    share, missed = np.array([0.5, 0.3, 0.1, 0.1]), np.array([0.6, 0.35, 0.04, 0.01])
    labels = jumping(rng, share, stay=0.5, num_draws=4000)
    right, wrong = estimated(rng, share), estimated(rng, missed, method="parallel tempering")
    finding = regions.light_regions_over_visited(labels, right, wrong)
    assert finding.verdict == "inconclusive"
    assert "disagree" in finding.note
    assert finding.interval[1] < 0  # by itself it would say so


def test_light_regions_without_lever_is_inconclusive(rng):
    labels = jumping(rng, [0.5, 0.5])
    assert regions.light_regions_over_visited(labels, *two_methods(rng, [0.5, 0.5])).verdict == "inconclusive"


def test_resampled_visits_are_of_whole_chains(rng):
    labels = np.repeat(np.arange(8) % 2, 100).reshape(8, 100)
    found = resampled_visits(labels, 2)
    assert len(found) == NUM_RESAMPLES
    # Eight stuck chains: sd of a share is 0.5 / sqrt(7), widened by Student's t; good to 1 / sqrt(2000) of itself.
    assert found[:, 0].std() == pytest.approx(0.5 / np.sqrt(7) * 2.365 / 1.96, rel=4 / np.sqrt(2 * NUM_RESAMPLES))


def test_table_holds_visits_and_masses_side_by_side(rng):
    labels, masses = jumping(rng, MASS), two_methods(rng)
    table = regions.regions_table(labels, masses, prior_volume=np.full(3, 1 / 3), starts=np.arange(8) % 2, names=["a", "b", "c"])
    np.testing.assert_array_equal(table["visit_share"], regions.visit_shares(labels, 3).mean(0))
    np.testing.assert_array_equal(table["mass"].sel(estimator="smc"), masses[0].share)
    for name in ("visit", "mass"):
        value = table["visit_share" if name == "visit" else "mass"]
        assert ((table[f"{name}_lower"] < value) & (value < table[f"{name}_upper"])).all()
    assert table.sizes == {"region": 3, "chain": 8, "estimator": 2, "to": 3, "start": 2, "length": table.sizes["length"]}
    np.testing.assert_allclose(table["first_entry"].sum("region"), 1, rtol=1e-12)  # rounding of quotients
    with pytest.raises(ValueError, match="at least one method"):
        regions.regions_table(labels, [])


def test_visits_to_the_only_heavy_region_tell_nothing():
    labels = np.zeros((10, 200), int)
    finding = regions.regions_visited_by_mass(labels, [regions.masses_from_logs("exact", np.log([0.95, 0.05]))])
    assert finding.verdict == "inconclusive"
    assert "tells nothing" in finding.note
    elsewhere = regions.regions_visited_by_mass(labels + 1, [regions.masses_from_logs("exact", np.log([0.95, 0.05]))])
    assert elsewhere.verdict == "fail"


def test_systems_that_all_miss_a_region_are_no_known_masses(rng):
    """Their spread is zero, and yet they are wrong: they must not stand for the truth against a method that found the region."""
    stuck = regions.masses_from_systems("smc", np.tile([1.0, 0.0, 0.0], (SYSTEMS, 1)))
    assert not stuck.standard_error.any()
    assert not stuck.is_exact
    finding = regions.regions_visited_by_mass(jumping(rng, MASS), [stuck, estimated(rng, method="parallel tempering")])
    assert finding.verdict == "inconclusive"
    assert "disagree" in finding.note
    both = regions.combined([stuck, stuck._replace(method="parallel tempering")])
    np.testing.assert_array_equal(both.share, [1, 0, 0])
    assert regions.masses_from_logs("exact", np.log(MASS)).is_exact
