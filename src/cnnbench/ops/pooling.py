"""Max and mean pooling by hand: nndl-practice, section 5.2.2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnnbench.ops.convolution import output_size, window_entry


def window_entries(x: Tensor, size: int, stride: int) -> Tensor:
    """(N, C, H, W) -> (size², N, C, H', W'): each entry of the window at all its positions, in row order."""
    height, width = (output_size(side, size, stride) for side in x.shape[-2:])
    return torch.stack([window_entry(x, i, j, height, width, stride) for i in range(size) for j in range(size)])


class Pool2d(nn.Module):
    """(N, C, H, W) -> (N, C, H', W') over windows of `kernel_size`; `stride` None: they do not overlap. No parameters."""

    def __init__(self, kernel_size: int = 2, stride: int | None = None) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, 0
        if min(self.kernel_size, self.stride) < 1:
            raise ValueError(f"pooling window and stride must be above 0, got {self.kernel_size} and {self.stride}")

    def extra_repr(self) -> str:
        """Arguments for `print(net)`."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


class MaxPool2d(Pool2d):
    """The maximum of each window; of equal values the first gets the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """Computes the smaller maps."""
        return window_entries(x, self.kernel_size, self.stride).max(dim=0).values


class MeanPool2d(Pool2d):
    """The mean of each window."""

    def forward(self, x: Tensor) -> Tensor:
        """Computes the smaller maps."""
        return window_entries(x, self.kernel_size, self.stride).mean(dim=0)
