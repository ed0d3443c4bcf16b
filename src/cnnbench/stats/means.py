"""Means over seeds and their differences, by Student's and Welch's t tests."""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum, sqrt

from cnnbench.stats.checks import finite_numbers, require_fraction, require_pairs
from cnnbench.stats.estimates import ROUNDING, Difference, Interval


def mean_interval(values: Iterable[float], level: float = 0.95) -> tuple[float, Interval]:
    """Computes a mean and its interval by Student's t (Student 1908).

    The interval is None for one value, and for values that are all equal: an interval of width 0 would claim certainty.

    Args:
        values: at least one, finite, in any unit.
        level: coverage of the interval, between 0 and 1.

    Returns:
        (mean, (low, high)) or (mean, None), in the unit of the values.

    Raises:
        ValueError: there is no value, a value is not finite, or `level` is out of its range.

    Example:
        >>> mean, (low, high) = mean_interval([0.80, 0.82, 0.81, 0.83, 0.84])
        >>> f"{mean:.4f} ({low:.4f} to {high:.4f})"
        '0.8200 (0.8004 to 0.8396)'
        >>> mean_interval([0.8])
        (0.8, None)
    """
    numbers = finite_numbers(values)
    require_fraction("a level", level)
    mean, error = mean_and_error(numbers, largest_magnitude(numbers))
    return mean, _student(mean, error, len(numbers) - 1, level)[0] if error else None


def one_sample(values: Iterable[float], level: float = 0.95) -> Difference:
    """Compares the mean of values with 0 by the one-sample t test (Student 1908).

    One value has neither interval nor p. Equal values other than 0 have neither, either: an interval of width 0 would claim
    certainty that comes from rounding. Values that are all 0 give the interval (0, 0) and p = 1.

    Args:
        values: at least one, finite, in any unit.
        level: coverage of the interval, between 0 and 1.

    Returns:
        The mean of the values as a `Difference`, in their unit.

    Raises:
        ValueError: there is no value, a value is not finite, or `level` is out of its range.

    Example:
        >>> found = one_sample([0.01, 0.03, 0.02])
        >>> f"{found.point:.3f}, p {found.p:.3f}, n {found.n}"
        '0.020, p 0.074, n 3'
    """
    numbers = finite_numbers(values)
    return _against_zero(numbers, largest_magnitude(numbers), level)


def paired(ours: Iterable[float], theirs: Iterable[float], level: float = 0.95) -> Difference:
    """Estimates the mean of ours minus theirs by the paired t test (Student 1908): `one_sample` of the differences.

    Differences that are equal up to the rounding of the values count as equal.

    Args:
        ours: one value per seed, finite.
        theirs: values of the same seeds in the same order.
        level: coverage of the interval, between 0 and 1.

    Returns:
        Ours minus theirs as a `Difference`, in the unit of the values.

    Raises:
        ValueError: there is no pair, the lengths differ, a value is not finite, or `level` is out of its range.

    Example:
        >>> found = paired([0.85, 0.88, 0.86], [0.80, 0.82, 0.81])
        >>> f"{found.point:.4f} ({found.interval[0]:.4f} to {found.interval[1]:.4f}), p {found.p:.4f}, n {found.n}"
        '0.0533 (0.0390 to 0.0677), p 0.0039, n 3'
    """
    a, b = finite_numbers(ours), finite_numbers(theirs)
    require_pairs(a, b)
    return _against_zero([x - y for x, y in zip(a, b, strict=True)], largest_magnitude(a + b), level)


def welch(ours: Iterable[float], theirs: Iterable[float], level: float = 0.95) -> Difference:
    """Estimates the difference of two means of unpaired values whose deviations may differ (Welch 1947).

    There is neither interval nor p where a group has one value, or where neither group varies and their means differ.
    Where neither varies and their means are equal, the interval is (0, 0) and p = 1.

    Args:
        ours: one value per seed, finite.
        theirs: values of other seeds, of the same number or not.
        level: coverage of the interval, between 0 and 1.

    Returns:
        The mean of ours minus that of theirs as a `Difference`; n is the size of the smaller group.

    Raises:
        ValueError: a group has no value, a value is not finite, or `level` is out of its range.

    Example:
        >>> found = welch([0.90, 0.92, 0.85], [0.80, 0.70])
        >>> f"{found.point:.3f}, p {found.p:.3f}, n {found.n}"
        '0.140, p 0.179, n 2'
    """
    a, b = finite_numbers(ours), finite_numbers(theirs)
    require_fraction("a level", level)
    (mean_a, error_a), (mean_b, error_b) = (mean_and_error(values, largest_magnitude(a + b)) for values in (a, b))
    point, n = mean_a - mean_b, min(len(a), len(b))
    if error_a is None or error_b is None:
        return Difference(point, None, None, n)
    error = sqrt(error_a**2 + error_b**2)
    if not error:
        return _unvarying(point, largest_magnitude(a + b), n)
    share = error_a**2 / error**2  # in this form no power underflows
    freedom = 1 / (share**2 / (len(a) - 1) + (1 - share) ** 2 / (len(b) - 1))
    return Difference(point, *_student(point, error, freedom, level), n)


def largest_magnitude(numbers: list[float]) -> float:
    """Returns the largest absolute value: the scale against which rounding is measured."""
    return max(map(abs, numbers))


def mean_and_error(numbers: list[float], scale: float) -> tuple[float, float | None]:
    """Returns the mean and its standard error: None for one value, 0 where the spread is rounding of numbers of this scale."""
    n = len(numbers)
    mean = fsum(numbers) / n
    if n == 1:
        return mean, None
    deviation = sqrt(fsum((number - mean) ** 2 for number in numbers) / (n - 1))
    return mean, deviation / sqrt(n) if deviation > ROUNDING * scale else 0.0


def _student(mean: float, error: float, freedom: float, level: float) -> tuple[tuple[float, float], float]:
    """Interval and two-sided p of a mean by Student's t with `freedom` degrees of freedom."""
    from scipy.special import stdtr, stdtrit

    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    return (mean - half, mean + half), 2 * float(stdtr(freedom, -abs(mean) / error))


def _against_zero(numbers: list[float], scale: float, level: float) -> Difference:
    """The one-sample t test of numbers that are computed from values of this scale."""
    require_fraction("a level", level)
    n = len(numbers)
    mean, error = mean_and_error(numbers, scale)
    if error is None:
        return Difference(mean, None, None, n)
    return Difference(mean, *_student(mean, error, n - 1, level), n) if error else _unvarying(mean, scale, n)


def _unvarying(point: float, scale: float, n: int) -> Difference:
    """The result for values without spread: interval (0, 0) and p = 1 where the difference is 0, else None for both."""
    return Difference(point, None, None, n) if abs(point) > ROUNDING * scale else Difference(0.0, (0.0, 0.0), 1.0, n)
