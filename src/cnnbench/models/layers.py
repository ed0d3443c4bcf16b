"""The pieces that several nets are made of, and the arithmetic of their sizes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from torch import Tensor, nn

Layer = Callable[..., nn.Module]
Value = TypeVar("Value")

ACTIVATIONS: dict[str, Layer] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.1),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
POOLINGS: dict[str, Layer] = {"max": nn.MaxPool2d, "mean": nn.AvgPool2d}
NORMS = ("batch", "none")


def choose(knob: str, value: object, choices: Iterable[Value]) -> Value:
    """The choice that `value` names.

    Raises:
        ValueError: it is none of `choices`.
    """
    known = list(choices)
    if value not in known or isinstance(value, bool):
        given = repr(value) if str(value) in map(str, known) else value
        raise ValueError(f"{knob} must be one of {', '.join(map(str, known))}, got {given}")
    return known[known.index(value)]


def count(knob: str, value: object) -> int:
    """`value`, an integer above 0.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{knob} must be an integer above 0, got {value}")
    return value


def switch(knob: str, value: object) -> bool:
    """`value`, true or false.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{knob} must be true or false, got {value}")
    return value


def activated_by(name: str) -> nn.Module:
    """`none`, `relu`, `leaky_relu` (slope 0.1), `tanh` or `sigmoid`."""
    return ACTIVATIONS[choose("activation", name, ACTIVATIONS)]()


def pooling(name: str, size: int = 2) -> nn.Module:
    """`max` or `mean` over windows of `size` × `size` that do not overlap."""
    return POOLINGS[choose("pooling", name, POOLINGS)](size)


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """A convolution whose kernel size and stride are the user's to choose."""
    size, step = count("kernel_size", kernel_size), count("stride", stride)
    return nn.Conv2d(in_channels, out_channels, size, step, padding)


def conv_norm_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: int = 0,
    norm: str = "batch",
    bias: bool | None = None,
    eps: float = 1e-5,
) -> nn.Sequential:
    """Convolution, batch norm (unless `norm` is none), ReLU. The convolution has a bias where no norm follows, or as told."""
    with_norm = choose("norm", norm, NORMS) == "batch"
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, bias=not with_norm if bias is None else bias
    )
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=convolution)
    if with_norm:
        layers["norm"] = nn.BatchNorm2d(out_channels, eps=eps)
    layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)


class PoolTo(nn.AdaptiveAvgPool2d):
    """(N, C, H, W) -> (N, C, side, side) by means, for linear layers that follow; nothing is done at that size already.

    A net that was built for one image size so takes others too.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The pooled map, or `x` itself."""
        return x if x.shape[-2:] == (self.output_size, self.output_size) else super().forward(x)


def output_side(side: int, layers: Iterable[nn.Module]) -> int:
    """The side of the square map that `layers`, one after the other, make of a square map of `side`: (W - F + 2P) / S + 1.

    Raises:
        ValueError: a window is larger than the map it is laid on.
    """
    image = side
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            window, stride, padding = (_number(value) for value in (layer.kernel_size, layer.stride, layer.padding))
            if window > side + 2 * padding:
                raise ValueError(
                    f"an image of {image}×{image} pixels shrinks to nothing: a {window}×{window} window meets a map of "
                    f"{side}×{side}; take larger images, or smaller windows or strides"
                )
            side = (side - window + 2 * padding) // stride + 1
    return side


def _number(value: object) -> int:
    return value[0] if isinstance(value, tuple) else value  # type: ignore[return-value]
