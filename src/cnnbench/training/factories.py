"""Objects of a run, made from its config: data, net, augmentation, optimizer, learning-rate schedule."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from torch import nn
from torch.optim import LBFGS, SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from cnnbench.augment.mixup_cutmix import Mixing
from cnnbench.augment.step import Augment, Step
from cnnbench.config.instantiate import construct, locate, takes
from cnnbench.config.schema import Config, Node
from cnnbench.data.datamodule import ImageData
from cnnbench.data.download.fetch import default_root
from cnnbench.errors import ConfigError
from cnnbench.models.initialization import initialize
from cnnbench.training.parameter_groups import parameter_groups


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
        raise ConfigError(f"augment.{name}._target_={node.target}: expected a subclass of cnnbench.augment.step.Step")
    return step


def construct_data(keys: Any) -> ImageData:
    """The DataModule of `keys`."""
    target = locate(keys, "data")
    if not (isinstance(target, type) and issubclass(target, ImageData)):
        raise ConfigError(f"data._target_={keys.target}: expected a subclass of cnnbench.data.datamodule.ImageData")
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


def _check_image_size(config: Config, data: ImageData, model: str, least: int, most: int | None) -> None:
    side = data.image_size
    if side < least or (most is not None and side > most):
        bounds = f"{least}×{least} pixels" if least == most else f"at least {least}×{least} pixels"
        raise ConfigError(
            f"data.image_size={side}: {model} takes images of {bounds}; type data.image_size={least}, or leave it auto"
        )
