"""LeNet-5 as the textbooks train it today: LeCun, Bottou, Bengio, Haffner 1998, figure 2, with ReLU.

layer    output        parameters (1 channel in)
conv1    6 × 28 × 28   5×5, 6: 156
pool2    6 × 14 × 14   max 2×2
conv3   16 × 10 × 10   5×5, 16, connected to all channels: 2,416
pool4   16 ×  5 ×  5   mean 2×2
conv5  120 ×  1 ×  1   5×5 (the whole map), 120: 48,120
linear6          84    10,164
linear7 num_classes    850 for ten classes; 61,706 in all
"""

from __future__ import annotations

from torch import Tensor, nn

from cnnbench.checks import require_choice
from cnnbench.models.layers import activation_layer, conv_layer, output_side

POOLINGS = {
    "max_mean": (nn.MaxPool2d, nn.AvgPool2d),
    "max": (nn.MaxPool2d, nn.MaxPool2d),
    "mean": (nn.AvgPool2d, nn.AvgPool2d),
}


class LeNet5(nn.Module):
    """(N, in_channels, 32, 32) -> logits (N, num_classes).

    `kernel_size` and `stride` are those of conv1 and conv3. `activation` follows every layer except the last. `pooling` is
    max_mean (max, then mean), max or mean.
    """

    min_image_size = 32
    max_image_size = 32

    def __init__(
        self,
        kernel_size: int = 5,
        stride: int = 1,
        activation: str = "relu",
        pooling: str = "max_mean",
        *,
        in_channels: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        first, second = POOLINGS[require_choice("pooling", pooling, POOLINGS)]
        self.conv1 = conv_layer(in_channels, 6, kernel_size, stride)
        self.act1 = activation_layer(activation)
        self.pool2 = first(2)
        self.conv3 = conv_layer(6, 16, kernel_size, stride)
        self.act3 = activation_layer(activation)
        self.pool4 = second(2)
        side = output_side(32, (self.conv1, self.pool2, self.conv3, self.pool4))
        self.conv5 = nn.Conv2d(16, 120, kernel_size=side)
        self.act5 = activation_layer(activation)
        self.flatten = nn.Flatten()
        self.linear6 = nn.Linear(120, 84)
        self.act6 = activation_layer(activation)
        self.linear7 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of a batch of images."""
        x = self.pool2(self.act1(self.conv1(x)))  # (N,   6, 14, 14)
        x = self.pool4(self.act3(self.conv3(x)))  # (N,  16,  5,  5)
        x = self.flatten(self.act5(self.conv5(x)))  # (N, 120)
        x = self.act6(self.linear6(x))  # (N,  84)
        return self.linear7(x)  # (N, num_classes)
