"""p values corrected for the number of comparisons."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusts p values by Holm's step-down procedure (Holm 1979).

    Where no two groups differ, some adjusted p is below 0.05 in at most 5 % of studies.

    Args:
        p_values: of all comparisons that are reported. None, where there is no p value, stays None and is not counted.

    Returns:
        The adjusted p values in the same order.

    Raises:
        ValueError: a p value is not within 0 and 1.

    Example:
        >>> holm([0.01, None, 0.04, 0.03])
        [0.03, None, 0.06, 0.06]
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
