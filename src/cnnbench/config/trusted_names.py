"""Decides by name which targets a loaded config may use without `--trust`: parts of cnnbench, torch and torchvision."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cnnbench.config.schema import Config, Node

# Importing a module of these packages has no harmful side effects. No part of a name may be private: private names reach any module.
TRUSTED_PACKAGES = ("cnnbench", "torch.nn", "torch.optim", "torchvision.models")
TRUSTED_NAME = re.compile(rf"({'|'.join(map(re.escape, TRUSTED_PACKAGES))})(\.[a-zA-Z]\w*)+")


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
