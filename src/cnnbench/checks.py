"""Checks of values that a user typed. Each error is one line: `key=value: expected ...`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

Value = TypeVar("Value")


def require_number(
    key: str,
    value: Any,
    *,
    integer: bool = False,
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Checks that `value` is a finite number (an integer if `integer`) within its bounds; true and false are no numbers.

    Raises:
        ValueError: `value` is not such a number.
    """
    if (
        not isinstance(value, int if integer else int | float)
        or isinstance(value, bool)
        or not math.isfinite(value)
        or not (value >= at_least and value <= at_most and above < value < below)
    ):
        limits = {"at least": at_least, "above": above, "at most": at_most, "below": below}
        bounds = ", ".join(f"{word} {limit:g}" for word, limit in limits.items() if math.isfinite(limit))
        raise ValueError(f"{key}={value}: expected {'an integer' if integer else 'a number'} {bounds}".rstrip())


def require_range(key: str, values: Any, **checks: Any) -> None:
    """Checks that `values` is a list [a, b] with a <= b, each of which passes `require_number` with these `checks`.

    Raises:
        ValueError: `values` is not such a list.
    """
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 2:
        raise ValueError(f"{key}={values}: expected a range [a,b]")
    for value in values:
        require_number(key, value, **checks)
    if values[0] > values[1]:
        raise ValueError(f"{key}={list(values)}: expected a range [a,b] with a at most b")


def require_choice(key: str, value: object, choices: Iterable[Value]) -> Value:
    """The choice that equals `value`; true is not 1.

    Raises:
        ValueError: no choice equals it; a value of another type (the text 5 for the number 5) is quoted.
    """
    known = list(choices)
    if value not in known or isinstance(value, bool):
        typed = repr(value) if str(value) in map(str, known) else value
        raise ValueError(f"{key}={typed}: expected one of {', '.join(map(str, known))}")
    return known[known.index(value)]


def require_bool(key: str, value: object) -> None:
    """Checks that `value` is true or false.

    Raises:
        ValueError: `value` is neither.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{key}={value}: expected true or false")
