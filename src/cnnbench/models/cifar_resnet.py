"""ResNet for 32×32 images, and its plain twin: He et al. 2015 (arXiv:1512.03385), section 4.2.

layer    output         n = (depth - 2) / 6
stem     16 × 32 × 32   3×3, 16
stage1   16 × 32 × 32   [3×3, 16; 3×3, 16] × n
stage2   32 × 16 × 16   [3×3, 32; 3×3, 32] × n
stage3   64 ×  8 ×  8   [3×3, 64; 3×3, 64] × n
head     num_classes    average pool, linear
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from cnnbench.models.layers import choose, count, switch
from cnnbench.models.residual import (
    BasicBlock,
    Block,
    PreActivationBlock,
    conv3x3,
    none,
    projection,
    stage,
    zero_padding,
)

SHORTCUTS = ("A", "B", "C", "none")


class CifarResNet(nn.Module):
    """(N, in_channels, H, W) -> logits (N, num_classes); any size from 8, 32 in the paper.

    `depth` is 6n + 2; `shortcut` A: identity, zeros for new channels; B: 1×1 convolution where the shape changes; C: 1×1
    everywhere; none: the plain net. `preactivation` puts BN and ReLU before each convolution (He et al. 2016).
    """

    min_image_size = 8

    def __init__(
        self, depth: int = 20, shortcut: str = "A", preactivation: bool = False, *, in_channels: int, num_classes: int
    ) -> None:
        super().__init__()
        if count("depth", depth) < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 6n + 2 (8, 14, 20, ...), got {depth}")
        n = (depth - 2) // 6
        options = {"A": zero_padding, "B": projection(), "C": projection(everywhere=True), "none": none}
        if switch("preactivation", preactivation):  # the sum's norm stands at the next block's beginning
            options |= {"B": projection(norm=False), "C": projection(everywhere=True, norm=False)}
        beside = options[choose("shortcut", shortcut, SHORTCUTS)]
        block: Block = PreActivationBlock if preactivation else BasicBlock
        stem: OrderedDict[str, nn.Module] = OrderedDict(conv=conv3x3(in_channels, 16))
        self.stem = nn.Sequential(stem if preactivation else stem | norm_relu(16))  # (N, 16, 32, 32)
        self.stage1 = stage(block, 16, 16, n, 1, beside)  # (N, 16, 32, 32)
        self.stage2 = stage(block, 16, 32, n, 2, beside)  # (N, 32, 16, 16)
        self.stage3 = stage(block, 32, 64, n, 2, beside)  # (N, 64,  8,  8)
        self.last = nn.Sequential(norm_relu(64)) if preactivation else nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = self.stage1(self.stem(x))
        x = self.last(self.stage3(self.stage2(x)))
        return self.linear(self.flatten(self.pool(x)))  # (N, num_classes)


def norm_relu(channels: int) -> OrderedDict[str, nn.Module]:
    """Batch norm and ReLU, by name."""
    return OrderedDict(norm=nn.BatchNorm2d(channels), relu=nn.ReLU())
