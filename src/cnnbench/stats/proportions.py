"""The confidence interval of a proportion, such as an accuracy on test images."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from cnnbench.stats.checks import require_fraction


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Computes a proportion and its score interval (Wilson 1927).

    Args:
        successes: number of successes, 0 <= successes <= trials.
        trials: number of trials, at least 1.
        level: coverage of the interval, between 0 and 1.

    Returns:
        (proportion, (low, high)), each between 0 and 1.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> point, (low, high) = wilson(81, 263)  # Newcombe 1998, table I, method 3
        >>> f"{point:.4f} ({low:.4f} to {high:.4f})"
        '0.3080 (0.2553 to 0.3662)'
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"wilson: expected 0 <= successes <= trials and trials >= 1, got {successes} of {trials}")
    require_fraction("a level", level)
    p, z = successes / trials, NormalDist().inv_cdf((1 + level) / 2)
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return p, (min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half)))
