"""Batch normalization by hand: Ioffe, Szegedy 2015 (arXiv:1502.03167), section 3.2."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C, H, W) -> mean (C) and variance (C, biased) of each channel, over all images and positions."""
    mean = x.mean(dim=(0, 2, 3))
    variance = ((x - mean[:, None, None]) ** 2).mean(dim=(0, 2, 3))
    return mean, variance


class BatchNorm2d(nn.Module):
    """(N, C, H, W) -> (N, C, H, W): each channel with mean 0 and deviation 1, then times `weight` (C) plus `bias` (C).

    Training uses the batch's statistics and updates the running mean and the running unbiased variance; `momentum` is the
    weight of the new batch in them. Evaluation uses the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def extra_repr(self) -> str:
        """Arguments for `print(net)`."""
        return f"{len(self.weight)}, eps={self.eps}, momentum={self.momentum}"

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes the maps; raises ValueError for another shape than (N, C, H, W)."""
        if x.ndim != 4 or x.shape[1] != len(self.weight):
            raise ValueError(f"expected (N, {len(self.weight)}, H, W), got {tuple(x.shape)}")
        if self.training:
            mean, variance = channel_statistics(x)
            self._update_running(mean.detach(), variance.detach(), count=x.numel() // len(mean))
        else:
            mean, variance = self.running_mean, self.running_var
        normalized = (x - mean[:, None, None]) / torch.sqrt(variance[:, None, None] + self.eps)
        return self.weight[:, None, None] * normalized + self.bias[:, None, None]

    def _update_running(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if count < 2:
            raise ValueError("batch norm in training needs more than one value per channel")
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        self.num_batches_tracked += 1
