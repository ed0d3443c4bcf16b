"""Weights from one net to another of the same layers: torchvision's AlexNet, VGG, GoogLeNet and ResNet into ours, for one."""

from __future__ import annotations

from torch import Tensor, nn


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copies parameters and running statistics from `source` into `target`, layer by layer in the order they are made in.

    Names may differ, shapes may not; how the layers are joined is not compared. Nothing is copied unless everything fits.

        from torchvision.models import vgg16
        copy_weights(vgg16(weights="DEFAULT"), VGG("D", norm="none", in_channels=3, num_classes=1000, image_size=224))

    torchvision's pretrained nets were trained on images normalised with ImageNet's mean and deviation (its GoogLeNet converts them
    once more, unless made with `transform_input=False`).

    Raises:
        ValueError: the nets do not have the same layers; names the first that differ.
    """
    ours, theirs = list(target.state_dict().items()), list(source.state_dict().items())
    for (name, value), (other, given) in zip(ours, theirs, strict=False):
        if value.shape != given.shape or kind(name) != kind(other):
            raise ValueError(
                f"{other} {shape(given)} of {called(source)} meets {name} {shape(value)} of {called(target)}"
            )
    if len(ours) != len(theirs):
        longer, left = (target, ours[len(theirs) :]) if len(ours) > len(theirs) else (source, theirs[len(ours) :])
        raise ValueError(f"{called(longer)} has {len(left)} tensors more, from {left[0][0]} on")
    target.load_state_dict({name: given for (name, _), (_, given) in zip(ours, theirs, strict=True)})


def kind(name: str) -> str:
    """`weight`, `bias`, `running_mean`, ...: what a tensor is in its layer."""
    return name.rpartition(".")[2]


def shape(tensor: Tensor) -> str:
    """As in 64×3×7×7."""
    return "×".join(map(str, tensor.shape)) or "(one number)"


def called(net: nn.Module) -> str:
    """The net's class."""
    return type(net).__name__
