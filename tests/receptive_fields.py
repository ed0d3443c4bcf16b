"""Helpers of the tests of receptive fields: nets of conf/model/, and the axes that their layers depend on."""

from __future__ import annotations

from unittest.mock import patch

import torch
import yaml
from torch import Tensor, nn

from cnnbench.complexity.layers import Layer, summarize
from cnnbench.complexity.op_tracer import OpTracer
from cnnbench.complexity.receptive_field import Axes, Axis
from cnnbench.config.compose import conf_dir
from cnnbench.config.instantiate import construct, locate
from cnnbench.config.schema import Node


def build(case: str, side: int = 64) -> tuple[nn.Module, int]:
    """A net of conf/model/, with the knobs that are turned, on the meta device; and the images' side."""
    name, *turned = case.split()
    values = yaml.safe_load((conf_dir() / "model" / f"{name}.yaml").read_text())
    node = Node(**values | {knob: yaml.safe_load(value) for knob, _, value in (item.partition("=") for item in turned)})
    side = getattr(locate(node, "model"), "max_image_size", side)
    with torch.device("meta"):
        return construct(node, "model", in_channels=3, num_classes=10, image_size=side).eval(), side


def traced(net: nn.Module, *shape: int) -> tuple[list[Layer], dict[str, Axes | None]]:
    """The rows of a net's summary, and the axes of each module's output, by name; the net's name is empty."""
    tracers: list[OpTracer] = []
    found: dict[str, Axes | None] = {}

    def begin(image: Tensor) -> OpTracer:
        tracers.append(OpTracer(image))
        return tracers[0]

    def follow(name: str):
        return lambda module, inputs, output: found.update({name: tracers[0].axes.get(output)})

    hooks = [module.register_forward_hook(follow(name)) for name, module in net.named_modules()]
    with patch("cnnbench.complexity.layers.OpTracer", begin):
        book = summarize(net, shape)
    for hook in hooks:
        hook.remove()
    if book.failure:
        raise book.failure.error
    return book.layers, found


def seen_by(net: nn.Module, *shape: int) -> Axes | None:
    """The axes of the net's output."""
    return traced(net, *shape)[1][""]


def both(start: int, jump: int, size: int) -> Axes:
    """The same along rows and columns."""
    return Axis(start, jump, size), Axis(start, jump, size)


class Call(nn.Module):
    """A function as a net."""

    def __init__(self, function, *layers):
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x):
        return self.function(x, *self.layers)


# ---- the pixels that a gradient reaches -----------------------------------------------------------------------------------------


def reached(image: Tensor, output: Tensor, row: int, column: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """First and last row, first and last column of the image on which `output` depends at a position."""
    (gradient,) = torch.autograd.grad(output[..., row, column].sum(), image, retain_graph=True, allow_unused=True)
    pixels = () if gradient is None else gradient.abs().sum((0, 1)).nonzero()
    if not len(pixels):
        return None
    (top, left), (bottom, right) = pixels.amin(0).tolist(), pixels.amax(0).tolist()
    return (top, bottom), (left, right)


def predicted(axis: Axis, position: int) -> tuple[int, int]:
    """First and last pixel on which the position depends, by `axis`."""
    first = axis.start + position * axis.jump
    return first, first + axis.size - 1
