"""The small ResNet of a PyTorch course for CIFAR-10: where the shape changes, its shortcuts are 3×3 convolutions.

layer    output         with blocks 2, 2, 2
stem     16 × 32 × 32   3×3, 16
stage1   16 × 32 × 32   [3×3, 16; 3×3, 16] × 2
stage2   32 × 16 × 16   [3×3, 32; 3×3, 32] × 2
stage3   64 ×  8 ×  8   [3×3, 64; 3×3, 64] × 2
head     num_classes    average pool, linear
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from cnnbench.checks import require_number
from cnnbench.models.layers import conv_norm_relu, pool_and_classify
from cnnbench.models.residual import BasicBlock, projection_shortcut, stage

MAX_BLOCKS = 300  # of a stage


class NotesResNet(nn.Module):
    """(N, in_channels, H, W) -> logits (N, num_classes); any size from 8 pixels, 32 in the course. `blocks`: of each stage."""

    min_image_size = 8

    def __init__(self, blocks: Sequence[int] = (2, 2, 2), *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        if not isinstance(blocks, Sequence) or len(blocks) != 3:
            raise ValueError(f"blocks={blocks}: expected three numbers, as in [2,2,2]")
        for number in blocks:
            require_number("blocks", number, integer=True, above=0, at_most=MAX_BLOCKS)
        basic_stage = partial(stage, BasicBlock, shortcut=projection_shortcut(kernel_size=3))
        self.stem = conv_norm_relu(in_channels, 16, 3)  # (N, 16, 32, 32)
        self.stage1 = basic_stage(16, 16, depth=blocks[0], stride=1)  # (N, 16, 32, 32)
        self.stage2 = basic_stage(16, 32, depth=blocks[1], stride=2)  # (N, 32, 16, 16)
        self.stage3 = basic_stage(32, 64, depth=blocks[2], stride=2)  # (N, 64,  8,  8)
        self.pool, self.flatten, self.linear = pool_and_classify(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of a batch of images."""
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.linear(self.flatten(self.pool(x)))  # (N, num_classes)
