"""Turns errors of Hydra and OmegaConf into one clear line: what came, and what to type instead."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cnnbench.config.overrides import last_typed, unreadable_message
from cnnbench.errors import PROGRAM, ConfigError, did_you_mean
from cnnbench.text import one_line

if TYPE_CHECKING:
    from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

MISSING = "a value is missing; for a net of your own: model._target_=mypkg.MyNet"
UNUSED = "has no effect, cnnbench does not use this key of Hydra;"
PLACE_HINT = f"{UNUSED} runs are written to runs_dir/name/; type runs_dir=FOLDER name=NAME"
LOG_HINT = f"{UNUSED} messages are in the run's log.txt; type log=full for more in TensorBoard"
PLUGINS_HINT = (
    "cnnbench chooses and starts the jobs of a sweep itself; type -m with key=a,b or key=range(1,5), sweep.seeds=5, "
    "sweep.factors and sweep.zip for more, sweep.slots=4 for jobs at a time"
)
HYDRA_HINTS = {  # what to type instead of a key or group of Hydra's own, by the beginning of its name; the first that fits
    "hydra.sweeper": PLUGINS_HINT,
    "hydra.launcher": PLUGINS_HINT,
    "hydra.searchpath": f"{UNUSED} a conf folder of yours is added with --config-dir DIR before or after the other arguments",
    "hydra.mode": f"{UNUSED} a sweep is started with -m",
    "hydra.verbose": LOG_HINT,
    "hydra.job_logging": LOG_HINT,
    "hydra.hydra_logging": LOG_HINT,
    "hydra.job.env": f"{UNUSED} set environment variables in the shell, as in NAME=value {PROGRAM} ...",
    "hydra": PLACE_HINT,
}


def refuse_hydra_key(key: str, shown: str) -> None:
    """Refuses a key or group of Hydra's own, none of which has an effect on a run.

    Args:
        key: its name, as `hydra.run.dir` or `hydra/job_logging`; other keys pass.
        shown: what was typed, or which file holds it, for the message.

    Raises:
        ConfigError: names what to type instead.
    """
    parts = re.split(r"[./@:]", key.lstrip("+~/"))
    if parts[0] == "hydra":
        hint = next(hint for start, hint in HYDRA_HINTS.items() if ".".join(parts).startswith(start))
        raise ConfigError(f"{shown}: {hint}")


def explain(error: Exception, overrides: list[str], groups: Iterable[str]) -> str:
    """Returns the line to show for an error of a composition.

    Args:
        error: raised by Hydra or OmegaConf.
        overrides: those that were composed.
        groups: names of the config groups, to suggest.
    """
    from hydra.errors import OverrideParseException
    from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: {MISSING}"
    if isinstance(error, OverrideParseException):
        return unreadable_message(error.override)
    if isinstance(error, InterpolationResolutionError):
        return _unresolved(error, overrides)
    text = one_line(error) or one_line(error.__cause__ or type(error).__name__)
    key = text.partition("'")[2].partition("'")[0]  # Hydra's messages quote the key
    if text.startswith("Could not override") and isinstance(error.__cause__, OmegaConfBaseException):
        return _unknown_key(key, error.__cause__, overrides, groups)
    if text.startswith("Could not append"):
        return f"+{key}: exists already; type {key}=... without the +"
    if text.startswith("Could not delete") and text.endswith("does not exist."):
        return f"~{key}: no such key; leave it out"
    if "--multirun" in text:
        several = next((override for override in overrides if override in text), overrides[0])
        key, _, value = several.partition("=")
        return (
            f"{several}: one run takes one value, as in {key}={value.split(',')[0]}; a list takes brackets: {key}=[{value}]; "
            "a run for each: type -m before it"
        )
    return text


def _unresolved(error: InterpolationResolutionError, overrides: list[str]) -> str:
    """Names the key whose `${...}` has no value, and the reason."""
    key, reason = str(error.full_key), one_line(error).partition(" full_key: ")[0]
    typed = last_typed(overrides, key)
    if absent := re.fullmatch(r"Interpolation key '(.*)' not found", reason):
        reason = f"there is no key {absent[1]}"
    elif raised := re.fullmatch(r"\w+ raised while resolving interpolation: [\"']*(.*?)[\"']*", reason):
        reason = raised[1]
    shown = key if typed is None else f"{key}={typed}"
    return f"{shown}: ${{...}} stands for the value of another key, and cannot be replaced ({reason}); type the value itself"


def _unknown_key(key: str, error: OmegaConfBaseException, overrides: list[str], groups: Iterable[str]) -> str:
    """Lists the keys that exist where the config lacks `key`; `error` holds the last node on the way to it."""
    from omegaconf import OmegaConf

    from cnnbench.config.instantiate import accepts, locate
    from cnnbench.config.schema import Node

    node: Any = OmegaConf.to_container(error.parent_node)
    path, _, name = str(error.full_key).rpartition(".")
    known = [each for each in node if each not in ("_target_", "hydra")]
    near, listed = did_you_mean(name, known) or ";", ", ".join(known) or "none"
    if path == "augment":
        steps = f"its steps: {listed}" if known else "choose steps, as in augment=basic"
        return f"{key}: augment has no step {name}{near} {steps}"
    if "_target_" not in node:
        dotted = [f"{path}.{each}" for each in known] or [path] if path else [*known, *groups]
        near = did_you_mean(str(error.full_key), dotted) or f"; `{PROGRAM} --help` lists them"
        return f"{key}: no such key{near}"
    target = last_typed(overrides, f"{path}._target_") or node["_target_"]
    if target == "???":
        return f"{path}._target_: {MISSING}"
    owner = target.rpartition(".")[2]
    if target.startswith("cnnbench."):  # its YAML lists every argument
        return f"{key}: {owner} has no {name}{near} it has: {listed}"
    if not accepts(locate(Node(_target_=target), path), name):
        return f"{key}: {owner} takes no {name}{near} it lists: {listed}"
    return f"{key}: {owner} lists no {name}{near} an argument that its YAML does not list takes a plus: +{key}=..."
