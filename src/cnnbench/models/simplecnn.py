"""The first net of a PyTorch course: three convolutions, each followed by pooling, then three linear layers.

layer1   32 × 16 × 16   3×3, 32, ReLU, max 2×2
layer2   64 ×  8 ×  8   3×3, 64, ReLU, max 2×2
layer3  128 ×  4 ×  4   3×3, 128, ReLU, max 2×2
layer4  num_classes     linear 512, ReLU, linear 64, ReLU, linear
"""

from __future__ import annotations

from torch import Tensor, nn

from cnnbench.models.layers import named_layers, output_side


class SimpleCNN(nn.Module):
    """(N, in_channels, image_size, image_size) -> logits (N, num_classes). `image_size` 32 in the course; any from 8 pixels."""

    min_image_size = 8

    def __init__(self, *, in_channels: int, num_classes: int, image_size: int = 32) -> None:
        super().__init__()
        self.layer1 = conv_relu_pool(in_channels, 32, 1)  # (N,  32, S/2, S/2)
        self.layer2 = conv_relu_pool(32, 64, 2)  # (N,  64, S/4, S/4)
        self.layer3 = conv_relu_pool(64, 128, 3)  # (N, 128, S/8, S/8)
        side = output_side(image_size, (*self.layer1, *self.layer2, *self.layer3))
        self.flatten = nn.Flatten()
        self.layer4 = named_layers(
            fc1=nn.Linear(128 * side * side, 512),
            fc_relu1=nn.ReLU(),
            fc2=nn.Linear(512, 64),
            fc_relu2=nn.ReLU(),
            fc3=nn.Linear(64, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of a batch of images."""
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.layer4(self.flatten(x))


def conv_relu_pool(in_channels: int, out_channels: int, number: int) -> nn.Sequential:
    """3×3 convolution that keeps the size, ReLU, 2×2 max pooling; `number` ends the names of the layers (conv1, relu1, pool1)."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
    return named_layers(**{f"conv{number}": conv, f"relu{number}": nn.ReLU(), f"pool{number}": nn.MaxPool2d(2)})
