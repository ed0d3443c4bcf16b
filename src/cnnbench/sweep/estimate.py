"""How long a job takes, and how much memory."""

from __future__ import annotations

from dataclasses import dataclass

OVERHEAD_S = 1.0  # a job's start, its test and its writing


@dataclass(frozen=True)
class Estimate:
    """What a job is thought to need.

    Attributes:
        seconds: for all of it.
        peak_mb: of memory, in a process; None: unknown.
        how: where it is from, in words.
    """

    seconds: float
    peak_mb: float | None
    how: str
