"""ResNet and its plain twin: He, Zhang, Ren, Sun 2015 (arXiv:1512.03385), table 1.

layer    output        18, 34                          50
stem      56 × 56      imagenet: 7×7, 64, stride 2; max 3×3, stride 2
                       cifar: 3×3, 64
stage1    56 × 56      [3×3, 64;  3×3, 64 ] × 2, 3     [1×1, 64;  3×3, 64;  1×1, 256 ] × 3
stage2    28 × 28      [3×3, 128; 3×3, 128] × 2, 4     [1×1, 128; 3×3, 128; 1×1, 512 ] × 4
stage3    14 × 14      [3×3, 256; 3×3, 256] × 2, 6     [1×1, 256; 3×3, 256; 1×1, 1024] × 6
stage4     7 × 7       [3×3, 512; 3×3, 512] × 2, 3     [1×1, 512; 3×3, 512; 1×1, 2048] × 3
head     num_classes   average pool, linear

Sizes are those of 224 × 224 images with the imagenet stem; with the cifar stem all maps are four times as wide and high.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from cnnbench.models.layers import choose, switch
from cnnbench.models.residual import BasicBlock, Block, Bottleneck, none, projection, stage

DEPTHS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}
SHORTCUTS = {"residual": projection(), "none": none}


class ResNet(nn.Module):
    """(N, in_channels, H, W) -> logits (N, num_classes); any size from 8, 224 in the paper (with `stem` imagenet).

    `depth` is 18, 34 or 50; `stem` imagenet (the paper's: the map is a quarter of the image before stage 1) or cifar (3×3
    alone, for small images); `stem_bias` gives its convolution a bias; `shortcut` is residual (the identity, 1×1 where the
    shape changes: the paper's option B) or none, the plain net.
    """

    min_image_size = 8

    def __init__(
        self,
        depth: int = 18,
        stem: str = "cifar",
        stem_bias: bool = False,
        shortcut: str = "residual",
        *,
        in_channels: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        block, (n1, n2, n3, n4) = DEPTHS[choose("depth", depth, DEPTHS)]
        beside = SHORTCUTS[choose("shortcut", shortcut, SHORTCUTS)]
        e = block.expansion
        self.stem = STEMS[choose("stem", stem, STEMS)](in_channels, switch("stem_bias", stem_bias))  # (N, 64, 56, 56)
        self.stage1 = stage(block, 64, 64, n1, 1, beside)  # (N,  64e, 56, 56)
        self.stage2 = stage(block, e * 64, 128, n2, 2, beside)  # (N, 128e, 28, 28)
        self.stage3 = stage(block, e * 128, 256, n3, 2, beside)  # (N, 256e, 14, 14)
        self.stage4 = stage(block, e * 256, 512, n4, 2, beside)  # (N, 512e,  7,  7)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(e * 512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = self.stage2(self.stage1(self.stem(x)))
        x = self.stage4(self.stage3(x))
        return self.linear(self.flatten(self.pool(x)))  # (N, num_classes)


def imagenet_stem(in_channels: int, bias: bool) -> nn.Sequential:
    """7×7, stride 2, BN, ReLU, max 3×3, stride 2: a quarter of the image's side."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=bias),
            norm=nn.BatchNorm2d(64),
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(3, stride=2, padding=1),
        )
    )


def cifar_stem(in_channels: int, bias: bool) -> nn.Sequential:
    """3×3, BN, ReLU: the image's size."""
    conv = nn.Conv2d(in_channels, 64, 3, padding=1, bias=bias)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(64), relu=nn.ReLU()))


STEMS = {"cifar": cifar_stem, "imagenet": imagenet_stem}
