"""Composes `conf/` and `key=value` overrides into a checked `Config`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.config.hydra_errors import explain, refuse_hydra_key
from cnnbench.config.overrides import hydra_override, last_typed, quote_text
from cnnbench.config.shipped_parts import part_name
from cnnbench.errors import ConfigError, did_you_mean
from cnnbench.text import Values, flatten, to_override

if TYPE_CHECKING:
    from cnnbench.config.schema import Config

UNCHOSEN = "none"  # label of a group without a choice
OPEN_KEYS = ("sweep.factors", "sweep.baseline")  # mappings with any keys: Hydra has to add values, not override
GLOBAL_GROUPS = ("recipe", "experiment")  # groups whose files set keys of any group
LIST_GROUPS = ("augment",)  # groups that take several choices, in brackets
# data sets that are installed or drawn: `data.root` has no effect on them
SETS_WITHOUT_FOLDER = ("MNIST5k", "Synthetic")
# keys of a frozen config that nobody types
SET_BY_FREEZING = ("channels_last", "choices", "swept", "data.fingerprint", "data.typed_root")
# Parts of Hydra's own config that only `@hydra.main` uses: without them a composition takes a fifth less time.
UNUSED_BY_COMPOSE = [f"~hydra/{part}" for part in ("help", "hydra_help", "output", "hydra_logging", "job_logging")]


@cache
def conf_dir() -> Path:
    """Finds `conf/`: inside the package in a wheel, next to `src/` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError(f"cnnbench's conf/ folder is neither in {package} nor next to its sources; reinstall cnnbench")


def groups(extra: Path | None = None) -> dict[str, dict[str, Path]]:
    """Lists every config group with its choices and their files; a user's conf folder `extra` adds groups and choices.

    Raises:
        ConfigError: there is no folder `extra`.
    """
    if extra is not None and not extra.is_dir():
        raise ConfigError(f"--config-dir {extra}: no such folder")
    found: dict[str, dict[str, Path]] = {}
    for root in filter(None, (conf_dir(), extra)):
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            choices = {file.stem: file for file in sorted(folder.glob("*.yaml"), key=_by_number)}
            if choices:
                found.setdefault(folder.name, {}).update(choices)
    return found


def _by_number(file: Path) -> list[tuple[int, str]]:
    """Sort key that places resnet20 before resnet110."""
    return [(int(part or 0) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", file.stem)]


def compose(overrides: Iterable[str], config_dir: Path | None = None) -> Config:
    """Composes one run's `Config` from `conf/config.yaml`, a user's conf folder `config_dir` and `key=value` overrides.

    Raises:
        ConfigError: one line that states what is wrong and what to type instead.
    """
    overrides = list(overrides)
    check_choices(overrides, groups(config_dir))  # before Hydra is imported: a misspelt model is the commonest mistake
    composition = compose_values(overrides, config_dir)
    _refuse_sweep(overrides, composition.values["sweep"])
    return checked_config(composition.run_values, composition.choices)


def checked_config(values: Values, choices: dict[str, str]) -> Config:
    """Checks a run's composed values, nested as in `conf/`, and returns them with the label of each group's choice.

    Raises:
        ConfigError: a value is wrong, or a key has no effect on this run.
    """
    from cnnbench.config.schema import Config

    config = Config.from_values({**values, "choices": choices})
    for key in SET_BY_FREEZING:
        if key in values or key in flatten(values):
            raise ConfigError(f"{key}: no such key, cnnbench sets it itself; leave it out")
    refuse_unused_root(config, config.data.root)
    return config


def refuse_unused_root(config: Config, root: str) -> None:
    """Refuses a typed `data.root` for a data set that reads no folder.

    Raises:
        ConfigError: names what to type instead.
    """
    if root != "auto" and part_name(config.data.target) in SETS_WITHOUT_FOLDER:
        raise ConfigError(
            f"data.root={to_override(root)}: data={config.choices.get('data')} reads no folder; for your own images type "
            f"data=imagefolder data.root=..., or name a published set (mnist, fashionmnist, cifar10, cifar100), else leave it out"
        )


def _refuse_sweep(overrides: list[str], sweep: dict[str, Any]) -> None:
    """Refuses factors without a typed value, and `sweep.*` keys: one run has neither."""
    typed = {override.partition("=")[0].lstrip("+"): override for override in overrides}
    sweep_key = next((typed[key] for key in typed if key.startswith("sweep.")), None)
    zipped = sweep["zip"] if isinstance(sweep["zip"], list) else [sweep["zip"] or {}]
    factors = dict.fromkeys(key for block in (sweep["factors"], *sweep["cells"], *zipped) for key in block)
    if any(key.lstrip("+") not in typed for key in factors):
        source = typed.get("experiment") or sweep_key or "sweep"
        raise ConfigError(
            f"{source}: is a sweep over {', '.join(factors)}; type -m before it to run it, plan -m before it to "
            "list its runs, or one value of each key to run one of them"
        )
    if sweep_key:
        raise ConfigError(f"{sweep_key}: sweep.* keys need -m; type -m before it, or leave the key out")


def check_choices(overrides: Iterable[str], known: dict[str, dict[str, Path]]) -> None:
    """Checks that every group gets a choice that it has; composes nothing.

    Args:
        overrides: `key=value` texts.
        known: groups with their choices and files.

    Raises:
        ConfigError: an unknown choice, several choices of a group that takes one, or no `key=value`.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        refuse_hydra_key(key, override)
        if not override.startswith("~") and not (key.strip("+") and equals):
            raise ConfigError(f"{override}: expected key=value, as in seed=1")
        choices = known.get(key.lstrip("+"))
        if choices is None or value in choices or "/" in value:
            continue
        names = _listed(value) if key in LIST_GROUPS else None
        unknown = value if names is None else next((name for name in names if name not in choices), None)
        if unknown is None:
            _check_steps(override, names or [], choices)
        elif "," in unknown:
            first = unknown.strip("[]").split(",")[0].strip()
            several = f", or several in brackets: {key}=[{unknown}]" if key in LIST_GROUPS else ""
            raise ConfigError(
                f"{override}: one run takes one {key}, as in {key}={first}{several}; a run for each: type -m before it"
            )
        else:
            near = did_you_mean(unknown, choices) or ";"
            raise ConfigError(f"{override}: no such {key}{near} choices: {', '.join(choices) or 'none yet'}")


def _listed(value: str) -> list[str] | None:
    """The names in `[a,b]`; None where the value has no brackets."""
    if not (value.startswith("[") and value.endswith("]")):
        return None
    return [name.strip() for name in value[1:-1].split(",")] if value[1:-1].strip() else []


def _check_steps(override: str, names: list[str], choices: dict[str, Path]) -> None:
    """Refuses choices that share a step's name: Hydra would merge the two steps into one, without a message."""
    owners: dict[str, str] = {}
    for name in names:
        for step in _steps(name, choices):
            if step in owners:
                raise ConfigError(
                    f"{override}: both {owners[step]} and {name} have a step {step}; choose one of them, or put a copy "
                    "with another name into a conf folder of yours (--config-dir)"
                )
            owners[step] = name


def _steps(name: str, choices: dict[str, Path]) -> set[str]:
    """The names of the steps in a choice's file, and in the choices that its defaults list names."""
    from cnnbench.config.yaml_file import read_yaml

    try:
        content = read_yaml(choices[name]) or {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{choices[name]}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("defaults", []), list):
        raise ConfigError(f"{choices[name]}: expected steps by name, and a list of `defaults`")
    inherited = [other for other in content.pop("defaults", []) if isinstance(other, str) and other in choices]
    others = {other: choices[other] for other in choices if other != name}  # a file cannot include itself
    return set(map(str, content)).union(*(_steps(other, others) for other in inherited if other in others))


@dataclass(frozen=True)
class Composition:
    """The result of a composition.

    Attributes:
        values: nested values of all keys, resolved, of plain types.
        choices: the label of each group's choice.
        has_interpolations: whether some value or choice is computed from others (`${...}`).
        independent: the groups whose chosen file sets only keys of its group and chooses nothing.
    """

    values: dict[str, Any]
    choices: dict[str, str]
    has_interpolations: bool
    independent: frozenset[str]

    @property
    def run_values(self) -> dict[str, Any]:
        """The values of a run's keys: all but `sweep`."""
        return {key: value for key, value in self.values.items() if key != "sweep"}


def compose_values(overrides: list[str], config_dir: Path | None, missing: bool = False) -> Composition:
    """Composes overrides with Hydra, without checking the values.

    Args:
        overrides: `key=value` texts.
        config_dir: a user's conf folder.
        missing: whether a value may be missing; it is `???` then.

    Raises:
        ConfigError: one line that states what is wrong and what to type instead.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from cnnbench.config.parsed_files import few_interpolations, keep_parsed_files

    overrides = [quote_text(f"+{text}" if text.partition("=")[0] in OPEN_KEYS else text) for text in overrides]
    search = [hydra_override("hydra.searchpath", [f"file://{config_dir.resolve()}"])] if config_dir else []
    try:
        with few_interpolations():
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                files = keep_parsed_files()
                composed = hydra_compose("config", [*search, *UNUSED_BY_COMPOSE, *overrides], return_hydra_config=True)
            chosen = composed.hydra.runtime.choices
            keys = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
            values: Any = OmegaConf.to_container(keys, resolve=True, throw_on_missing=not missing)
        has_interpolations = files.interpolated or "${" in str(OmegaConf.to_container(keys, resolve=False))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, overrides, groups(config_dir))) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:  # of wrong files in `config_dir`
        if config_dir is None:
            raise
        raise ConfigError(f"{config_dir}: cannot be composed ({str(error).partition(chr(10))[0]})") from error
    misplaced = next((group for group in GLOBAL_GROUPS if values.get(group)), None)
    if misplaced:
        raise ConfigError(
            f"{misplaced}={chosen[misplaced]}: its keys end up below {misplaced}, not among those of the run; "
            "put the line `# @package _global_` at the top of its file"
        )
    labels = {group: chosen[group] or UNCHOSEN for group in sorted(groups(config_dir)) if group in chosen}
    for group in LIST_GROUPS:  # of a list, Hydra records no choice
        names = _listed(last_typed(overrides, group) or "") or values.get(group, {})
        labels.setdefault(group, "+".join(names) or UNCHOSEN)
    independent = frozenset(group for group in labels if files.stays_in_group(f"{group}/{chosen.get(group)}"))
    return Composition(values, labels, has_interpolations, independent)
