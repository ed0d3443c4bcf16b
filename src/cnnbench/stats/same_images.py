"""Comparisons of two nets on the same test images."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from cnnbench.stats.checks import correct_array, finite_array, require_pairs
from cnnbench.stats.estimates import ROUNDING, Difference
from cnnbench.stats.proportions import wilson

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def mcnemar(ours: ArrayLike, theirs: ArrayLike, level: float = 0.95) -> Difference:
    """Estimates the difference of two accuracies on the same images.

    p is that of McNemar's exact test (1947). The interval is Newcombe's (1998, Statistics in Medicine 17:2635, method 10):
    it combines the Wilson intervals of both accuracies by the root of squares, minus their covariance. The two rest on
    different reasoning, so at the border one may exclude "no difference" where the other does not.

    Args:
        ours: whether our net is correct on each image, (images,), booleans or 0 and 1.
        theirs: whether their net is correct on the same images in the same order.
        level: coverage of the interval, between 0 and 1.

    Returns:
        Our accuracy minus theirs as a `Difference`; n is the number of images.

    Raises:
        ValueError: there is no image, the lengths differ, or a value is neither 0 nor 1.

    Example:
        >>> found = mcnemar([1, 1, 1, 1, 0, 1], [1, 0, 0, 1, 0, 1])
        >>> f"{found.point:.3f}, p {found.p}, n {found.n}"
        '0.333, p 0.5, n 6'
    """
    import numpy as np

    a, b = correct_array(ours), correct_array(theirs)
    require_pairs(a, b)
    both, only_a, only_b = (int(np.sum(which)) for which in (a & b, a & ~b, ~a & b))
    n = a.size
    neither = n - both - only_a - only_b
    p1, (low1, high1) = wilson(both + only_a, n, level)
    p2, (low2, high2) = wilson(both + only_b, n, level)
    covariance: float = both * neither - only_a * only_b
    covariance = max(0.0, covariance - n / 2) if covariance > 0 else covariance  # Newcombe's continuity correction
    spread = p1 * (1 - p1) * p2 * (1 - p2)
    phi = covariance / (n * n * sqrt(spread)) if spread else 0.0
    below = _square_and_add(p1 - low1, high2 - p2, phi)
    above = _square_and_add(high1 - p1, p2 - low2, phi)
    point = (only_a - only_b) / n
    return Difference(point, (max(-1.0, point - below), min(1.0, point + above)), sign_test(a, b), n)


def sign_test(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Computes the two-sided p of the exact sign test (Dixon and Mood 1946): is one net ahead on more images?

    The values are the fraction of seeds that are correct on each image. With one seed each it is McNemar's test. It counts
    on how many images a net is ahead, not by how much; images with equal values do not count. It generalizes to other
    images and holds for these runs; `paired` over seeds generalizes to other runs.

    Args:
        ours: a number for each image, (images,), finite, such as the fraction of seeds that are correct.
        theirs: numbers of the same images in the same order.

    Returns:
        The p value, between 0 and 1.

    Raises:
        ValueError: there is no image, the lengths differ, or a value is not finite.

    Example:
        >>> sign_test([1.0, 0.8, 0.6, 1.0, 0.4], [0.8, 0.6, 0.4, 0.8, 0.4])
        0.125
    """
    import numpy as np
    from scipy.special import bdtr

    a, b = finite_array(ours), finite_array(theirs)
    require_pairs(a, b)
    rounding = ROUNDING * np.maximum(np.abs(a), np.abs(b))
    ahead, behind = int(np.sum(a - b > rounding)), int(np.sum(b - a > rounding))
    return min(1.0, 2 * float(bdtr(min(ahead, behind), ahead + behind, 0.5)))


def _square_and_add(one: float, other: float, phi: float) -> float:
    """The half-width of a difference's interval from the half-widths of its two sides, whose correlation is phi."""
    return sqrt(max(0.0, one * one + other * other - 2 * phi * one * other))
