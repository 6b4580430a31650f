"""Settings of `bayesnn measure FOLDER basins`; `bayesnn.measure.visits` does it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt, field_validator, model_validator

from bayesnn.config import absolute_source
from bayesnn.imports import is_import_path
from bayesnn.measure.evidence import Evidence

KINDS = ("functions", "minima")
DRAWS_A_CLUSTER = 10  # the fewest of which `diagnostics.regions.find_clusters` makes clusters


class Basins(Evidence):
    """Visits of the run's chains to regions of the posterior against the masses of these, by two independent methods."""

    regions: str = "functions"
    """`functions` (clusters of predictions), `minima` (merged across barriers below 5 nats), or path/to/file.py:function."""
    num_regions: Annotated[int, Field(ge=2, le=12)] = 4
    """Clusters of functions, or regions that your own classifier knows (minima find their own number, at most 6); and clusters
    of weights, where there are ten particles for each."""
    minima: PositiveInt = 24
    """Draws of the run below which minima are counted, and pilot draws below which those are that make regions."""
    labelled: PositiveInt = 24
    """Draws of each chain, system and ladder that are labelled, where each needs a gradient flow (`--regions minima`)."""

    @field_validator("regions")
    @classmethod
    def _known(cls, regions: str) -> str:
        if regions not in KINDS and not is_import_path(regions):
            raise ValueError(f"it must be {', '.join(KINDS)}, or a classifier of your own, path/to/file.py:function")
        return absolute_source(regions)

    @model_validator(mode="after")
    def _has_draws_to_cluster(self) -> Basins:
        fewest = DRAWS_A_CLUSTER * self.num_regions
        if self.regions == "functions" and self.particles < fewest:
            raise ValueError(f"{self.num_regions} clusters of functions need {fewest} particles or more, got {self.particles}")
        return self
