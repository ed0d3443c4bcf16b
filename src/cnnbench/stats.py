"""Statistics as pure functions: numbers or arrays in, (point, interval) or a small dataclass out.

numpy and scipy.special are imported where they are used: together they take half a second, and `wilson` needs neither.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from math import fsum, inf, isfinite, isnan, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float] | None  # None: there is no saying, as after one value

ROUNDING = 1e-12  # a spread below this share of the numbers themselves is rounding


@dataclass(frozen=True)
class Difference:
    """How far one arm is ahead of another.

    Attributes:
        point: ours − theirs, in the values' unit.
        interval: of the point; None where there is no saying.
        p: two-sided, of no difference; None where there is no saying.
        n: how many it rests on: pairs, values of the smaller arm, or images.
    """

    point: float
    interval: Interval
    p: float | None
    n: int


@dataclass(frozen=True)
class Calibration:
    """Whether a net is as often right as it is confident, by bins of confidence.

    Attributes:
        edges: of the bins, from 0 to 1: one more than there are bins. A bin holds its upper edge; the first holds 0 too.
        confidence: each bin's mean confidence; None where it is empty.
        accuracy: each bin's share of right images; None where it is empty.
        count: how many images each bin holds.
        ece: the expected calibration error: the mean over images of |accuracy − confidence| of their bin.
    """

    edges: list[float]
    confidence: list[float | None]
    accuracy: list[float | None]
    count: list[int]
    ece: float


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """A proportion and its score interval (Wilson 1927).

    Args:
        successes: how often it happened, 0 <= successes <= trials.
        trials: how often it was tried, at least 1.
        level: the interval's coverage, between 0 and 1.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"wilson: expected 0 <= successes <= trials and trials >= 1, got {successes} of {trials}")
    _require_share("a level", level)
    p, z = successes / trials, NormalDist().inv_cdf((1 + level) / 2)
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return p, (min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half)))


def mean_interval(values: Iterable[float], level: float = 0.95) -> tuple[float, Interval]:
    """A mean and its interval by Student's t (Student 1908).

    The interval is None for one value, and for values that are all equal: one of no width would claim certainty.

    Args:
        values: at least one, in any unit, finite.
        level: the interval's coverage, between 0 and 1.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    numbers = _numbers(values)
    _require_share("a level", level)
    mean, error = _mean_and_error(numbers, _scale(numbers))
    return mean, _student(mean, error, len(numbers) - 1, level)[0] if error else None


def one_sample(values: Iterable[float], level: float = 0.95) -> Difference:
    """The mean of values against 0, by the one-sample t test (Student 1908).

    One value has neither interval nor p. Nor have values that are equal and not 0: an interval of no width would
    claim certainty from rounding. Values that are all 0 give the interval (0, 0) and p = 1.

    Args:
        values: at least one, in any unit, finite.
        level: the interval's coverage, between 0 and 1.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    numbers = _numbers(values)
    return _against_zero(numbers, _scale(numbers), level)


def paired(ours: Iterable[float], theirs: Iterable[float], level: float = 0.95) -> Difference:
    """The mean of ours − theirs, by the paired t test (Student 1908): `one_sample` of the differences.

    Differences that are equal up to the rounding of the values count as equal.

    Args:
        ours: one value a seed, finite.
        theirs: of the same seeds in the same order.
        level: the interval's coverage, between 0 and 1.

    Raises:
        ValueError: there is no pair, one side is longer, or a value is not finite.
    """
    a, b = _numbers(ours), _numbers(theirs)
    _require_pairs(a, b)
    return _against_zero([x - y for x, y in zip(a, b, strict=True)], _scale(a + b), level)


def welch(ours: Iterable[float], theirs: Iterable[float], level: float = 0.95) -> Difference:
    """The difference of two means of unpaired values whose deviations may differ (Welch 1947).

    There is neither interval nor p where an arm has one value, or where neither arm varies and their means differ; where
    neither varies and their means are equal, the interval is (0, 0) and p = 1.

    Args:
        ours: one value a seed, finite.
        theirs: of other seeds, as many or not.
        level: the interval's coverage, between 0 and 1.

    Raises:
        ValueError: an arm has no value, or one is not finite.
    """
    a, b = _numbers(ours), _numbers(theirs)
    _require_share("a level", level)
    (mean_a, error_a), (mean_b, error_b) = (_mean_and_error(arm, _scale(a + b)) for arm in (a, b))
    point, n = mean_a - mean_b, min(len(a), len(b))
    if error_a is None or error_b is None:
        return Difference(point, None, None, n)
    error = sqrt(error_a**2 + error_b**2)
    if not error:
        return _unvarying(point, _scale(a + b), n)
    share = error_a**2 / error**2  # in this form no power underflows
    freedom = 1 / (share**2 / (len(a) - 1) + (1 - share) ** 2 / (len(b) - 1))
    return Difference(point, *_student(point, error, freedom, level), n)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Step-down adjusted p values (Holm 1979).

    Where no arm differs, an adjusted p below 0.05 turns up among all of them in 5 % of studies at most.

    Args:
        p_values: of all comparisons that are looked at. None, where there was no saying, stays None and is not counted.

    Raises:
        ValueError: a p value is not within 0 and 1.
    """
    known = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, at) in enumerate(known):
        if not 0 <= p <= 1:
            raise ValueError(f"holm: expected p values within 0 and 1, got {p}")
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[at] = highest
    return adjusted


def power(n: int, difference: float, deviation: float, alpha: float = 0.05) -> float:
    """How likely the two-sided paired t test is to find a true difference (noncentral t; Cohen 1988).

    Args:
        n: pairs, at least 2.
        difference: the true one, in the values' unit.
        deviation: the standard deviation of the pairs' differences, in the same unit, above 0.
        alpha: the test's level, between 0 and 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    if n < 2:
        raise ValueError(f"expected at least 2 pairs, got {n}")
    _require_share("an alpha", alpha)
    return _power(n, _effect(difference, deviation), alpha)


def pairs_needed(difference: float, deviation: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """The fewest pairs, at least 2, with which the two-sided paired t test has the power.

    Args:
        difference: the true one, in the values' unit, not 0.
        deviation: the standard deviation of the pairs' differences, in the same unit, above 0.
        alpha: the test's level, between 0 and 1.
        power: to reach, between 0 and 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    _require_share("an alpha", alpha)
    _require_share("a power", power)
    effect = _effect(difference, deviation)
    if not effect:
        raise ValueError("expected a difference other than 0: no number of pairs finds none")
    most = 2
    while _power(most, effect, alpha) < power:
        most *= 2
    fewest = most // 2 + 1  # half of it was too few
    return fewest + bisect_left(range(fewest, most), power, key=lambda n: _power(n, effect, alpha))


def more_pairs(
    differences: Iterable[float], settle: float, alpha: float = 0.05, power: float = 0.8, level: float = 0.7
) -> tuple[int, int] | None:
    """How many pairs more, from low to high, would settle whether there is a difference of a size.

    The deviation is known from the pairs that there are only, so low and high come from the ends of its chi-square
    interval. With `high` more, the power is reached in (1 + level) / 2 of such studies or more.

    Args:
        differences: one a pair, at least 2, finite.
        settle: the true difference that is to be found, in their unit, not 0.
        alpha: the test's level, between 0 and 1.
        power: to reach, between 0 and 1.
        level: the coverage of the deviation's interval, between 0 and 1.

    Returns:
        (low, high), each at least 0; None where the differences are equal up to rounding, which tells of no deviation.

    Raises:
        ValueError: an argument is out of its range.
    """
    from scipy.special import chdtri

    numbers = _numbers(differences)
    n = len(numbers)
    if n < 2:
        raise ValueError(f"expected at least 2 differences, got {n}")
    _require_share("a level", level)
    _, error = _mean_and_error(numbers, _scale(numbers))
    if not error:
        return None
    squares = error**2 * n * (n - 1)
    ends = (sqrt(squares / float(chdtri(n - 1, (1 - side * level) / 2))) for side in (1, -1))
    low, high = (max(0, pairs_needed(settle, deviation, alpha, power) - n) for deviation in ends)
    return low, high


def mcnemar(ours: ArrayLike, theirs: ArrayLike, level: float = 0.95) -> Difference:
    """The difference of two accuracies on the same images.

    p is McNemar's (1947), exact; the interval is Newcombe's (1998, Statistics in Medicine 17:2635, method 10): Wilson's
    intervals of both accuracies, squared and added, less what they share. The two rest on different reasoning, so at
    the border one may exclude no difference where the other does not.

    Args:
        ours: whether each image was got right, (images,), of booleans or of 0 and 1.
        theirs: of the same images in the same order.
        level: the interval's coverage, between 0 and 1.

    Raises:
        ValueError: there is no image, one side is longer, or a value is neither 0 nor 1.
    """
    import numpy as np

    a, b = _right(ours), _right(theirs)
    _require_pairs(a, b)
    both, only_a, only_b = (int(np.sum(which)) for which in (a & b, a & ~b, ~a & b))
    n = a.size
    neither = n - both - only_a - only_b
    p1, (low1, high1) = wilson(both + only_a, n, level)
    p2, (low2, high2) = wilson(both + only_b, n, level)
    apart: float = both * neither - only_a * only_b
    apart = max(0.0, apart - n / 2) if apart > 0 else apart  # Newcombe's continuity correction
    spread = p1 * (1 - p1) * p2 * (1 - p2)
    phi = apart / (n * n * sqrt(spread)) if spread else 0.0
    below = _square_and_add(p1 - low1, high2 - p2, phi)
    above = _square_and_add(high1 - p1, p2 - low2, phi)
    point = (only_a - only_b) / n
    return Difference(point, (max(-1.0, point - below), min(1.0, point + above)), sign_test(a, b), n)


def sign_test(ours: ArrayLike, theirs: ArrayLike) -> float:
    """The two-sided p of the exact sign test (Dixon and Mood 1946): is either ahead on more images than the other?

    It takes how many of an arm's seeds got an image right; of a single seed each, it is McNemar's test. It asks on how
    many images an arm is ahead, not how far, and images on which they are level do not count. It speaks of other images
    and of these runs; `paired` over seeds speaks of other runs.

    Args:
        ours: a number for each image, (images,), finite, as the share of seeds that get it right.
        theirs: of the same images in the same order.

    Raises:
        ValueError: there is no image, one side is longer, or a value is not finite.
    """
    import numpy as np
    from scipy.special import bdtr

    a, b = _finite(ours), _finite(theirs)
    _require_pairs(a, b)
    rounding = ROUNDING * np.maximum(np.abs(a), np.abs(b))
    ahead, behind = int(np.sum(a - b > rounding)), int(np.sum(b - a > rounding))
    return min(1.0, 2 * float(bdtr(min(ahead, behind), ahead + behind, 0.5)))


def calibration(confidence: ArrayLike, right: ArrayLike, bins: int = 15) -> Calibration:
    """Confidence against accuracy in bins of equal width (Guo et al. 2017, equations 2 to 5).

    Args:
        confidence: of each image, the probability of the predicted class, (images,), within 0 and 1.
        right: whether that class was right, (images,), of booleans or of 0 and 1.
        bins: how many, at least 1.

    Raises:
        ValueError: there is no image, one side is longer, or a value or `bins` is out of its range.
    """
    import numpy as np

    own, hit, edges, bin_of = _binned(confidence, right, bins)
    count, confident, correct = (np.bincount(bin_of, weights, bins) for weights in (None, own, hit))
    means, shares = (
        [float(total / n) if n else None for total, n in zip(totals, count, strict=True)]
        for totals in (confident, correct)
    )
    ece = float(np.abs(correct - confident).sum() / own.size)
    return Calibration(edges.tolist(), means, shares, count.tolist(), ece)


def resampled(images: int, rng: np.random.Generator, draws: int = 400) -> NDArray[np.float32]:
    """(draws, images) how often each image is drawn, when as many as there are are drawn with replacement (Efron 1979).

    Raises:
        ValueError: `images` or `draws` is below 1.
    """
    import numpy as np

    if images < 1 or draws < 1:
        raise ValueError(f"expected at least 1 image and at least 1 draw, got {images} and {draws}")
    counts = (np.bincount(rng.integers(images, size=images), minlength=images) for _ in range(draws))
    return np.stack(list(counts)).astype(np.float32)


def ece_interval(
    confidence: ArrayLike, right: ArrayLike, drawn: NDArray[np.float32], bins: int = 15, level: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """The expected calibration error and its percentile bootstrap interval: images are drawn, each with the answers of all runs.

    The error of few images is too high, since in a bin chance does not cancel, and that of images drawn again more so.
    Of a net that is calibrated well the interval may therefore lie above the point; it tells how far the number moves with
    the images, not whether the net is calibrated.

    Args:
        confidence: as `calibration` takes it, (images,) or (runs, images).
        right: as `calibration` takes it, of the same shape.
        drawn: what `resampled` gives for so many images.
        bins: how many, at least 1.
        level: the interval's coverage, between 0 and 1.

    Raises:
        ValueError: as `calibration` does, or `level` is out of its range.
    """
    import numpy as np

    _require_share("a level", level)
    runs, images = np.atleast_2d(np.asarray(confidence)).shape
    own, hit, _, bin_of = _binned(np.ravel(confidence), np.ravel(right), bins)
    gaps = np.zeros((images, bins), np.float32)  # a bin's share of the error is |the sum of its gaps|
    np.add.at(gaps, (np.tile(np.arange(images), runs), bin_of), hit - own)
    errors = np.abs(drawn @ gaps).sum(1) / own.size
    low, high = np.quantile(errors, [(1 - level) / 2, (1 + level) / 2])
    return calibration(np.ravel(confidence), np.ravel(right), bins).ece, (float(low), float(high))


def pareto(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Which points no other dominates: none costs as little and is worth as much, and is better in one of them.

    Args:
        costs: of each point; lower is better.
        values: of each point; higher is better.

    Raises:
        ValueError: one side is longer, or a number is not finite.
    """
    points = list(zip(costs, values, strict=True))
    if not all(map(isfinite, (number for point in points for number in point))):
        raise ValueError(f"expected finite numbers, got {points}")
    return [not any(other != own and other[0] <= own[0] and other[1] >= own[1] for other in points) for own in points]


def _numbers(values: Iterable[float]) -> list[float]:
    numbers = [float(value) for value in values]
    if not numbers or not all(map(isfinite, numbers)):
        raise ValueError(f"expected at least one number, and finite ones, got {numbers}")
    return numbers


def _require_share(what: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"expected {what} between 0 and 1, got {value}")


def _require_pairs(ours: Sized, theirs: Sized) -> None:
    if len(ours) != len(theirs):
        raise ValueError(f"expected pairs, got {len(ours)} and {len(theirs)} values")


def _scale(numbers: list[float]) -> float:
    return max(map(abs, numbers))


def _mean_and_error(numbers: list[float], scale: float) -> tuple[float, float | None]:
    """The mean and its standard error: None for one value, 0 where a spread is rounding of numbers as large as scale."""
    n = len(numbers)
    mean = fsum(numbers) / n
    if n == 1:
        return mean, None
    deviation = sqrt(fsum((number - mean) ** 2 for number in numbers) / (n - 1))
    return mean, deviation / sqrt(n) if deviation > ROUNDING * scale else 0.0


def _student(mean: float, error: float, freedom: float, level: float) -> tuple[tuple[float, float], float]:
    """Interval and p of a mean by Student's t of so many degrees of freedom."""
    from scipy.special import stdtr, stdtrit

    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    return (mean - half, mean + half), 2 * float(stdtr(freedom, -abs(mean) / error))


def _against_zero(numbers: list[float], scale: float, level: float) -> Difference:
    _require_share("a level", level)
    n = len(numbers)
    mean, error = _mean_and_error(numbers, scale)
    if error is None:
        return Difference(mean, None, None, n)
    return Difference(mean, *_student(mean, error, n - 1, level), n) if error else _unvarying(mean, scale, n)


def _unvarying(point: float, scale: float, n: int) -> Difference:
    """A difference without a spread: none at all, or one of which there is no saying."""
    return Difference(point, None, None, n) if abs(point) > ROUNDING * scale else Difference(0.0, (0.0, 0.0), 1.0, n)


def _effect(difference: float, deviation: float) -> float:
    if not (isfinite(difference) and 0 < deviation < inf):
        raise ValueError(f"expected a finite difference and a deviation above 0, got {difference} and {deviation}")
    return abs(difference) / deviation


def _power(n: int, effect: float, alpha: float) -> float:
    """Of n pairs whose difference is so many of its deviations."""
    from scipy.special import nctdtr, stdtrit

    bound, shift = float(stdtrit(n - 1, 1 - alpha / 2)), effect * sqrt(n)
    missed, wrong_way = (float(nctdtr(n - 1, shift, side)) for side in (bound, -bound))
    return 1 - (0.0 if isnan(missed) else missed) + (0.0 if isnan(wrong_way) else wrong_way)  # nan: it underflows


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    import numpy as np

    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"expected finite numbers of at least one image, got shape {array.shape}")
    return array


def _right(values: ArrayLike) -> NDArray[np.bool_]:
    array = _finite(values)
    if not ((array == 0) | (array == 1)).all():
        raise ValueError("expected right or wrong of each image, as booleans or as 0 and 1")
    return array == 1


def _square_and_add(one: float, other: float, phi: float) -> float:
    """The half of a difference's interval from those of its two sides, whose correlation is phi."""
    return sqrt(max(0.0, one * one + other * other - 2 * phi * one * other))


def _binned(
    confidence: ArrayLike, right: ArrayLike, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64], NDArray[np.intp]]:
    """Confidence and right as arrays, the bins' edges and the bin of each image."""
    import numpy as np

    own, hit = _finite(confidence), _right(right)
    _require_pairs(own, hit)
    if own.min() < 0 or own.max() > 1 or bins < 1:
        raise ValueError(
            f"expected confidences within 0 and 1 and at least 1 bin, got {own.min()} to {own.max()}, {bins}"
        )
    edges = np.linspace(0, 1, bins + 1)
    return own, hit, edges, np.digitize(own, edges[1:-1], right=True)


ALPHA = 0.05
