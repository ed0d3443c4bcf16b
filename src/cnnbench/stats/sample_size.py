"""Power of the paired t test, and how many pairs (seeds) a study needs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from math import inf, isfinite, isnan, sqrt

from cnnbench.stats.checks import finite_numbers, require_fraction
from cnnbench.stats.means import largest_magnitude, mean_and_error


def power(n: int, difference: float, deviation: float, alpha: float = 0.05) -> float:
    """Computes the probability that the two-sided paired t test finds a true difference (noncentral t; Cohen 1988).

    Args:
        n: pairs, at least 2.
        difference: the true difference, in the unit of the values.
        deviation: standard deviation of the pairs' differences, in the same unit, above 0.
        alpha: level of the test, between 0 and 1.

    Returns:
        The power, between 0 and 1.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> round(power(34, difference=0.5, deviation=1), 3)
        0.808
    """
    if n < 2:
        raise ValueError(f"expected at least 2 pairs, got {n}")
    require_fraction("an alpha", alpha)
    return _power(n, _effect(difference, deviation), alpha)


def pairs_needed(difference: float, deviation: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Computes the smallest number of pairs with which the two-sided paired t test has the power.

    Args:
        difference: the true difference, in the unit of the values, not 0.
        deviation: standard deviation of the pairs' differences, in the same unit, above 0.
        alpha: level of the test, between 0 and 1.
        power: the power to reach, between 0 and 1.

    Returns:
        The number of pairs, at least 2.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> pairs_needed(difference=0.5, deviation=1)  # Cohen's medium effect; 34 by G*Power too
        34
    """
    require_fraction("an alpha", alpha)
    require_fraction("a power", power)
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
    """Estimates how many additional pairs would detect a true difference of size `settle`.

    The deviation is estimated from the given pairs, so the two bounds come from the ends of its chi-square interval.
    With `high` more pairs, the power is reached in (1 + level) / 2 of such studies or more.

    Args:
        differences: one per pair, at least 2, finite.
        settle: the true difference to detect, in their unit, not 0.
        alpha: level of the test, between 0 and 1.
        power: the power to reach, between 0 and 1.
        level: coverage of the deviation's interval, between 0 and 1.

    Returns:
        (low, high), each at least 0; None where the differences are equal up to rounding: their deviation is then unknown.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> more_pairs([0.01, -0.01, 0.02], settle=0.01)
        (9, 112)
    """
    from scipy.special import chdtri

    numbers = finite_numbers(differences)
    n = len(numbers)
    if n < 2:
        raise ValueError(f"expected at least 2 differences, got {n}")
    require_fraction("a level", level)
    _, error = mean_and_error(numbers, largest_magnitude(numbers))
    if not error:
        return None
    squares = error**2 * n * (n - 1)
    ends = (sqrt(squares / float(chdtri(n - 1, (1 - side * level) / 2))) for side in (1, -1))
    low, high = (max(0, pairs_needed(settle, deviation, alpha, power) - n) for deviation in ends)
    return low, high


def _effect(difference: float, deviation: float) -> float:
    """The effect size |difference| / deviation (Cohen's d for pairs)."""
    if not (isfinite(difference) and 0 < deviation < inf):
        raise ValueError(f"expected a finite difference and a deviation above 0, got {difference} and {deviation}")
    return abs(difference) / deviation


def _power(n: int, effect: float, alpha: float) -> float:
    """The power of n pairs with this effect size."""
    from scipy.special import nctdtr, stdtrit

    bound, shift = float(stdtrit(n - 1, 1 - alpha / 2)), effect * sqrt(n)
    missed, wrong_way = (float(nctdtr(n - 1, shift, side)) for side in (bound, -bound))
    return 1 - (0.0 if isnan(missed) else missed) + (0.0 if isnan(wrong_way) else wrong_way)  # nan: it underflows
