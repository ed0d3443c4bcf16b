"""The blocks of residual nets (He et al. 2015, 2016) and their shortcuts."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from cnnbench.models.layers import named_layers

# (channels in, channels out, stride) -> the shortcut's module; None in a plain net
Shortcut = Callable[[int, int, int], nn.Module | None]


class BasicBlock(nn.Module):
    """3×3, BN, ReLU, 3×3, BN; plus the shortcut; ReLU. He et al. 2015, figure 5, left."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv(in_channels, channels, 3, stride), nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2, self.norm2 = conv(channels, channels, 3), nn.BatchNorm2d(channels)
        self.shortcut = shortcut(in_channels, channels, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.relu2(y if self.shortcut is None else y + self.shortcut(x))


class Bottleneck(nn.Module):
    """1×1, BN, ReLU, 3×3, BN, ReLU, 1×1 to 4 × channels, BN; plus the shortcut; ReLU. He et al. 2015, figure 5, right.

    The 3×3 convolution has the stride, as in torchvision ("v1.5"); in the paper the first 1×1 convolution has it.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        out_channels = self.expansion * channels
        self.conv1, self.norm1 = conv(in_channels, channels, 1), nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2, self.norm2 = conv(channels, channels, 3, stride), nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv3, self.norm3 = conv(channels, out_channels, 1), nn.BatchNorm2d(out_channels)
        self.shortcut = shortcut(in_channels, out_channels, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, 4 × channels, H / stride, W / stride)."""
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.relu2(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        return self.relu3(y if self.shortcut is None else y + self.shortcut(x))


class PreActivationBlock(nn.Module):
    """BN, ReLU, 3×3, BN, ReLU, 3×3; plus the shortcut. He et al. 2016 (arXiv:1603.05027), figure 1 (b).

    A shortcut with weights takes the activated input, as in the authors' code; the other shortcuts take the input itself.
    """

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(in_channels), nn.ReLU()
        self.conv1 = conv(in_channels, channels, 3, stride)
        self.norm2, self.relu2 = nn.BatchNorm2d(channels), nn.ReLU()
        self.conv2 = conv(channels, channels, 3)
        self.shortcut = shortcut(in_channels, channels, stride)
        self.projects = isinstance(self.shortcut, nn.Conv2d)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        activated = self.relu1(self.norm1(x))
        y = self.conv2(self.relu2(self.norm2(self.conv1(activated))))
        return y if self.shortcut is None else y + self.shortcut(activated if self.projects else x)


Block = type[BasicBlock | Bottleneck | PreActivationBlock]


def stage(
    block: Block, in_channels: int, channels: int, *, depth: int, stride: int, shortcut: Shortcut
) -> nn.Sequential:
    """`depth` blocks in sequence; the first has the stride and changes the number of channels.

    (N, in_channels, H, W) -> (N, channels × expansion, H / stride, W / stride).
    """
    inputs = [in_channels] + [channels * block.expansion] * (depth - 1)
    return nn.Sequential(*(block(size, channels, 1 if i else stride, shortcut) for i, size in enumerate(inputs)))


# ---- shortcuts: (channels in, channels out, stride) -> module ---------------------------------------------------------


def no_shortcut(in_channels: int, out_channels: int, stride: int) -> None:
    """Adds nothing: the plain net."""


def zero_padding_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option A, without parameters: the identity; where the shape changes, every `stride`-th pixel and zeros as new channels."""
    if keeps_shape(in_channels, out_channels, stride):
        return nn.Identity()
    return PadChannels(out_channels - in_channels, stride)


def projection_shortcut(kernel_size: int = 1, *, everywhere: bool = False, norm: bool = True) -> Shortcut:
    """Option B: a convolution where the shape changes, else the identity. Option C, `everywhere`: always a convolution."""

    def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        if keeps_shape(in_channels, out_channels, stride) and not everywhere:
            return nn.Identity()
        projection = conv(in_channels, out_channels, kernel_size, stride)
        return named_layers(conv=projection, norm=nn.BatchNorm2d(out_channels)) if norm else projection

    return shortcut


class PadChannels(nn.Module):
    """(N, C, H, W) -> (N, C + extra, H / stride, W / stride): every `stride`-th pixel, then `extra` channels of zeros."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        """Subsamples the map and appends the channels."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        """Arguments for `print(net)`."""
        return f"extra={self.extra}, stride={self.stride}"


def keeps_shape(in_channels: int, out_channels: int, stride: int) -> bool:
    """Whether a block's output has the shape of its input."""
    return stride == 1 and in_channels == out_channels


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded so that at stride 1 the map keeps its size; `kernel_size` is odd.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride), rounded up.
    """
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
