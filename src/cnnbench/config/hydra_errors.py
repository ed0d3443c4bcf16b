"""Turns errors of Hydra and OmegaConf into one clear line: what came, and what to type instead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cnnbench.config.overrides import last_typed, unreadable_message
from cnnbench.errors import did_you_mean
from cnnbench.text import one_line

if TYPE_CHECKING:
    from omegaconf.errors import OmegaConfBaseException

MISSING = "a value is missing; for a net of your own: model._target_=mypkg.MyNet"
PLUGIN_GROUPS = ("hydra/sweeper", "hydra/launcher")
PLUGINS_HINT = (
    "cnnbench chooses and starts the jobs of a sweep itself; type -m with key=a,b or key=range(1,5), sweep.seeds=5, "
    "sweep.factors and sweep.zip for more, sweep.slots=4 for jobs at a time"
)


def explain(error: Exception, overrides: list[str], groups: Iterable[str]) -> str:
    """Returns the line to show for an error of a composition.

    Args:
        error: raised by Hydra or OmegaConf.
        overrides: those that were composed.
        groups: names of the config groups, to suggest.
    """
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: {MISSING}"
    if isinstance(error, OverrideParseException):
        return unreadable_message(error.override)
    if isinstance(error, MissingConfigException) and str(error.missing_cfg_file).startswith(PLUGIN_GROUPS):
        plugin = str(error.missing_cfg_file).rpartition("/")[0]
        return f"{plugin} in the defaults of a YAML: {PLUGINS_HINT}"
    text = one_line(error)
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
        near = did_you_mean(str(error.full_key), dotted) or "; `python -m cnnbench --help` lists them"
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
