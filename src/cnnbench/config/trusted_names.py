"""Names that a loaded config may use: parts of cnnbench, torch and torchvision."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cnnbench.config.schema import Config, Node

PACKAGES = ("cnnbench", "torch.nn", "torch.optim", "torchvision.models")  # importing a module of theirs does no harm


OURS = re.compile(rf"({'|'.join(map(re.escape, PACKAGES))})(\.[a-zA-Z]\w*)+")  # private parts lead anywhere


def foreign_parts(config: Config) -> list[tuple[str, Node]]:
    """Groups and nodes whose names alone say that they are not of cnnbench, torch or torchvision; nothing is imported."""
    return [(group, node) for group, _, node in _parts(config) if not OURS.fullmatch(node.target)]


def foreign_modules(config: Config) -> list[str]:
    """The modules of those parts."""
    return sorted({node.target.rpartition(".")[0] for _, node in foreign_parts(config)})


def _parts(config: Config) -> Iterator[tuple[str, str, Node]]:
    """Each group, its key, and what it is built from; a group of several has several."""
    for group, value in config:
        if isinstance(value, Node):
            yield group, group, value
        elif isinstance(value, dict):
            yield from ((group, f"{group}.{name}", node) for name, node in value.items() if isinstance(node, Node))
