"""LeNet for FashionMNIST with leaky ReLU, and its variant with two 3×3 convolutions instead of each 5×5.

layer    lenet_leaky, 28 × 28 in         lenet_3x3
conv     6 × 12 × 12   5×5, 6;  max      4 × 12 × 12   3×3, 2; 3×3, 4;  max
        16 ×  4 ×  4   5×5, 16; max     16 ×  4 ×  4   3×3, 8; 3×3, 16; max
se                                      16 ×  4 ×  4   squeeze and excitation (Hu et al. 2018), with `se`
fc      num_classes    linear 120, leaky ReLU, linear 84, ReLU, linear
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

from torch import Tensor, nn

from cnnbench.checks import require_bool, require_number
from cnnbench.models.layers import activation_layer, conv_layer, output_side, pooling_layer


class LeakyLeNet(nn.Module):
    """(N, in_channels, image_size, image_size) -> logits (N, num_classes). `image_size` 28 in the course; any from 16 pixels.

    `channels` lists the output channels of each stage's convolutions; `kernel_size` and `stride` are those of every convolution.
    `activation` follows every layer except the last two: between these is a ReLU, as in the course. `se` adds squeeze and
    excitation after the convolutions.
    """

    min_image_size = 16

    def __init__(
        self,
        channels: Sequence[Sequence[int]] = ((6,), (16,)),
        kernel_size: int = 5,
        stride: int = 1,
        activation: str = "leaky_relu",
        pooling: str = "max",
        se: bool = False,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int = 28,
    ) -> None:
        super().__init__()
        check_channels(channels)
        require_bool("se", se)
        ins = [in_channels, *chain(*channels)]
        convolutions = (conv_layer(i, o, kernel_size, stride) for i, o in pairwise(ins))
        self.conv = nn.Sequential(
            *(layer for stage in channels for layer in stage_layers(len(stage), convolutions, activation, pooling))
        )
        last, side = ins[-1], output_side(image_size, self.conv)
        self.se = SqueezeExcitation(last, max(1, last // 8)) if se else nn.Identity()
        self.flatten = nn.Flatten()
        self.fc = nn.Sequential(
            nn.Linear(last * side * side, 120),
            activation_layer(activation),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of a batch of images."""
        x = self.se(self.conv(x))  # (N, 16, 4, 4)
        return self.fc(self.flatten(x))  # (N, num_classes)


def check_channels(channels: Sequence[Sequence[int]]) -> None:
    """Raises ValueError unless `channels` is a list of non-empty lists of integers above 0."""
    if not isinstance(channels, Sequence) or not channels or not all(isinstance(s, Sequence) and s for s in channels):
        raise ValueError(f"channels={channels}: expected a list for each stage, as in [[6],[16]]")
    for number in chain(*channels):
        require_number("channels", number, integer=True, above=0)


def stage_layers(depth: int, convolutions: Iterator[nn.Module], activation: str, pool: str) -> list[nn.Module]:
    """Takes the next `depth` convolutions, each with its activation, and adds a 2×2 pooling."""
    pairs = [(next(convolutions), activation_layer(activation)) for _ in range(depth)]
    return [*chain(*pairs), pooling_layer(pool)]


class SqueezeExcitation(nn.Module):
    """(N, C, H, W) -> (N, C, H, W): each channel times a weight in 0..1, computed from the means of all channels."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.excite = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Weights the channels of the map."""
        weights = self.excite(self.flatten(self.squeeze(x)))  # (N, C)
        return x * weights[:, :, None, None]
