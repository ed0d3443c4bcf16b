"""Composes the jobs of a sweep; Hydra, which takes a fifth of a second, is asked as seldom as can be."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cnnbench.config.compose import Composed, compose_values
from cnnbench.config.overrides import as_override
from cnnbench.config.schema import Config
from cnnbench.sweep.schema import Setting
from cnnbench.text import canonical


class Composer:
    """Composes jobs: once for each choice of a group, not for each combination of choices; plain values are set on that.

    A group whose choices' files say something of their own group alone changes nothing else of a config, whatever the other groups
    are. One that sets keys elsewhere, as a recipe does, is composed with every combination.

    Args:
        fixed: overrides that all jobs have.
        config_dir: a conf folder of the user's own.
        known: the groups.
    """

    def __init__(self, fixed: list[str], config_dir: Path | None, known: dict[str, dict[str, Path]]) -> None:
        self.fixed, self.config_dir, self.known = fixed, config_dir, known
        self._composed: dict[str, Composed] = {}
        self._first: dict[str, Setting] = {}  # of the settings that have the same groups of the other kind, the first

    def __call__(self, setting: Setting) -> Config:
        """The config of a setting, checked."""
        plain = {key: value for key, value in setting.items() if key not in self.known and not isinstance(value, dict)}
        chosen = {key: value for key, value in setting.items() if key not in plain}
        composed = self._of_choices(chosen, plain)
        if composed.linked or "${" in json.dumps(plain):  # a value may be made of one that varies
            composed, plain = self._compose({**chosen, **plain}), {}
        values = json.loads(json.dumps(composed.of_a_run))  # a copy
        for key, value in plain.items():
            *path, last = key.lstrip("+").split(".")
            node = values
            for name in path:
                node = node[name]
            node[last] = value
        return Config.check({**values, "choices": composed.choices})

    def _of_choices(self, chosen: Setting, plain: Setting) -> Composed:
        """The composition of some choices, with any plain values of the same keys."""
        key = canonical([chosen, sorted(plain)])
        if key not in self._composed:
            own = {group: choice for group, choice in chosen.items() if self._keeps_to_itself(group, choice)}
            others = {group: chosen[group] for group in chosen.keys() - own.keys()}
            rest = canonical([others, sorted(own), sorted(plain)])
            first = self._first.setdefault(rest, {**chosen, **plain})
            self._composed[key] = self._joined(chosen, own, first, plain)
        return self._composed[key]

    def _joined(self, chosen: Setting, own: Setting, first: Setting, plain: Setting) -> Composed:
        """The first setting's composition, with each group that differs taken from one where it alone does."""
        differing = {group: choice for group, choice in own.items() if first[group] != choice}
        if len(differing) < 2:
            return self._compose({**chosen, **plain})
        composed = self._of_choices({group: first[group] for group in chosen}, plain)
        for group, choice in differing.items():
            other = self._of_choices({**{each: first[each] for each in chosen}, group: choice}, plain)
            composed = replace(
                composed,
                values={**composed.values, group: other.values[group]},
                choices={**composed.choices, group: other.choices[group]},
                linked=composed.linked or other.linked,
            )
        return composed

    def _compose(self, setting: Setting) -> Composed:
        overrides = [as_override(key, value) for key, value in setting.items()]
        return compose_values([*self.fixed, *overrides], self.config_dir)

    def _keeps_to_itself(self, group: str, choice: Any) -> bool:
        files = [
            self.known.get(group, {}).get(str(name)) for name in (choice if isinstance(choice, list) else [choice])
        ]
        return all(file is not None and local(file) for file in files)


@cache
def local(file: Path) -> bool:
    """Whether a choice's file sets keys of its own group alone, as far as its head tells."""
    text = file.read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    defaults = content.get("defaults", []) if isinstance(content, dict) else []
    beside = all(
        isinstance(entry, str) and (not entry.startswith("/") or entry.endswith("@_here_")) for entry in defaults
    )
    return beside and not any(line.startswith("#") and "@package" in line for line in text.splitlines())
