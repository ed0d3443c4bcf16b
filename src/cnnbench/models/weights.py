"""Copies weights between nets with the same layers, such as torchvision's AlexNet, VGG, GoogLeNet or ResNet and ours."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copies parameters and running statistics from `source` into `target`, tensor by tensor in the order of `state_dict()`.

    Names may differ, shapes may not. How the layers are connected is not compared. Nothing is copied unless all tensors match.

        from torchvision.models import vgg16
        copy_weights(vgg16(weights="DEFAULT"), VGG("D", norm="none", in_channels=3, num_classes=1000, image_size=224))

    torchvision's pretrained nets were trained on images normalized with ImageNet's mean and deviation. Its GoogLeNet
    normalizes its input once more, unless built with `transform_input=False`.

    Raises:
        ValueError: the nets do not have the same layers; the message names the first that differ.
    """
    target_class, source_class = type(target).__name__, type(source).__name__
    old, new = list(target.state_dict().items()), list(source.state_dict().items())
    for (name, value), (source_name, source_value) in zip(old, new, strict=False):
        if value.shape != source_value.shape or tensor_role(name) != tensor_role(source_name):
            raise ValueError(
                f"{source_name} {format_shape(source_value)} of {source_class} does not match "
                f"{name} {format_shape(value)} of {target_class}"
            )
    if extra := old[len(new) :] or new[len(old) :]:
        net = target_class if len(old) > len(new) else source_class
        raise ValueError(f"{net} has {len(extra)} tensors more, from {extra[0][0]} on")
    target.load_state_dict({name: value for (name, _), (_, value) in zip(old, new, strict=True)})


def tensor_role(name: str) -> str:
    """The role of a tensor in its layer: `weight`, `bias`, `running_mean`, ..."""
    return name.rpartition(".")[2]


def format_shape(tensor: Tensor) -> str:
    """A shape as text, as in 64×3×7×7."""
    return "×".join(map(str, tensor.shape)) or "(one number)"


def weights_misfit(net: nn.Module, weights: Any) -> str:
    """Returns why weights cannot be loaded into a net, or an empty string: names, shapes and types of numbers must be the net's.

    Args:
        net: on any device.
        weights: tensors by name, as of `net.state_dict()`.
    """
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        return "its weights are not tensors by name"
    own = net.state_dict()
    if name := next((name for name in own if name not in weights), None):
        return f"it lacks {name}, which {type(net).__name__} has"
    if name := next((name for name in weights if name not in own), None):
        return f"it has {name}, which {type(net).__name__} has not"
    for name, value in own.items():
        found = weights[name]
        if not isinstance(value, Tensor) or is_lazy(
            value
        ):  # the extra state of a layer, or a layer that takes any shape
            continue
        if (
            type(found) not in (Tensor, nn.Parameter)
            or found.layout != value.layout
            or found.is_quantized
            or found.is_meta
        ):
            return f"{name} is no plain tensor"
        if (found.shape, found.dtype) != (value.shape, value.dtype):
            return f"{name} has {_shape_and_type(found)}, expected {_shape_and_type(value)}"
    return ""


def nonfinite_weight(net: nn.Module) -> str:
    """Returns the name of a parameter of the net with a number that is infinite or NaN, or of a buffer with NaN; else an empty string."""
    infinite = (name for name, value in net.named_parameters() if not is_lazy(value) and not value.isfinite().all())
    undefined = (name for name, value in net.named_buffers() if not is_lazy(value) and value.isnan().any())
    return next(infinite, "") or next(undefined, "")


def _shape_and_type(tensor: Tensor) -> str:
    return f"{format_shape(tensor)} {str(tensor.dtype).removeprefix('torch.')}"
