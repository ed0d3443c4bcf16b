"""Reads and writes `config.yaml` of a run directory, which may be from somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cnnbench.files import read_text
from cnnbench.text import Values, one_line

MOST_BYTES = 4 << 20
MOST_VALUES = (
    100_000  # with each alias counted as often as it is used; an alias of aliases may stand for a billion values
)

# PyYAML's C versions are ten times as fast; some builds lack them
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file: plain types only.

    Raises:
        OSError: the file cannot be read, is too large, or is no regular file.
        ValueError: it is not YAML, names other types, or its aliases make it too large.
    """
    try:
        values = yaml.load(read_text(path, MOST_BYTES), Loader)
    except OSError:
        raise
    except Exception as error:  # besides YAMLError, what PyYAML's constructors raise, as KeyError for `!!bool x`
        raise ValueError(one_line(error) or type(error).__name__) from error
    if _count(values, {}) > MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {MOST_VALUES:,} values")
    return values


def write_yaml(values: Values) -> str:
    """The text of a YAML file, with the keys in their order."""
    return str(yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True))


def _count(value: Any, known: dict[int, float]) -> float:
    """The number of values in nested lists and dicts; infinite for one that holds itself."""
    if not isinstance(value, dict | list | tuple):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")  # until it is counted
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(item, known) for item in items)
    return known[id(value)]
