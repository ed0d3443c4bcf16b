"""Builds the objects of a run from its config: data, augmentation, net, optimizer, learning-rate schedule."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, TypeVar

from torch import nn
from torch.optim import LBFGS, SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from cnnbench.augment.mixup_cutmix import MixUpCutMix
from cnnbench.augment.step import Augment, Step
from cnnbench.config.instantiate import accepts, construct, locate
from cnnbench.config.schema import Config, Node
from cnnbench.data.datamodule import ImageData, TrainingBatches
from cnnbench.data.loader import BatchPlan
from cnnbench.errors import ConfigError
from cnnbench.models.initialization import initialize
from cnnbench.training.checks import check_image_size
from cnnbench.training.parameter_groups import parameter_groups

T = TypeVar("T")


def data_for_net(config: Config) -> ImageData:
    """Returns the data set of a config, at an image size that its net takes; reads no file.

    Raises:
        ConfigError: the net does not take the image size that was typed.
    """
    model = locate(config.model, "model")
    smallest, largest = getattr(model, "min_image_size", 1), getattr(model, "max_image_size", None)
    data = build_data(config, smallest, largest)
    check_image_size(data, config.model.target.rpartition(".")[2], smallest, largest)
    return data


def build_data(config: Config, smallest: int = 1, largest: int | None = None) -> ImageData:
    """Returns the data set of a config; `image_size=auto` is the set's size, raised to `smallest` or cut to `largest` pixels."""
    data = construct_data(config.data)
    if config.data.image_size == "auto":
        side = max(data.size, smallest)
        side = min(side, largest or side)
        data = construct_data(config.data.model_copy(update={"image_size": side}))
    return configure_batches(data, config)


def configure_batches(data: ImageData, config: Config) -> ImageData:
    """Sets the batch size, order, mixing and augmentation of a config, and returns the data."""
    mixed = config.mixup or config.cutmix
    data.batches = TrainingBatches(
        BatchPlan(config.batch_size, config.accumulate, seed=config.seed),
        partial(build_augment, config),
        MixUpCutMix(config.mixup, config.cutmix, data.num_classes) if mixed else None,
    )
    return data


def build_augment(config: Config, image_size: int, mean: list[float]) -> Augment | None:
    """Returns the steps of a config's `augment`, or None if it has none.

    Args:
        config: of the run.
        image_size: pixels a side that the net takes.
        mean: of the data, one number a channel, of pixels in 0..1.
    """
    steps = {
        name: _construct(Step, "cnnbench.Step", node, f"augment.{name}", image_size=image_size, mean=mean)
        for name, node in config.augment.items()
    }
    return Augment(steps) if steps else None


def construct_data(keys: Any) -> ImageData:
    """Builds the DataModule of a config's `data` keys."""
    target = locate(keys, "data")
    if not (isinstance(target, type) and issubclass(target, ImageData)):
        raise ConfigError(f"data._target_={keys.target}: expected a subclass of cnnbench.data.datamodule.ImageData")
    return construct(keys, "data")


def build_net(config: Config, data: ImageData) -> nn.Module:
    """Builds the net of a config for the images of `data`, on torch's default device, and initializes its weights."""
    facts = {name: getattr(data, name) for name in ("num_classes", "image_size")}
    net = _construct(nn.Module, "torch.nn.Module", config.model, "model", in_channels=data.channels, **facts)
    initialize(net, config.init, config.init_std)
    return net


def build_optimizer(config: Config, net: nn.Module) -> Optimizer:
    """Builds the optimizer of a net.

    An optimizer without a parameter `weight_decay` does not get `weight_decay=0`.

    Raises:
        ConfigError: the optimizer refuses its arguments, or cannot be used.
    """
    keys = config.optimizer
    node: Node = keys
    target = locate(node, "optimizer")
    if isinstance(target, type) and issubclass(target, LBFGS):
        raise ConfigError(
            f"optimizer._target_={node.target}: computes the loss several times a step, expected once; choose another, as optimizer=adam"
        )
    if not keys.weight_decay and not accepts(target, "weight_decay"):
        kept = {key: value for key, value in node.arguments.items() if key != "weight_decay"}
        node = Node.model_validate({"_target_": node.target, **kept})
    # Lightning refuses a fused step with gradients that it must unscale or clip
    clips = config.precision == "16" or (config.precision == "bf16" and config.clip_grad)
    fused = {"fused": True} if has_fused_step(target, node, net) and not clips else {}
    groups = parameter_groups(net, keys.decay)
    return _construct(Optimizer, "torch.optim.Optimizer", node, "optimizer", groups, **fused)


def has_fused_step(target: Any, node: Node, net: nn.Module) -> bool:
    """Returns whether PyTorch has a fused step, one kernel that reads the weights once, and the config does not choose another."""
    known = target in (Adam, AdamW, SGD) and not {"fused", "foreach", "differentiable"} & set(node.arguments)
    return known and all(parameter.is_floating_point() for parameter in net.parameters())


def build_scheduler(config: Config, data: ImageData, optimizer: Optimizer) -> LRScheduler:
    """Builds the learning-rate schedule over a run's steps.

    Raises:
        ConfigError: the schedule refuses its arguments, or cannot be stepped after each batch.
    """
    per_epoch, total = step_counts(config, data)
    scheduler = construct(config.scheduler, "scheduler", optimizer, total_steps=total, steps_per_epoch=per_epoch)
    if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, ReduceLROnPlateau):
        raise ConfigError(
            f"scheduler._target_={config.scheduler.target}: expected a torch.optim.lr_scheduler.LRScheduler that is stepped "
            "per batch; one that waits for validations is scheduler=plateau"
        )
    return scheduler


def step_counts(config: Config, data: ImageData) -> tuple[int, int]:
    """Returns the optimizer's steps in an epoch, and in the whole run."""
    per_epoch = data.train_plan.steps(len(data.images["train"]))
    return per_epoch, int(min(config.epochs * per_epoch, config.trainer.max_steps or math.inf))


def _construct(kind: type[T], name: str, node: Node, group: str, *positional: Any, **facts: Any) -> T:
    """Constructs a config's node; the target gets those of `facts` that it has parameters for.

    Raises:
        ConfigError: the object is not of the class `kind`, whose public name is `name`.
    """
    built = construct(node, group, *positional, **facts)
    if not isinstance(built, kind):
        raise ConfigError(f"{group}._target_={node.target}: makes a {type(built).__name__}, expected a {name}")
    return built
