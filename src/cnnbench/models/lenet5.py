"""LeNet-5 as the textbooks train it today: LeCun, Bottou, Bengio, Haffner 1998, figure 2, with ReLU.

layer    output        parameters (1 channel in)
conv1    6 × 28 × 28   5×5, 6: 156
pool2    6 × 14 × 14   max 2×2
conv3   16 × 10 × 10   5×5, 16, connected to all channels: 2,416
pool4   16 ×  5 ×  5   mean 2×2
conv5  120 ×  1 ×  1   5×5, 120: 48,120
linear6          84    10,164
linear7 num_classes    850 for ten classes; 61,706 in all
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LeNet5(nn.Module):
    """(N, in_channels, 32, 32) -> logits (N, num_classes)."""

    min_image_size = 32
    max_image_size = 32

    def __init__(self, *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, kernel_size=5)
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(6, 16, kernel_size=5)
        self.pool4 = nn.AvgPool2d(2)
        self.conv5 = nn.Conv2d(16, 120, kernel_size=5)
        self.linear6 = nn.Linear(120, 84)
        self.linear7 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = self.pool2(F.relu(self.conv1(x)))  # (N,   6, 14, 14)
        x = self.pool4(F.relu(self.conv3(x)))  # (N,  16,  5,  5)
        x = F.relu(self.conv5(x)).flatten(1)  # (N, 120)
        x = F.relu(self.linear6(x))  # (N,  84)
        return self.linear7(x)  # (N, num_classes)
