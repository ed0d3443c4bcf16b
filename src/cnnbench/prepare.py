"""Everything that can be wrong with a run is found here, before anything is written: a config in, a frozen run out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import psutil
import torch
import yaml
from torch import nn
from torch.optim import LBFGS, SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from cnnbench import accounting
from cnnbench.build import construct, locate, takes
from cnnbench.compose import groups
from cnnbench.config import Config, Node
from cnnbench.data.augment import Augment, Step
from cnnbench.data.base import ImageData
from cnnbench.data.fetch import default_root
from cnnbench.data.mixing import Mixing
from cnnbench.errors import ConfigError
from cnnbench.layout import takes_channels_last
from cnnbench.models.init import initialize
from cnnbench.notation import as_typed, canonical
from cnnbench.numerics import suits_channels_last
from cnnbench.optimizers import parameter_groups
from cnnbench.shipped_parts import part_name

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


def resolve_hardware(config: Config) -> dict[str, Any]:
    """Accelerator, precision, determinism and threads as they will be."""
    cuda = torch.cuda.is_available()
    accelerator = config.trainer.accelerator
    if accelerator == "gpu" and not cuda:
        raise ConfigError(f"trainer.accelerator=gpu: PyTorch {torch.__version__} sees no GPU; type trainer=cpu")
    if accelerator == "auto":
        accelerator = "gpu" if cuda else "cpu"
    devices = config.trainer.devices
    if accelerator == "gpu" and devices > (seen := torch.cuda.device_count()):
        raise ConfigError(
            f"trainer.devices={devices}: PyTorch sees {seen} GPU{'s' * (seen > 1)} here; type trainer.devices={seen}, or trainer=cpu"
        )
    if accelerator == "cpu" and config.trainer.sync_batchnorm:
        raise ConfigError(
            "trainer.sync_batchnorm=true: PyTorch has it for GPUs only, and this run has none; type false"
        )
    precision: str = config.precision
    if precision == "auto":
        precision = "32" if accelerator == "cpu" else _half_precision()
    if precision == "16" and accelerator == "cpu":
        raise ConfigError("precision=16: half precision needs a GPU; on a CPU type precision=bf16 or precision=32")
    return {
        "accelerator": accelerator,
        "precision": precision,
        "deterministic": accelerator == "cpu" if config.deterministic == "auto" else config.deterministic,
        "threads": max(1, torch.get_num_threads() // devices) if config.threads == "auto" else config.threads,
    }


def _half_precision() -> str:
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "16"


def resolve_pipeline(config: Config, data: ImageData, accelerator: str) -> tuple[Literal["device", "memory"], str]:
    """Where the images are kept, and why; `auto`: on the GPU where they take less than half of its memory."""
    asked = config.data.pipeline
    held = sum(images.nbytes for images in data.images.values())
    if accelerator == "cpu":
        if asked == "device":
            raise ConfigError(
                "data.pipeline=device: keeps the images on a GPU, and this run has none; type data.pipeline=memory"
            )
        return "memory", f"there is no GPU; {_in_memory(held)}"
    room = torch.cuda.get_device_properties(0).total_memory / 2
    if asked == "device" or (asked == "auto" and held < room):
        return "device", f"{held / 1e6:,.0f} MB of images, half of the GPU's memory is {room / 1e6:,.0f} MB"
    return "memory", f"{'asked for' if asked == 'memory' else 'more than half of the GPU memory'}; {_in_memory(held)}"


def _in_memory(held: int) -> str:
    """How images of so many bytes are read."""
    free = psutil.virtual_memory().available
    fits = "fit in" if held < free else "do not fit in, and are read from the disk as they are needed:"
    return f"{held / 1e6:,.0f} MB of images {fits} {free / 1e6:,.0f} MB of free memory"


def data_for_net(config: Config) -> ImageData:
    """The data set of a config, at a size that its net takes; no file is read yet."""
    model = locate(config.model, "model")
    least, most = getattr(model, "min_image_size", 1), getattr(model, "max_image_size", None)
    data = build_data(config, least, most)
    _check_image_size(config, data, config.model.target.rpartition(".")[2], least, most)
    return data


def build_data(config: Config, least: int = 1, most: int | None = None) -> ImageData:
    """The data set that a config names; an `auto` size is the set's own, brought between `least` and `most`."""
    keys = config.data.model_copy(
        update={"root": str(default_root()) if config.data.root == "auto" else config.data.root}
    )
    data = construct_data(keys)
    if keys.image_size == "auto":
        side = min(max(data.size, least), most or max(data.size, least))
        data = construct_data(keys.model_copy(update={"image_size": side}))
    return batched(data, config)


def batched(data: ImageData, config: Config) -> ImageData:
    """Has the images come in the batches of a config, mixed and augmented."""
    data.batch_size, data.shuffle_seed, data.accumulate = config.batch_size, config.seed, config.accumulate
    mixed = config.mixup or config.cutmix
    data.mixing = Mixing(config.mixup, config.cutmix, data.num_classes) if mixed else None
    data.make_augment = partial(build_augment, config)
    return data


def build_augment(config: Config, image_size: int, mean: list[float]) -> Augment | None:
    """The steps of a config's `augment` for a net that takes `image_size`, and data of that mean; None where there are none."""
    steps = {
        name: construct_step(node, name, image_size=image_size, mean=mean) for name, node in config.augment.items()
    }
    return Augment(steps) if steps else None


def construct_step(node: Node, name: str, **facts: Any) -> Step:
    """The step of a node, given those of `facts` that it asks for."""
    step = construct(node, f"augment.{name}", **facts)
    if not isinstance(step, Step):
        raise ConfigError(f"augment.{name}._target_={node.target}: expected a subclass of cnnbench.data.augment.Step")
    return step


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


def construct_data(keys: Any) -> ImageData:
    """The DataModule of `keys`."""
    target = locate(keys, "data")
    if not (isinstance(target, type) and issubclass(target, ImageData)):
        raise ConfigError(f"data._target_={keys.target}: expected a subclass of cnnbench.data.base.ImageData")
    return construct(keys, "data")


def build_net(config: Config, data: ImageData) -> nn.Module:
    """The net of a config for the images of `data`, on the current default device, with its initial weights."""
    net = construct(
        config.model, "model", in_channels=data.channels, num_classes=data.num_classes, image_size=data.image_size
    )
    if not isinstance(net, nn.Module):
        raise ConfigError(
            f"model._target_={config.model.target}: makes a {type(net).__name__}, expected a torch.nn.Module"
        )
    initialize(net, config.init, config.init_std)
    return net


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


def build_optimizer(config: Config, net: nn.Module) -> Optimizer:
    """The optimizer of a net; one that knows no weight decay is not told that there is none."""
    keys = config.optimizer
    node: Node = keys
    target = locate(node, "optimizer")
    if isinstance(target, type) and issubclass(target, LBFGS):
        raise ConfigError(
            f"optimizer._target_={node.target}: takes the loss several times a step, which a batch here is not; choose another"
        )
    if not keys.weight_decay and not takes(target, "weight_decay"):
        kept = {key: value for key, value in node.arguments.items() if key != "weight_decay"}
        node = Node.model_validate({"_target_": node.target, **kept})
    clips = config.precision == "16" or (
        config.precision == "bf16" and config.clip_grad
    )  # Lightning refuses both at once
    fused = {"fused": True} if in_one_pass(target, node, net) and not clips else {}
    optimizer = construct(node, "optimizer", parameter_groups(net, keys.decay), **fused)
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"optimizer._target_={config.optimizer.target}: expected a torch.optim.Optimizer")
    return optimizer


def in_one_pass(target: Any, node: Node, net: nn.Module) -> bool:
    """Whether PyTorch has the step in one kernel, which reads the weights once."""
    known = target in (Adam, AdamW, SGD) and not {"fused", "foreach", "differentiable"} & set(node.arguments)
    return known and all(parameter.is_floating_point() for parameter in net.parameters())


def build_scheduler(config: Config, data: ImageData, optimizer: Optimizer) -> LRScheduler:
    """The learning rate schedule over a run's steps."""
    per_epoch, total = steps(config, data)
    scheduler = construct(config.scheduler, "scheduler", optimizer, total_steps=total, steps_per_epoch=per_epoch)
    if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, ReduceLROnPlateau):
        raise ConfigError(
            f"scheduler._target_={config.scheduler.target}: expected a torch.optim.lr_scheduler.LRScheduler that is stepped "
            "per batch; one that waits for validations is scheduler=plateau"
        )
    return scheduler


def steps(config: Config, data: ImageData) -> tuple[int, int]:
    """Of the optimizer: in an epoch, and in the whole run."""
    per_epoch = data.train_dataloader().steps
    return per_epoch, int(min(config.epochs * per_epoch, config.trainer.max_steps or math.inf))


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


def _check_image_size(config: Config, data: ImageData, model: str, least: int, most: int | None) -> None:
    side = data.image_size
    if side < least or (most is not None and side > most):
        bounds = f"{least}×{least} pixels" if least == most else f"at least {least}×{least} pixels"
        raise ConfigError(
            f"data.image_size={side}: {model} takes images of {bounds}; type data.image_size={least}, or leave it auto"
        )


def _output_shape(net: nn.Module, images: torch.Tensor) -> tuple[int, ...]:
    net.eval()
    with torch.no_grad():
        output = net(images)
    return tuple(output.shape) if isinstance(output, torch.Tensor) else (type(output).__name__,)  # type: ignore[return-value]
