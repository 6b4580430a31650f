"""Losses of chains around a centre, at one or several temperatures, with the quantities that give them their scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True, eq=False)
class LossDraws:
    """Losses of draws around a centre; all chains, lost ones too.

    Attributes:
        losses: [temperature, chain, draw] mean losses of all examples, nats an example, those of lost chains not finite.
        squared_distances: [temperature, chain, draw] from the centre.
        num_data: n, of the loss, whatever the batches of the sampler.
        inverse_temperatures: [temperature] powers beta of the likelihood; the first is the one that is asked for.
        localisation: Precision gamma of the Gaussian localiser; 0 without one.
        baseline: Mean loss of the centre.
        baseline_error: Its standard error; 0 when it is of all examples.

    Raises:
        ValueError: Arrays that do not fit together, or quantities outside their range.
    """

    losses: Float[np.ndarray, "temperature chain draw"]
    squared_distances: Float[np.ndarray, "temperature chain draw"]
    num_data: int
    inverse_temperatures: tuple[float, ...]
    localisation: float
    baseline: float
    baseline_error: float = 0.0

    def __post_init__(self) -> None:
        shapes = np.shape(self.losses), np.shape(self.squared_distances)
        if len(shapes[0]) != 3 or shapes[0] != shapes[1] or shapes[0][0] != len(self.inverse_temperatures):
            raise ValueError(
                f"losses and squared distances must be [temperature, chain, draw] with {len(self.inverse_temperatures)} "
                f"temperatures, got shapes {shapes[0]} and {shapes[1]}"
            )
        if self.num_data < 1 or not min(self.inverse_temperatures) > 0 or not self.localisation >= 0:
            raise ValueError("num_data and inverse temperatures must be positive, and the localisation not negative")
        if not np.isfinite(self.baseline):
            raise ValueError("the loss of the centre is not finite; choose another centre")

    @property
    def n_beta(self) -> Float[np.ndarray, " temperature"]:
        """Return n times each inverse temperature: the scale at which the sampler saw the loss."""
        return self.num_data * np.asarray(self.inverse_temperatures, float)

    @property
    def is_lost(self) -> Bool[np.ndarray, "temperature chain"]:
        """Chains that left the finite numbers at any draw. They count for nothing, their finite draws neither."""
        return ~(np.isfinite(self.losses).all(-1) & np.isfinite(self.squared_distances).all(-1))

    @property
    def kept(self) -> Bool[np.ndarray, " chain"]:
        """Chains that are whole at every temperature."""
        return ~self.is_lost.any(0)

    def whole(self) -> LossDraws:
        """Return the chains that are whole at every temperature.

        Raises:
            ValueError: There is none.
        """
        if not self.kept.any():
            raise ValueError(f"all {self.kept.size} chains left the finite numbers; lower the step size")
        return LossDraws(
            np.asarray(self.losses, np.float64)[:, self.kept],
            np.asarray(self.squared_distances, np.float64)[:, self.kept],
            self.num_data,
            self.inverse_temperatures,
            self.localisation,
            self.baseline,
            self.baseline_error,
        )
