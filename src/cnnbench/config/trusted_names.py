"""Decides by name what a loaded config may use without `--trust`: parts of cnnbench, torch and torchvision, without weights of others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cnnbench.config.schema import Config, Node
from cnnbench.text import to_override

# Importing a module of these packages has no harmful side effects. No part of a name may be private: private names reach any module.
TRUSTED_PACKAGES = ("cnnbench", "torch.nn", "torch.optim", "torchvision.models")
TRUSTED_NAME = re.compile(rf"({'|'.join(map(re.escape, TRUSTED_PACKAGES))})(\.[a-zA-Z]\w*)+")

# Arguments with which the builders of torchvision and timm load the weights of others -> the value without weights.
NO_WEIGHTS: dict[str, Any] = {
    "weights": None,
    "weights_backbone": None,
    "pretrained": False,
    "pretrained_backbone": False,
    "checkpoint_path": "",
}
# of a net's arguments; no net has so many layers or channels, but a loop over more takes minutes
LARGEST_NUMBER = 1_000_000


def needs_trust(config: Config) -> bool:
    """Whether training a loaded config again needs `--trust`, as far as names and numbers tell. Imports nothing."""
    return bool(foreign_parts(config) or loaded_weights(config.model) or large_numbers(config.model))


def loaded_weights(node: Node) -> str:
    """The first argument of a net with which it loads the weights of others, as it is typed; else an empty string."""
    named = (name for name, none in NO_WEIGHTS.items() if node.arguments.get(name, none) not in (None, False, none))
    return next((f"{name}={to_override(node.arguments[name])}" for name in named), "")


def large_numbers(node: Node) -> str:
    """The first argument of a net with a number of more than 1,000,000, as it is typed; else an empty string."""
    named = (name for name, value in node.arguments.items() if _has_large_number(value))
    return next((f"{name}={to_override(node.arguments[name])}" for name in named), "")


def _has_large_number(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        return any(map(_has_large_number, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER  # also NaN


def foreign_parts(config: Config) -> list[tuple[str, Node]]:
    """Lists (group, node) of every target whose name is outside cnnbench, torch and torchvision. Imports nothing."""
    return [(group, node) for group, _, node in parts_of(config) if not TRUSTED_NAME.fullmatch(node.target)]


def foreign_modules(config: Config) -> list[str]:
    """Lists the modules of the targets whose names are outside cnnbench, torch and torchvision."""
    return sorted({node.target.rpartition(".")[0] for _, node in foreign_parts(config)})


def parts_of(config: Config) -> Iterator[tuple[str, str, Node]]:
    """Yields (group, dotted key, node) of every part that a config names; `augment` has one for each step."""
    for group, value in config:
        if isinstance(value, Node):
            yield group, group, value
        elif isinstance(value, dict):
            yield from ((group, f"{group}.{name}", node) for name, node in value.items() if isinstance(node, Node))
