"""Tests whether a net can be trained in the channels-last memory format, in which most convolutions are fastest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

if TYPE_CHECKING:
    from cnnbench.config.schema import Config

aten = torch.ops.aten
# operations that return channels-last maps; older torch versions change the format of a group norm's map before we see it
CHANGES_FORMAT = (aten.convolution, aten.convolution_backward, aten.native_group_norm)
# operations that keep the format of their input on a CPU; on the meta device they lose it
KEEPS_FORMAT = (
    aten.channel_shuffle, aten.pixel_shuffle, aten.pixel_unshuffle, aten.reflection_pad2d,
    aten.replication_pad2d, aten.roll,
)  # fmt: skip


class ChannelsLastMode(TorchDispatchMode):
    """Gives maps on the meta device the memory format that they have on other devices if the weights are channels-last.

    Attributes:
        has_convolution: a convolution of images has run.
    """

    has_convolution = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and sets the format of its result."""
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        self.has_convolution |= packet is aten.convolution and result.ndim == 4
        if packet in CHANGES_FORMAT or (packet in KEEPS_FORMAT and any(map(_is_channels_last, tree_leaves(args)))):
            return tree_map(_to_channels_last, result)
        return result


def takes_channels_last(net: nn.Module, images: Tensor) -> bool:
    """Whether a net has convolutions and can be trained and evaluated in channels-last format.

    A net that calls `view` on a map may need the channels-first format, and then raises. Discard the net afterwards.

    Args:
        net: a net on the meta device or another one.
        images: a batch (N, C, H, W) on the same device.
    """
    mode = ChannelsLastMode()
    try:
        net.to(memory_format=torch.channels_last)
        with mode, torch.no_grad():
            net.eval()(images)
        if not mode.has_convolution:
            return False
        with mode:
            outputs = tree_leaves(net.train()(images))
            torch.stack([output.sum() for output in outputs if isinstance(output, Tensor)]).sum().backward()
    except Exception:  # a user's net may raise anything
        return False
    return True


def _is_channels_last(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)


def _to_channels_last(value: Any) -> Any:
    return value.to(memory_format=torch.channels_last) if isinstance(value, Tensor) and value.ndim == 4 else value


def to_memory_format(net: nn.Module, config: Config) -> nn.Module:
    """Converts the net's weights to the memory format of a frozen config; maps get the format of the weights."""
    return net.to(memory_format=torch.channels_last) if config.channels_last else net
