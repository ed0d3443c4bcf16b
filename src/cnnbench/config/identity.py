"""Computes a run's identity: the hash of the config values that decide its numbers.

The identity survives changes of cnnbench. A shipped part enters by its name, so its class may move to another module. A key or an
argument that is added later has an entry in `EARLIER_VALUES` with the value that runs had before, and enters only where its value
differs from that one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from cnnbench.config.shipped_parts import part_name
from cnnbench.text import Values, flatten

# Every key and argument that was added after version 0.1.0, with the value that earlier runs had:
# a key by its dotted name ("trainer.new_key": 1), an argument of a shipped part by the part's name ("ResNet.new_argument": 1).
EARLIER_VALUES: Values = {}

# Version 0.1.0 hashed the dotted paths of shipped parts: the parts of each module in that version. Its runs have that hash in
# their directory names and files.
FORMER_MODULES = {
    "models.alexnet": "AlexNet",
    "models.cifar_resnet": "CifarResNet",
    "models.googlenet": "GoogLeNet",
    "models.lenet": "LeNet",
    "models.lenet5": "LeNet5",
    "models.lenet_leaky": "LeakyLeNet",
    "models.mnist_cnn": "MnistCNN",
    "models.notes_resnet": "NotesResNet",
    "models.resnet": "ResNet",
    "models.simplecnn": "SimpleCNN",
    "models.vgg": "VGG",
    "ops.lenet5": "LeNet5ByHand",
    "data.changes": "RandomHorizontalFlip RandomVerticalFlip RandomRotation RandomErasing RandomBrightness RandomContrast",
    "data.crops": "RandomCrop CenterCrop Pad Resize ScaleJitter RandomResizedCrop",
    "data.cifar10": "CIFAR10",
    "data.cifar100": "CIFAR100",
    "data.fashionmnist": "FashionMNIST",
    "data.imagefolder": "ImageFolder",
    "data.mnist": "MNIST",
    "data.mnist5k": "MNIST5k",
    "data.synthetic": "Synthetic",
    "schedulers": "constant step multistep cosine onecycle Plateau",
}
FORMER_PATHS = {name: f"cnnbench.{module}.{name}" for module, names in FORMER_MODULES.items() for name in names.split()}


def identity_hash(values: Values) -> str:
    """Returns the identity of a run, as SHA-256 in hex.

    Args:
        values: nested config values, without the keys outside the identity (`Config.identity_values`).
    """
    return _digest(values, part_name)


def former_hash(values: Values) -> str | None:
    """Returns the identity that version 0.1.0 computed for the same values; None if it did not have one of the parts."""
    shipped = [
        path for key, path in flatten(values).items() if key.endswith("._target_") and path.startswith("cnnbench.")
    ]
    return _digest(values, former_path) if FORMER_PATHS.keys() >= set(map(part_name, shipped)) else None


def former_path(target: str) -> str:
    """Returns the dotted path that a shipped part had in version 0.1.0; any other path unchanged."""
    return FORMER_PATHS.get(part_name(target), target)


def add_earlier_values(values: Values) -> Values:
    """Copies an earlier run's nested config values, and adds the keys and arguments that it lacks, with their earlier values."""
    copied = deepcopy(values)
    for group, key, earlier in _added_later(copied):
        group.setdefault(key, earlier)
    return copied


def drop_earlier_values(values: Values) -> Values:
    """Copies nested config values without the keys and arguments that were added later and have their earlier value."""
    copied = deepcopy(values)
    for group, key, earlier in _added_later(copied):
        if key in group and json.dumps(group[key]) == json.dumps(earlier):
            del group[key]
    return copied


def _added_later(values: Values, prefix: str = "") -> Iterator[tuple[Values, str, Any]]:
    """Yields (group of keys, key, earlier value) of every key and argument in nested config values that was added later.

    Args:
        values: nested config values; the caller may add the yielded key to its group, or remove it.
        prefix: the dotted key of `values` in the whole config.
    """
    owners = {prefix, part_name(str(values.get("_target_", prefix)))}
    for name, earlier in EARLIER_VALUES.items():
        owner, _, key = name.rpartition(".")
        if owner in owners:
            yield values, key, earlier
    for key, below in values.items():
        if isinstance(below, dict):
            yield from _added_later(below, f"{prefix}.{key}" if prefix else key)


def _digest(values: Values, name_of: Callable[[str], str]) -> str:
    """Hashes config values: each `_target_` enters as `name_of` returns it, augmentation steps enter in their order."""

    def named(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: name_of(item) if key == "_target_" else named(item) for key, item in value.items()}

    entered = named(drop_earlier_values(values))
    entered["augment"] = list(entered["augment"].items())
    text = json.dumps(entered, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
