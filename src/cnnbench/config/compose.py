"""The command line and the YAML files of `conf/` to a checked `Config`; Hydra's errors to one clear line each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.config.overrides import quoted, unreadable
from cnnbench.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from cnnbench.config.schema import Config

UNCHOSEN = "none"  # the label of a group without a choice
FREE = ("sweep.factors", "sweep.baseline")  # keys of which each may have any, which Hydra has added, not set
GLOBAL = ("recipe", "experiment")  # groups whose files set keys of any group
PLUGINS = ("hydra/sweeper", "hydra/launcher")
NO_PLUGINS = (
    "cnnbench chooses and starts the jobs of a sweep itself; type -m with key=a,b or key=range(1,5), sweep.seeds=5, "
    "sweep.factors and sweep.zip for more, sweep.slots=4 for jobs at a time"
)
SEVERAL = ("augment",)  # groups of which one may choose several, in brackets


@cache
def conf_dir() -> Path:
    """`conf/`: inside the package in a wheel, beside `src/` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError(f"cnnbench's conf/ folder is neither in {package} nor beside its sources; reinstall cnnbench")


def groups(extra: Path | None = None) -> dict[str, dict[str, Path]]:
    """Every config group with its choices and their files; a user's conf folder `extra` adds to them."""
    found: dict[str, dict[str, Path]] = {}
    for root in filter(None, (conf_dir(), extra)):
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            choices = {file.stem: file for file in sorted(folder.glob("*.yaml"), key=_by_number)}
            if choices:
                found.setdefault(folder.name, {}).update(choices)
    return found


def _by_number(file: Path) -> list[tuple[int, str]]:
    """Sorts resnet20 before resnet110."""
    return [(int(part or 0) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", file.stem)]


def compose(overrides: Iterable[str], config_dir: Path | None = None) -> Config:
    """The `Config` of `key=value` overrides on top of `conf/config.yaml` and of a user's own conf folder.

    Raises:
        ConfigError: one line that says what is wrong and what to type instead.
    """
    overrides = list(overrides)
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    check_choices(overrides, groups(config_dir))  # before Hydra is imported: a misspelt model is the commonest mistake
    from cnnbench.config.schema import Config

    composed = compose_values(overrides, config_dir)
    _refuse_sweep(overrides, composed)
    return Config.check({**composed.of_a_run, "choices": composed.choices})


def _refuse_sweep(overrides: list[str], composed: Composed) -> None:
    """One run takes one value of each factor of an experiment, and has nothing to schedule."""
    asked = composed.values["sweep"]
    pairs = asked["zip"] if isinstance(asked["zip"], list) else [asked["zip"] or {}]
    blocks = [asked["factors"], *asked["cells"], *pairs]
    varied = dict.fromkeys(key for block in blocks for key in block)
    typed = {override.partition("=")[0].lstrip("+"): override for override in overrides}
    left = [key for key in varied if key.lstrip("+") not in typed]
    if left:
        source = typed.get("experiment") or next((typed[key] for key in typed if key.startswith("sweep.")), "sweep")
        raise ConfigError(
            f"{source}: is a sweep over {', '.join(varied)}; type -m before it, or plan to see its runs, or one value of each"
        )
    misplaced = next((typed[key] for key in typed if key.startswith("sweep.")), None)
    if misplaced:
        raise ConfigError(f"{misplaced}: is of sweeps, and this is one run; a sweep is typed with -m")


def check_choices(overrides: Iterable[str], known: dict[str, dict[str, Path]]) -> None:
    """Every group is given a choice that it has; nothing is composed for that."""
    for override in overrides:
        if override.lstrip("+~").startswith(("hydra/", "hydra.")):
            raise ConfigError(f"{override}: {NO_PLUGINS}")
        key, equals, value = override.partition("=")
        if not override.startswith("~") and not (key.strip("+") and equals):
            raise ConfigError(f"{override}: expected key=value, as in seed=1")
        choices = known.get(key.lstrip("+"))
        if choices is None or value in choices or "/" in value:
            continue
        if key in SEVERAL and value.startswith("[") and value.endswith("]"):
            unknown = [part for part in value[1:-1].split(",") if part.strip() not in choices]
            if not value[1:-1].strip():
                continue
            if not unknown:
                _check_steps(override, [choices[part.strip()] for part in value[1:-1].split(",")])
                continue
            value = unknown[0].strip()
        if "," in value:
            several = f", or several in brackets: {key}=[{value}]" if key in SEVERAL else ""
            first = value.strip("[]").split(",")[0].strip()
            raise ConfigError(
                f"{override}: one run takes one {key}, as in {key}={first}{several}; a run for each: type -m before it"
            )
        raise ConfigError(
            f"{override}: no such {key}{did_you_mean(value, choices) or ';'} choices: {', '.join(choices) or 'none yet'}"
        )


def _check_steps(override: str, files: list[Path]) -> None:
    """Of choices that are named together no two may have a step of the same name: one would be lost without a word."""
    owners: dict[str, str] = {}
    for file in files:
        for step in _steps(file):
            if step in owners:
                raise ConfigError(
                    f"{override}: both {owners[step]} and {file.stem} have a step {step}; choose one of them, or put a copy "
                    "under another name into a conf folder of yours (--config-dir)"
                )
            owners[step] = file.stem


def _steps(file: Path) -> set[str]:
    """The names of the steps in a choice's file, and in those that its defaults name."""
    import yaml

    content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    inherited = [file.with_name(f"{name}.yaml") for name in content.pop("defaults", []) if isinstance(name, str)]
    return set(content).union(*(_steps(other) for other in inherited if other.is_file()))


@dataclass(frozen=True)
class Composed:
    """What overrides compose to.

    Attributes:
        values: plain values of all keys, resolved.
        choices: a label for each group.
        linked: some value is made from others, by an interpolation.
    """

    values: dict[str, Any]
    choices: dict[str, str]
    linked: bool

    @property
    def of_a_run(self) -> dict[str, Any]:
        """The values without those of a sweep."""
        return {key: value for key, value in self.values.items() if key != "sweep"}


def compose_values(overrides: list[str], config_dir: Path | None, missing: bool = False) -> Composed:
    """What Hydra makes of overrides, unchecked; a value may be `missing`, and is `???` then.

    Raises:
        ConfigError: one line that says what is wrong and what to type instead.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    overrides = [quoted(f"+{text}" if text.partition("=")[0] in FREE else text) for text in overrides]
    search = [f"hydra.searchpath=[file://{config_dir.resolve()}]"] if config_dir else []
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = hydra_compose("config", overrides=search + overrides, return_hydra_config=True)
        chosen = composed.hydra.runtime.choices
        plugin = next((group for group in PLUGINS if chosen.get(group) != "basic"), None)
        if plugin:
            raise ConfigError(f"{plugin}={chosen[plugin]} in the defaults of a YAML: {NO_PLUGINS}")
        keys = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        values: Any = OmegaConf.to_container(keys, resolve=True, throw_on_missing=not missing)
        linked = "${" in str(OmegaConf.to_container(keys, resolve=False))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, overrides, config_dir)) from error
    misplaced = next((group for group in GLOBAL if values.get(group)), None)
    if misplaced:
        raise ConfigError(
            f"{misplaced}={chosen[misplaced]}: its keys are not those of a run; "
            "put the line `# @package _global_` at the top of its file"
        )
    known = sorted(groups(config_dir))
    labels = {group: chosen[group] or UNCHOSEN for group in known if group in chosen}
    for group in SEVERAL:
        labels.setdefault(group, _several(group, overrides) or "+".join(values.get(group, {})) or UNCHOSEN)
    return Composed(values, labels, linked)


def _several(group: str, overrides: list[str]) -> str:
    """The label of a group that was given as a list, for which Hydra keeps none: of `[crop,flip]` crop+flip."""
    given = [value for key, _, value in (override.partition("=") for override in overrides) if key == group]
    listed = given[-1][1:-1] if given and given[-1].startswith("[") else ""
    return "+".join(part.strip() for part in listed.split(",") if part.strip())


def _explain(error: Exception, overrides: list[str], config_dir: Path | None) -> str:
    """Hydra's complaint in one line: what came, and what to type."""
    text = " ".join(str(error).split())
    plugin = next((group for group in PLUGINS if f"'{group}" in text), None)
    if plugin:
        return f"{plugin} in the defaults of a YAML: {NO_PLUGINS}"
    unread = getattr(error, "override", None)
    if unread:
        return unreadable(unread)
    if "--multirun" in text:
        sweep = next((item for item in overrides if item in text), overrides[0])
        key, _, value = sweep.partition("=")
        return (
            f"{sweep}: one run takes one value, as in {key}={value.split(',')[0]}; a list stands in brackets: {key}=[{value}]; "
            "a run for each: type -m before it"
        )
    if "Missing mandatory value" in text:
        return f"{getattr(error, 'full_key', None) or text}: a value is missing; for a net of your own: model._target_=mypkg.MyNet"
    unknown = re.search(r"Could not (override|append|delete)[^']*'([^']+)'", text)
    if unknown:
        key = unknown.group(2).split("=")[0].lstrip("+~")
        if unknown.group(1) == "append":
            return f"+{key}: exists already; type {key}=... without the +"
        return _unknown_key(key, overrides, config_dir)
    return text


def _unknown_key(key: str, overrides: list[str], config_dir: Path | None) -> str:
    group, _, rest = key.partition(".")
    if group == "augment" and rest:
        return _unknown_step(key, overrides, config_dir)
    if group in ("model", "optimizer", "scheduler", "data") and rest:
        name, target, keys = _chosen(group, overrides, config_dir)
        near = did_you_mean(rest, keys)
        if target.startswith("cnnbench."):  # whose YAML lists every argument
            return f"{key}: {name} has no {rest}{near or ';'} it has: {', '.join(keys) or 'none'}"
        if not _taken(target, group, rest, overrides):
            return f"{key}: {name} takes no {rest}{near or ';'} it lists: {', '.join(keys)}"
        return f"{key}: {name} lists no {rest}{near or ';'} an argument that its YAML does not list takes a plus: +{key}=..."
    near = did_you_mean(key, [known for known in _known_keys() if known.startswith(f"{group}.") == bool(rest)])
    if near:
        return f"{key}: no such key{near}"
    return f"{key}: no such key; `python -m cnnbench --help` lists them"


def _taken(target: str, group: str, key: str, overrides: list[str]) -> bool:
    """Whether the target of a group, or that which was typed for it, has an argument of that name."""
    from cnnbench.config.instantiate import locate, takes
    from cnnbench.config.schema import Node

    typed = [value for name, _, value in (o.partition("=") for o in overrides) if name == f"{group}._target_"]
    return takes(locate(Node(_target_=(typed or [target])[-1]), group), key)


def _unknown_step(key: str, overrides: list[str], config_dir: Path | None) -> str:
    """Of `augment.step.knob`: which steps there are, or which knobs the step has."""
    _, step, *knobs = key.split(".")
    kept = [override for override in overrides if not override.lstrip("+~").startswith("augment.")]
    composed = compose_values(kept, config_dir)
    steps, chosen = composed.values["augment"], composed.choices["augment"]
    if step not in steps:
        has = f"its steps: {', '.join(steps)}" if steps else "choose another, as in augment=basic"
        return f"{key}: augment={chosen} has no step {step}{did_you_mean(step, steps) or ';'} {has}"
    knob, known = ".".join(knobs), [knob for knob in steps[step] if knob != "_target_"]
    return f"{key}: {step} has no {knob}{did_you_mean(knob, known) or ';'} it has: {', '.join(known) or 'none'}"


def _chosen(group: str, overrides: list[str], config_dir: Path | None) -> tuple[str, str, list[str]]:
    """The group's choice, its `_target_` and its keys, as the other overrides have it."""
    composed = compose_values(
        [override for override in overrides if not override.lstrip("+~").startswith(f"{group}.")], config_dir
    )
    node = composed.values[group]
    return composed.choices[group], node["_target_"], [key for key in node if key != "_target_"]


def _known_keys() -> set[str]:
    """Dotted keys of the default config and of every choice in every group."""
    import yaml

    def keys_of(path: Path) -> list[str]:
        return [
            key for key in yaml.safe_load(path.read_text(encoding="utf-8")) or {} if key not in ("defaults", "_target_")
        ]

    root, known_groups = conf_dir(), groups()
    known = {
        *keys_of(root / "config.yaml"),
        *(f"sweep.{key}" for key in yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))["sweep"]),
        *known_groups,
        *(f"data.{key}" for key in keys_of(root / "data_keys.yaml")),
    }
    for group in known_groups.keys() - {"recipe", "experiment"}:
        known |= {f"{group}.{key}" for path in known_groups[group].values() for key in keys_of(path)}
    return known
