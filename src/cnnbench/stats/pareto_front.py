"""The Pareto front of cost and value."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite


def pareto(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Finds the points that no other point dominates: none has a cost as low and a value as high, and is better in one.

    Args:
        costs: one per point; lower is better.
        values: one per point; higher is better.

    Returns:
        Whether each point is on the Pareto front.

    Raises:
        ValueError: the lengths differ, or a number is not finite.

    Example:
        >>> pareto([1, 2, 3], [0.8, 0.7, 0.9])
        [True, False, True]
    """
    points = list(zip(costs, values, strict=True))
    if not all(map(isfinite, (number for point in points for number in point))):
        raise ValueError(f"expected finite numbers, got {points}")
    return [not any(other != own and other[0] <= own[0] and other[1] >= own[1] for other in points) for own in points]
