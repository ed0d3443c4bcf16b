"""Finds the parts that ship with cnnbench by their name, also when a config names a module that they have left since.

A part is a class or function that a config names with `_target_`: a net, a data set, an augmentation step, a learning-rate
schedule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
# Files with classes that a config may name.
FILES = ("models/**/*.py", "ops/**/*.py", "data/**/*.py", "augment/**/*.py", "training/schedulers.py")
DEFINITION = re.compile(r"^class ([A-Za-z]\w*)", re.MULTILINE)
SCHEDULE = re.compile(r"^(?:class|def) ([A-Za-z]\w*)", re.MULTILINE)  # a schedule may be a function


@cache
def shipped_parts() -> dict[str, str]:
    """Returns the dotted path of every shipped part, by its name. Reads source files and imports nothing."""
    return dict(_definitions())


def _definitions() -> Iterator[tuple[str, str]]:
    """Yields (name, dotted path) of every public class in `FILES`, and of every schedule."""
    for files in FILES:
        for file in sorted(PACKAGE.glob(files)):
            module = ".".join(("cnnbench", *file.relative_to(PACKAGE).with_suffix("").parts))
            pattern = SCHEDULE if file.name == "schedulers.py" else DEFINITION
            for name in pattern.findall(file.read_text(encoding="utf-8")):
                yield name, f"{module}.{name}"


def current_path(target: str) -> str:
    """Returns a target's present dotted path: a shipped part is found by its name, any other path is returned unchanged."""
    return shipped_parts().get(part_name(target), target) if target.startswith("cnnbench.") else target


def part_name(target: str) -> str:
    """Returns what enters a run's identity for a target: a shipped part's name, any other target's dotted path."""
    return target.rpartition(".")[2] if target.startswith("cnnbench.") else target


def with_current_paths(values: Any) -> Any:
    """Copies nested config values, or dotted keys with values, and gives every `_target_` its present path."""
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
