"""What a loaded config may name: a run directory may come from a stranger, and runs no code of theirs.

What is typed, and what stands in a conf folder that is named, is the user's own. The config.yaml of a run and the config in its
checkpoints may be anybody's: whatever they name must be a part of cnnbench, torch or torchvision, unless `--trust` is typed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

from cnnbench.config.instantiate import locate
from cnnbench.config.schema import Config, Node
from cnnbench.config.shipped_parts import shipped_parts
from cnnbench.config.trusted_names import PACKAGES, _parts, foreign_parts
from cnnbench.errors import Untrusted


def require_known(directory: Path, config: Config, built: Collection[str] | None = None) -> None:
    """Looks at every `_target_` of a loaded config before it is used.

    Args:
        directory: of the run, for the message.
        config: as it was loaded.
        built: the groups that will be built; of the others the names are looked at, and nothing is imported. None: all.

    Raises:
        Untrusted: one is not of cnnbench, torch or torchvision, or not of the kind that its group needs.
        ConfigError: there is nothing of that name.
    """
    for group, node in foreign_parts(config) or _unfit(config, built):
        name = node.target if node.target.isprintable() else repr(node.target)
        raise Untrusted(
            f"{directory}: its config names {name}, which is no {KINDS[group][0]}; "
            "if you know where this run comes from, trust it"
        )


def require_present(directory: Path, config: Config) -> None:
    """Nothing is fetched to a place that only a loaded config names; what is known is that its data set is ours.

    Raises:
        Untrusted: the folder of the data is not there.
    """
    from cnnbench.data.download.fetch import default_root

    root = Path(config.data.root)
    if getattr(locate(config.data, "data"), "remotes", ()) and not root.is_dir() and root != default_root().resolve():
        name = str(root) if str(root).isprintable() else repr(str(root))
        raise Untrusted(
            f"{directory}: its config has the data in {name}, which is not there; "
            "if you know where this run comes from, trust it, and they are fetched to there"
        )


def _unfit(config: Config, built: Collection[str] | None) -> Iterator[tuple[str, Node]]:
    """The same of what is looked up: parts that are not of the kind that their group needs."""
    for group, key, node in _parts(config):
        if (built is None or group in built) and not KINDS[group][1](locate(node, key)):
            yield group, node


# ---- what each group needs; a name that begins well may lead anywhere, as torch.nn.modules.module.os.system does --------


def _is_net(found: Any) -> bool:
    from torch import nn

    return _is_a(found, nn.Module) or _is_builder(found)


def _is_builder(found: Any) -> bool:
    """A function of torchvision's that makes one of its nets."""
    if not isinstance(found, FunctionType) or not found.__module__.startswith("torchvision.models."):
        return False
    from torchvision import models

    return found is models.get_model or any(found is models.get_model_builder(name) for name in models.list_models())


def _is_data(found: Any) -> bool:
    from cnnbench.data.datamodule import ImageData

    return _is_a(found, ImageData)


def _is_step(found: Any) -> bool:
    from cnnbench.augment.step import Step

    return _is_a(found, Step)


def _is_optimizer(found: Any) -> bool:
    from torch.optim import Optimizer

    return _is_a(found, Optimizer)


def _is_schedule(found: Any) -> bool:
    from torch.optim.lr_scheduler import LRScheduler

    ours = isinstance(found, FunctionType) and f"{found.__module__}.{found.__name__}" in shipped_parts().values()
    return ours or _is_a(found, LRScheduler)


def _is_a(found: Any, base: type) -> bool:
    """A subclass that is made in one of the packages, not only to be found there."""
    within = tuple(f"{package}." for package in PACKAGES)
    return isinstance(found, type) and issubclass(found, base) and f"{found.__module__}.".startswith(within)


KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {  # group: what it needs, in words, and the check for that
    "model": ("net of cnnbench, torch or torchvision", _is_net),
    "data": ("data set of cnnbench", _is_data),
    "augment": ("augmentation step of cnnbench", _is_step),
    "optimizer": ("optimizer of cnnbench or torch", _is_optimizer),
    "scheduler": ("schedule of cnnbench or torch", _is_schedule),
}
