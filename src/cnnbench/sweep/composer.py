"""Composes the jobs of a sweep with few Hydra compositions: each takes about 50 ms."""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path

from cnnbench.config.compose import Composition, checked_config, compose_values
from cnnbench.config.overrides import hydra_override
from cnnbench.config.schema import Config
from cnnbench.sweep.schema import Setting
from cnnbench.text import canonical_json


class Composer:
    """Composes settings into checked configs.

    Settings with the same choices and the same keys share one composition, into which their plain values are written. Where a
    value is computed from others (`${...}`), each setting is composed by itself.

    If each file sets only keys of its own group, the composition of model=B optimizer=D is not made by Hydra: the model's keys are
    copied from that of model=B optimizer=C, all others from that of model=A optimizer=D.

    Args:
        fixed: overrides that all jobs share.
        config_dir: a user's conf folder.
        groups: the names of the config groups.
    """

    def __init__(self, fixed: list[str], config_dir: Path | None, groups: Container[str]) -> None:
        self.fixed, self.config_dir, self.groups = fixed, config_dir, groups
        self._compositions: dict[str, Composition] = {}  # by choices and keys
        self._independent: set[tuple[str, str]] = set()  # groups and choices
        self._first: dict[str, Setting] = {}  # the first choices, by those that are not independent

    def __call__(self, setting: Setting) -> Config:
        """Composes and checks a setting.

        Raises:
            ConfigError: the setting cannot be composed, or a value is refused.
        """
        choices = {key: value for key, value in setting.items() if key in self.groups or isinstance(value, dict)}
        plain = {key: value for key, value in setting.items() if key not in choices}
        composition = self._composition(choices, sorted(plain), setting)
        if composition.has_interpolations or "${" in json.dumps(plain):
            composition, plain = self._compose(setting), {}
        values = json.loads(json.dumps(composition.run_values))  # a copy
        for key, value in plain.items():
            *path, last = key.lstrip("+").split(".")
            node = values
            for name in path:
                node = node[name]
            node[last] = value
        return checked_config(values, composition.choices)

    def _composition(self, choices: Setting, keys: list[str], setting: Setting) -> Composition:
        shared_by = canonical_json([choices, keys])
        if shared_by not in self._compositions:
            made = self._combined(choices, keys) or self._compose(setting)
            self._compositions[shared_by] = made
            self._independent |= {(group, str(choices[group])) for group in made.independent & choices.keys()}
            self._first.setdefault(self._dependent(choices, keys), choices)
        return self._compositions[shared_by]

    def _combined(self, choices: Setting, keys: list[str]) -> Composition | None:
        """Combines the compositions in which one choice alone differs from those of the first; None if one of them is missing."""
        first = self._first.get(self._dependent(choices, keys), {})
        parts: dict[str, Composition] = {}
        for group in first:
            if first[group] != choices[group]:
                part = self._compositions.get(canonical_json([{**first, group: choices[group]}, keys]))
                if part is None:
                    return None
                parts[group] = part
        if not parts:
            return None
        last = [*parts.values()][-1]
        return Composition(
            {**last.values, **{group: part.values[group] for group, part in parts.items()}},
            {**last.choices, **{group: part.choices[group] for group, part in parts.items()}},
            any(part.has_interpolations for part in parts.values()),
            last.independent,
        )

    def _dependent(self, choices: Setting, keys: list[str]) -> str:
        free = [key for key, value in choices.items() if (key, str(value)) in self._independent]
        return canonical_json([{key: choices[key] for key in choices if key not in free}, sorted(free), keys])

    def _compose(self, setting: Setting) -> Composition:
        overrides = [hydra_override(key, value) for key, value in setting.items()]
        return compose_values([*self.fixed, *overrides], self.config_dir)
