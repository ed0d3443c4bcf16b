"""Up-sampling and flattening by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class NearestUpsample(nn.Module):
    """(N, C, H, W) -> (N, C, factor × H, factor × W): each pixel becomes a square of its value."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        if not isinstance(factor, int) or factor < 1:
            raise ValueError(f"factor must be an integer above 0, got {factor}")
        self.factor = factor

    def extra_repr(self) -> str:
        """As printed."""
        return f"factor={self.factor}"

    def forward(self, x: Tensor) -> Tensor:
        """The larger maps."""
        rows, columns = (torch.arange(self.factor * side, device=x.device) // self.factor for side in x.shape[-2:])
        return x[..., rows, :][..., columns]


class Flatten(nn.Module):
    """(N, ...) -> (N, everything else)."""

    def forward(self, x: Tensor) -> Tensor:
        """One row for each image."""
        return x.reshape(len(x), math.prod(x.shape[1:]))
