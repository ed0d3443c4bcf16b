"""Numbers as the report writes them."""

from __future__ import annotations

from cnnbench.stats import ALPHA, Interval


def points(value: float) -> str:
    """A difference of accuracies in percentage points: `1.9`, `0.04`."""
    size = round(100 * value, 2) or 0.0  # not -0.0
    return f"{size:.1f}" if abs(size) >= 0.1 or size == 0 else f"{size:.2f}"


def accuracy_text(value: float | None) -> str:
    """An accuracy between 0 and 1: `0.9812`; empty for None."""
    return "" if value is None else f"{value:.4f}"


def signed_points(value: float) -> str:
    """A difference of accuracies in percentage points with its sign: `+1.9`, `-0.04`, `0.0`."""
    text = points(value)
    return f"+{text}" if value > 0 and text != "0.0" else text


def higher_or_lower(value: float) -> str:
    """The size and the direction of a difference of accuracies: `1.9 points higher`."""
    return f"{points(abs(value))} points {'higher' if value > 0 else 'lower'}"


def interval_text(interval: Interval) -> str:
    """An interval of a difference in percentage points: `95 % interval 0.7 to 3.1`."""
    return "no interval" if interval is None else f"95 % interval {points(interval[0])} to {points(interval[1])}"


def plural(number: int, noun: str) -> str:
    """A number with its noun: `1 seed`, `2 seeds`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def p_value(p: float | None) -> str:
    """A p value: `0.012`, `< 0.001`; never rounded up to the significance level."""
    if p is None:
        return ""
    if p < 0.001:
        return "< 0.001"
    return next(text for digits in range(3, 18) if float(text := f"{p:.{digits}f}") < ALPHA or p >= ALPHA)
