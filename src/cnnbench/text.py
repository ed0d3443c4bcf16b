"""Values and keys as one types and reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")  # of a folder of runs


def canonical(value: Any) -> str:
    """The same text for equal values of plain types, whatever the order of their keys, and whether 1 is written as 1.0."""
    return json.dumps(_whole(value), sort_keys=True, default=str)


def _whole(value: Any) -> Any:
    """Floats that are integers as such."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    return {key: _whole(item) for key, item in value.items()} if isinstance(value, dict) else value


def as_typed(value: Any) -> str:
    """A value as one would type it on the command line."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(as_typed(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{as_typed(item)}" for name, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones."""
    dotted: dict[str, Any] = {}
    for key, value in values.items():
        dotted |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return dotted


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested ones."""
    whole: dict[str, Any] = {}
    for dotted, value in values.items():
        *groups, key = dotted.split(".")
        place = whole
        for group in groups:
            if not isinstance(place.get(group), dict):
                place[group] = {}
            place = place[group]
        place[key] = value
    return whole


def numeric(values: Any, *path: str) -> float | None:
    """The finite number at a place of nested values; None where there is none."""
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return float(values) if isinstance(values, int | float) and -1e300 < values < 1e300 else None  # nan is neither


def legal(text: str) -> str:
    """As a file's name may be."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "x"


def some(texts: Sequence[str], most: int = 4) -> str:
    """The first of them, and how many more."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def duration(seconds: float) -> str:
    """`8.3 s`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"
