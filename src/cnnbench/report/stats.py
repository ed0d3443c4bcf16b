"""Statistics as pure functions: numbers in, (point, interval) out."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """A proportion and its score interval (Wilson 1927).

    Args:
        successes: how often it happened, 0 <= successes <= trials.
        trials: how often it was tried, at least 1.
        level: the interval's coverage, between 0 and 1.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"wilson: expected 0 <= successes <= trials and trials >= 1, got {successes} of {trials}")
    if not 0 < level < 1:
        raise ValueError(f"wilson: expected a level between 0 and 1, got {level}")
    p, z = successes / trials, NormalDist().inv_cdf((1 + level) / 2)
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return p, (min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half)))
