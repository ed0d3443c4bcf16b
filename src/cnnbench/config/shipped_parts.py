"""Finds the parts that ship with cnnbench by their name, wherever their module was when a path to them was written.

A part is what a config names with `_target_`: a net, a data set, an augmentation step, a learning-rate schedule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
ROOMS = (
    "models",
    "ops",
    "data",
    "augment",
    "training/schedulers.py",
)  # folders, or a file, whose classes a config may name
DEFINITION = re.compile(r"^class ([A-Za-z]\w*)", re.MULTILINE)
SCHEDULE = re.compile(r"^(?:class|def) ([A-Za-z]\w*)", re.MULTILINE)  # schedules are functions, too


@cache
def shipped_parts() -> dict[str, str]:
    """Dotted path of every shipped part, by its name. Reads source files, imports nothing."""
    return dict(_definitions())


def _definitions() -> Iterator[tuple[str, str]]:
    """(name, dotted path) of every public class in `ROOMS`, and of every schedule."""
    for room in ROOMS:
        root = PACKAGE / room
        for file in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            module = ".".join(("cnnbench", *file.relative_to(PACKAGE).with_suffix("").parts))
            pattern = SCHEDULE if file.name == "schedulers.py" else DEFINITION
            for name in pattern.findall(file.read_text(encoding="utf-8")):
                yield name, f"{module}.{name}"


def current_path(target: str) -> str:
    """The dotted path of a target today: a shipped part's is found by its name, any other is returned as it is."""
    return shipped_parts().get(part_name(target), target) if target.startswith("cnnbench.") else target


def part_name(target: str) -> str:
    """What a target enters a run's identity as: a shipped part by its name, any other by its dotted path."""
    return target.rpartition(".")[2] if target.startswith("cnnbench.") else target


def with_current_paths(values: Any) -> Any:
    """A copy of nested config values, or of dotted keys with values, in which every `_target_` has its current path."""
    if isinstance(values, list):
        return [with_current_paths(value) for value in values]
    if not isinstance(values, dict):
        return values
    return {
        key: current_path(value)
        if isinstance(value, str) and str(key).endswith("_target_")
        else with_current_paths(value)
        for key, value in values.items()
    }
