"""Takes a net apart: the output of any layer, the first children, all layers of a class."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn

from cnnbench.errors import did_you_mean

Kind = TypeVar("Kind", bound=nn.Module)


def extract(net: nn.Module, names: str | Iterable[str]) -> Extractor:
    """Builds a module that returns the outputs of the named layers of `net`: x -> {name: output}. It shares the net's weights.

    Names are those of `net.named_modules()`, such as `stage2.0.conv1`; `cnnbench info` lists them. The net runs in
    its current mode: call `net.eval()` first, or batch norm updates its running statistics with `x`.

    >>> import torch
    >>> from cnnbench.models.lenet5 import LeNet5
    >>> outputs = extract(LeNet5(in_channels=1, num_classes=10).eval(), ["conv1", "linear6"])(torch.zeros(2, 1, 32, 32))
    >>> {name: tuple(output.shape) for name, output in outputs.items()}
    {'conv1': (2, 6, 28, 28), 'linear6': (2, 84)}

    Raises:
        ValueError: the net has no such layer; or, when it runs, a layer does not run in the net's mode.
    """
    return Extractor(net, [names] if isinstance(names, str) else list(names))


class Extractor(nn.Module):
    """(N, C, H, W) -> {name: output of that layer}. Of a layer that runs several times, the last output."""

    def __init__(self, net: nn.Module, names: list[str]) -> None:
        super().__init__()
        known = [name for name, _ in net.named_modules() if name]
        for name in names:
            if name not in known:
                raise ValueError(
                    f"{type(net).__name__} has no layer {name or repr(name)}{did_you_mean(name, known) or ';'} it has "
                    f"{_shortened(known)}"
                )
        self.net, self.names = net, names

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Runs the net and returns copies of the outputs, which later in-place layers cannot change."""
        outputs: dict[str, Any] = {}

        def store(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
            outputs[name] = output.clone() if isinstance(output, Tensor) else output

        with ExitStack() as hooks:
            for name in self.names:
                hooks.enter_context(self.net.get_submodule(name).register_forward_hook(partial(store, name)))
            self.net(x)
        for name in self.names:
            if name not in outputs:
                mode = "training" if self.net.training else "evaluation"
                raise ValueError(f"{name}: this layer does not run in {mode}")
        return {name: outputs[name] for name in self.names}


def children_upto(net: nn.Module, count: int) -> nn.Sequential:
    """The first `count` children of the net in sequence, under their names. It shares the net's weights.

    It computes the same as the net's first layers only if the net's forward runs its children in order.

    >>> from cnnbench.models.lenet5 import LeNet5
    >>> [name for name, _ in children_upto(LeNet5(in_channels=1, num_classes=10), 3).named_children()]
    ['conv1', 'act1', 'pool2']

    Raises:
        ValueError: `count` is not from 1 to the number of children.
    """
    children = list(net.named_children())
    if not isinstance(count, int) or not 0 < count <= len(children):
        raise ValueError(
            f"count={count}: expected an integer from 1 to {len(children)}, the children of {type(net).__name__}"
        )
    return nn.Sequential(OrderedDict(children[:count]))


def layers_of(net: nn.Module, kind: type[Kind]) -> dict[str, Kind]:
    """Every layer of `net` that is an instance of `kind`, by name, in the order of `net.named_modules()`.

    >>> from cnnbench.models.lenet5 import LeNet5
    >>> list(layers_of(LeNet5(in_channels=1, num_classes=10), nn.Conv2d))
    ['conv1', 'conv3', 'conv5']
    """
    return {name: module for name, module in net.named_modules() if isinstance(module, kind)}


def _shortened(names: list[str]) -> str:
    """The first twelve names, and how many there are if more."""
    return ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
