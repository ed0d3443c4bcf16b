"""Composes the jobs of a sweep, with one Hydra composition for each combination of groups: it takes about 50 ms."""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path

from cnnbench.config.compose import Composition, compose_values
from cnnbench.config.overrides import hydra_override
from cnnbench.config.schema import Config
from cnnbench.sweep.schema import Setting
from cnnbench.text import canonical_json


class Composer:
    """Composes settings into checked configs.

    Settings with the same choices and the same keys share one composition, into which their plain values are written. Where a
    value is computed from others (`${...}`), each setting is composed by itself.

    Args:
        fixed: overrides that all jobs share.
        config_dir: a user's conf folder.
        groups: the names of the config groups.
    """

    def __init__(self, fixed: list[str], config_dir: Path | None, groups: Container[str]) -> None:
        self.fixed, self.config_dir, self.groups = fixed, config_dir, groups
        self._compositions: dict[str, Composition] = {}  # by choices and keys

    def __call__(self, setting: Setting) -> Config:
        """Composes and checks a setting.

        Raises:
            ConfigError: the setting cannot be composed, or a value is refused.
        """
        choices = {key: value for key, value in setting.items() if key in self.groups or isinstance(value, dict)}
        plain = {key: value for key, value in setting.items() if key not in choices}
        shared_by = canonical_json([choices, sorted(plain)])
        if shared_by not in self._compositions:
            self._compositions[shared_by] = self._compose({**choices, **plain})
        composition = self._compositions[shared_by]
        if composition.has_interpolations or "${" in json.dumps(plain):
            composition, plain = self._compose({**choices, **plain}), {}
        values = json.loads(json.dumps(composition.run_values))  # a copy
        for key, value in plain.items():
            *path, last = key.lstrip("+").split(".")
            node = values
            for name in path:
                node = node[name]
            node[last] = value
        return Config.from_values({**values, "choices": composition.choices})

    def _compose(self, setting: Setting) -> Composition:
        overrides = [hydra_override(key, value) for key, value in setting.items()]
        return compose_values([*self.fixed, *overrides], self.config_dir)
