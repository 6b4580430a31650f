"""Numbers with their uncertainty over test points, by the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri, stdtrit

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

    def resamples(self) -> Float[np.ndarray, " resample"]:
        """Return what the score might as well have been; all scores of one set of points are resampled in step."""
        means, resamples = self.columns.mean(0), self.function(resampled_means(self.columns))
        if self.plug_in is not None:
            resamples = self.function(means) - (resamples - self.plug_in(means))
        return self.transform(resamples)

    def estimate(self) -> Estimate:
        """Return the score with its interval over test points."""
        return interval(self.value(), self.resamples())


def mean_score(values: Float[np.ndarray, " point"]) -> Score:
    """Return the mean over points as a score."""
    return Score(np.asarray(values, float)[:, None])


def difference(score: Score, reference: Score) -> Estimate:
    """Estimate by how much a score exceeds that of another run on the same points; the interval pairs the points."""
    return interval(score.value() - reference.value(), score.resamples() - reference.resamples())


def interval(value: float, resamples: Float[np.ndarray, " resample"], level: float = LEVEL) -> Estimate:
    """Return a value with the central interval of its resamples, of this probability."""
    lower, upper = np.quantile(resamples, [(1 - level) / 2, (1 + level) / 2])
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


def few_systems_factor(num_systems: int, level: float = LEVEL) -> float:
    """Return by how much the errors of a bootstrap over few systems (chains, seeds, ladders) are widened.

    Resampling n values gives a variance too small by (n - 1) / n, and intervals that are normal rather than Student's.
    """
    tail = (1 + level) / 2
    return math.sqrt(num_systems / (num_systems - 1)) * float(stdtrit(num_systems - 1, tail) / ndtri(tail))


def resampled_shares(rng: np.random.Generator, num_systems: int, level: float = LEVEL) -> Float[np.ndarray, "resample system"]:
    """Return the shares of systems drawn with replacement, spread as Student's t asks for few; one system has no spread."""
    equal = np.full(num_systems, 1 / num_systems)
    if num_systems == 1:
        return np.ones((NUM_RESAMPLES, 1))
    drawn = rng.multinomial(num_systems, equal, NUM_RESAMPLES) / num_systems
    return equal + few_systems_factor(num_systems, level) * (drawn - equal)
