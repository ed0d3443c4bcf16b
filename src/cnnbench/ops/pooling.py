"""Max and mean pooling by hand: nndl-practice, section 5.2.2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnnbench.ops.convolution import output_size, under


def windows(x: Tensor, size: int, stride: int) -> Tensor:
    """(N, C, H, W) -> (size², N, C, H', W'): each entry of the window at all its positions, row by row."""
    height, width = (output_size(side, size, stride) for side in x.shape[-2:])
    return torch.stack([under(x, i, j, height, width, stride) for i in range(size) for j in range(size)])


class Pool2d(nn.Module):
    """(N, C, H, W) -> (N, C, H', W'), windows of `kernel_size`, which do not overlap unless `stride` says so. No parameters."""

    def __init__(self, kernel_size: int = 2, stride: int | None = None) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, 0
        if min(self.kernel_size, self.stride) < 1:
            raise ValueError(f"a pooling's window and stride must be above 0, got {self.kernel_size} and {self.stride}")

    def extra_repr(self) -> str:
        """As printed."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


class MaxPool2d(Pool2d):
    """The largest number of each window; among equals the first has the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """The smaller maps."""
        return windows(x, self.kernel_size, self.stride).max(dim=0).values


class MeanPool2d(Pool2d):
    """The mean of each window."""

    def forward(self, x: Tensor) -> Tensor:
        """The smaller maps."""
        return windows(x, self.kernel_size, self.stride).mean(dim=0)
