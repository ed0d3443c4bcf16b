"""Helpers for tests of deep nets: nets on the meta device, random images, shapes of layers' outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGENET = {"in_channels": 3, "num_classes": 1000}
CIFAR = {"in_channels": 3, "num_classes": 10}
VGGS = ["A", "A-LRN", "B", "C", "D", "E"]


def on_meta(make, *args, **knobs) -> nn.Module:
    with torch.device("meta"):
        return make(*args, **knobs)


def images_of(side: int, images: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(images, channels, side, side, generator=torch.Generator().manual_seed(1))


def sides(net: nn.Module, side: int, *names: str) -> list[tuple[int, ...]]:
    """(C, H, W) of the output of each named layer for one image."""
    found: dict[str, tuple[int, ...]] = {}
    for name in names:
        layer = net.get_submodule(name)
        layer.register_forward_hook(
            lambda module, inputs, output, name=name: found.update({name: tuple(output.shape[1:])})
        )
    net.eval()(torch.empty(1, 3, side, side, device=next(net.parameters()).device))
    return [found[name] for name in names]


def seasoned(net: nn.Module) -> nn.Module:
    """Gives a net random weights of a suitable size, scales, shifts and running statistics, as after training."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.ndim > 1:
                value.normal_(std=(2 / value[0].numel()) ** 0.5, generator=generator)
            elif name.endswith("num_batches_tracked"):
                value.fill_(17)
            elif name.endswith(("running_var", "weight")):
                value.uniform_(0.5, 1.5, generator=generator)
            else:
                value.normal_(std=0.1, generator=generator)
    return net


def empty(make, *args, **knobs) -> nn.Module:
    """A net with uninitialized weights, which is faster to build."""
    return on_meta(make, *args, **knobs).to_empty(device="cpu")
