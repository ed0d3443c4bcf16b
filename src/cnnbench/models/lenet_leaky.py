"""LeNet for FashionMNIST with leaky ReLU, and its variant with two 3×3 convolutions instead of each 5×5.

layer    lenet_leaky, 28 × 28 in         lenet_3x3
conv     6 × 12 × 12   5×5, 6;  max      4 × 12 × 12   3×3, 2; 3×3, 4;  max
        16 ×  4 ×  4   5×5, 16; max     16 ×  4 ×  4   3×3, 8; 3×3, 16; max
se                                      16 ×  4 ×  4   squeeze and excitation (Hu et al. 2018), with `se`
fc      num_classes    linear 120, leaky ReLU, linear 84, ReLU, linear
"""

from __future__ import annotations

from collections.abc import Sequence

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
        if (
            not isinstance(channels, Sequence)
            or not channels
            or not all(isinstance(s, Sequence) and s for s in channels)
        ):
            raise ValueError(f"channels={channels}: expected a list for each stage, as in [[6],[16]]")
        layers: list[nn.Module] = []
        size = in_channels
        for stage in channels:
            for out_channels in stage:
                require_number("channels", out_channels, integer=True, above=0)
                layers += [conv_layer(size, out_channels, kernel_size, stride), activation_layer(activation)]
                size = out_channels
            layers.append(pooling_layer(pooling))
        require_bool("se", se)
        self.conv = nn.Sequential(*layers)
        side = output_side(image_size, layers)
        self.se = SqueezeExcitation(size, max(1, size // 8)) if se else nn.Identity()
        self.flatten = nn.Flatten()
        self.fc = nn.Sequential(
            nn.Linear(size * side * side, 120),
            activation_layer(activation),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of a batch of images."""
        x = self.se(self.conv(x))  # (N, 16, 4, 4)
        return self.fc(self.flatten(x))  # (N, num_classes)


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
