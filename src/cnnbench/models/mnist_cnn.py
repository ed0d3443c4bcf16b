"""The deeper net of a PyTorch course for MNIST: four convolutions with batch norm, two poolings, three linear layers.

layer    output, 28 × 28 in
layer1   16 × 26 × 26   3×3, 16, BN, ReLU
layer2   32 × 12 × 12   3×3, 32, BN, ReLU, max 2×2
layer3   64 × 10 × 10   3×3, 64, BN, ReLU
layer4  128 ×  4 ×  4   3×3, 128, BN, ReLU, max 2×2
fc      num_classes     linear 1024, ReLU, linear 128, ReLU, linear
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from cnnbench.models.layers import conv_norm_relu, output_side


class MnistCNN(nn.Module):
    """(N, in_channels, image_size, image_size) -> logits (N, num_classes). `image_size` 28 in the course; any from 16 pixels."""

    min_image_size = 16

    def __init__(self, *, in_channels: int, num_classes: int, image_size: int = 28) -> None:
        super().__init__()
        conv3x3 = partial(conv_norm_relu, kernel_size=3, padding=0, bias=True)
        self.layer1 = conv3x3(in_channels, 16)
        self.layer2 = conv3x3(16, 32).append(nn.MaxPool2d(2))
        self.layer3 = conv3x3(32, 64)
        self.layer4 = conv3x3(64, 128).append(nn.MaxPool2d(2))
        side = output_side(image_size, (*self.layer1, *self.layer2, *self.layer3, *self.layer4))
        self.flatten = nn.Flatten()
        self.fc = nn.Sequential(
            nn.Linear(128 * side * side, 1024), nn.ReLU(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of a batch of images."""
        x = self.layer2(self.layer1(x))  # (N,  32, 12, 12)
        x = self.layer4(self.layer3(x))  # (N, 128,  4,  4)
        return self.fc(self.flatten(x))  # (N, num_classes)
