"""Two-dimensional convolution by hand: "Neural Networks and Deep Learning: Cases and Practice" (nndl), sections 5.1 and 5.2.

As is usual in deep learning, "convolution" means cross-correlation: the kernel is not flipped.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

Padding = int | str
PADDINGS = ("narrow", "equal", "wide")


def output_size(size: int, window: int, stride: int = 1, padding: int = 0) -> int:
    """Positions of a window along one side: (W - F + 2P) / S + 1, rounded down.

    Raises:
        ValueError: the window is larger than the padded map, or `window` or `stride` is not an integer above 0.
    """
    if not (isinstance(window, int) and isinstance(stride, int) and window > 0 and stride > 0):
        raise ValueError(f"window and stride must be integers above 0, got {window} and {stride}")
    if window > size + 2 * padding:
        raise ValueError(f"a window of {window} does not fit a map of {size} with a padding of {padding}")
    return (size - window + 2 * padding) // stride + 1


def padding_size(kind: Padding, window: int) -> int:
    """Zeros on each side: narrow 0, equal (F - 1) / 2 (the map keeps its size at stride 1), wide F - 1; a number is returned.

    Raises:
        ValueError: an unknown word, a negative number, or `equal` with an even window.
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
    """(..., H, W) -> (..., H + 2 padding, W + 2 padding): adds zeros on all sides."""
    height, width = x.shape[-2:]
    padded = x.new_zeros(*x.shape[:-2], height + 2 * padding, width + 2 * padding)
    padded[..., padding : padding + height, padding : padding + width] = x
    return padded


def convolve(x: Tensor, kernel: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolves one channel with one kernel: (N, H, W) and (U, V) -> (N, H', W').

    The book moves the window over the map. Here the loop is over the weights: each is multiplied with its entries at all
    positions of the window at once, which is faster.
    """
    if x.ndim != 3 or kernel.ndim != 2:
        raise ValueError(f"expected (N, H, W) and (U, V), got {tuple(x.shape)} and {tuple(kernel.shape)}")
    height, width = (output_size(*sides, stride, padding) for sides in zip(x.shape[-2:], kernel.shape, strict=True))
    x = zero_pad(x, padding)
    output = x.new_zeros(len(x), height, width)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            output = output + kernel[i, j] * window_entry(x, i, j, height, width, stride)
    return output


def convolve_channels(x: Tensor, kernels: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolves C channels to K channels: (N, C, H, W) and (K, C, U, V) -> (N, K, H', W').

    Each output map is a sum over the input channels: each channel convolved with its kernel.
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
            entries = window_entry(x, i, j, height, width, stride).flatten(2)  # (N, C, H' W')
            output = output + kernels[:, :, i, j] @ entries  # (K, C) @ (N, C, H' W'): the sum over the channels
    return output.unflatten(2, (height, width))


def window_entry(x: Tensor, i: int, j: int, height: int, width: int, stride: int) -> Tensor:
    """Entry (i, j) of the window at all its `height` × `width` positions: (..., H, W) -> (..., height, width)."""
    return x[..., i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]


class SingleChannelConv2d(nn.Module):
    """(N, H, W) -> (N, H', W'): one kernel, `weight` (F, F), no bias. `padding` is a number, narrow, equal or wide."""

    def __init__(self, kernel_size: int, stride: int = 1, padding: Padding = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding_size(padding, kernel_size)
        output_size(kernel_size, kernel_size, stride)  # checks both numbers
        self.weight = nn.Parameter(torch.empty(kernel_size, kernel_size).uniform_(-1 / kernel_size, 1 / kernel_size))

    def extra_repr(self) -> str:
        """Arguments for `print(net)`."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"

    def forward(self, x: Tensor) -> Tensor:
        """Computes the feature map."""
        return convolve(x, self.weight, self.stride, self.padding)


class Conv2d(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, H', W'): `weight` (K, C, F, F), `bias` (K).

    Initial values have the distribution of PyTorch's layer. `padding` is a number, narrow, equal or wide.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: Padding = 0
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding_size(padding, kernel_size)
        output_size(kernel_size, kernel_size, stride)  # checks both numbers
        bound = 1 / math.sqrt(in_channels * kernel_size**2)
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels, kernel_size, kernel_size).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Computes the feature maps."""
        return convolve_channels(x, self.weight, self.stride, self.padding) + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """Arguments for `print(net)`."""
        out_channels, in_channels = self.weight.shape[:2]
        return f"{in_channels}, {out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
