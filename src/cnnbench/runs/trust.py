"""Checks what a loaded config may import: a run directory may come from an untrusted source, whose code must not run.

Overrides and conf folders are typed by the user. The config.yaml of a run and the config in its checkpoints may come from anybody:
every part that they name must belong to cnnbench, torch or torchvision, unless `--trust` is typed.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Collection
from pathlib import Path
from types import FunctionType
from typing import Any

from cnnbench.config.instantiate import locate
from cnnbench.config.schema import Config
from cnnbench.config.shipped_parts import shipped_parts
from cnnbench.config.trusted_names import TRUSTED_PACKAGES, foreign_parts, parts_of
from cnnbench.errors import Untrusted

PACKAGE_PREFIXES = tuple(f"{package}." for package in TRUSTED_PACKAGES)


def require_trusted_parts(directory: Path, config: Config, built: Collection[str] | None = None) -> None:
    """Checks every `_target_` of a loaded config before it is used.

    Args:
        directory: of the run, for the message.
        config: as loaded.
        built: the groups that will be built; of the others only the names are checked, nothing is imported. None: all groups.

    Raises:
        Untrusted: a part is not of cnnbench, torch or torchvision, or not of the kind that its group needs.
        ConfigError: no part has that name.
    """
    of_wrong_kind = (
        (group, node)
        for group, key, node in parts_of(config)
        if (built is None or group in built) and not _is_of_kind(locate(node, key), group)
    )
    for group, node in foreign_parts(config) or of_wrong_kind:
        raise Untrusted(
            f"{directory}: its config names {_printable(node.target)}, which is no {KINDS[group][0]}; "
            "if you know where this run comes from, trust it"
        )


def require_data_folder(directory: Path, config: Config) -> None:
    """Checks that nothing will be downloaded to a folder that only a loaded config names.

    Args:
        directory: of the run, for the message.
        config: as loaded; its data set belongs to cnnbench.

    Raises:
        Untrusted: the data folder is absent, and is not the default one.
    """
    from cnnbench.data.download.fetch import default_root

    root = Path(config.data.root)
    if getattr(locate(config.data, "data"), "remotes", ()) and not root.is_dir() and root != default_root().resolve():
        raise Untrusted(
            f"{directory}: its config has the data in {_printable(str(root))}, which does not exist; "
            "if you know where this run comes from, trust it, and they are downloaded to there"
        )


def _printable(text: str) -> str:
    """A text from an untrusted source, in quotes if it has characters that a terminal would interpret."""
    return text if text.isprintable() else repr(text)


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

    A class must be defined in a trusted package, not only imported there; a function must build one of torchvision's nets or of
    cnnbench's schedules.
    """
    if isinstance(found, FunctionType):
        if group == "scheduler":
            return f"{found.__module__}.{found.__name__}" in shipped_parts().values()
        return group == "model" and _is_builder(found)
    base = pkgutil.resolve_name(KINDS[group][1])
    defined_in = f"{getattr(found, '__module__', None)}."
    return isinstance(found, type) and issubclass(found, base) and defined_in.startswith(PACKAGE_PREFIXES)


def _is_builder(found: FunctionType) -> bool:
    """Whether it is a function of torchvision that builds one of its nets."""
    if not found.__module__.startswith("torchvision.models."):
        return False
    from torchvision import models

    return found is models.get_model or any(found is models.get_model_builder(name) for name in models.list_models())
