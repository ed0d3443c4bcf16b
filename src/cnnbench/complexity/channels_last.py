"""Whether a net can be trained with the channels last in memory, the order in which most convolutions are fastest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

if TYPE_CHECKING:
    from cnnbench.config.schema import Config

aten = torch.ops.aten
# their maps come out with the channels last; older versions have put those of a group norm in another order before we see them
ARRANGING = (aten.convolution, aten.convolution_backward, aten.native_group_norm)
# operations that keep the order of their maps on a CPU; on the meta device they forget it
KEEPING = (
    aten.channel_shuffle, aten.pixel_shuffle, aten.pixel_unshuffle, aten.reflection_pad2d,
    aten.replication_pad2d, aten.roll,
)  # fmt: skip


class ChannelsLast(TorchDispatchMode):
    """While it is entered, maps lie on the meta device as they do on others where the weights have their channels last.

    Attributes:
        found: a convolution of images has run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation."""
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        self.found |= packet is aten.convolution and result.ndim == 4
        if packet in ARRANGING or (packet in KEEPING and any(map(_is_last, tree_leaves(args)))):
            return tree_map(_arranged, result)
        return result


def takes_channels_last(net: nn.Module, images: Tensor) -> bool:
    """Whether a net convolves images, and can be trained and scored with the channels of its weights last.

    A net that calls `view` on a map may want its channels first, and raises. The net is to be thrown away afterwards.
    """
    mode = ChannelsLast()
    try:
        net.to(memory_format=torch.channels_last)
        with mode, torch.no_grad():
            net.eval()(images)
        if not mode.found:
            return False
        with mode:
            outputs = tree_leaves(net.train()(images))
            torch.stack([output.sum() for output in outputs if isinstance(output, Tensor)]).sum().backward()
    except Exception:  # whatever a net of the user's own raises
        return False
    return True


def _is_last(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)


def _arranged(value: Any) -> Any:
    return value.to(memory_format=torch.channels_last) if isinstance(value, Tensor) and value.ndim == 4 else value


def arranged(net: nn.Module, config: Config) -> nn.Module:
    """The net, its weights in the order of memory that a frozen config says; its maps take it over from them."""
    return net.to(memory_format=torch.channels_last) if config.channels_last else net
