"""Checks what a loaded config may import: a run directory may come from an untrusted source, whose code must not run.

Overrides and conf folders are typed by the user. The config.yaml of a run and the config in its checkpoints may come from anybody:
every part that they name must belong to cnnbench, torch or torchvision, unless `--trust` is typed.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Collection
from inspect import signature
from pathlib import Path
from types import FunctionType
from typing import Any

from cnnbench.config.instantiate import construct, locate
from cnnbench.config.schema import Config, Node
from cnnbench.config.shipped_parts import shipped_parts
from cnnbench.config.trusted_names import (
    LARGEST_NUMBER,
    NO_WEIGHTS,
    TRUSTED_PACKAGES,
    foreign_parts,
    large_numbers,
    loaded_weights,
    parts_of,
)
from cnnbench.errors import Untrusted

ADVICE = "if you know where this run comes from, trust it"
# What torchvision's builders set when they load weights, unless it is typed.
SET_WITH_WEIGHTS = {
    "googlenet": {"transform_input": True, "aux_logits": False},
    "inception_v3": {"transform_input": True},
}
PACKAGE_PREFIXES = tuple(f"{package}." for package in TRUSTED_PACKAGES)


def require_trusted_parts(directory: Path, config: Config, built: Collection[str] | None = None) -> None:
    """Checks every `_target_` of a loaded config before it is used.

    Args:
        directory: of the run, for the message.
        config: as loaded.
        built: the groups that will be built; of the others only the names are checked, nothing is imported. None: all groups.

    Raises:
        Untrusted: a part is not of cnnbench, torch or torchvision, or not of the kind that its group needs; or a number of the
            net is too large.
        ConfigError: no part has that name.
    """
    of_wrong_kind = (
        (group, node)
        for group, key, node in parts_of(config)
        if (built is None or group in built) and not _is_of_kind(locate(node, key), group)
    )
    for group, node in foreign_parts(config) or of_wrong_kind:
        raise Untrusted(f"{directory}: its config names {node.target}, which is no {KINDS[group][0]}; {ADVICE}")
    if large := large_numbers(config.model):
        raise Untrusted(
            f"{directory}: its config has model.{large}, expected numbers of at most {LARGEST_NUMBER:,}; {ADVICE}"
        )


def require_no_loaded_weights(directory: Path, config: Config) -> None:
    """Checks that training a loaded config again loads no weights of others, which torchvision downloads and unpickles.

    Args:
        directory: of the run, for the message.
        config: as loaded; its net belongs to cnnbench, torch or torchvision.

    Raises:
        Untrusted: its net begins with such weights.
    """
    loaded = loaded_weights(config.model)
    if not loaded and without_weights(config.model) != config.model:
        loaded = "weights_backbone by default"
    if loaded:
        raise Untrusted(f"{directory}: its config has model.{loaded}, which loads weights of others; {ADVICE}")


def without_weights(node: Node) -> Node:
    """The node of a net without arguments that load weights of others, for a net whose weights are replaced at once.

    Only builders of torchvision and timm get other arguments: elsewhere these names may mean anything.
    """
    arguments = {**node.arguments, **{name: none for name, none in NO_WEIGHTS.items() if name in node.arguments}}
    if node.target.startswith("torchvision."):
        found = locate(node, "model")
        if not (isinstance(found, FunctionType) and _is_builder(found)):
            return node
        from torchvision import models

        builder = models.get_model_builder(str(arguments.get("name"))) if found is models.get_model else found
        parameters = signature(builder).parameters
        by_default = (
            name for name in NO_WEIGHTS if name in parameters and parameters[name].default not in (None, False)
        )
        arguments |= {name: NO_WEIGHTS[name] for name in by_default}
        if loaded_weights(node):
            arguments = {**SET_WITH_WEIGHTS.get(builder.__name__, {}), **arguments}
    elif not node.target.startswith("timm."):
        return node
    return Node(_target_=node.target, **arguments)


def require_data_folder(directory: Path, config: Config) -> None:
    """Checks that nothing will be downloaded or unpacked to a folder that only a loaded config names.

    Args:
        directory: of the run, for the message.
        config: as loaded; its data set belongs to cnnbench.

    Raises:
        Untrusted: files of the set are absent in the data folder, which is not the default one.
    """
    from cnnbench.data.download.fetch import default_root, expand_home

    root = expand_home(config.data.root)
    if not getattr(locate(config.data, "data"), "remotes", ()) or root.resolve() == default_root().resolve():
        return
    if construct(config.data, "data").missing:
        lacks = "lacks files of the set" if root.is_dir() else "does not exist"
        raise Untrusted(
            f"{directory}: its config has the data in {root}, which {lacks}; {ADVICE}, and they are downloaded to there"
        )


# ---- the kind of part that each group needs; a trusted prefix is not enough: torch.nn.modules.module.os.system exists ----


KINDS = {  # group: (its kind of part in words, the base class of that kind)
    "model": ("net of cnnbench, torch or torchvision", "torch.nn.Module"),
    "data": ("data set of cnnbench", "cnnbench.data.datamodule.ImageData"),
    "augment": ("augmentation step of cnnbench", "cnnbench.augment.step.Step"),
    "optimizer": ("optimizer of cnnbench or torch", "torch.optim.Optimizer"),
    "scheduler": ("schedule of cnnbench or torch", "torch.optim.lr_scheduler.LRScheduler"),
}


def _is_of_kind(found: Any, group: str) -> bool:
    """Whether a part is of the kind that its group needs.

    A class must be defined in a trusted package, not only imported there, and not be the base of its kind. A function must build
    one of torchvision's nets or of cnnbench's schedules.
    """
    if isinstance(found, FunctionType):
        if group == "scheduler":
            return f"{found.__module__}.{found.__name__}" in shipped_parts().values()
        return group == "model" and _is_builder(found)
    base = pkgutil.resolve_name(KINDS[group][1])
    defined_in = f"{getattr(found, '__module__', None)}."
    return (
        isinstance(found, type)
        and issubclass(found, base)
        and found is not base
        and defined_in.startswith(PACKAGE_PREFIXES)
    )


def _is_builder(found: FunctionType) -> bool:
    """Whether it is a function of torchvision that builds one of its nets."""
    if not found.__module__.startswith("torchvision.models."):
        return False
    from torchvision import models

    return found is models.get_model or any(found is models.get_model_builder(name) for name in models.list_models())
