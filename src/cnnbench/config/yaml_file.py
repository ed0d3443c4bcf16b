"""Reads YAML files, which may be from somebody else; writes `config.yaml` of a run directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any

import yaml

from cnnbench.files import read_text
from cnnbench.text import Values, one_line

MOST_BYTES = 1 << 20  # PyYAML takes seconds for each
MOST_VALUES = 100_000  # each alias counted as often as it is used: an alias of aliases may stand for a billion values
MOST_DEPTH = 50  # of lists and dicts in one another

# PyYAML's C versions are ten times as fast; some builds lack them
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file: plain types only.

    Raises:
        OSError: the file cannot be read, is too large, or is no regular file.
        ValueError: it is not YAML, names other types, or its aliases make it too large.
    """
    with _read(path) as (loader, node):
        return None if node is None else loader.construct_document(node)


def read_yaml_nodes(path: Path) -> yaml.Node | None:
    """The nodes of a YAML file, each with its text; None for an empty file. Constructs no values.

    Raises:
        OSError, ValueError: as `read_yaml`.
    """
    with _read(path) as (_, node):
        return node


@contextmanager
def _read(path: Path) -> Iterator[tuple[Any, yaml.Node | None]]:
    """The loader of a YAML file, and the node at its top, which stands for few values."""
    try:
        loader = Loader(read_text(path, MOST_BYTES))
        try:
            node = loader.get_single_node()
            require_few_values(node, 2 * MOST_VALUES)  # the keys are nodes, too
            yield loader, node
        finally:
            loader.dispose()
    except OSError:
        raise
    except Exception as error:  # PyYAML raises other errors than its own, too, as KeyError for `!!bool x`
        clear = isinstance(error, yaml.YAMLError | UnicodeError | ValueError)
        reason = one_line(error) or type(error).__name__
        raise ValueError(reason if clear else f"a value cannot be understood, {reason}") from error


def write_yaml(values: Values) -> str:
    """The text of a YAML file, with the keys in their order."""
    return str(yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True))


def require_few_values(values: Any, most: int = MOST_VALUES) -> None:
    """Checks nested lists and dicts from somebody else, so that what visits every value ends, and needs no deep stack.

    Raises:
        ValueError: they hold more than `most` values, those that several places share counted for each, or are nested more than
            50 deep, as a list that holds itself.
    """
    count, depth = _count_and_depth(values, {}, 0)
    if depth > MOST_DEPTH:
        raise ValueError(f"its values are nested more than {MOST_DEPTH} deep")
    if count > most:
        raise ValueError(f"it has more than {most:,} values, those of aliases included")


def _count_and_depth(value: Any, known: dict[int, tuple[float, float]], above: int) -> tuple[float, float]:
    """The number of values in nested lists and dicts, and their depth; infinite where they are too deep or hold themselves."""
    if not isinstance(value, dict | list | tuple | yaml.CollectionNode):
        return 1, 0
    if above > MOST_DEPTH:
        return inf, inf
    if id(value) not in known:
        known[id(value)] = inf, inf  # until it is counted
        inner = [_count_and_depth(item, known, above + 1) for item in _items(value)]
        known[id(value)] = 1 + sum(count for count, _ in inner), 1 + max((depth for _, depth in inner), default=0)
    return known[id(value)]


def _items(value: Any) -> Any:
    if isinstance(value, yaml.CollectionNode):
        return chain.from_iterable(value.value) if isinstance(value, yaml.MappingNode) else value.value
    return value.values() if isinstance(value, dict) else value
