"""Computes a run's identity: the hash of the config values that decide its numbers.

The identity survives changes of cnnbench. A shipped part enters by its name, so its class may move to another module. A key or an
argument that is added later has an entry in `EARLIER_VALUES` with the value that runs had before, and enters only where its value
differs from that one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from cnnbench.config.shipped_parts import part_name

# Every key and argument that was added after version 0.1.0, with the value that earlier runs had:
# a key by its dotted name ("trainer.new_key": 1), an argument of a shipped part by the part's name ("ResNet.new_argument": 1).
EARLIER_VALUES: dict[str, Any] = {}

# Version 0.1.0 hashed the dotted paths of shipped parts: the module of each part in that version. Its runs have that hash in
# their directory names and files.
FORMER_MODULES = {
    "models.alexnet": ("AlexNet",),
    "models.cifar_resnet": ("CifarResNet",),
    "models.googlenet": ("GoogLeNet",),
    "models.lenet": ("LeNet",),
    "models.lenet5": ("LeNet5",),
    "models.lenet_leaky": ("LeakyLeNet",),
    "models.mnist_cnn": ("MnistCNN",),
    "models.notes_resnet": ("NotesResNet",),
    "models.resnet": ("ResNet",),
    "models.simplecnn": ("SimpleCNN",),
    "models.vgg": ("VGG",),
    "ops.lenet5": ("LeNet5ByHand",),
    "data.changes": (
        "RandomHorizontalFlip", "RandomVerticalFlip", "RandomRotation", "RandomErasing", "RandomBrightness", "RandomContrast",
    ),
    "data.crops": ("RandomCrop", "CenterCrop", "Pad", "Resize", "ScaleJitter", "RandomResizedCrop"),
    "data.cifar10": ("CIFAR10",),
    "data.cifar100": ("CIFAR100",),
    "data.fashionmnist": ("FashionMNIST",),
    "data.imagefolder": ("ImageFolder",),
    "data.mnist": ("MNIST",),
    "data.mnist5k": ("MNIST5k",),
    "data.synthetic": ("Synthetic",),
    "schedulers": ("constant", "step", "multistep", "cosine", "onecycle", "Plateau"),
}  # fmt: skip
FORMER_PATHS = {name: f"cnnbench.{module}.{name}" for module, names in FORMER_MODULES.items() for name in names}


def identity_hash(values: dict[str, Any]) -> str:
    """Returns the identity of a run, as SHA-256 in hex.

    Args:
        values: nested config values, without the keys outside the identity (`Config.identity_values`).
    """
    return _digest(values, part_name)


def former_hash(values: dict[str, Any]) -> str | None:
    """Returns the identity that version 0.1.0 computed for the same values; None if it did not have one of the parts."""
    added = [path for path in _targets(values) if path.startswith("cnnbench.") and part_name(path) not in FORMER_PATHS]
    return None if added else _digest(values, former_path)


def former_path(target: str) -> str:
    """Returns the dotted path that a shipped part had in version 0.1.0; any other path unchanged."""
    return FORMER_PATHS.get(part_name(target), target)


def add_earlier_values(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Adds to an earlier run's config values the keys and arguments that it lacks, each with its earlier value.

    Args:
        values: nested config values.
        prefix: the dotted key of `values` in the whole config.
    """
    below = {key: _descend(add_earlier_values, prefix, key, value) for key, value in values.items()}
    return {**_earlier_of(prefix, values), **below}


def drop_earlier_values(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Removes from config values the keys and arguments that were added later and have their earlier value.

    Args:
        values: nested config values.
        prefix: the dotted key of `values` in the whole config.
    """
    earlier = {key: json.dumps(value) for key, value in _earlier_of(prefix, values).items()}
    return {
        key: _descend(drop_earlier_values, prefix, key, value)
        for key, value in values.items()
        if key not in earlier or json.dumps(value) != earlier[key]
    }


def _descend(walk: Callable[[dict[str, Any], str], dict[str, Any]], prefix: str, key: str, value: Any) -> Any:
    return walk(value, f"{prefix}.{key}" if prefix else key) if isinstance(value, dict) else value


def _earlier_of(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    """Returns the earlier values of the group of keys at `prefix`, and of the arguments of the part that it configures."""
    owners = {prefix, part_name(str(values.get("_target_", prefix)))}
    return {
        name.rpartition(".")[2]: value for name, value in EARLIER_VALUES.items() if name.rpartition(".")[0] in owners
    }


def _targets(values: dict[str, Any]) -> Iterator[str]:
    """Yields every `_target_` in nested config values."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _targets(value)
        elif key == "_target_":
            yield value


def _digest(values: dict[str, Any], name_of: Callable[[str], str]) -> str:
    """Hashes config values: each `_target_` enters as `name_of` returns it, augmentation steps enter in their order."""

    def named(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: name_of(item) if key == "_target_" else named(item) for key, item in value.items()}

    entered = named(drop_earlier_values(values))
    entered["augment"] = list(entered["augment"].items())
    text = json.dumps(entered, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
