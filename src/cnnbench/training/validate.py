"""Everything that can be wrong with a run is found here, before anything is written: a config in, a frozen run out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import yaml
from torch import nn

from cnnbench.augment.step import Augment
from cnnbench.complexity import layers as accounting
from cnnbench.complexity.channels_last import takes_channels_last
from cnnbench.config.compose import groups
from cnnbench.config.instantiate import locate, takes
from cnnbench.config.schema import Config
from cnnbench.config.shipped_parts import part_name
from cnnbench.data.datamodule import ImageData
from cnnbench.errors import ConfigError
from cnnbench.text import as_typed, canonical
from cnnbench.training.determinism import suits_channels_last
from cnnbench.training.factories import batched, build_net, build_optimizer, build_scheduler, data_for_net, steps
from cnnbench.training.hardware import resolve_hardware, resolve_pipeline

FIRST_DROP = {"step": "every_epochs", "multistep": "milestones"}


@dataclass(frozen=True)
class Prepared:
    """A run that is known to work: its frozen config, its data in memory, its net's size."""

    config: Config
    data: ImageData
    params: int
    macs: int
    pipeline_because: str
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetFacts:
    """What running a net once has shown: its size, and whether its channels may come last in memory."""

    params: int
    macs: int
    channels_last: bool


class Known:
    """What was found out about one config and holds for others: many of a sweep share their images, or their net."""

    def __init__(self) -> None:
        self._data: dict[str, ImageData] = {}
        self._nets: dict[str, NetFacts] = {}

    def data(self, config: Config) -> ImageData:
        """The data of a config, with its train images read; the last that was asked for is kept."""
        data = data_for_net(config)
        key = canonical([config.data.as_dict(), data.image_size, [step.as_dict() for step in config.augment.values()]])
        if key not in self._data:
            self._data.clear()
            data.prepare_data()
            data.setup("fit")
            self._data[key] = data
        return batched(self._data[key], config)

    def net(self, config: Config, data: ImageData) -> NetFacts:
        """What is known of a net, which is checked."""
        key = canonical([config.model.as_dict(), config.init, config.init_std, data.shape, data.num_classes])
        if key not in self._nets:
            self._nets[key] = check_net(config, data)
        return self._nets[key]


def prepare(config: Config, known: Known | None = None) -> Prepared:
    """Resolves every `auto`, reads the train images, builds and runs the net once on the meta device.

    Args:
        config: composed.
        known: what other configs have shown.

    Raises:
        ConfigError: anything that would stop the run.
    """
    known = known or Known()
    hardware = resolve_hardware(config)
    data = known.data(config)
    check_augment(data)
    data.pipeline, why = resolve_pipeline(config, data, hardware["accelerator"])
    resolved_data = {
        "root": str(data.root.resolve()),
        "image_size": data.image_size,
        "mean": data.mean,
        "std": data.std,
        "pipeline": data.pipeline,
        "fingerprint": data.fingerprint,
    }
    frozen = config.model_copy(
        update={
            "data": config.data.model_copy(update=resolved_data),
            "trainer": config.trainer.model_copy(update={"accelerator": hardware["accelerator"]}),
            "precision": hardware["precision"],
            "deterministic": hardware["deterministic"],
            "threads": hardware["threads"],
            "name": config.name if config.name != "auto" else default_name(config),
        }
    )
    check_parts(frozen, data)
    net = known.net(frozen, data)
    frozen = frozen.model_copy(update={"channels_last": net.channels_last and suits_channels_last(frozen)})
    check_optimizer(frozen, data)
    return Prepared(frozen, data, net.params, net.macs, why, cautions(frozen, data))


def check_augment(data: ImageData) -> None:
    """The steps must turn the images as they are stored into what the net takes; tried on two."""
    augment = data.augment(data.mean)
    if augment is None:
        return
    side = data.images["train"].source.shape[-1]
    images = torch.zeros(2, data.channels, side, side, dtype=torch.uint8)
    for name, step in augment.steps.items():
        try:
            images = Augment({name: step})(images, 0, 0, 0, slice(0, 2), 2)
        except Exception as error:  # whatever a step of the user's own raises
            reason = " ".join(str(error).split())
            if not isinstance(error, ValueError):
                size = "×".join(map(str, images.shape[1:]))
                reason = f"fails on an image of {size} ({type(error).__name__}: {reason})"
            raise ConfigError(f"augment.{name}: {reason}") from error
    if len(images) != 2:
        raise ConfigError(
            f"augment: its steps make {len(images)} images of two; a step changes images, and keeps their number"
        )
    if tuple(images.shape[1:]) != data.shape:
        given, expected = ("×".join(map(str, size)) for size in (images.shape[1:], data.shape))
        raise ConfigError(
            f"augment: its steps give images of {given} (C×H×W), the net takes {expected}; end with a step that cuts them, as crop does"
        )


def check_net(config: Config, data: ImageData) -> NetFacts:
    """The net must give one number a class for each image.

    It is built on the meta device, which takes no memory; a net that cannot live there is run on the CPU.
    """
    try:
        with torch.device("meta"):
            net, images = build_net(config, data), torch.empty(2, *data.shape)
            shape = _output_shape(net, images)
    except ConfigError:
        raise
    except Exception:  # whatever a net of the user's own raises on a device that it does not know
        try:
            net, images = build_net(config, data), torch.zeros(2, *data.shape)
            shape = _output_shape(net, images)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"model: {config.model.target.rpartition('.')[2]} does not take images of {'×'.join(map(str, data.shape))} "
                f"(C×H×W): {' '.join(str(error).split())}; change the net or data.image_size"
            ) from error
    expected = (2, data.num_classes)
    if shape != expected:
        raise ConfigError(
            f"model: {type(net).__name__} gives {shape} for a batch of 2, expected logits of shape {expected}; "
            f"end it with nn.Linear(..., {data.num_classes}), or take num_classes in its constructor"
        )
    if not any(p.requires_grad for p in net.parameters()):
        raise ConfigError(f"model: {type(net).__name__} has no trainable parameters")
    params, macs = accounting.parameters(net), accounting.macs(net, data.shape)
    return NetFacts(params, macs, takes_channels_last(net, images))


def check_parts(config: Config, data: ImageData) -> None:
    """Every part of a batch must have an image."""
    images, parts = len(data.images["train"]), config.parts
    if images < parts:
        raise ConfigError(
            f"{config.sharers}: {images} train images cannot be cut into {parts} parts; type smaller numbers, or take more images"
        )


def check_optimizer(config: Config, data: ImageData) -> None:
    """Optimizer and scheduler must accept their arguments."""
    with _told_of_recipe(config, "optimizer"):
        optimizer = build_optimizer(config, nn.Linear(1, 1))
    with _told_of_recipe(config, "scheduler"):
        build_scheduler(config, data, optimizer)


@contextmanager
def _told_of_recipe(config: Config, group: str) -> Iterator[None]:
    """Adds to a refusal what a recipe has set: it may not suit an optimizer or scheduler that was typed instead of its own."""
    try:
        yield
    except ConfigError as error:
        recipe, node = config.choices.get("recipe", ""), getattr(config, group)
        file = groups().get("recipe", {}).get(recipe)
        own = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get(group, {}) if file else {}
        own = {key: value for key, value in own.items() if key in node.arguments and node.arguments[key] == value}
        lacking = [f"~{group}.{key}" for key in own if not takes(locate(node, group), key)]
        said = [f"{group}.{key}={as_typed(value)}" for key, value in own.items() if f"{key}=" in str(error)]
        hint = f"; recipe={recipe} sets {', '.join(said)}" if said else ""
        if lacking:
            rate = f"; its {group}.lr={own['lr']} remains" if "lr" in own else ""
            hint = f"; recipe={recipe} sets it: type {' '.join(lacking)}{rate}"
        raise ConfigError(f"{error}{hint}") from error


def cautions(config: Config, data: ImageData) -> tuple[str, ...]:
    """What a run will do that one may not have meant."""
    key = FIRST_DROP.get(part_name(config.scheduler.target), "")
    at = config.scheduler.arguments.get(key)
    if at is None or at == []:
        return ()
    per_epoch, total = steps(config, data)
    if round((min(at) if isinstance(at, list) else at) * per_epoch) < total:
        return ()
    return (
        f"scheduler.{key}={as_typed(at)}: the learning rate never drops, as the run has {total / per_epoch:g} epochs; "
        f"type a smaller scheduler.{key}, or scheduler=constant",
    )


def default_name(config: Config) -> str:
    """`<model>_<data>`, in letters that a folder may have."""
    chosen = (config.choices.get("model", "model"), config.choices.get("data", "data"))
    return re.sub(r"[^A-Za-z0-9._-]", "-", "_".join(chosen))[:80]


def _output_shape(net: nn.Module, images: torch.Tensor) -> tuple[int, ...]:
    net.eval()
    with torch.no_grad():
        output = net(images)
    return tuple(output.shape) if isinstance(output, torch.Tensor) else (type(output).__name__,)  # type: ignore[return-value]
