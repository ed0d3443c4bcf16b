"""Keeps the parsed files of `conf/` and of Hydra itself: parsing them again takes a third of each composition."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ConfigDefault, InputDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from cnnbench.config.hydra_errors import refuse_hydra_key
from cnnbench.config.text_values import restore_text
from cnnbench.config.yaml_file import read_yaml_nodes, require_few_values
from cnnbench.errors import CnnbenchError, ConfigError
from cnnbench.files import read_text
from cnnbench.text import flatten, one_line

MOST_NODES = 40_000  # keys and values of a file; OmegaConf takes seconds for them
MOST_INTERPOLATIONS = 1000  # in one composition
TOO_MANY_INTERPOLATIONS = f"more than {MOST_INTERPOLATIONS:,} values are computed from others (${{...}})"


class LoadedFiles:
    """What the defaults lists of the loaded files do.

    Attributes:
        interpolated: whether one of them is computed from choices (`${...}`).
    """

    def __init__(self) -> None:
        self.interpolated = False
        self._included: dict[str, list[str | None]] = {}  # by file

    def add(self, name: str, file: ConfigResult) -> None:
        """Notes a file, loaded by its name without suffix.

        Raises:
            ConfigError: it sets or chooses something of Hydra's own.
        """
        if file.provider != "hydra":
            for key in hydra_keys(file):
                key = key.lstrip("/").removeprefix("_global_.")
                refuse_hydra_key(key, f"{name}.yaml: {key}")
        defaults = [default for default in file.defaults_list or [] if not default.is_self()]
        self.interpolated |= "${" in repr(defaults)
        self._included[name] = [included_file(default, name) for default in defaults]
        if file.header.get("package"):
            self._included[name].append(None)

    def stays_in_group(self, name: str | None) -> bool:
        """Whether a loaded file sets keys of its own group only, and makes no choice for another group."""
        return name in self._included and all(map(self.stays_in_group, self._included[name]))


def hydra_keys(file: ConfigResult) -> Iterator[str]:
    """Yields the keys and groups of Hydra's own that a file sets or chooses, and the packages of them that it is put into."""
    for default in file.defaults_list or []:
        yield from (getattr(default, "group", None) or "", getattr(default, "path", None) or "", default.package or "")
    yield file.header.get("package") or ""
    if isinstance(file.config, DictConfig) and "hydra" in file.config:
        yield from flatten({"hydra": OmegaConf.to_container(file.config)["hydra"]})  # type: ignore[call-overload, index]


def included_file(default: InputDefault, of: str) -> str | None:
    """The file that an entry of the defaults list of file `of` puts into the same package; None: the entry does something else."""
    if not isinstance(default, ConfigDefault) or default.path is None or default.package not in (None, ""):
        return None
    if default.path.startswith("/"):
        return default.path[1:] if default.package == "" else None
    return f"{of.rpartition('/')[0]}/{default.path}"


class ParsedFiles(ConfigRepository):
    """Hydra's repository of config files, which parses each file of cnnbench and of Hydra once in a process.

    Files of the user's conf folder may change between two compositions, and are read each time.
    """

    _pickled: ClassVar[dict[tuple[str, str], bytes]] = {}  # by folder and name; each composition changes its copy

    def __init__(self, search_path: ConfigSearchPath) -> None:
        super().__init__(search_path)
        self.loaded = LoadedFiles()

    def __deepcopy__(self, memo: object) -> ParsedFiles:
        return copy(self)  # Hydra gives the copy another list of sources, and changes nothing else

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Loads a file by its name without suffix, as `model/lenet5`; None if no source has it."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None:
            return super().load_config(config_path)
        key = (source.path, config_path)
        if source.provider in ("hydra", "main") and key not in self._pickled:
            self._pickled[key] = pickle.dumps(self._load(config_path, source))
        result = pickle.loads(self._pickled[key]) if key in self._pickled else self._load(config_path, source)
        if result:
            self.loaded.add(config_path, result)
        return result

    def _load(self, config_path: str, source: ConfigSource) -> ConfigResult | None:
        if source.scheme() != "file":
            return super().load_config(config_path)
        path = Path(source.path, f"{config_path}.yaml")
        with _problems_named(path):
            require_few_values(read_yaml_nodes(path), MOST_NODES)  # Hydra sets no limits
            if read_text(path).count("${") > MOST_INTERPOLATIONS:
                raise ValueError(TOO_MANY_INTERPOLATIONS)
            result = super().load_config(config_path)
            if result:
                restore_text(result, config_path, path)
        return result


@contextmanager
def _problems_named(path: Path) -> Iterator[None]:
    """Raises ConfigError, with the path of a file of a conf folder, in place of what its parsers raise; they raise nearly anything."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, CnnbenchError):
        raise
    except Exception as error:
        reason = (
            getattr(error, "strerror", None) or one_line(str(error).partition("full_key:")[0]) or type(error).__name__
        )
        raise ConfigError(f"{path}: cannot be read ({reason})") from error


@contextmanager
def few_interpolations() -> Iterator[None]:
    """Limits how often `${...}` is resolved in the context: ten values, each with the one before twice, take a thousand times.

    Raises:
        ConfigError: it is resolved more often.
    """
    count, resolve = 0, Container.resolve_parse_tree

    def counted(self: Container, *arguments: Any, **keys: Any) -> Any:
        nonlocal count
        count += 1
        if count > MOST_INTERPOLATIONS:
            raise InterpolationResolutionError(TOO_MANY_INTERPOLATIONS)
        return resolve(self, *arguments, **keys)

    Container.resolve_parse_tree = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        Container.resolve_parse_tree = resolve  # type: ignore[method-assign]


def keep_parsed_files() -> LoadedFiles:
    """Makes the initialized Hydra use `ParsedFiles`; returns what it will have loaded."""
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    loader.repository = ParsedFiles(loader.config_search_path)
    return loader.repository.loaded
