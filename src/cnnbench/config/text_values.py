"""Keeps the text of a YAML's values where YAML reads a number, a truth value or nothing: `name: 1_000` is a name, not 1000."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf

from cnnbench.config.overrides import TEXT_KEYS, is_no_text
from cnnbench.config.yaml_file import read_yaml_nodes
from cnnbench.text import flatten


def restore_text(file: ConfigResult, name: str, source: Path) -> None:
    """Sets the keys of a loaded file that hold text (`TEXT_KEYS`) to what the file has, character by character.

    Args:
        file: as Hydra loaded it; changed in place.
        name: of the file without suffix, as `experiment/mine`.
        source: the file.
    """
    if not isinstance(file.config, DictConfig):
        return
    values: Any = OmegaConf.to_container(file.config)
    loaded, root = flatten(values), None
    for key, path in text_keys_in(file.header.get("package"), name.rpartition("/")[0]).items():
        if isinstance(loaded.get(".".join(path), ""), (str, dict, list)):
            continue
        root = root or read_yaml_nodes(source)
        text = _scalar_text(root, path)
        if text and not is_no_text(key, text):
            OmegaConf.update(file.config, ".".join(path), text)


def text_keys_in(package: str | None, group: str) -> dict[str, list[str]]:
    """The keys that hold text and that a file can set, each with its path in the file.

    Args:
        package: that the file's first line states, as `_global_`; None: its group's.
        group: folder of the file below the conf folder, as `data`.
    """
    package = (package or "_group_").replace("_group_", group.replace("/", ".")).removeprefix("_global_")
    prefix = [part for part in package.split(".") if part]
    paths = {key: key.split(".") for key in TEXT_KEYS}
    return {key: path[len(prefix) :] for key, path in paths.items() if path[: len(prefix)] == prefix}


def _scalar_text(node: Any, path: list[str]) -> str:
    """The text of the scalar at a path of keys below a YAML node; empty if there is none."""
    for name in path:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for key, value in pairs if key.value == name), None)
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""
