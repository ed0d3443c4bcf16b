"""Two-dimensional convolution by hand: "Neural Networks and Deep Learning: Cases and Practice" (nndl), sections 5.1 and 5.2.

As everywhere in this field, "convolution" is cross-correlation: the kernel is not turned over.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

Padding = int | str
PADDINGS = ("narrow", "equal", "wide")


def output_size(size: int, window: int, stride: int = 1, padding: int = 0) -> int:
    """How many positions a window finds along one side: (W - F + 2P) / S + 1, rounded down.

    Raises:
        ValueError: the window is larger than the padded map, or a number is not above 0.
    """
    if not (isinstance(window, int) and isinstance(stride, int) and window > 0 and stride > 0):
        raise ValueError(f"window and stride must be integers above 0, got {window} and {stride}")
    if window > size + 2 * padding:
        raise ValueError(f"a window of {window} does not fit a map of {size} with a padding of {padding}")
    return (size - window + 2 * padding) // stride + 1


def padding_of(kind: Padding, window: int) -> int:
    """Zeros on each side: narrow 0, equal (F - 1) / 2 (at stride 1 the map keeps its size), wide F - 1; a number is itself.

    Raises:
        ValueError: another word, a negative number, or `equal` for an even window.
    """
    if isinstance(kind, int) and not isinstance(kind, bool):
        if kind < 0:
            raise ValueError(f"padding must be at least 0, got {kind}")
        return kind
    if kind not in PADDINGS:
        raise ValueError(f"padding must be a number or one of {', '.join(PADDINGS)}, got {kind}")
    if kind == "equal" and window % 2 == 0:
        raise ValueError(f"equal-width convolution needs an odd kernel size, got {window}")
    return {"narrow": 0, "equal": (window - 1) // 2, "wide": window - 1}[kind]


def zero_pad(x: Tensor, padding: int) -> Tensor:
    """(..., H, W) -> (..., H + 2 padding, W + 2 padding), zeros all round."""
    height, width = x.shape[-2:]
    padded = x.new_zeros(*x.shape[:-2], height + 2 * padding, width + 2 * padding)
    padded[..., padding : padding + height, padding : padding + width] = x
    return padded


def convolve(x: Tensor, kernel: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """One channel, one kernel: (N, H, W) and (U, V) -> (N, H', W').

    The book moves the window over the map; here each weight moves over it once, and meets what is under it at all positions.
    """
    if x.ndim != 3 or kernel.ndim != 2:
        raise ValueError(f"expected (N, H, W) and (U, V), got {tuple(x.shape)} and {tuple(kernel.shape)}")
    height, width = (output_size(*sides, stride, padding) for sides in zip(x.shape[-2:], kernel.shape, strict=True))
    x = zero_pad(x, padding)
    output = x.new_zeros(len(x), height, width)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            output = output + kernel[i, j] * under(x, i, j, height, width, stride)
    return output


def convolve_channels(x: Tensor, kernels: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """C channels in, K out: (N, C, H, W) and (K, C, U, V) -> (N, K, H', W').

    Each output map is the sum over the channels of each channel's convolution with a kernel of its own.
    """
    if x.ndim != 4 or kernels.ndim != 4 or x.shape[1] != kernels.shape[1]:
        raise ValueError(f"expected (N, C, H, W) and (K, C, U, V), got {tuple(x.shape)} and {tuple(kernels.shape)}")
    height, width = (
        output_size(*sides, stride, padding) for sides in zip(x.shape[-2:], kernels.shape[-2:], strict=True)
    )
    x = zero_pad(x, padding)
    output = x.new_zeros(len(x), len(kernels), height * width)
    for i in range(kernels.shape[2]):
        for j in range(kernels.shape[3]):
            seen = under(x, i, j, height, width, stride).flatten(2)  # (N, C, H' W')
            output = output + kernels[:, :, i, j] @ seen  # (K, C) times (N, C, H' W'): the sum over the channels
    return output.unflatten(2, (height, width))


def under(x: Tensor, i: int, j: int, height: int, width: int, stride: int) -> Tensor:
    """What entry (i, j) of a window sees of (..., H, W) at its `height` × `width` positions: (..., height, width)."""
    return x[..., i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]


class SingleChannelConv2d(nn.Module):
    """(N, H, W) -> (N, H', W'): one kernel, `weight` (F, F), no bias. `padding` is a number, narrow, equal or wide."""

    def __init__(self, kernel_size: int, stride: int = 1, padding: Padding = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding_of(padding, kernel_size)
        output_size(kernel_size, kernel_size, stride)  # are they numbers above 0?
        self.weight = nn.Parameter(torch.empty(kernel_size, kernel_size).uniform_(-1 / kernel_size, 1 / kernel_size))

    def extra_repr(self) -> str:
        """As printed."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"

    def forward(self, x: Tensor) -> Tensor:
        """The feature map."""
        return convolve(x, self.weight, self.stride, self.padding)


class Conv2d(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, H', W'): `weight` (K, C, F, F), `bias` (K), drawn as PyTorch's layer draws them.

    `padding` is a number, narrow, equal or wide.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: Padding = 0
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding_of(padding, kernel_size)
        output_size(kernel_size, kernel_size, stride)  # are they numbers above 0?
        bound = 1 / math.sqrt(in_channels * kernel_size**2)
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels, kernel_size, kernel_size).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """The feature maps."""
        return convolve_channels(x, self.weight, self.stride, self.padding) + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """As printed."""
        out_channels, in_channels = self.weight.shape[:2]
        return f"{in_channels}, {out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
