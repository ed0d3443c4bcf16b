"""Keeps the parsed files of `conf/` and of Hydra itself: parsing them again takes a third of each composition."""

from __future__ import annotations

import pickle
from typing import ClassVar

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult


class ParsedFiles(ConfigRepository):
    """Hydra's repository of config files, which parses each file of cnnbench and of Hydra once in a process.

    Files of the user's conf folder may change between two compositions, and are read each time.
    """

    _pickled: ClassVar[dict[tuple[str, str], bytes]] = {}  # by folder and name; each composition changes its copy

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Loads a file by its name without suffix, as `model/lenet5`; None if no source has it."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.provider not in ("hydra", "main"):
            return super().load_config(config_path)
        key = (source.path, config_path)
        if key not in self._pickled:
            self._pickled[key] = pickle.dumps(super().load_config(config_path))
        return pickle.loads(self._pickled[key])


def keep_parsed_files() -> None:
    """Makes the initialized Hydra use `ParsedFiles`."""
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    loader.repository = ParsedFiles(loader.config_search_path)
