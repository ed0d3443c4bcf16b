"""Checks of a run. Each raises a ConfigError that states what came, what was expected and what to type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil
import torch
import yaml
from torch import nn

from cnnbench.augment.step import Augment
from cnnbench.config.compose import groups
from cnnbench.config.instantiate import accepts, locate
from cnnbench.config.schema import Config
from cnnbench.data.datamodule import ImageData
from cnnbench.errors import ConfigError
from cnnbench.text import one_line, to_override


def check_image_size(data: ImageData, model: str, smallest: int, largest: int | None) -> None:
    """Checks that a model takes images of the data's size; the bounds are pixels a side."""
    side = data.image_size
    if not smallest <= side <= (largest or side):
        least = "" if smallest == largest else "at least "
        raise ConfigError(
            f"data.image_size={side}: {model} takes images of {least}{smallest}×{smallest} pixels; "
            f"type data.image_size={smallest}, or leave it auto"
        )


def check_augment(data: ImageData) -> None:
    """Checks that the augmentation turns images as they are stored into the net's input, by running it on two images."""
    augment = data.augment()
    if augment is None:
        return
    side = data.images["train"].source.shape[-1]
    images = torch.zeros(2, data.channels, side, side, dtype=torch.uint8)
    for name, step in augment.steps.items():
        try:
            images = Augment({name: step})(images, 0, 0, 0, slice(0, 2), 2)
        except Exception as error:  # a user's step may raise anything
            reason = one_line(error)
            if not isinstance(error, ValueError):
                reason = f"fails on an image of {_size(images.shape[1:])} ({type(error).__name__}: {reason})"
            raise ConfigError(f"augment.{name}: {reason}") from error
    if len(images) != 2:
        raise ConfigError(
            f"augment: its steps turn 2 images into {len(images)}; expected as many as before; a step changes images only"
        )
    if tuple(images.shape[1:]) != data.shape:
        raise ConfigError(
            f"augment: its steps give images of {_size(images.shape[1:])} (C×H×W), the net takes {_size(data.shape)}; "
            "end with a step that cuts them, as crop does"
        )


def check_batch_parts(config: Config, data: ImageData) -> None:
    """Checks that every part of a batch can have an image."""
    images = len(data.images["train"])
    if images < config.batch_parts:
        raise ConfigError(
            f"{config.batch_divisors}: {images} train images cannot be cut into {config.batch_parts} parts; "
            "type smaller numbers, or take more images"
        )


def check_net(net: nn.Module, shape: Sequence[int | str], data: ImageData) -> None:
    """Checks that a net can be trained, and that its output for a batch of 2 images has one logit a class.

    Args:
        net: the network.
        shape: of its output; the name of its type if that is no tensor.
        data: the net's data.
    """
    if shape != (2, data.num_classes):
        raise ConfigError(
            f"model: {type(net).__name__} gives {shape} for a batch of 2, expected logits of shape {(2, data.num_classes)}; "
            f"end it with nn.Linear(..., {data.num_classes}), or take num_classes in its constructor"
        )
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise ConfigError(
            f"model: {type(net).__name__} has no trainable parameters; expected at least one, as of nn.Linear"
        )


def check_weights_fit(params: int, target: str) -> None:
    """Checks that a net's weights and their gradients, of 4 bytes each, fit in this machine's memory."""
    needed, memory = 8 * params, psutil.virtual_memory().total
    if needed > memory:
        raise ConfigError(
            f"model: {target.rpartition('.')[2]} has {params:,} parameters, which take {needed / 1e9:,.0f} GB with their gradients; this "
            f"machine has {memory / 1e9:,.0f} GB of memory; type a smaller net"
        )


@contextmanager
def recipe_hint(config: Config, group: str) -> Iterator[None]:
    """Adds to a ConfigError which keys of a group the recipe has set, and which to remove.

    A recipe's keys may not suit an optimizer or scheduler that was typed instead of the recipe's.
    """
    try:
        yield
    except ConfigError as error:
        recipe, node = config.choices.get("recipe", ""), getattr(config, group)
        file = groups()["recipe"].get(recipe)
        keys = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get(group, {}) if file else {}
        keys = {key: value for key, value in keys.items() if (key, value) in node.arguments.items()}
        refused = [f"~{group}.{key}" for key in keys if not accepts(locate(node, group), key)]
        named = [f"{group}.{key}={to_override(value)}" for key, value in keys.items() if f"{key}=" in str(error)]
        hint = f"; recipe={recipe} sets {', '.join(named)}" if named else ""
        if refused:
            rate = f"; its {group}.lr={keys['lr']} remains" if "lr" in keys else ""
            hint = f"; recipe={recipe} sets it: type {' '.join(refused)}{rate}"
        raise ConfigError(f"{error}{hint}") from error


def _size(shape: Sequence[int]) -> str:
    """Returns `1×28×28`."""
    return "×".join(map(str, shape))
