"""Do predicted probabilities come true as often as they say? For classes and for intervals of a regression."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.special import betainc, gammaincc, ndtr

from diagnostics.estimates import NUM_RESAMPLES, SEED, Estimate, Score, interval

NUM_BINS = 15  # Guo et al. 2017, arXiv 1706.04599
LEVELS = (0.5, 0.75, 0.9, 0.95)  # of the central intervals whose coverage is looked at
ROUNDING = 1e-4  # relative, of means against squares of square roots in float32, which differ by 1e-6


def calibration_error(probability: Float[np.ndarray, "point class"], labels: Int[np.ndarray, " point"]) -> Score:
    r"""Return the expected calibration error of the most probable class.

    Points are put into 15 bins of equal width by their confidence c: (0, 1/15], (1/15, 2/15], ... (14/15, 1], so that none is
    dropped, and

    .. math:: \sum_b w_b |g_b|, \qquad g_b = \mathrm{mean}_b(c) - \mathrm{mean}_b(\mathrm{correct})

    with the share :math:`w_b` of the points in bin b. Biased upward: even perfectly calibrated predictions have a positive error,
    because absolute values of noise do not average out. Look at `calibration_error_if_calibrated` beside it, and at
    `rms_calibration_error`. When the error is no larger than its bias its interval, too, misses the truth on the high side.

    Args:
        probability: Predicted probabilities.
        labels: Classes, from 0.

    References:
        Guo et al. 2017, arXiv 1706.04599.
    """
    gap, _ = _gaps(probability, labels)
    return Score(gap, _sum_of_absolutes, _positive_part, plug_in=_sum_of_absolutes)


def rms_calibration_error(probability: Float[np.ndarray, "point class"], labels: Int[np.ndarray, " point"]) -> Score:
    r"""Return the root mean square calibration error of the most probable class, debiased.

    .. math:: \sqrt{\max(0, \sum_b w_b (g_b^2 - s_b^2 / n_b))}

    over the bins of `calibration_error` with n_b > 1 points, :math:`s_b` being the standard deviation of confidence minus
    correctness within the bin. The sum is an unbiased estimate of that of the true squared gaps: 0 means "not distinguishable
    from calibrated".

    References:
        Broecker 2012, Climate Dynamics 39; Kumar, Liang & Ma 2019, arXiv 1909.10155.
    """
    gap, is_bin = _gaps(probability, labels)
    num_points = len(gap)

    def squared_gaps(means: Float[np.ndarray, "... column"]) -> Float[np.ndarray, "..."]:
        gaps, _, shares = np.split(means, 3, axis=-1)
        return np.divide(gaps**2, shares, out=np.zeros_like(gaps), where=shares > 0).sum(-1)

    def debiased(means: Float[np.ndarray, "... column"]) -> Float[np.ndarray, "..."]:
        gaps, squares, shares = np.split(means, 3, axis=-1)
        several = num_points * shares > 1.5
        square = np.divide(gaps**2, shares, out=np.zeros_like(gaps), where=several)
        noise = np.divide(squares - square, num_points * shares - 1, out=np.zeros_like(gaps), where=several)
        return (square - noise).sum(-1)

    columns = np.concatenate((gap, gap**2, is_bin), 1)
    return Score(columns, debiased, lambda value: np.sqrt(_positive_part(value)), plug_in=squared_gaps)


def calibration_error_if_calibrated(probability: Float[np.ndarray, "point class"]) -> Estimate:
    """Return mean and central interval of the calibration error that labels drawn from these very probabilities would show."""
    confidence = probability.max(-1)
    rng = np.random.default_rng(SEED)
    errors = np.empty(NUM_RESAMPLES)
    is_bin = _bins(confidence)
    for index in range(NUM_RESAMPLES):
        gap = confidence - (rng.random(len(confidence)) < confidence)
        errors[index] = np.abs(gap @ is_bin).sum() / len(confidence)
    return interval(float(errors.mean()), errors)


def coverage(
    y: Float[np.ndarray, " point"], mean: Float[np.ndarray, "chain draw point"], scale: Float[np.ndarray, "chain draw point"]
) -> Float[np.ndarray, "point level"]:
    """Tell which targets lie in the central intervals of a mixture of normal predictions, of the probabilities `LEVELS`.

    A target lies in the central interval of probability a when the mixture's distribution function there is within a / 2 of 1/2.

    Args:
        y: Targets.
        mean: Predicted means, in the units of the targets.
        scale: Predicted standard deviations.

    Returns:
        1 or 0; NaN where a prediction is NaN.
    """
    total = np.zeros(len(y))
    for one_mean, one_scale in zip(mean, scale, strict=True):  # a chain at a time bounds the memory
        total += ndtr((y - one_mean) / one_scale).sum(0)
    distance = np.abs(total / (mean.shape[0] * mean.shape[1]) - 0.5)[:, None]
    return np.where(np.isnan(distance), np.nan, distance <= np.array(LEVELS) / 2)


def count_coverage(
    y: Float[np.ndarray, " point"], mean: Float[np.ndarray, "chain draw point"], scale: Float[np.ndarray, "chain draw point"]
) -> Float[np.ndarray, "point level"]:
    """Tell how far counts lie in the central intervals of a mixture of predictions, of the probabilities `LEVELS`.

    No interval of whole numbers has a given probability exactly. So a count y takes the stretch from F(y - 1) to F(y) of the
    mixture's distribution function F, and is covered by that share of it which lies within a / 2 of 1/2: of right predictions,
    a on average.

    Each prediction is the distribution of counts with these moments: Poisson where variance and mean are equal, negative binomial
    where the variance is larger.

    Args:
        y: Counts.
        mean: Predicted means.
        scale: Predicted standard deviations.

    Returns:
        0 to 1; NaN where a prediction is NaN, or narrower than Poisson, so that its moments do not tell what it is.

    References:
        Czado, Gneiting & Held 2009, Biometrics 65(4), section 2.1.
    """
    ends = np.zeros((2, len(y)))
    for one_mean, one_scale in zip(mean, scale, strict=True):  # a chain at a time bounds the memory
        ends += np.stack([_count_probability(count, one_mean, one_scale).sum(0) for count in (y - 1, y)])
    low, high = (ends / (mean.shape[0] * mean.shape[1]))[..., None]
    below, above = 0.5 - np.array(LEVELS) / 2, 0.5 + np.array(LEVELS) / 2
    inside = np.clip(high, below, above) - np.clip(low, below, above)
    # A count of no predicted probability has no stretch, and lies beyond all intervals.
    share = np.divide(inside, high - low, out=np.zeros_like(inside), where=high > low)
    return np.where(np.isnan(high), np.nan, share)


def _count_probability(
    count: Float[np.ndarray, " point"], mean: Float[np.ndarray, "draw point"], scale: Float[np.ndarray, "draw point"]
) -> Float[np.ndarray, "draw point"]:
    """Return the probability of so many or fewer."""
    mean, variance = np.asarray(mean, np.float64), np.square(scale, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        wider = np.where(variance > mean, variance - mean, np.nan)
        negative_binomial = betainc(mean**2 / wider, count + 1, mean / variance)
        is_poisson = np.abs(variance - mean) <= ROUNDING * mean
    known = np.where(is_poisson, gammaincc(count + 1, mean), negative_binomial)
    return np.where(count < 0, 0.0, known)


def calibration_gap(covered: Float[np.ndarray, "point level"]) -> Score:
    """Return the mean over `LEVELS` of the absolute difference between coverage and level."""

    def mean_distance(means: Float[np.ndarray, "... level"]) -> Float[np.ndarray, "..."]:
        return np.abs(means - LEVELS).mean(-1)

    return Score(covered, mean_distance, _positive_part, plug_in=mean_distance)


def _gaps(
    probability: Float[np.ndarray, "point class"], labels: Int[np.ndarray, " point"]
) -> tuple[Float[np.ndarray, "point bin"], Float[np.ndarray, "point bin"]]:
    """Return confidence minus correctness in the bin of each point, and which bin that is."""
    confidence = probability.max(-1)
    is_bin = _bins(confidence)
    return is_bin * (confidence - (probability.argmax(-1) == labels))[:, None], is_bin


def _bins(confidence: Float[np.ndarray, " point"]) -> Float[np.ndarray, "point bin"]:
    # NaN is put into the first bin, where its gap, NaN, stays visible in the sum.
    index = np.clip(np.ceil(np.nan_to_num(confidence) * NUM_BINS) - 1, 0, NUM_BINS - 1)
    return (index[:, None] == np.arange(NUM_BINS)).astype(float)


def _sum_of_absolutes(means: Float[np.ndarray, "... column"]) -> Float[np.ndarray, "..."]:
    return np.abs(means).sum(-1)


def _positive_part(value: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.maximum(value, 0)
