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
    target = locate(config.data, "data")
    if not (isinstance(target, type) and issubclass(target, ImageData)):
        raise ConfigError(
            f"data._target_={config.data.target}: expected a subclass of cnnbench.data.datamodule.ImageData"
        )
    data = construct(config.data, "data")
    if config.data.image_size == "auto":
        side = min(max(data.size, smallest), largest or math.inf)
        data = construct(config.data.model_copy(update={"image_size": side}), "data")
    return configure_batches(data, config)


def configure_batches(data: ImageData, config: Config) -> ImageData:
    """Sets the batch size, order, mixing and augmentation of a config, and returns the data."""
    data.batches = TrainingBatches(
        BatchPlan(config.batch_size, config.accumulate, seed=config.seed),
        partial(build_augment, config),
        MixUpCutMix(config.mixup, config.cutmix, data.num_classes) if config.mixup or config.cutmix else None,
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


def build_net(config: Config, data: ImageData) -> nn.Module:
    """Builds the net of a config for the images of `data`, on torch's default device, and initializes its weights."""
    net = _construct(
        nn.Module,
        "torch.nn.Module",
        config.model,
        "model",
        in_channels=data.channels,
        num_classes=data.num_classes,
        image_size=data.image_size,
    )
    initialize(net, config.init, config.init_std)
    return net


def build_optimizer(config: Config, net: nn.Module) -> Optimizer:
    """Builds the optimizer of a net.

    An optimizer without a parameter `weight_decay` does not get `weight_decay=0`. Where PyTorch has a fused step, one kernel that
    reads the weights once, the optimizer takes it unless the config chooses another.

    Raises:
        ConfigError: the optimizer refuses its arguments, or cannot be used.
    """
    node: Node = config.optimizer
    target = locate(node, "optimizer")
    if isinstance(target, type) and issubclass(target, LBFGS):
        raise ConfigError(
            f"optimizer._target_={node.target}: computes the loss several times a step, expected once; choose another, as optimizer=adam"
        )
    if not config.optimizer.weight_decay and not accepts(target, "weight_decay"):
        kept = {key: value for key, value in node.arguments.items() if key != "weight_decay"}
        node = Node(_target_=node.target, **kept)
    # Lightning refuses a fused step with gradients that it must unscale or clip
    clips = config.precision == "16" or (config.precision == "bf16" and config.clip_grad)
    has_fused_step = target in (Adam, AdamW, SGD) and {"fused", "foreach", "differentiable"}.isdisjoint(node.arguments)
    fused = has_fused_step and not clips and all(parameter.is_floating_point() for parameter in net.parameters())
    facts = {"fused": True} if fused else {}
    groups = parameter_groups(net, config.optimizer.decay)
    return _construct(Optimizer, "torch.optim.Optimizer", node, "optimizer", groups, **facts)


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
