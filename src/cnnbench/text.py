"""Text forms of config values, dotted keys, file names and durations."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

Values = dict[str, Any]  # by key; nested, or with dotted keys
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")  # allowed names of a folder of runs


def canonical_json(value: Any) -> str:
    """JSON that is the same for equal values of plain types: keys are sorted, and 1.0 is written as 1."""
    return json.dumps(_integral_floats_to_int(value), sort_keys=True, default=str)


def _integral_floats_to_int(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_integral_floats_to_int(item) for item in value]
    return {key: _integral_floats_to_int(item) for key, item in value.items()} if isinstance(value, dict) else value


def to_override(value: Any) -> str:
    """A value as it is typed in a command-line override: `[1,2]`, `{lr:0.1}`, `null`, `true`."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(to_override(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{to_override(item)}" for name, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


def flatten(values: Values, prefix: str = "") -> Values:
    """Nested dicts as one dict with dotted keys; an empty dict remains a value."""
    dotted: Values = {}
    for key, value in values.items():
        dotted |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return dotted


def unflatten(values: Values) -> Values:
    """A dict with dotted keys as nested dicts; of two keys that contradict each other the later one remains."""
    nested: Values = {}
    for dotted, value in values.items():
        *groups, key = dotted.split(".")
        inner = nested
        for group in groups:
            if not isinstance(inner.get(group), dict):
                inner[group] = {}
            inner = inner[group]
        inner[key] = value
    return nested


def finite_number(values: Any, *path: str) -> float | None:
    """The number at a path of nested keys as a float; None where it is absent, no number, infinite or NaN."""
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return float(values) if isinstance(values, int | float) and -1e300 < values < 1e300 else None  # False for NaN


def safe_filename(text: str) -> str:
    """The text with each run of characters other than `A-Za-z0-9._-` replaced by a hyphen; `x` where nothing remains."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "x"


def one_line(text: object) -> str:
    """The text of an object, as an error, with every run of spaces and line ends replaced by one space.

    Leaves out where in PyTorch's C++ code an error was raised.
    """
    return " ".join(str(text).split()).partition(" Exception raised from ")[0]


def csv_table(columns: Collection[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table as CSV: a head, and a line for each row of column -> value; an absent value is an empty field."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n", restval="", extrasaction="ignore")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def first_few(texts: Sequence[str], most: int = 4, separator: str = ", ") -> str:
    """The first `most` texts, joined by the separator, and the number of the others: `a, b and 3 more`."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more


def file_size(count: int) -> str:
    """Bytes in the largest decimal unit: `300 bytes`, `4.2 kB`, `1.3 MB`, `2.4 GB`."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} byte{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Seconds in the two largest units: `8.3 s`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"
