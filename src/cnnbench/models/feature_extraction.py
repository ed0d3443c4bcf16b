"""Taking a net apart: any layer's output, the first children, all layers of a kind."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, TypeVar

from torch import Tensor, nn

from cnnbench.errors import did_you_mean

Kind = TypeVar("Kind", bound=nn.Module)


def extract(net: nn.Module, names: str | Iterable[str]) -> Extractor:
    """A module that gives the outputs of the named layers of `net`, whose weights it shares: x -> {name: output}.

    Names are those of `net.named_modules()`, as in `stage2.0.conv1`; `python -m cnnbench info` lists them. The net is run in the
    mode that it is in: type `net.eval()` first, or batch norm takes note of `x`.

    Raises:
        ValueError: the net has no such layer.
    """
    return Extractor(net, [names] if isinstance(names, str) else list(names))


class Extractor(nn.Module):
    """(N, C, H, W) -> {name: what that layer gave}; a layer that ran several times: what it gave last."""

    def __init__(self, net: nn.Module, names: list[str]) -> None:
        super().__init__()
        modules = dict(net.named_modules())
        for name in names:
            if not name or name not in modules:
                known = [known for known in modules if known]
                raise ValueError(
                    f"{type(net).__name__} has no layer {name or repr(name)}{did_you_mean(name, known) or ';'} it has {some(known)}"
                )
        self.net, self.names = net, names

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Runs the net; outputs are copies, so that a layer that works in place changes none."""
        found: dict[str, Any] = {}
        modules = dict(self.net.named_modules())

        def keep(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                found[name] = output.clone() if isinstance(output, Tensor) else output

            return hook

        hooks = [modules[name].register_forward_hook(keep(name)) for name in self.names]
        try:
            self.net(x)
        finally:
            for hook in hooks:
                hook.remove()
        missing = next((name for name in self.names if name not in found), None)
        if missing:
            mode = "training" if self.net.training else "evaluation"
            raise ValueError(f"{missing}: this layer is not run in {mode}")
        return {name: found[name] for name in self.names}


def children_upto(net: nn.Module, count: int) -> nn.Sequential:
    """The net's first `count` children, one after the other, under their names; weights are shared.

    It runs where the net's forward does just that, as for all nets of one straight line here.

    Raises:
        ValueError: the net has fewer, or `count` is not above 0.
    """
    children = list(net.named_children())
    if not isinstance(count, int) or not 0 < count <= len(children):
        raise ValueError(f"count must be from 1 to {len(children)}, {type(net).__name__}'s children, got {count}")
    return nn.Sequential(OrderedDict(children[:count]))


def layers_of(net: nn.Module, kind: type[Kind]) -> dict[str, Kind]:
    """Every layer of `net` that is a `kind`, as in `layers_of(net, nn.Conv2d)`, by name, in the order of their making."""
    return {name: module for name, module in net.named_modules() if isinstance(module, kind)}


def some(names: list[str], most: int = 12) -> str:
    """A list that stays on a line or two."""
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
