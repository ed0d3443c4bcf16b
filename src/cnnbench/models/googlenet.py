"""GoogLeNet, Inception v1: Szegedy et al. 2015 (arXiv:1409.4842), table 1 and figure 3.

layer          output, 224 × 224 in   1×1   3×3 (reduce)   5×5 (reduce)   pool, 1×1
conv1            64 × 112 × 112   7×7, 64, stride 2; then max 3×3, stride 2
conv2, conv3    192 ×  56 ×  56   1×1, 64; 3×3, 192; then max 3×3, stride 2
inception3a     256 ×  28 ×  28    64   128 (96)        32 (16)        32
inception3b     480 ×  28 ×  28   128   192 (128)       96 (32)        64        then max 3×3, stride 2
inception4a     512 ×  14 ×  14   192   208 (96)        48 (16)        64        auxiliary head 1
inception4b     512 ×  14 ×  14   160   224 (112)       64 (24)        64
inception4c     512 ×  14 ×  14   128   256 (128)       64 (24)        64
inception4d     528 ×  14 ×  14   112   288 (144)       64 (32)        64        auxiliary head 2
inception4e     832 ×  14 ×  14   256   320 (160)      128 (32)       128        then max 2×2, stride 2
inception5a     832 ×   7 ×   7   256   320 (160)      128 (32)       128
inception5b    1024 ×   7 ×   7   384   384 (192)      128 (48)       128
head           num_classes        average pool, dropout 0.4, linear

Batch norm takes the place of figure 3's two local response normalisations. The last max pooling is 2×2, as in the authors' later
code and in torchvision; the table has 3×3. Poolings round up, so that 224 gives the sizes of the table.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from cnnbench.checks import require_bool, require_choice
from cnnbench.models.layers import conv_norm_relu, named_layers

EPS = 1e-3  # of the batch norms, as in the authors' code


class GoogLeNet(nn.Module):
    """(N, in_channels, H, W) -> logits (N, num_classes); in training with auxiliary heads three such tensors: net, head 1, head 2.

    Any size from 32 pixels, 224 in the paper. `branch5x5` is the convolution of the table's 5×5 column: 5, the paper's 5×5; 3,
    torchvision's 3×3; double3, two 3×3 convolutions. `norm` batch puts a batch norm after each convolution, none (the paper)
    does not. `aux_heads` adds the two heads (figure 3): their losses have the weight `aux_weight` in training; they do not run
    in evaluation.
    """

    min_image_size = 32
    aux_weight = 0.3

    def __init__(
        self,
        branch5x5: int | str = 5,
        norm: str = "batch",
        aux_heads: bool = False,
        *,
        in_channels: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        require_choice("branch5x5", branch5x5, (5, 3, "double3"))
        require_bool("aux_heads", aux_heads)
        conv = partial(conv_norm_relu, norm=norm, eps=EPS)
        max_pool = partial(nn.MaxPool2d, stride=2, ceil_mode=True)
        inception = partial(Inception, branch5x5=branch5x5, norm=norm)
        self.conv1 = conv(in_channels, 64, 7, stride=2)
        self.pool1 = max_pool(3)
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3)
        self.pool2 = max_pool(3)
        self.inception3a = inception(192, 64, (96, 128), (16, 32), 32)
        self.inception3b = inception(256, 128, (128, 192), (32, 96), 64)
        self.pool3 = max_pool(3)
        self.inception4a = inception(480, 192, (96, 208), (16, 48), 64)
        self.inception4b = inception(512, 160, (112, 224), (24, 64), 64)
        self.inception4c = inception(512, 128, (128, 256), (24, 64), 64)
        self.inception4d = inception(512, 112, (144, 288), (32, 64), 64)
        self.inception4e = inception(528, 256, (160, 320), (32, 128), 128)
        self.pool4 = max_pool(2)
        self.inception5a = inception(832, 256, (160, 320), (32, 128), 128)
        self.inception5b = inception(832, 384, (192, 384), (48, 128), 128)
        self.aux1 = auxiliary_head(512, num_classes, norm) if aux_heads else None
        self.aux2 = auxiliary_head(528, num_classes, norm) if aux_heads else None
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(0.4)
        self.linear = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Computes the logits of a batch of images; in training also those of the auxiliary heads."""
        x = self.pool1(self.conv1(x))  # (N, 64, 56, 56)
        x = self.pool2(self.conv3(self.conv2(x)))  # (N, 192, 28, 28)
        x = self.pool3(self.inception3b(self.inception3a(x)))  # (N, 480, 14, 14)
        x4a = self.inception4a(x)  # (N, 512, 14, 14)
        x4d = self.inception4d(self.inception4c(self.inception4b(x4a)))  # (N, 528, 14, 14)
        x = self.pool4(self.inception4e(x4d))  # (N, 832, 7, 7)
        x = self.inception5b(self.inception5a(x))  # (N, 1024, 7, 7)
        logits = self.linear(self.dropout(self.flatten(self.pool(x))))  # (N, num_classes)
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return logits, self.aux1(x4a), self.aux2(x4d)
        return logits


class Inception(nn.Module):
    """Four parallel branches, concatenated along the channels: figure 2 (b).

    `c1`, `c3`, `c5` and `pool` are the branches' output channels; `c3` and `c5` are pairs (1×1 reduction, convolution).
    """

    def __init__(
        self,
        in_channels: int,
        c1: int,
        c3: tuple[int, int],
        c5: tuple[int, int],
        pool: int,
        *,
        branch5x5: int | str,
        norm: str,
    ) -> None:
        super().__init__()
        conv = partial(conv_norm_relu, norm=norm, eps=EPS)
        (reduced3, out3), (reduced5, out5) = c3, c5
        self.branch1x1 = conv(in_channels, c1, 1)
        self.branch3x3 = named_layers(reduce=conv(in_channels, reduced3, 1), conv=conv(reduced3, out3, 3))
        reduce5 = conv(in_channels, reduced5, 1)
        if branch5x5 == "double3":
            self.branch5x5 = named_layers(reduce=reduce5, conv1=conv(reduced5, out5, 3), conv2=conv(out5, out5, 3))
        else:
            self.branch5x5 = named_layers(reduce=reduce5, conv=conv(reduced5, out5, int(branch5x5)))
        self.branch_pool = named_layers(pool=nn.MaxPool2d(3, stride=1, padding=1), conv=conv(in_channels, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, c1 + c3[1] + c5[1] + pool, H, W)."""
        return torch.cat([self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), self.branch_pool(x)], 1)


def auxiliary_head(in_channels: int, num_classes: int, norm: str) -> nn.Sequential:
    """Average pool to 4×4, 1×1, 128, linear 1024, ReLU, dropout 0.7, linear: section 5.

    (N, in_channels, H, W) -> logits (N, num_classes).
    """
    return named_layers(
        pool=nn.AdaptiveAvgPool2d(4),
        conv=conv_norm_relu(in_channels, 128, 1, norm=norm, eps=EPS),
        flatten=nn.Flatten(),
        linear1=nn.Linear(128 * 4 * 4, 1024),
        relu=nn.ReLU(),
        dropout=nn.Dropout(0.7),
        linear2=nn.Linear(1024, num_classes),
    )
