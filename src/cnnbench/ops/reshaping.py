"""Up-sampling and flattening by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cnnbench.checks import require_number


class NearestUpsample(nn.Module):
    """(N, C, H, W) -> (N, C, factor × H, factor × W): each pixel becomes a square of `factor` × `factor`."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        require_number("factor", factor, integer=True, above=0)
        self.factor = factor

    def extra_repr(self) -> str:
        """Arguments for `print(net)`."""
        return f"factor={self.factor}"

    def forward(self, x: Tensor) -> Tensor:
        """Repeats rows and columns."""
        rows, columns = (torch.arange(self.factor * side, device=x.device) // self.factor for side in x.shape[-2:])
        return x[..., rows, :][..., columns]


class Flatten(nn.Module):
    """(N, C, H, W), or any other shape (N, ...) -> (N, C · H · W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Flattens each image to a row."""
        return x.reshape(len(x), math.prod(x.shape[1:]))
