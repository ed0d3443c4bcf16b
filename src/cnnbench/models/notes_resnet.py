"""The small ResNet of a PyTorch course for CIFAR-10, whose shortcuts are 3×3 convolutions where the shape changes.

layer    output         with three numbers of blocks, 2, 2, 2
stem     16 × 32 × 32   3×3, 16
stage1   16 × 32 × 32   [3×3, 16; 3×3, 16] × 2
stage2   32 × 16 × 16   [3×3, 32; 3×3, 32] × 2
stage3   64 ×  8 ×  8   [3×3, 64; 3×3, 64] × 2
head     num_classes    average pool, linear
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cnnbench.models.layers import conv_norm_relu, count
from cnnbench.models.residual import BasicBlock, projection, stage


class NotesResNet(nn.Module):
    """(N, in_channels, H, W) -> logits (N, num_classes); any size from 8, 32 in the course. `blocks` of each stage."""

    min_image_size = 8

    def __init__(self, blocks: Sequence[int] = (2, 2, 2), *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        if not isinstance(blocks, Sequence) or len(blocks) != 3:
            raise ValueError(f"blocks must be three numbers, as in [2,2,2], got {blocks}")
        for number in blocks:
            count("blocks", number)
        shortcut = projection(kernel_size=3)
        self.stem = conv_norm_relu(in_channels, 16, 3, padding=1)  # (N, 16, 32, 32)
        self.stage1 = stage(BasicBlock, 16, 16, blocks[0], 1, shortcut)  # (N, 16, 32, 32)
        self.stage2 = stage(BasicBlock, 16, 32, blocks[1], 2, shortcut)  # (N, 32, 16, 16)
        self.stage3 = stage(BasicBlock, 32, 64, blocks[2], 2, shortcut)  # (N, 64,  8,  8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.linear(self.flatten(self.pool(x)))  # (N, num_classes)
