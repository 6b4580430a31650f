"""Are the regions of a posterior visited in proportion to their mass?

A region is whatever a classifier says: a basin, a cluster of functions, a user's own. Labels are integers [chain, draw] from 0 to
the number of regions, made by a classifier that was fixed on other draws. "Mass" is posterior probability; prior volume is
another quantity, reported beside it.
"""

from diagnostics.regions.claims import LIGHT, light_regions_over_visited, regions_mix, regions_visited_by_mass, visit_distance
from diagnostics.regions.masses import (
    Masses,
    agreement,
    combined,
    laplace_log_mass,
    masses_from_logs,
    masses_from_minima,
    masses_from_systems,
    masses_from_weights,
)
from diagnostics.regions.partition import LOWEST_BARRIER, Clusters, find_clusters, merge_minima, same_minimum
from diagnostics.regions.table import regions_table
from diagnostics.regions.visits import (
    fewest_round_trips,
    first_entry_shares,
    round_trips,
    shares_by_length,
    transition_counts,
    transition_matrix,
    visit_shares,
)
from diagnostics.regions.weighting import Weightings, predictions_robust, region_log_predictive, stacking_weights, weightings

__all__ = [
    "LIGHT",
    "LOWEST_BARRIER",
    "Clusters",
    "Masses",
    "Weightings",
    "agreement",
    "combined",
    "fewest_round_trips",
    "find_clusters",
    "first_entry_shares",
    "laplace_log_mass",
    "light_regions_over_visited",
    "masses_from_logs",
    "masses_from_minima",
    "masses_from_systems",
    "masses_from_weights",
    "merge_minima",
    "predictions_robust",
    "region_log_predictive",
    "regions_mix",
    "regions_table",
    "regions_visited_by_mass",
    "round_trips",
    "same_minimum",
    "shares_by_length",
    "stacking_weights",
    "transition_counts",
    "transition_matrix",
    "visit_distance",
    "visit_shares",
    "weightings",
]
