"""The result of a comparison: a difference with its interval and p value."""

from __future__ import annotations

from dataclasses import dataclass

ALPHA = 0.05  # a p value below this level is significant
ROUNDING = 1e-12  # a spread below this fraction of the numbers themselves is rounding

Interval = tuple[float, float] | None  # None: it cannot be estimated, as from one value


@dataclass(frozen=True)
class Difference:
    """An estimated difference between two groups, A and B.

    Attributes:
        point: A minus B, in the unit of the values.
        interval: confidence interval of the point; None where it cannot be estimated.
        p: two-sided p value of the hypothesis of no difference; None where it cannot be computed.
        n: sample size: pairs, values of the smaller group, or images.
    """

    point: float
    interval: Interval
    p: float | None
    n: int
