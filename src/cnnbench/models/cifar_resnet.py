"""ResNet for 32×32 images, and its plain twin: He et al. 2015 (arXiv:1512.03385), section 4.2.

layer    output         n = (depth - 2) / 6
stem     16 × 32 × 32   3×3, 16
stage1   16 × 32 × 32   [3×3, 16; 3×3, 16] × n
stage2   32 × 16 × 16   [3×3, 32; 3×3, 32] × n
stage3   64 ×  8 ×  8   [3×3, 64; 3×3, 64] × n
head     num_classes    average pool, linear
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from cnnbench.checks import require_bool, require_choice, require_number
from cnnbench.models.layers import conv_norm_relu, named_layers, pool_and_classify
from cnnbench.models.residual import (
    BasicBlock,
    PreActivationBlock,
    Shortcut,
    conv,
    no_shortcut,
    projection_shortcut,
    stage,
    zero_padding_shortcut,
)

MAX_DEPTH = 2000  # the paper's deepest net has 1202 layers


class CifarResNet(nn.Module):
    """(N, in_channels, H, W) -> logits (N, num_classes); any size from 8 pixels, 32 in the paper.

    `depth` is 6n + 2. `shortcut` A: identity, zeros as new channels; B: 1×1 convolution where the shape changes; C: 1×1
    convolution everywhere; none: the plain net. `preactivation` puts BN and ReLU before each convolution (He et al. 2016).
    """

    min_image_size = 8

    def __init__(
        self, depth: int = 20, shortcut: str = "A", preactivation: bool = False, *, in_channels: int, num_classes: int
    ) -> None:
        super().__init__()
        require_number("depth", depth, integer=True, above=0)
        require_bool("preactivation", preactivation)
        if not 8 <= depth <= MAX_DEPTH or (depth - 2) % 6:
            raise ValueError(f"depth={depth}: expected 6n + 2 (8, 14, 20, ...), at most {MAX_DEPTH}")
        norm = not preactivation  # a pre-activation block normalizes the sum in the next block
        shortcuts: dict[str, Shortcut] = {
            "A": zero_padding_shortcut,
            "B": projection_shortcut(norm=norm),
            "C": projection_shortcut(everywhere=True, norm=norm),
            "none": no_shortcut,
        }
        stage_of_n = partial(
            stage,
            PreActivationBlock if preactivation else BasicBlock,
            depth=(depth - 2) // 6,
            shortcut=shortcuts[require_choice("shortcut", shortcut, shortcuts)],
        )
        if preactivation:
            self.stem = named_layers(conv=conv(in_channels, 16, 3))  # (N, 16, 32, 32)
        else:
            self.stem = conv_norm_relu(in_channels, 16, 3)
        self.stage1 = stage_of_n(16, 16, stride=1)  # (N, 16, 32, 32)
        self.stage2 = stage_of_n(16, 32, stride=2)  # (N, 32, 16, 16)
        self.stage3 = stage_of_n(32, 64, stride=2)  # (N, 64,  8,  8)
        self.last = named_layers(norm=nn.BatchNorm2d(64), relu=nn.ReLU()) if preactivation else nn.Identity()
        self.pool, self.flatten, self.linear = pool_and_classify(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of a batch of images."""
        x = self.stage1(self.stem(x))
        x = self.last(self.stage3(self.stage2(x)))
        return self.linear(self.flatten(self.pool(x)))  # (N, num_classes)
