"""What the health checks look at: statistics of one run, computed when first asked for and then kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from diagnostics import trees
from diagnostics.energy import EnergySummary, configurational_temperature, energy_summary, kinetic_temperature
from diagnostics.estimates import LEVEL, Estimate
from diagnostics.summary import TOTAL, summarise_variables


@dataclass(frozen=True, eq=False)
class Evidence:
    """One run and what was measured on it.

    Attributes:
        tree: The run.
        summary: Its `summarise`, if that has been computed already.

    Raises:
        ValueError: The tree is not one of a run.
    """

    tree: xr.DataTree
    summary: xr.DataTree | None = None

    def __post_init__(self) -> None:
        trees.check_tree(self.tree)

    @property
    def kind(self) -> str:
        """Kind of the run, a key of `trees.KINDS`."""
        return str(self.tree.attrs["kind"])

    @property
    def num_chains(self) -> int:
        """Number of chains."""
        return self.tree["posterior"].sizes["chain"]

    @property
    def num_draws(self) -> int:
        """Draws of a chain."""
        return self.tree["posterior"].sizes["draw"]

    @property
    def nominal_temperature(self) -> float:
        """Temperature at which the run was meant to sample."""
        return float(self.tree.attrs.get("temperature", 1.0))

    @cached_property
    def weights(self) -> xr.Dataset:
        """Row `TOTAL` of the convergence table of all weights, see `layer_table`."""
        return self._total("posterior", trees.weights(self.tree))

    @cached_property
    def functions(self) -> xr.Dataset | None:
        """The same of all function values; None if the run has none."""
        variables = trees.predicted(self.tree)
        return self._total("functions", variables) if variables.data_vars else None

    def _total(self, group: str, variables: xr.Dataset) -> xr.Dataset:
        if self.summary is not None and f"{group}_layers" in self.summary.children:
            return self.summary[f"{group}_layers"].to_dataset().sel(layer=TOTAL)
        return summarise_variables(variables)[1].sel(layer=TOTAL)

    @cached_property
    def sample_stats(self) -> xr.Dataset:
        """Statistics of the sampler; empty if the run has none."""
        return self.tree["sample_stats"].to_dataset() if "sample_stats" in self.tree.children else xr.Dataset()

    @cached_property
    def energy(self) -> EnergySummary | None:
        """Energies by chain; None if the run has no statistics of its sampler."""
        return energy_summary(self.sample_stats) if self.sample_stats.data_vars else None

    @cached_property
    def temperatures(self) -> tuple[Estimate, dict[str, Estimate]] | None:
        """Configurational temperature in total and by layer; None if the run has no virial."""
        return self.temperatures_at(LEVEL)

    def temperatures_at(self, level: float) -> tuple[Estimate, dict[str, Estimate]] | None:
        """The same, with intervals of another level."""
        if "virial" not in self.sample_stats or "constant_data" not in self.tree.children:
            return None
        size = self.tree["constant_data"].to_dataset()["layer_size"]
        virial = np.asarray(self.sample_stats["virial"].values, np.float64)
        total, layers = configurational_temperature(virial, size.values, self.nominal_temperature, level)
        return total, dict(zip((str(name) for name in size["layer"].values), layers, strict=True))

    @cached_property
    def kinetic(self) -> Estimate | None:
        """Kinetic temperature at the ends of trajectories; None if the sampler does not report it."""
        if "kinetic_temperature" not in self.sample_stats:
            return None
        estimate = kinetic_temperature(
            np.asarray(self.sample_stats["kinetic_temperature"].values, float), self.nominal_temperature
        )
        return None if np.isnan(estimate).any() else estimate

    @cached_property
    def nonfinite(self) -> Bool[np.ndarray, "chain draw"]:
        """Draws that hold a NaN or an infinite value, or left the sampler in such a state.

        A log likelihood of minus infinity is a value like any other: a probability of zero.
        """
        bad = np.zeros((self.num_chains, self.num_draws), bool)
        if "is_finite" in self.sample_stats:
            bad |= ~self.sample_stats["is_finite"].values.astype(bool)
        for group in [name for name in ("posterior", "functions") if name in self.tree.children]:
            for name, variable in self.tree[group].to_dataset().data_vars.items():
                for chain, draws in enumerate(variable.values):  # a chain at a time bounds the memory
                    is_good = np.isfinite(draws)
                    if name == "log_likelihood" and group == "functions":
                        is_good |= draws == -np.inf
                    bad[chain] |= ~is_good.all(tuple(range(1, draws.ndim)))
        return bad

    @cached_property
    def standstill(self) -> Float[np.ndarray, " chain"]:
        """Longest run of steps that changed no weight at all, as a share of all steps between draws; NaN for a single draw."""
        moves = np.zeros((self.num_chains, self.num_draws - 1), bool)
        for variable in self.tree["posterior"].data_vars.values():
            for chain, draws in enumerate(variable.values):
                moves[chain] |= (draws[1:] != draws[:-1]).any(tuple(range(1, draws.ndim)))
        if not moves.shape[1]:
            return np.full(self.num_chains, np.nan)
        return np.array([_longest_run(~row) for row in moves]) / moves.shape[1]

    @cached_property
    def relative_spread(self) -> Float[np.ndarray, " chain"]:
        """Standard deviation of each chain over that of the median other chain, median over weights; NaN for a single chain."""
        if self.num_chains < 2:
            return np.full(1, np.nan)
        variables = self.tree["posterior"].data_vars.values()
        sd = np.array([np.concatenate([v.values[chain].std(0).ravel() for v in variables]) for chain in range(self.num_chains)])
        ratios = []
        for chain in range(self.num_chains):
            others = np.median(np.delete(sd, chain, 0), 0)
            moving = np.isfinite(others) & (others > 0)
            ratios.append(np.median(sd[chain, moving] / others[moving]) if moving.any() else np.nan)
        return np.array(ratios)


def _longest_run(flags: Bool[np.ndarray, " step"]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False]))))
    return int(np.max(edges[1::2] - edges[::2], initial=0))
