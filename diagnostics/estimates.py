"""Numbers with their uncertainty over test points, by the bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LEVEL = 0.95  # of every interval unless its description says otherwise
NUM_RESAMPLES = 1000  # the ends of a 95 % interval then lie within half a percent of their nominal probability
SEED = 20211  # the same for all scores and runs: differences between runs are then paired
BLOCK_VALUES = 2**21  # resampled points held at a time: 16 MB


class Estimate(NamedTuple):
    """A number and the interval that holds the truth with probability `LEVEL`; NaN where it cannot be told.

    Attributes:
        value: Point estimate.
        lower: Lower end of the interval.
        upper: Upper end of the interval.
    """

    value: float
    lower: float
    upper: float


def first_column(means: Float[np.ndarray, "... column"]) -> Float[np.ndarray, "..."]:
    """Return the mean of the first column, for scores that are no more than that."""
    return means[..., 0]


def identity(value: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return the value, for scores that are reported in the units in which they are computed."""
    return value


class Score(NamedTuple):
    """A function of means over test points.

    All scores of predictions are of this form, so that resampling the points means reweighting the columns.

    Attributes:
        columns: What each point contributes.
        function: From the means of the columns, (..., column), to (...).
        transform: From the value of `function` to what is reported.
        plug_in: For functions that absolute values or squares bias by the noise of the means: what `function` estimates, computed
            from the same means as if they were exact. Resampling adds the noise once more, and the interval is reflected
            (the basic bootstrap) to take that away again.
    """

    columns: Float[np.ndarray, "point column"]
    function: Callable[[Float[np.ndarray, "... column"]], Float[np.ndarray, "..."]] = first_column
    transform: Callable[[Float[np.ndarray, "..."]], Float[np.ndarray, "..."]] = identity
    plug_in: Callable[[Float[np.ndarray, "... column"]], Float[np.ndarray, "..."]] | None = None

    def value(self) -> float:
        """Return the score of the points."""
        return float(self.transform(self.function(self.columns.mean(0))))

    def estimate(self) -> Estimate:
        """Return the score with its interval over test points."""
        means, resamples = self.columns.mean(0), self.function(resampled_means(self.columns))
        if self.plug_in is not None:
            resamples = self.function(means) - (resamples - self.plug_in(means))
        return interval(self.value(), self.transform(resamples))


def mean_score(values: Float[np.ndarray, " point"]) -> Score:
    """Return the mean over points as a score."""
    return Score(np.asarray(values, float)[:, None])


def difference(score: Score, reference: Score) -> Estimate:
    """Estimate by how much a score exceeds that of another run on the same points; the interval pairs the points."""
    ours, theirs = (one.transform(one.function(resampled_means(one.columns))) for one in (score, reference))
    return interval(score.value() - reference.value(), ours - theirs)


def interval(value: float, resamples: Float[np.ndarray, " resample"]) -> Estimate:
    """Return a value with the central interval of its resamples."""
    lower, upper = np.quantile(resamples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(lower), float(upper))


def resampled_means(columns: Float[np.ndarray, "point column"]) -> Float[np.ndarray, "resample column"]:
    """Return the means of the columns over points drawn with replacement, `NUM_RESAMPLES` times."""
    num_points = len(columns)
    rng = np.random.default_rng(SEED)
    means = np.empty((NUM_RESAMPLES, columns.shape[1]))
    size = max(1, BLOCK_VALUES // num_points)
    for start in range(0, NUM_RESAMPLES, size):
        block = means[start : start + size]
        drawn = rng.integers(num_points, size=(len(block), num_points)) + num_points * np.arange(len(block))[:, None]
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        block[:] = counts @ columns / num_points
    return means
