"""ResNet and its plain twin: He, Zhang, Ren, Sun 2015 (arXiv:1512.03385), table 1.

layer    output        18, 34                          50
stem      56 × 56      imagenet: 7×7, 64, stride 2; max 3×3, stride 2
                       cifar: 3×3, 64
stage1    56 × 56      [3×3, 64;  3×3, 64 ] × 2, 3     [1×1, 64;  3×3, 64;  1×1, 256 ] × 3
stage2    28 × 28      [3×3, 128; 3×3, 128] × 2, 4     [1×1, 128; 3×3, 128; 1×1, 512 ] × 4
stage3    14 × 14      [3×3, 256; 3×3, 256] × 2, 6     [1×1, 256; 3×3, 256; 1×1, 1024] × 6
stage4     7 × 7       [3×3, 512; 3×3, 512] × 2, 3     [1×1, 512; 3×3, 512; 1×1, 2048] × 3
head     num_classes   average pool, linear

Output sizes hold for 224 × 224 images and the imagenet stem. With the cifar stem all maps are four times as wide and high.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from cnnbench.checks import require_bool, require_choice
from cnnbench.models.layers import conv_norm_relu, pool_and_classify
from cnnbench.models.residual import BasicBlock, Block, Bottleneck, no_shortcut, projection_shortcut, stage

DEPTHS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}
SHORTCUTS = {"residual": projection_shortcut(), "none": no_shortcut}


class ResNet(nn.Module):
    """(N, in_channels, H, W) -> logits (N, num_classes); any size from 8 pixels, 224 in the paper (with `stem` imagenet).

    `depth` is 18, 34 or 50. `stem` is imagenet (the paper's: stage 1 gets a quarter of the image's side) or cifar (one 3×3
    convolution, for small images); `stem_bias` gives its convolution a bias. `shortcut` is residual (identity, 1×1 where the
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
        require_bool("stem_bias", stem_bias)
        block, (n1, n2, n3, n4) = DEPTHS[require_choice("depth", depth, DEPTHS)]
        stage_of = partial(stage, block, shortcut=SHORTCUTS[require_choice("shortcut", shortcut, SHORTCUTS)])
        e = block.expansion
        self.stem = STEMS[require_choice("stem", stem, STEMS)](in_channels, stem_bias)  # (N, 64, 56, 56)
        self.stage1 = stage_of(64, 64, depth=n1, stride=1)  # (N,  64e, 56, 56)
        self.stage2 = stage_of(e * 64, 128, depth=n2, stride=2)  # (N, 128e, 28, 28)
        self.stage3 = stage_of(e * 128, 256, depth=n3, stride=2)  # (N, 256e, 14, 14)
        self.stage4 = stage_of(e * 256, 512, depth=n4, stride=2)  # (N, 512e,  7,  7)
        self.pool, self.flatten, self.linear = pool_and_classify(e * 512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of a batch of images."""
        x = self.stage2(self.stage1(self.stem(x)))
        x = self.stage4(self.stage3(x))
        return self.linear(self.flatten(self.pool(x)))  # (N, num_classes)


def imagenet_stem(in_channels: int, bias: bool) -> nn.Sequential:
    """7×7, stride 2, BN, ReLU, max 3×3, stride 2: (N, in_channels, H, W) -> (N, 64, H / 4, W / 4)."""
    layers = conv_norm_relu(in_channels, 64, 7, stride=2, bias=bias)
    layers.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
    return layers


def cifar_stem(in_channels: int, bias: bool) -> nn.Sequential:
    """3×3, BN, ReLU: (N, in_channels, H, W) -> (N, 64, H, W)."""
    return conv_norm_relu(in_channels, 64, 3, bias=bias)


STEMS = {"cifar": cifar_stem, "imagenet": imagenet_stem}
