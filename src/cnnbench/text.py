"""Text forms of config values, dotted keys, file names and durations."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

Values = dict[str, Any]  # by key; nested, or with dotted keys
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")  # allowed names of a folder of runs
FORMULA = tuple("=+-@＝＋－＠")  # with these, also in their wide forms, a formula begins in a spreadsheet


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
    if isinstance(values, bool) or not isinstance(values, int | float):
        return None
    return float(values) if -1e300 < values < 1e300 else None  # False for NaN


def safe_filename(text: str) -> str:
    """The text with each run of characters other than `A-Za-z0-9._-` replaced by a hyphen; `x` where nothing remains."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "x"


def one_line(text: object) -> str:
    """The text of an object, as an error, with every run of spaces and line ends replaced by one space.

    Leaves out where in PyTorch's C++ code an error was raised.
    """
    return " ".join(str(text).split()).partition(" Exception raised from ")[0]


def printable(text: str, keep: str = "") -> str:
    r"""The text with an escape, as `\x1b`, for each character that a terminal, an editor or a browser would obey or not show.

    These are control characters, line ends, marks of the writing direction, characters without width, lone surrogates and
    characters that Unicode does not define. Each kind of space becomes a space.

    Args:
        text: from a file, perhaps of somebody else.
        keep: characters to keep as they are.
    """
    if text.isprintable():
        return text
    return "".join(character if character in keep else _printable_character(character) for character in text)


def _printable_character(character: str) -> str:
    if character.isprintable():
        return character
    return " " if unicodedata.category(character) == "Zs" else character.encode("unicode_escape").decode()


def shorten(text: str, most: int = 10_000) -> str:
    """A text cut after `most` characters, with the number of all: `abc... (1,000,000 characters)`."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def shown_line(text: str) -> str:
    """A text of a file that is only shown, as a question: in one line, printable, at most 2,000 characters of it."""
    return printable(" ".join(shorten(text, 2000).split()))


def csv_table(columns: Collection[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table as CSV: a head, and a line for each row of column -> value; an absent value is an empty field.

    Texts are `printable`; an apostrophe precedes a text that a spreadsheet would take for a formula.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(map(_csv_cell, columns))
    table.writerows([_csv_cell(row.get(column, "")) for column in columns] for row in rows)
    return text.getvalue()


def _csv_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip(" \"'").startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
