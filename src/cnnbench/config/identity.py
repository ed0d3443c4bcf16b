"""A run's identity: the hash of the config values that decide its numbers.

It survives changes of cnnbench. A shipped part enters by its name, so a class may move to another module. A key or an argument
that is added later stands in `EARLIER` with the value that runs had before it, and enters only where it differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from cnnbench.config.shipped_parts import part_name

# What was added since version 0.1.0, and the value that earlier runs had:
# a key by its dotted name ("trainer.new_key": 1), an argument of a shipped part by the part's name ("ResNet.new_argument": 1).
EARLIER: dict[str, Any] = {}

# Modules of the shipped parts when their dotted paths still entered the hash; runs of that time have it in their names and files.
MODULE_THEN = {
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
PATH_THEN = {name: f"cnnbench.{module}.{name}" for module, names in MODULE_THEN.items() for name in names}


def identity_hash(values: dict[str, Any]) -> str:
    """The identity (SHA-256, hex) of nested config values, from which keys that decide no number are left out already."""
    return _digest(values, part_name)


def former_hash(values: dict[str, Any]) -> str | None:
    """The identity as it was computed while dotted paths entered it; None where a part did not exist then."""
    added = [path for path in _targets(values) if path.startswith("cnnbench.") and part_name(path) not in PATH_THEN]
    return None if added else _digest(values, path_then)


def path_then(target: str) -> str:
    """The dotted path that a target had then; the path itself where it is no shipped part, or one that did not exist."""
    return PATH_THEN.get(part_name(target), target)


def fill_earlier(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """An earlier run's config values, completed by what was added later."""
    below = {key: _descend(fill_earlier, prefix, key, value) for key, value in values.items()}
    return {**_earlier_of(prefix, values), **below}


def drop_earlier(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Config values without what was added later, where it has the value that earlier runs had."""
    earlier = {key: json.dumps(value) for key, value in _earlier_of(prefix, values).items()}
    return {
        key: _descend(drop_earlier, prefix, key, value)
        for key, value in values.items()
        if key not in earlier or json.dumps(value) != earlier[key]
    }


def _descend(walk: Callable[[dict[str, Any], str], dict[str, Any]], prefix: str, key: str, value: Any) -> Any:
    return walk(value, f"{prefix}.{key}" if prefix else key) if isinstance(value, dict) else value


def _earlier_of(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    """The entries of `EARLIER` for the group of keys at `prefix`, and for the part that it builds."""
    owners = {prefix, part_name(str(values.get("_target_", prefix)))}
    return {name.rpartition(".")[2]: value for name, value in EARLIER.items() if name.rpartition(".")[0] in owners}


def _targets(values: dict[str, Any]) -> Iterator[str]:
    """Every `_target_` in nested config values."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _targets(value)
        elif key == "_target_":
            yield value


def _digest(values: dict[str, Any], name_of: Callable[[str], str]) -> str:
    """Hashes config values; each `_target_` enters as `name_of` gives it, augmentation steps enter in their order."""

    def named(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: name_of(own) if key == "_target_" else named(own) for key, own in value.items()}

    entered = named(drop_earlier(values))
    entered["augment"] = list(entered["augment"].items())
    text = json.dumps(entered, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
